/* SPDX-License-Identifier: Apache-2.0 */
/* Codings there and back, what is broken or too large, and that memory is asked for and returned.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "common/io/compress.h"

enum { MIB = 1 << 20, HEADROOM = 16 };

static const struct coding_limits plenty = {.max_out = 64 * MIB};

/* Half of it repeats, half does not. */
static void fill(uint8_t *p, size_t n)
{
    uint32_t x = 12345;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        p[i] = i & 64 ? (uint8_t)(x >> 24) : (uint8_t)i;
    }
}

static struct str body_of(const struct chunk *k)
{
    return str_make(k->data + HEADROOM, k->len - HEADROOM);
}

/* By libdeflate: it writes zlib's framing too, which we never do. */
static struct chunk *deflate_by_other(const void *p, size_t n, enum coding c)
{
    struct libdeflate_compressor *d = libdeflate_alloc_compressor(6);
    struct chunk *k = chunk_new(libdeflate_gzip_compress_bound(d, n));
    assert_non_null(k);
    k->len = c == CODING_GZIP ? libdeflate_gzip_compress(d, p, n, k->data, k->cap)
                              : libdeflate_zlib_compress(d, p, n, k->data, k->cap);
    libdeflate_free_compressor(d);
    assert_true(k->len > 0);
    return k;
}

static void names_are_known_in_any_case(void **state)
{
    (void)state;
    assert_int_equal(coding_parse(STR("")), CODING_IDENTITY);
    assert_int_equal(coding_parse(STR("identity")), CODING_IDENTITY);
    assert_int_equal(coding_parse(STR("GZip")), CODING_GZIP);
    assert_int_equal(coding_parse(STR("deflate")), CODING_ZLIB);
    assert_int_equal(coding_parse(STR("zlib")), CODING_ZLIB);
    assert_int_equal(coding_parse(STR("zstd")), CODING_ZSTD);
    assert_int_equal(coding_parse(STR("br")), CODING_UNKNOWN);
    assert_int_equal(coding_parse(STR("gzip, gzip")), CODING_UNKNOWN);
}

static void what_is_encoded_is_decoded(void **state)
{
    static const size_t sizes[] = {0, 1, 100, 65535, 65536, 3 * MIB + 7};
    static const enum coding codings[] = {CODING_GZIP, CODING_ZSTD};
    uint8_t *p = malloc(4 * MIB);
    (void)state;
    fill(p, 4 * MIB);
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++)
        for (size_t c = 0; c < ARRAY_LEN(codings); c++) {
            struct chunk *small = NULL, *back = NULL;
            assert_int_equal(coding_encode(&small, codings[c], str_make(p, sizes[s]), HEADROOM), 0);
            assert_int_equal(coding_decode(&back, codings[c], body_of(small), HEADROOM, &plenty),
                             0);
            assert_int_equal(back->len, HEADROOM + sizes[s]);
            assert_memory_equal(back->data + HEADROOM, p, sizes[s]);
            chunk_unref(&small);
            chunk_unref(&back);
        }
    free(p);
}

static void another_encoder_is_understood(void **state)
{
    uint8_t *p = malloc(MIB);
    struct chunk *out = NULL;
    (void)state;
    fill(p, MIB);
    for (enum coding c = CODING_GZIP; c <= CODING_ZLIB; c++) {
        struct chunk *z = deflate_by_other(p, MIB, c);
        assert_int_equal(coding_decode(&out, c, str_make(z->data, z->len), HEADROOM, &plenty), 0);
        assert_int_equal(out->len, HEADROOM + MIB);
        assert_memory_equal(out->data + HEADROOM, p, MIB);
        chunk_unref(&out);
        chunk_unref(&z);
    }
    free(p);
}

static void members_in_a_row_are_one_body(void **state)
{
    static const enum coding codings[] = {CODING_GZIP, CODING_ZSTD};
    uint8_t p[1000], two[4000];
    (void)state;
    fill(p, sizeof(p));
    for (size_t c = 0; c < ARRAY_LEN(codings); c++) {
        struct chunk *a = NULL, *b = NULL, *out = NULL;
        assert_int_equal(coding_encode(&a, codings[c], str_make(p, 400), 0), 0);
        assert_int_equal(coding_encode(&b, codings[c], str_make(p + 400, 600), 0), 0);
        memcpy(two, a->data, a->len);
        memcpy(two + a->len, b->data, b->len);
        assert_int_equal(
            coding_decode(&out, codings[c], str_make(two, a->len + b->len), HEADROOM, &plenty), 0);
        assert_int_equal(out->len, HEADROOM + sizeof(p));
        assert_memory_equal(out->data + HEADROOM, p, sizeof(p));
        chunk_unref(&a);
        chunk_unref(&b);
        chunk_unref(&out);
    }
}

static void assert_nothing_is_kept(const struct mem_usage *before)
{
    struct mem_usage now;
    mem_usage_get(&now);
    assert_int_equal(now.in_use, before->in_use);
    assert_int_equal(now.reserved, before->reserved);
}

