/* SPDX-License-Identifier: Apache-2.0 */
#include "common/otlp/encode.h"

#include <string.h>

static void put_any(struct buf *b, uint32_t number, struct any v)
{
    size_t mark = wire_begin(b, number);
    switch (v.type) {
    case ANY_EMPTY:
        break;
    case ANY_STRING:
        wire_put_bytes(b, 1, v.s);
        break;
    case ANY_BOOL:
        wire_put_u64(b, 2, v.b);
        break;
    case ANY_INT:
        wire_put_u64(b, 3, (uint64_t)v.i);
        break;
    case ANY_DOUBLE:
        wire_put_double(b, 4, v.d);
        break;
    case ANY_ARRAY:
        wire_put_bytes(b, 5, v.s);
        break;
    case ANY_MAP:
        wire_put_bytes(b, 6, v.s);
        break;
    case ANY_BYTES:
        wire_put_bytes(b, 7, v.s);
        break;
    }
    wire_end(b, mark);
}

static uint8_t *put_text(uint8_t *p, uint32_t number, struct str s)
{
    p = wire_write_head(p, number, s.n);
    if (s.n)
        memcpy(p, s.p, s.n);
    return p + s.n;
}

/* Strings and integers, which nearly all attributes are: sizes first, then all bytes at once. */
static void encode_plain_attr(struct buf *b, uint32_t number, struct str key, struct any value)
{
    size_t scalar = value.type == ANY_STRING ? wire_field_size(value.s.n)
                                             : 1 + wire_varint_size((uint64_t)value.i);
    size_t kv = wire_field_size(key.n) + wire_field_size(scalar);
    uint8_t *p = buf_reserve(b, 8 + wire_field_size(kv)), *from = p;
    if (!p)
        return;
    p = wire_write_head(p, number, kv);
    p = put_text(p, 1, key);
    p = wire_write_head(p, 2, scalar);
    if (value.type == ANY_STRING) {
        p = put_text(p, 1, value.s);
    } else {
        *p++ = 3 << 3 | WIRE_VARINT;
        p = wire_write_varint(p, (uint64_t)value.i);
    }
    buf_commit(b, (size_t)(p - from));
}

void encode_attr(struct buf *b, uint32_t number, struct str key, struct any value)
{
    if (value.type == ANY_STRING || value.type == ANY_INT) {
        encode_plain_attr(b, number, key, value);
        return;
    }
    size_t mark = wire_begin(b, number);
    wire_put_bytes(b, 1, key);
    put_any(b, 2, value);
    wire_end(b, mark);
}

void encode_attr_str(struct buf *b, uint32_t number, const char *key, struct str value)
{
    encode_attr(b, number, str_of(key), any_str(value));
}

void encode_attr_int(struct buf *b, uint32_t number, const char *key, int64_t value)
{
    encode_attr(b, number, str_of(key), any_int(value));
}

void encode_resource_envelope(struct buf *out, struct str attrs, struct str schema_url)
{
    wire_put_bytes(out, OTLP_RESOURCE_RESOURCE, attrs);
    if (schema_url.n)
        wire_put_bytes(out, OTLP_RESOURCE_SCHEMA_URL, schema_url);
}

void encode_scope_envelope(struct buf *out, struct str name, struct str version, struct str attrs)
{
    size_t mark = wire_begin(out, OTLP_SCOPE_SCOPE);
    if (name.n)
        wire_put_bytes(out, 1, name);
    if (version.n)
        wire_put_bytes(out, 2, version);
    buf_add_str(out, attrs);
    wire_end(out, mark);
}

static uint8_t *put_fixed64(uint8_t *p, uint32_t number, uint64_t v)
{
    *p++ = (uint8_t)(number << 3 | WIRE_I64);
    memcpy(p, &v, sizeof(v));
    return p + sizeof(v);
}

static uint8_t *put_small(uint8_t *p, uint32_t number, uint64_t v)
{
    *p++ = (uint8_t)(number << 3 | WIRE_VARINT);
    return wire_write_varint(p, v);
}

static uint8_t *put_status(uint8_t *p, const struct span_draft *s)
{
    size_t n = s->status_message.n ? wire_field_size(s->status_message.n) : 0;

    p = wire_write_head(p, 15, n + (s->status ? 2 : 0));
    if (s->status_message.n)
        p = put_text(p, 2, s->status_message);
    return s->status ? put_small(p, 3, s->status) : p;
}

size_t encode_span_most(const struct span_draft *s)
{
    /* Ids, times, small numbers, and a tag and a length for each text: 160 bytes are enough. */
    return 160 + s->trace_state.n + s->name.n + s->attrs.n + s->status_message.n;
}

uint8_t *encode_span(uint8_t *p, const struct span_draft *s)
{
    p = put_text(p, 1, str_make(s->trace_id, 16));
    p = put_text(p, 2, str_make(s->span_id, 8));
    if (s->trace_state.n)
        p = put_text(p, 3, s->trace_state);
    if (s->has_parent)
        p = put_text(p, 4, str_make(s->parent_span_id, 8));
    p = put_text(p, 5, s->name);
    if (s->kind)
        p = put_small(p, 6, s->kind);
    p = put_fixed64(p, 7, s->start_ns);
    p = put_fixed64(p, 8, s->end_ns);
    if (s->attrs.n)
        memcpy(p, s->attrs.p, s->attrs.n);
    p += s->attrs.n;
    if (s->dropped_attributes)
        p = put_small(p, 10, s->dropped_attributes);
    if (s->status || s->status_message.n)
        p = put_status(p, s);
    if (!s->flags)
        return p;
    p = wire_write_varint(p, 16 << 3 | WIRE_I32);
    memcpy(p, &s->flags, sizeof(s->flags));
    return p + sizeof(s->flags);
}
