/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A span's key and its validation in one pass, for spans as all SDKs write them: tags of one byte,
 * lengths of one or two, attributes of a key and one scalar. Anything else is left to the general
 * walk (batch_read.c, validate.c), which alone knows what is wrong and where. So this file may only
 * err on one side: what it accepts, the general walk accepts with the same key.
 */
#include "common/otlp/batch_internal.h"

enum { HIGH_BIT = 0x80 };
#define HIGH_BITS 0x8080808080808080ULL

#define TAG(number, type) ((number) << 3 | (type))

/* Telemetry's strings are short: two or three overlapping words tell most of them. */
static inline bool is_ascii(const uint8_t *p, size_t n)
{
    uint64_t high = 0, word;
    if (n >= 8) {
        const uint8_t *last = p + n - 8;
        for (; p < last; p += 8) {
            memcpy(&word, p, 8);
            high |= word;
        }
        memcpy(&word, last, 8);
        return ((high | word) & HIGH_BITS) == 0;
    }
    if (n >= 4) {
        uint32_t a, b;
        memcpy(&a, p, 4);
        memcpy(&b, p + n - 4, 4);
        return ((a | b) & (uint32_t)HIGH_BITS) == 0;
    }
    if (n == 0)
        return true;
    return ((p[0] | p[n / 2] | p[n - 1]) & HIGH_BIT) == 0;
}

static inline bool is_text(const uint8_t *p, size_t n)
{
    return LIKELY(is_ascii(p, n)) || str_is_utf8(p, n);
}

/* A length of one or two bytes at *p, and that many bytes after it. */
static inline bool read_len(const uint8_t **p, const uint8_t *end, size_t *n)
{
    const uint8_t *at = *p;
    if (end - at < 1)
        return false;
    *n = *at++;
    if (*n >= HIGH_BIT) {
        if (at == end || *at >= HIGH_BIT)
            return false;
        *n = (*n & 0x7f) | (size_t)*at++ << 7;
    }
    *p = at;
    return *n <= (size_t)(end - at);
}

/* Whether p..end is one varint. */
static inline bool is_varint(const uint8_t *p, const uint8_t *end)
{
    size_t n = (size_t)(end - p);
    if (n < 1 || n > 10 || end[-1] >= HIGH_BIT)
        return false;
    for (; p < end - 1; p++)
        if (*p < HIGH_BIT)
            return false;
    return true;
}

/* AnyValue: nothing, or one scalar. */
static inline bool is_scalar(const uint8_t *p, const uint8_t *end)
{
    size_t n;
    if (p == end)
        return true;
    switch (*p++) {
    case TAG(1, WIRE_LEN):
        return read_len(&p, end, &n) && n == (size_t)(end - p) && is_text(p, n);
    case TAG(2, WIRE_VARINT):
    case TAG(3, WIRE_VARINT):
        return is_varint(p, end);
    case TAG(4, WIRE_I64):
        return end - p == 8;
    default:
        return false;
    }
}

/* KeyValue: the key, then a scalar. */
static inline bool is_attribute(const uint8_t *p, const uint8_t *end)
{
    size_t n;
    if (p == end || *p++ != TAG(1, WIRE_LEN) || !read_len(&p, end, &n) || !is_text(p, n))
        return false;
    p += n;
    if (p == end || *p++ != TAG(2, WIRE_LEN) || !read_len(&p, end, &n))
        return false;
    return n == (size_t)(end - p) && is_scalar(p, end);
}

static bool is_event(const uint8_t *p, const uint8_t *end)
{
    size_t n;
    while (p < end) {
        switch (*p++) {
        case TAG(1, WIRE_I64):
            if (end - p < 8)
                return false;
            p += 8;
            break;
        case TAG(2, WIRE_LEN):
            if (!read_len(&p, end, &n) || !is_text(p, n))
                return false;
            p += n;
            break;
        case TAG(3, WIRE_LEN):
            if (!read_len(&p, end, &n) || !is_attribute(p, p + n))
                return false;
            p += n;
            break;
        case TAG(4, WIRE_VARINT):
            if (p == end || *p++ >= HIGH_BIT)
                return false;
            break;
        default:
            return false;
        }
    }
    return true;
}

static inline bool read_time(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
    if (end - *p < 8)
        return false;
    memcpy(out, *p, 8);
    *p += 8;
    return true;
}

static inline bool read_id(const uint8_t **p, const uint8_t *end, uint8_t *to, size_t n)
{
    if ((size_t)(end - *p) < n + 1 || **p != n)
        return false;
    memcpy(to, *p + 1, n);
    *p += n + 1;
    return true;
}

/* Status with a code alone. */
static inline bool read_status_code(const uint8_t **p, const uint8_t *end, uint8_t *code)
{
    const uint8_t *at = *p;
    if (end - at < 3 || at[0] != 2 || at[1] != TAG(3, WIRE_VARINT) || at[2] > 2)
        return false;
    *code = at[2];
    *p = at + 3;
    return true;
}

bool span_scan(struct str body, struct span_key *key)
{
    static const uint8_t zero[8];
    const uint8_t *p = (const uint8_t *)body.p, *end = p + body.n;
    size_t n;
    memset(key, 0, offsetof(struct span_key, scope));
    while (p < end) {
        switch (*p++) {
        case TAG(9, WIRE_LEN):
            if (!read_len(&p, end, &n) || !is_attribute(p, p + n))
                return false;
            p += n;
            break;
        case TAG(1, WIRE_LEN):
            if (!read_id(&p, end, key->trace_id, 16))
                return false;
            break;
        case TAG(2, WIRE_LEN):
            if (!read_id(&p, end, key->span_id, 8))
                return false;
            break;
        case TAG(4, WIRE_LEN):
            if (p < end && *p == 0 && !(key->key_flags & SPAN_HAS_PARENT)) {
                p++; /* a root's empty parent, written out */
                break;
            }
            if (!read_id(&p, end, key->parent_span_id, 8))
                return false;
            key->key_flags = memcmp(key->parent_span_id, zero, 8) ? SPAN_HAS_PARENT : 0;
            break;
        case TAG(3, WIRE_LEN):
        case TAG(5, WIRE_LEN):
            if (!read_len(&p, end, &n) || !is_text(p, n))
                return false;
            p += n;
            break;
        case TAG(6, WIRE_VARINT):
            if (p == end || *p > 5)
                return false;
            key->kind = *p++;
            break;
        case TAG(7, WIRE_I64):
            if (!read_time(&p, end, &key->start_ns))
                return false;
            break;
        case TAG(8, WIRE_I64):
            if (!read_time(&p, end, &key->end_ns))
                return false;
            break;
        case TAG(10, WIRE_VARINT):
        case TAG(12, WIRE_VARINT):
        case TAG(14, WIRE_VARINT):
            if (p == end || *p++ >= HIGH_BIT)
                return false;
            break;
        case TAG(11, WIRE_LEN):
            if (!read_len(&p, end, &n) || !is_event(p, p + n))
                return false;
            p += n;
            break;
        case TAG(15, WIRE_LEN):
            if (!read_status_code(&p, end, &key->status))
                return false;
            break;
        case 0x80 | (TAG(16, WIRE_I32) & 0x7f): { /* flags: a tag of two bytes */
            uint32_t flags;
            if (end - p < 5 || *p++ != TAG(16, WIRE_I32) >> 7)
                return false;
            memcpy(&flags, p, 4);
            key->flags = flags;
            p += 4;
            break;
        }
        default:
            return false;
        }
    }
    return true;
}
