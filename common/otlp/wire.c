/* SPDX-License-Identifier: Apache-2.0 */
#include "common/otlp/wire.h"

#include <errno.h>

#include "common/base/mem.h"

bool wire_varint(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
    const uint8_t *at = *p;
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70 && at < end; shift += 7) {
        uint8_t b = *at++;
        if (shift < 64)
            v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80) {
            *p = at;
            *out = v;
            return true;
        }
    }
    return false;
}

/* Tags and lengths take at most five bytes in the reference decoders, and a length is below 2^31.
 */
static bool short_varint(const uint8_t **p, const uint8_t *end, uint64_t most, uint64_t *out)
{
    const uint8_t *at = *p;
    return wire_varint(p, end, out) && *p - at <= 5 && *out <= most;
}

/* Skips to the end of a group whose start tag was read; nested groups by counting, numbers checked.
 */
static bool skip_group(const uint8_t **p, const uint8_t *end, uint32_t number, struct str *inside)
{
    uint32_t open[100];
    unsigned depth = 0;
    const uint8_t *from = *p;
    open[depth++] = number;
    while (*p < end) {
        const uint8_t *tag_at = *p;
        uint64_t tag, v;
        if (!short_varint(p, end, UINT32_MAX, &tag) || tag >> 3 == 0)
            return false;
        switch (tag & 7) {
        case WIRE_VARINT:
            if (!wire_varint(p, end, &v))
                return false;
            break;
        case WIRE_I64:
            if (end - *p < 8)
                return false;
            *p += 8;
            break;
        case WIRE_LEN:
            if (!short_varint(p, end, INT32_MAX, &v) || v > (uint64_t)(end - *p))
                return false;
            *p += v;
            break;
        case WIRE_SGROUP:
            if (depth == ARRAY_LEN(open))
                return false;
            open[depth++] = (uint32_t)(tag >> 3);
            break;
        case WIRE_EGROUP:
            if (open[--depth] != tag >> 3)
                return false;
            if (depth == 0) {
                *inside = str_make(from, (size_t)(tag_at - from));
                return true;
            }
            break;
        case WIRE_I32:
            if (end - *p < 4)
                return false;
            *p += 4;
            break;
        default:
            return false;
        }
    }
    return false;
}

static bool read_payload(const uint8_t **p, const uint8_t *end, struct field *f)
{
    uint64_t n;
    switch (f->type) {
    case WIRE_VARINT:
        return wire_varint(p, end, &f->value);
    case WIRE_I64:
        if (end - *p < 8)
            return false;
        memcpy(&f->value, *p, 8);
        *p += 8;
        return true;
    case WIRE_LEN:
        if (!short_varint(p, end, INT32_MAX, &n) || n > (uint64_t)(end - *p))
            return false;
        f->bytes = str_make(*p, (size_t)n);
        *p += n;
        return true;
    case WIRE_I32: {
        uint32_t v;
        if (end - *p < 4)
            return false;
        memcpy(&v, *p, 4);
        f->value = v;
        *p += 4;
        return true;
    }
    case WIRE_SGROUP:
        return skip_group(p, end, f->number, &f->bytes);
    default:
        return false;
    }
}

int wire_next_any(struct wire *w, struct field *f)
{
    const uint8_t *p = w->p;
    uint64_t tag;
    if (p == w->end)
        return 0;
    f->start = p;
    if (LIKELY(*p < 0x80)) {
        tag = *p++;
    } else if (!short_varint(&p, w->end, UINT32_MAX, &tag)) {
        return -EBADMSG;
    }
    f->number = (uint32_t)(tag >> 3);
    f->type = (enum wire_type)(tag & 7);
    f->bytes = (struct str){NULL, 0};
    if (f->number == 0 || !read_payload(&p, w->end, f))
        return -EBADMSG;
    f->end = p;
    w->p = p;
    return 1;
}

/* ---- writing ---- */

void wire_put_varint(struct buf *b, uint64_t v)
{
    uint8_t *p = buf_reserve(b, 10);
    if (LIKELY(p && v < 0x80)) {
        *p = (uint8_t)v;
        buf_commit(b, 1);
    } else if (p) {
        buf_commit(b, (size_t)(wire_write_varint(p, v) - p));
    }
}

void wire_put_tag(struct buf *b, uint32_t number, enum wire_type type)
{
    wire_put_varint(b, (uint64_t)number << 3 | type);
}

void wire_put_u64(struct buf *b, uint32_t number, uint64_t v)
{
    wire_put_tag(b, number, WIRE_VARINT);
    wire_put_varint(b, v);
}

void wire_put_i64(struct buf *b, uint32_t number, uint64_t v)
{
    wire_put_tag(b, number, WIRE_I64);
    buf_add(b, &v, sizeof(v));
}

void wire_put_i32(struct buf *b, uint32_t number, uint32_t v)
{
    wire_put_tag(b, number, WIRE_I32);
    buf_add(b, &v, sizeof(v));
}

void wire_put_double(struct buf *b, uint32_t number, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof(bits));
    wire_put_i64(b, number, bits);
}

void wire_put_bytes(struct buf *b, uint32_t number, struct str s)
{
    wire_put_tag(b, number, WIRE_LEN);
    wire_put_varint(b, s.n);
    buf_add_str(b, s);
}

/* One byte is kept for the length; wire_end moves the message when it needs more. */
size_t wire_begin(struct buf *b, uint32_t number)
{
    wire_put_tag(b, number, WIRE_LEN);
    buf_add_byte(b, 0);
    return b->n;
}

void wire_end(struct buf *b, size_t mark)
{
    if (buf_error(b))
        return;
    size_t n = b->n - mark, size = wire_varint_size(n);
    if (size > 1) {
        if (!buf_reserve(b, size - 1))
            return;
        memmove(b->p + mark + size - 1, b->p + mark, n);
        buf_commit(b, size - 1);
    }
    wire_write_varint((uint8_t *)b->p + mark - 1, n);
}
