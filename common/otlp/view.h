/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Views: one field or attribute read out of a record's, resource's or scope's bytes, without
 * allocating. Last wins where a scalar or a key is repeated, as a decoder into a map would have it.
 */
#ifndef OTLP_VIEW_H
#define OTLP_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "common/otlp/batch.h"
#include "common/otlp/wire.h"

enum any_type {
    ANY_EMPTY,
    ANY_STRING,
    ANY_BOOL,
    ANY_INT,
    ANY_DOUBLE,
    ANY_ARRAY,
    ANY_MAP,
    ANY_BYTES
};

/* An AnyValue. Arrays and maps stay bytes (ArrayValue, KeyValueList) and are walked with wire_next.
 */
struct any {
    enum any_type type;
    union {
        bool b;
        int64_t i;
        double d;
        struct str s; /* string, bytes, array, map */
    };
};

/* Decodes the bytes of an AnyValue. Malformed bytes give ANY_EMPTY. */
struct any any_read(struct str value);
/* As the Collector's AsString: strings bare, numbers shortest form, arrays and maps as JSON. */
void any_to_text(struct any v, struct buf *out);
bool any_eq(struct any a, struct any b);

/* One attribute: key and AnyValue. */
struct attr {
    struct str key;
    struct str value; /* bytes of the AnyValue */
};

/* Field number that attributes have in each kind of message. */
enum {
    SPAN_ATTRIBUTES = 9,
    LOG_ATTRIBUTES = 6,
    RESOURCE_ATTRIBUTES = 1,
    SCOPE_ATTRIBUTES = 3,
};

/* Iterates over attributes (repeated KeyValue, field `number`) of a message's bytes. False at the
 * end. */
bool attr_next(struct wire *w, uint32_t number, struct attr *out);
/* First attribute with that key. False when there is none. */
bool attr_find(struct str message, uint32_t number, struct str key, struct any *out);

/* Attributes of the Resource or Scope message in an envelope, over all its pieces if it was split.
 */
struct envelope_iter {
    struct wire outer, inner;
    bool open;
};
void envelope_attrs(struct envelope_iter *it, struct str envelope);
/* `number` is RESOURCE_ATTRIBUTES or SCOPE_ATTRIBUTES. False at the end. */
bool envelope_attr_next(struct envelope_iter *it, uint32_t number, struct attr *out);
bool envelope_attr_find(struct str envelope, uint32_t number, struct str key, struct any *out);
/* Scope name and version (last wins), empty if missing. */
struct str scope_name(struct str envelope);
struct str scope_version(struct str envelope);

/* service.name of a resource envelope; {NULL,0} when missing or not a string. */
struct str resource_service_name(struct str envelope);

struct str span_name(const struct record *r);
struct str span_trace_state(const struct record *r);
/* Scalar (last wins) field of a message, `fallback` if absent. */
uint64_t message_u64(struct str message, uint32_t number, uint64_t fallback);
struct str message_bytes(struct str message, uint32_t number);

/*
 * The key of a KeyValue (last wins). Nearly all are a key and then a value, in lengths of a byte or
 * two: that is seen without walking them.
 */
static inline struct str attr_key(struct str kv)
{
    const uint8_t *p = (const uint8_t *)kv.p;
    size_t key = kv.n >= 2 && p[0] == (1 << 3 | WIRE_LEN) && p[1] < 0x80 ? p[1] + 2u : SIZE_MAX;
    size_t left = key <= kv.n ? kv.n - key : 1;
    bool is_plain = left == 0;
    if (left >= 2 && p[key] == (2 << 3 | WIRE_LEN))
        is_plain = p[key + 1] < 0x80
                       ? p[key + 1] == left - 2
                       : left >= 3 && p[key + 2] < 0x80 &&
                             ((p[key + 1] & 0x7fu) | (size_t)p[key + 2] << 7) == left - 3;
    return is_plain ? str_make(p + 2, key - 2) : message_bytes(kv, 1);
}

#endif
