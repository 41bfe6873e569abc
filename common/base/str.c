/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/str.h"

#include <errno.h>

#include "common/base/mem.h"

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* Eight characters in lower case: 'A'..'Z' get the bit that makes them small letters. */
static uint64_t lower8(const char *p)
{
    const uint64_t ones = UINT64_MAX / 255, highs = ones << 7;
    uint64_t w, low;
    memcpy(&w, p, 8);
    low = w & ~highs; /* so that no sum carries over into the next byte */
    uint64_t from_a = low + ones * (0x80 - 'A'), past_z = low + ones * (0x80 - 'Z' - 1);
    return w | (from_a & ~past_z & ~w & highs) >> 2;
}

bool str_ieq(struct str a, struct str b)
{
    if (a.n != b.n)
        return false;
    if (a.n >= 8) {
        for (size_t i = 0; i < a.n - 8; i += 8)
            if (lower8(a.p + i) != lower8(b.p + i))
                return false;
        return lower8(a.p + a.n - 8) == lower8(b.p + a.n - 8);
    }
    if (a.n >= 4) {
        char x[8], y[8]; /* the first four and the last four of each */
        memcpy(x, a.p, 4);
        memcpy(x + 4, a.p + a.n - 4, 4);
        memcpy(y, b.p, 4);
        memcpy(y + 4, b.p + a.n - 4, 4);
        return lower8(x) == lower8(y);
    }
    for (size_t i = 0; i < a.n; i++)
        if (a.p[i] != b.p[i] && lower(a.p[i]) != lower(b.p[i]))
            return false;
    return true;
}

bool str_has_prefix(struct str a, struct str prefix)
{
    return a.n >= prefix.n && (prefix.n == 0 || memcmp(a.p, prefix.p, prefix.n) == 0);
}

bool str_has_suffix(struct str a, struct str suffix)
{
    return a.n >= suffix.n &&
           (suffix.n == 0 || memcmp(a.p + a.n - suffix.n, suffix.p, suffix.n) == 0);
}

int str_cmp(struct str a, struct str b)
{
    size_t n = MIN(a.n, b.n);
    int r = n ? memcmp(a.p, b.p, n) : 0;
    return r ? r : (a.n > b.n) - (a.n < b.n);
}

int str_to_u64(struct str a, uint64_t *out)
{
    uint64_t v = 0;
    if (a.n == 0)
        return -EINVAL;
    for (size_t i = 0; i < a.n; i++) {
        if (a.p[i] < '0' || a.p[i] > '9')
            return -EINVAL;
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(a.p[i] - '0'), &v))
            return -ERANGE;
    }
    *out = v;
    return 0;
}

/* Length of the well-formed sequence of more than one byte at p, 0 if there is none (RFC 3629 §4).
 */
static size_t utf8_sequence(const uint8_t *p, size_t left)
{
    uint8_t c = p[0], low = 0x80, high = 0xBF;
    size_t n = c >= 0xC2 && c <= 0xDF ? 2 : (c & 0xF0) == 0xE0 ? 3 : c >= 0xF0 && c <= 0xF4 ? 4 : 0;
    if (n == 0 || left < n)
        return 0;
    if (c == 0xE0)
        low = 0xA0; /* overlong */
    else if (c == 0xED)
        high = 0x9F; /* surrogates */
    else if (c == 0xF0)
        low = 0x90; /* overlong */
    else if (c == 0xF4)
        high = 0x8F; /* past U+10FFFF */
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    return n;
}

bool str_is_utf8(const void *bytes, size_t n)
{
    const uint8_t *p = bytes, *end = p + n;
    while (p < end) {
        uint64_t word;
        while (end - p >= 8) { /* telemetry is ASCII nearly always */
            memcpy(&word, p, 8);
            if (word & 0x8080808080808080ULL)
                break;
            p += 8;
        }
        if (p == end)
            break;
        if (*p < 0x80) {
            p++;
            continue;
        }
        size_t step = utf8_sequence(p, (size_t)(end - p));
        if (step == 0)
            return false;
        p += step;
    }
    return true;
}

/* Levenshtein distance, or a large number when the words are too long to be worth it. */
static size_t edit_distance(struct str a, struct str b)
{
    size_t row[65];
    if (a.n > 64 || b.n > 64)
        return 1000;
    for (size_t j = 0; j <= b.n; j++)
        row[j] = j;
    for (size_t i = 1; i <= a.n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            size_t change = diagonal + (lower(a.p[i - 1]) != lower(b.p[j - 1]));
            diagonal = row[j];
            row[j] = MIN(change, MIN(row[j], row[j - 1]) + 1);
        }
    }
    return row[b.n];
}

const char *str_nearest(struct str word, const char *const *names, size_t n)
{
    const char *best = NULL;
    size_t best_distance = word.n / 3 + 2; /* farther ones are no help */
    for (size_t i = 0; i < n; i++) {
        size_t d = edit_distance(word, str_of(names[i]));
        if (d < best_distance) {
            best_distance = d;
            best = names[i];
        }
    }
    return best;
}
