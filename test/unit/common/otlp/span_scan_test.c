/* SPDX-License-Identifier: Apache-2.0 */
/* The one-pass scan against the general walk: what the first accepts, the second accepts alike. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/otlp/batch_internal.h"
#include "common/otlp/encode.h"

static void put_sample(struct buf *b, unsigned variant)
{
    static const uint8_t id[16] = "0123456789abcdef";
    char value[200];

    memset(value, 'v', sizeof(value));
    wire_put_bytes(b, 1, str_make(id, 16));
    wire_put_bytes(b, 2, str_make(id, 8));
    if (variant & 1)
        wire_put_bytes(b, 4, str_make(id + 8, 8));
    wire_put_bytes(b, 5, STR("GET /caf\xc3\xa9"));
    wire_put_u64(b, 6, 2);
    wire_put_i64(b, 7, 1700000000000000000ULL);
    wire_put_i64(b, 8, 1700000000020000000ULL);
    encode_attr_str(b, 9, "http.request.method", STR("GET"));
    encode_attr_str(b, 9, "long", str_make(value, variant & 2 ? 190 : 7));
    encode_attr_int(b, 9, "http.response.status_code", variant & 4 ? -1 : 200);
    encode_attr(b, 9, STR("ratio"), (struct any){.type = ANY_DOUBLE, .d = 0.5});
    encode_attr(b, 9, STR("flag"), (struct any){.type = ANY_BOOL, .b = true});
    encode_attr(b, 9, STR("none"), (struct any){.type = ANY_EMPTY});
    size_t event = wire_begin(b, 11);
    wire_put_i64(b, 1, 5);
    wire_put_bytes(b, 2, STR("message"));
    encode_attr_str(b, 3, "k", STR("v"));
    wire_end(b, event);
    size_t status = wire_begin(b, 15);
    wire_put_u64(b, 3, 2);
    wire_end(b, status);
    wire_put_i32(b, 16, 0x101);
}

/* What the scan takes must be valid and read alike by the general walk. Returns what it said. */
static bool agrees(struct str body)
{
    struct span_key scanned, walked;
    struct err e = {0};

    memset(&scanned, 0xee, sizeof(scanned));
    memset(&walked, 0xee, sizeof(walked));
    /* In memory of just that size, so that a read beyond it is seen. */
    char *copy = malloc(body.n ? body.n : 1);
    memcpy(copy, body.p, body.n);
    struct str s = str_make(copy, body.n);
    bool taken = span_scan(s, &scanned);
    if (taken) {
        assert_true(span_key_read(s, &walked));
        assert_true(otlp_validate_record(SIGNAL_TRACES, s, &e));
        assert_memory_equal(&scanned, &walked, sizeof(scanned));
    }
    free(copy);
    return taken;
}

static void common_spans_are_taken(void **state)
{
    for (unsigned variant = 0; variant < 8; variant++) {
        struct buf b;
        buf_init(&b);
        put_sample(&b, variant);
        assert_true(agrees(buf_str(&b)));
        buf_fini(&b);
    }
    assert_true(agrees(STR("")));
}

static void key_is_read(void **state)
{
    struct span_key k;
    struct buf b;
    buf_init(&b);
    put_sample(&b, 1);
    assert_true(span_scan(buf_str(&b), &k));
    assert_memory_equal(k.trace_id, "0123456789abcdef", 16);
    assert_memory_equal(k.parent_span_id, "89abcdef", 8);
    assert_int_equal(k.start_ns, 1700000000000000000ULL);
    assert_int_equal(k.end_ns, 1700000000020000000ULL);
    assert_int_equal(k.flags, 0x101);
    assert_int_equal(k.status, 2);
    assert_int_equal(k.kind, 2);
    assert_int_equal(k.key_flags, SPAN_HAS_PARENT);
    buf_fini(&b);
}

static void cut_spans_agree(void **state)
{
    struct buf b;
    buf_init(&b);
    put_sample(&b, 3);
    for (size_t n = 0; n < b.n; n++)
        agrees(str_make(b.p, n));
    buf_fini(&b);
}

static void changed_bytes_agree(void **state)
{
    unsigned taken = 0, tried = 0;
    struct buf b;
    buf_init(&b);
    put_sample(&b, 3);
    for (size_t at = 0; at < b.n; at++) {
        char was = b.p[at];
        for (unsigned v = 0; v < 256; v++) {
            b.p[at] = (char)v;
            taken += agrees(buf_str(&b));
            tried++;
        }
        b.p[at] = was;
    }
    /* Most bytes are text: seven bits of them may be anything. */
    assert_true(taken > tried / 4);
    assert_true(taken < tried);
    buf_fini(&b);
}

static void two_changed_bytes_agree(void **state)
{
    uint64_t r = 88172645463325252ULL;
    struct buf b;
    buf_init(&b);
    put_sample(&b, 1);
    for (unsigned i = 0; i < 200000; i++) {
        r ^= r << 13, r ^= r >> 7, r ^= r << 17;
        size_t x = r % b.n, y = (r >> 16) % b.n;
        char old_x = b.p[x], old_y = b.p[y];
        b.p[x] = (char)(r >> 40);
        b.p[y] = (char)(r >> 48);
        agrees(buf_str(&b));
        b.p[y] = old_y;
        b.p[x] = old_x;
    }
    buf_fini(&b);
}

/* Text of every length with one bad byte in every place. */
static void bad_text_is_never_taken(void **state)
{
    for (size_t n = 1; n < 40; n++)
        for (size_t at = 0; at < n; at++) {
            char text[40];
            struct buf b;
            struct span_key k;
            memset(text, 'x', sizeof(text));
            text[at] = (char)0xff;
            buf_init(&b);
            wire_put_bytes(&b, 5, str_make(text, n));
            assert_false(span_scan(buf_str(&b), &k));
            buf_reset(&b);
            encode_attr_str(&b, 9, "k", str_make(text, n));
            assert_false(span_scan(buf_str(&b), &k));
            buf_fini(&b);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(common_spans_are_taken),  cmocka_unit_test(key_is_read),
        cmocka_unit_test(cut_spans_agree),         cmocka_unit_test(changed_bytes_agree),
        cmocka_unit_test(two_changed_bytes_agree), cmocka_unit_test(bad_text_is_never_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
