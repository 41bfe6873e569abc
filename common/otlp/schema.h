/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages of opentelemetry-proto 1.x as a table: per message and field number its kind and
 * name. Shared inside common/otlp by what walks any message to the leaf (validate, json).
 */
#ifndef OTLP_SCHEMA_H
#define OTLP_SCHEMA_H

#include "common/otlp/wire.h"

enum { FIELD_NUMBERS = 17 }; /* no message has a number of 17 or more */

enum leaf {
    L_NONE, /* unknown field */
    L_BOOL,
    L_ENUM,
    L_INT32,
    L_UINT32,
    L_SINT32, /* zigzag */
    L_INT64,
    L_FIXED64,
    L_SFIXED64,
    L_DOUBLE,
    L_FIXED32,
    L_STRING,
    L_BYTES,
    L_ID16,         /* empty or 16 bytes */
    L_ID8,          /* empty or 8 bytes */
    L_PACK_FIXED64, /* repeated, packed or not */
    L_PACK_DOUBLE,
    L_PACK_UINT64,
    L_MSG,
    L_COUNT
};

enum field_form {
    FIELD_PLAIN,    /* absent and zero are the same, messages apart */
    FIELD_OPTIONAL, /* absent and zero differ */
    FIELD_ONEOF,    /* of the one oneof that its message has */
    FIELD_REPEATED,
};

struct field_type {
    uint8_t leaf, message; /* message: enum message for L_MSG */
    uint8_t form;          /* enum field_form */
    const char *name;
};

enum message {
    M_KEY_VALUE,
    M_ANY,
    M_ARRAY,
    M_KV_LIST,
    M_SPAN,
    M_EVENT,
    M_LINK,
    M_STATUS,
    M_LOG,
    M_METRIC,
    M_GAUGE,
    M_SUM,
    M_HISTOGRAM,
    M_EXP_HISTOGRAM,
    M_SUMMARY,
    M_NUMBER_POINT,
    M_HISTOGRAM_POINT,
    M_EXP_POINT,
    M_BUCKETS,
    M_SUMMARY_POINT,
    M_QUANTILE,
    M_EXEMPLAR,
    M_RESOURCE,
    M_SCOPE,
    M_RESOURCE_ENVELOPE,
    M_SCOPE_ENVELOPE,
    M_ENTITY_REF,
    M_COUNT
};

extern const struct field_type otlp_fields[M_COUNT][FIELD_NUMBERS];

/* True when the field came with its wire type; the packed kinds have two. */
bool leaf_has_type(enum leaf l, enum wire_type type);

#endif
