/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protobuf wire format: reading with a cursor, writing into a latched buf. No recursion, no
 * allocation. https://protobuf.dev/programming-guides/encoding/
 *
 * Reader: a `struct wire` is a cursor over one message's bytes. wire_next() yields field after
 * field; at the first malformed byte it returns -EBADMSG and the cursor stays there.
 */
#ifndef OTLP_WIRE_H
#define OTLP_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/str.h"

enum wire_type {
    WIRE_VARINT = 0,
    WIRE_I64 = 1,
    WIRE_LEN = 2,
    WIRE_SGROUP = 3,
    WIRE_EGROUP = 4,
    WIRE_I32 = 5,
};

struct wire {
    const uint8_t *p, *end;
};

struct field {
    uint32_t number;
    enum wire_type type;
    uint64_t value;       /* varint, i64, i32 */
    struct str bytes;     /* LEN payload; for groups the bytes between the tags */
    const uint8_t *start; /* first byte of the tag */
    const uint8_t *end;   /* one past the field's last byte */
};

static inline struct wire wire_of(struct str s)
{
    const uint8_t *p = (const uint8_t *)s.p;
    return (struct wire){p, s.n ? p + s.n : p}; /* NULL + 0 is undefined in C */
}

/* 1: a field was read into *f. 0: the end. -EBADMSG: malformed (bad tag, length, varint, group). */
int wire_next_any(struct wire *w, struct field *f);

/*
 * The same; the nine in ten fields whose tag and length (or value) take a byte each are read in
 * place, so that the compiler drops what a caller does not look at.
 */
static inline int wire_next(struct wire *w, struct field *f)
{
    const uint8_t *p = w->p;
    size_t left = (size_t)(w->end - p);
    if (left >= 2 && p[0] < 0x80 && p[0] >= 8) {
        f->number = p[0] >> 3;
        f->type = (enum wire_type)(p[0] & 7);
        f->start = p;
        if (f->type == WIRE_LEN && p[1] < 0x80 && p[1] <= left - 2) {
            f->bytes = str_make(p + 2, p[1]);
            w->p = f->end = p + 2 + p[1];
            return 1;
        }
        if (f->type == WIRE_VARINT && p[1] < 0x80) {
            f->value = p[1];
            f->bytes = (struct str){NULL, 0};
            w->p = f->end = p + 2;
            return 1;
        }
        if (f->type == WIRE_I64 && left >= 9) {
            __builtin_memcpy(&f->value, p + 1, 8);
            f->bytes = (struct str){NULL, 0};
            w->p = f->end = p + 9;
            return 1;
        }
    }
    return wire_next_any(w, f);
}
/* Reads a varint of 1 to 10 bytes. False when it is cut or too long. Bits above 64 are dropped. */
bool wire_varint(const uint8_t **p, const uint8_t *end, uint64_t *out);

/* Writer. A nested message: mark = wire_begin(b, number); ...; wire_end(b, mark). */
void wire_put_varint(struct buf *b, uint64_t v);
void wire_put_tag(struct buf *b, uint32_t number, enum wire_type type);
void wire_put_u64(struct buf *b, uint32_t number, uint64_t v); /* varint field */
void wire_put_i64(struct buf *b, uint32_t number, uint64_t v); /* fixed64 / sfixed64 */
void wire_put_i32(struct buf *b, uint32_t number, uint32_t v); /* fixed32 */
void wire_put_double(struct buf *b, uint32_t number, double v);
void wire_put_bytes(struct buf *b, uint32_t number, struct str s);
size_t wire_begin(struct buf *b, uint32_t number);
void wire_end(struct buf *b, size_t mark);

static inline size_t wire_varint_size(uint64_t v)
{
    size_t n = 1;
    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

/* Writing into room that is there; each returns the end of what it wrote. */
static inline uint8_t *wire_write_varint(uint8_t *p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

/* Tag and length in front of n bytes. */
static inline uint8_t *wire_write_head(uint8_t *p, uint32_t number, size_t n)
{
    return wire_write_varint(wire_write_varint(p, (uint64_t)number << 3 | WIRE_LEN), n);
}

/* Size of that and the n bytes; the number is below 16. */
static inline size_t wire_field_size(size_t n)
{
    return 1 + wire_varint_size(n) + n;
}

#endif