static void what_is_broken_is_refused(void **state)
{
    static const enum coding codings[] = {CODING_GZIP, CODING_ZSTD};
    uint8_t p[5000];
    struct mem_usage before;
    (void)state;
    fill(p, sizeof(p));
    for (size_t c = 0; c < ARRAY_LEN(codings); c++) {
        struct chunk *k = NULL, *out = NULL;
        assert_int_equal(coding_encode(&k, codings[c], str_make(p, sizeof(p)), 0), 0);
        mem_usage_get(&before);
        for (size_t cut = 1; cut < k->len; cut += 97)
            assert_int_equal(
                coding_decode(&out, codings[c], str_make(k->data, cut), HEADROOM, &plenty),
                -EBADMSG);
        assert_int_equal(coding_decode(&out, codings[c], STR("no such thing at all"), 0, &plenty),
                         -EBADMSG);
        if (codings[c] == CODING_GZIP) { /* the checksum in its trailer (RFC 1952) */
            k->data[k->len - 6] ^= 1;
            assert_int_equal(
                coding_decode(&out, codings[c], str_make(k->data, k->len), HEADROOM, &plenty),
                -EBADMSG);
        }
        assert_nothing_is_kept(&before);
        chunk_unref(&k);
    }
    assert_int_equal(coding_decode(&(struct chunk *){NULL}, CODING_UNKNOWN, STR("x"), 0, &plenty),
                     -EBADMSG);
}

static void a_body_of_the_largest_size_passes_and_one_byte_more_does_not(void **state)
{
    enum { MAX = 300000 };
    static const enum coding codings[] = {CODING_GZIP, CODING_ZSTD};
    struct coding_limits limits = {.max_out = MAX};
    uint8_t *p = calloc(1, MAX + 1);
    struct mem_usage before;
    (void)state;
    for (size_t c = 0; c < ARRAY_LEN(codings); c++)
        for (size_t n = MAX; n <= MAX + 1; n++) {
            struct chunk *k = NULL, *out = NULL;
            assert_int_equal(coding_encode(&k, codings[c], str_make(p, n), 0), 0);
            mem_usage_get(&before);
            assert_int_equal(
                coding_decode(&out, codings[c], str_make(k->data, k->len), HEADROOM, &limits),
                n == MAX ? 0 : -E2BIG);
            chunk_unref(&out);
            assert_nothing_is_kept(&before);
            chunk_unref(&k);
        }
    free(p);
}

/* 32 MiB of zeros in a few KiB. What it grows to is asked for step by step, never past the mark. */
static void a_bomb_stops_at_the_memory_it_may_have(void **state)
{
    static const enum coding codings[] = {CODING_GZIP, CODING_ZLIB, CODING_ZSTD};
    uint8_t *p = calloc(1, 32 * MIB);
    (void)state;
    for (size_t c = 0; c < ARRAY_LEN(codings); c++) {
        struct chunk *bomb = NULL, *out = NULL;
        struct mem_usage before;
        if (codings[c] == CODING_ZSTD) {
            bomb = chunk_new(ZSTD_compressBound(32 * MIB));
            bomb->len = ZSTD_compress(bomb->data, bomb->cap, p, 32 * MIB, 1);
        } else {
            bomb = deflate_by_other(p, 32 * MIB, codings[c]);
        }
        mem_usage_get(&before);
        struct coding_limits limits = {.max_out = 64 * MIB, .ceiling = before.in_use + 8 * MIB};
        struct str in = str_make(bomb->data, bomb->len);
        assert_int_equal(coding_decode(&out, codings[c], in, HEADROOM, &limits), -ENOMEM);
        assert_null(out);
        assert_nothing_is_kept(&before);
        /* The same under a limit of the process. */
        limits.ceiling = 0;
        mem_limit_set(before.mapped + 8 * MIB);
        assert_int_equal(coding_decode(&out, codings[c], in, HEADROOM, &limits), -ENOMEM);
        mem_limit_set(0);
        assert_nothing_is_kept(&before);
        assert_int_equal(coding_decode(&out, codings[c], in, HEADROOM, &limits), 0);
        assert_int_equal(out->len, HEADROOM + 32 * MIB);
        chunk_unref(&out);
        chunk_unref(&bomb);
    }
    free(p);
}

/* The length that a gzip trailer claims is a hint: a lie costs nothing. */
static void a_claimed_size_is_not_believed(void **state)
{
    uint8_t p[100] = {0};
    struct chunk *k = NULL, *out = NULL;
    struct mem_usage before, after;
    (void)state;
    assert_int_equal(coding_encode(&k, CODING_GZIP, str_make(p, sizeof(p)), 0), 0);
    memcpy(k->data + k->len - 4, "\xff\xff\xff\x7f", 4); /* 2 GiB */
    mem_usage_get(&before);
    assert_int_equal(coding_decode(&out, CODING_GZIP, str_make(k->data, k->len), 0, &plenty),
                     -EBADMSG);
    mem_usage_get(&after);
    assert_true(after.mapped <= before.mapped + MIB);
    chunk_unref(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_known_in_any_case),
        cmocka_unit_test(what_is_encoded_is_decoded),
        cmocka_unit_test(another_encoder_is_understood),
        cmocka_unit_test(members_in_a_row_are_one_body),
        cmocka_unit_test(what_is_broken_is_refused),
        cmocka_unit_test(a_body_of_the_largest_size_passes_and_one_byte_more_does_not),
        cmocka_unit_test(a_bomb_stops_at_the_memory_it_may_have),
        cmocka_unit_test(a_claimed_size_is_not_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
