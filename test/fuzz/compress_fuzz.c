/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies compressed by strangers, and our own. What decodes is the same under any limit that it
 * fits, and is refused under one byte less; what we encode decodes to itself.
 *
 * Input: [coding][limit, 16 bits][bytes].
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/compress.h"

enum { HEADROOM = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int decode(struct chunk **out, enum coding c, struct str in, size_t max_out)
{
    struct coding_limits l = {.max_out = max_out};
    int r = coding_decode(out, c, in, HEADROOM, &l);

    if (r == 0 && ((*out)->len < HEADROOM || (*out)->len > HEADROOM + max_out))
        abort();
    if (r && r != -EBADMSG && r != -E2BIG)
        abort(); /* there is memory enough here */
    return r;
}

static bool same(const struct chunk *k, const void *p, size_t n)
{
    return k->len == HEADROOM + n && (n == 0 || memcmp(k->data + HEADROOM, p, n) == 0);
}

static void strangers(enum coding c, struct str in, size_t max_out)
{
    struct chunk *k, *exact;

    if (decode(&k, c, in, max_out))
        return;
    size_t n = k->len - HEADROOM;
    if (decode(&exact, c, in, n) || !same(exact, k->data + HEADROOM, n))
        abort();
    chunk_unref(&exact);
    if (n && decode(&exact, c, in, n - 1) != -E2BIG)
        abort();
    chunk_unref(&k);
}

static void ours(enum coding c, struct str in)
{
    struct chunk *k, *back;

    if (coding_encode(&k, c, in, HEADROOM) ||
        decode(&back, c, str_make(k->data + HEADROOM, k->len - HEADROOM), in.n) ||
        !same(back, in.p, in.n))
        abort();
    chunk_unref(&k);
    chunk_unref(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum coding codings[] = {CODING_GZIP, CODING_ZLIB, CODING_ZSTD};

    if (size < 3)
        return 0;
    struct str in = str_make(data + 3, size - 3);
    enum coding c = codings[data[0] % 3];
    strangers(c, in, (size_t)(data[1] << 8 | data[2]) * 16);
    if (c != CODING_ZLIB)
        ours(c, in);
    struct mem_usage u;
    mem_usage_get(&u);
    if (u.reserved)
        abort();
    return 0;
}
