/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protobuf wire format: reading with a cursor, writing into a latched buf. No recursion, no
 * allocation. https://protobuf.dev/programming-guides/encoding/
 *
 * Reader: a `struct wire` is a cursor over one message's bytes. wire_next() yields field after field;
 * at the first malformed byte it returns -EBADMSG and the cursor stays there.
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
    return (struct wire){(const uint8_t *)s.p, (const uint8_t *)s.p + s.n};
}

/* 1: a field was read into *f. 0: the end. -EBADMSG: malformed (bad tag, length, varint, group). */
int wire_next(struct wire *w, struct field *f);
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
size_t wire_varint_size(uint64_t v);

#endif
