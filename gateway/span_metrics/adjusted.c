/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/span_metrics/adjusted.h"

#include <ctype.h>
#include <string.h>

enum { THRESHOLD_DIGITS = 14 };

/* Takes the part before the separator off the front of *rest. */
static struct str next_part(struct str *rest, char separator)
{
    const char *end = memchr(rest->p, separator, rest->n);
    struct str part = end ? str_make(rest->p, (size_t)(end - rest->p)) : *rest;
    size_t taken = part.n + (end != NULL);
    *rest = str_make(rest->p + taken, rest->n - taken);
    return part;
}

/* The value of the first part that begins with key; p NULL when there is none. */
static struct str value_of(struct str list, char separator, struct str key)
{
    while (list.n) {
        struct str part = str_trim(next_part(&list, separator));
        if (str_has_prefix(part, key))
            return str_make(part.p + key.n, part.n - key.n);
    }
    return (struct str){NULL, 0};
}

/* Up to 14 hexadecimal digits; those left out at the end are zeros. */
static bool read_threshold(struct str digits, uint64_t *out)
{
    uint64_t v = 0;
    if (digits.n == 0 || digits.n > THRESHOLD_DIGITS)
        return false;
    for (size_t i = 0; i < THRESHOLD_DIGITS; i++) {
        unsigned char c = i < digits.n ? (unsigned char)digits.p[i] : '0';
        if (!isxdigit(c))
            return false;
        v = v << 4 | (uint64_t)(isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
    }
    *out = v;
    return true;
}

double adjusted_count(struct str trace_state)
{
    static const uint64_t all = 1ULL << 56;
    uint64_t threshold;
    if (trace_state.n == 0)
        return 1;
    struct str ot = value_of(trace_state, ',', STR("ot="));
    if (ot.n == 0 || !read_threshold(value_of(ot, ';', STR("th:")), &threshold))
        return 1;
    return (double)all / (double)(all - threshold);
}

uint64_t adjusted_round(double count, uint64_t *seed)
{
    uint64_t whole = (uint64_t)count;
    double rest = count - (double)whole;
    if (rest <= 0)
        return whole;
    *seed ^= *seed << 13, *seed ^= *seed >> 7, *seed ^= *seed << 17;
    return whole + ((double)(*seed >> 11) * 0x1p-53 < rest);
}
