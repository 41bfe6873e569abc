/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Validation to the leaf: every known field has its wire type, strings are UTF-8, ids have their
 * length, AnyValues nest at most 100 deep. Message types are tables; a stack of cursors takes the
 * place of recursion. Unknown fields are skipped: they are well-formed or wire_next refuses them.
 */
#include <errno.h>
#include <stdio.h>

#include "common/otlp/batch_internal.h"

enum { MAX_DEPTH = 100 };

enum leaf {
    L_NONE, /* unknown field */
    L_VARINT,
    L_I64,
    L_I32,
    L_STRING,
    L_BYTES,
    L_ID16,     /* empty or 16 bytes */
    L_ID8,      /* empty or 8 bytes */
    L_PACK_I64, /* repeated, packed or not */
    L_PACK_VARINT,
    L_MSG,
};

struct field_type {
    uint8_t leaf, message; /* message: enum message for L_MSG */
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

#define MSG(m, n)                                                                                  \
    {                                                                                              \
        L_MSG, m, n                                                                                \
    }
#define F(l, n)                                                                                    \
    {                                                                                              \
        l, 0, n                                                                                    \
    }

/* Field numbers of opentelemetry-proto 1.x, by message. Numbers beyond the table are unknown
 * fields. */
static const struct field_type types[M_COUNT][17] = {
    [M_KEY_VALUE] = {[1] = F(L_STRING, "key"), [2] = MSG(M_ANY, "value")},
    [M_ANY] = {[1] = F(L_STRING, "string_value"),
               [2] = F(L_VARINT, "bool_value"),
               [3] = F(L_VARINT, "int_value"),
               [4] = F(L_I64, "double_value"),
               [5] = MSG(M_ARRAY, "array_value"),
               [6] = MSG(M_KV_LIST, "kvlist_value"),
               [7] = F(L_BYTES, "bytes_value")},
    [M_ARRAY] = {[1] = MSG(M_ANY, "values")},
    [M_KV_LIST] = {[1] = MSG(M_KEY_VALUE, "values")},
    [M_SPAN] = {[1] = F(L_ID16, "trace_id"),
                [2] = F(L_ID8, "span_id"),
                [3] = F(L_STRING, "trace_state"),
                [4] = F(L_ID8, "parent_span_id"),
                [5] = F(L_STRING, "name"),
                [6] = F(L_VARINT, "kind"),
                [7] = F(L_I64, "start_time_unix_nano"),
                [8] = F(L_I64, "end_time_unix_nano"),
                [9] = MSG(M_KEY_VALUE, "attributes"),
                [10] = F(L_VARINT, "dropped_attributes_count"),
                [11] = MSG(M_EVENT, "events"),
                [12] = F(L_VARINT, "dropped_events_count"),
                [13] = MSG(M_LINK, "links"),
                [14] = F(L_VARINT, "dropped_links_count"),
                [15] = MSG(M_STATUS, "status"),
                [16] = F(L_I32, "flags")},
    [M_EVENT] = {[1] = F(L_I64, "time_unix_nano"),
                 [2] = F(L_STRING, "name"),
                 [3] = MSG(M_KEY_VALUE, "attributes"),
                 [4] = F(L_VARINT, "dropped_attributes_count")},
    [M_LINK] = {[1] = F(L_ID16, "trace_id"),
                [2] = F(L_ID8, "span_id"),
                [3] = F(L_STRING, "trace_state"),
                [4] = MSG(M_KEY_VALUE, "attributes"),
                [5] = F(L_VARINT, "dropped_attributes_count"),
                [6] = F(L_I32, "flags")},
    [M_STATUS] = {[2] = F(L_STRING, "message"), [3] = F(L_VARINT, "code")},
    [M_LOG] = {[1] = F(L_I64, "time_unix_nano"),
               [2] = F(L_VARINT, "severity_number"),
               [3] = F(L_STRING, "severity_text"),
               [5] = MSG(M_ANY, "body"),
               [6] = MSG(M_KEY_VALUE, "attributes"),
               [7] = F(L_VARINT, "dropped_attributes_count"),
               [8] = F(L_I32, "flags"),
               [9] = F(L_ID16, "trace_id"),
               [10] = F(L_ID8, "span_id"),
               [11] = F(L_I64, "observed_time_unix_nano"),
               [12] = F(L_STRING, "event_name")},
    [M_METRIC] = {[1] = F(L_STRING, "name"),
                  [2] = F(L_STRING, "description"),
                  [3] = F(L_STRING, "unit"),
                  [5] = MSG(M_GAUGE, "gauge"),
                  [7] = MSG(M_SUM, "sum"),
                  [9] = MSG(M_HISTOGRAM, "histogram"),
                  [10] = MSG(M_EXP_HISTOGRAM, "exponential_histogram"),
                  [11] = MSG(M_SUMMARY, "summary"),
                  [12] = MSG(M_KEY_VALUE, "metadata")},
    [M_GAUGE] = {[1] = MSG(M_NUMBER_POINT, "data_points")},
    [M_SUM] = {[1] = MSG(M_NUMBER_POINT, "data_points"),
               [2] = F(L_VARINT, "aggregation_temporality"),
               [3] = F(L_VARINT, "is_monotonic")},
    [M_HISTOGRAM] =
        {[1] = MSG(M_HISTOGRAM_POINT, "data_points"), [2] = F(L_VARINT, "aggregation_temporality")},
    [M_EXP_HISTOGRAM] =
        {[1] = MSG(M_EXP_POINT, "data_points"), [2] = F(L_VARINT, "aggregation_temporality")},
    [M_SUMMARY] = {[1] = MSG(M_SUMMARY_POINT, "data_points")},
    [M_NUMBER_POINT] = {[2] = F(L_I64, "start_time_unix_nano"),
                        [3] = F(L_I64, "time_unix_nano"),
                        [4] = F(L_I64, "as_double"),
                        [5] = MSG(M_EXEMPLAR, "exemplars"),
                        [6] = F(L_I64, "as_int"),
                        [7] = MSG(M_KEY_VALUE, "attributes"),
                        [8] = F(L_VARINT, "flags")},
    [M_HISTOGRAM_POINT] = {[2] = F(L_I64, "start_time_unix_nano"),
                           [3] = F(L_I64, "time_unix_nano"),
                           [4] = F(L_I64, "count"),
                           [5] = F(L_I64, "sum"),
                           [6] = F(L_PACK_I64, "bucket_counts"),
                           [7] = F(L_PACK_I64, "explicit_bounds"),
                           [8] = MSG(M_EXEMPLAR, "exemplars"),
                           [9] = MSG(M_KEY_VALUE, "attributes"),
                           [10] = F(L_VARINT, "flags"),
                           [11] = F(L_I64, "min"),
                           [12] = F(L_I64, "max")},
    [M_EXP_POINT] = {[1] = MSG(M_KEY_VALUE, "attributes"),
                     [2] = F(L_I64, "start_time_unix_nano"),
                     [3] = F(L_I64, "time_unix_nano"),
                     [4] = F(L_I64, "count"),
                     [5] = F(L_I64, "sum"),
                     [6] = F(L_VARINT, "scale"),
                     [7] = F(L_I64, "zero_count"),
                     [8] = MSG(M_BUCKETS, "positive"),
                     [9] = MSG(M_BUCKETS, "negative"),
                     [10] = F(L_VARINT, "flags"),
                     [11] = MSG(M_EXEMPLAR, "exemplars"),
                     [12] = F(L_I64, "min"),
                     [13] = F(L_I64, "max"),
                     [14] = F(L_I64, "zero_threshold")},
    [M_BUCKETS] = {[1] = F(L_VARINT, "offset"), [2] = F(L_PACK_VARINT, "bucket_counts")},
    [M_SUMMARY_POINT] = {[2] = F(L_I64, "start_time_unix_nano"),
                         [3] = F(L_I64, "time_unix_nano"),
                         [4] = F(L_I64, "count"),
                         [5] = F(L_I64, "sum"),
                         [6] = MSG(M_QUANTILE, "quantile_values"),
                         [7] = MSG(M_KEY_VALUE, "attributes"),
                         [8] = F(L_VARINT, "flags")},
    [M_QUANTILE] = {[1] = F(L_I64, "quantile"), [2] = F(L_I64, "value")},
    [M_EXEMPLAR] = {[2] = F(L_I64, "time_unix_nano"),
                    [3] = F(L_I64, "as_double"),
                    [4] = F(L_ID8, "span_id"),
                    [5] = F(L_ID16, "trace_id"),
                    [6] = F(L_I64, "as_int"),
                    [7] = MSG(M_KEY_VALUE, "filtered_attributes")},
    [M_RESOURCE] = {[1] = MSG(M_KEY_VALUE, "attributes"),
                    [2] = F(L_VARINT, "dropped_attributes_count"),
                    [3] = MSG(M_ENTITY_REF, "entity_refs")},
    [M_ENTITY_REF] = {[1] = F(L_STRING, "schema_url"),
                      [2] = F(L_STRING, "type"),
                      [3] = F(L_STRING, "id_keys"),
                      [4] = F(L_STRING, "description_keys")},
    [M_SCOPE] = {[1] = F(L_STRING, "name"),
                 [2] = F(L_STRING, "version"),
                 [3] = MSG(M_KEY_VALUE, "attributes"),
                 [4] = F(L_VARINT, "dropped_attributes_count")},
    [M_RESOURCE_ENVELOPE] = {[1] = MSG(M_RESOURCE, "resource"), [3] = F(L_STRING, "schema_url")},
    [M_SCOPE_ENVELOPE] = {[1] = MSG(M_SCOPE, "scope"), [3] = F(L_STRING, "schema_url")},
};

struct level {
    struct wire w;
    uint8_t message;
    const char *name; /* of the field that led here; NULL at the top */
};

static bool packed_ok(enum leaf l, struct str s)
{
    const uint8_t *p = (const uint8_t *)s.p, *end = p + s.n;
    uint64_t v;
    if (l == L_PACK_I64)
        return s.n % 8 == 0;
    while (p < end)
        if (!wire_varint(&p, end, &v))
            return false;
    return true;
}

/* NULL when the field is right, else what is wrong. */
static const char *check_leaf(enum leaf l, const struct field *f)
{
    static const char wrong_type[] = "wrong wire type";
    switch (l) {
    case L_VARINT:
        return f->type == WIRE_VARINT ? NULL : wrong_type;
    case L_I64:
        return f->type == WIRE_I64 ? NULL : wrong_type;
    case L_I32:
        return f->type == WIRE_I32 ? NULL : wrong_type;
    case L_STRING:
        if (f->type != WIRE_LEN)
            return wrong_type;
        return str_is_utf8(f->bytes.p, f->bytes.n) ? NULL : "bad UTF-8";
    case L_BYTES:
        return f->type == WIRE_LEN ? NULL : wrong_type;
    case L_ID16:
    case L_ID8:
        if (f->type != WIRE_LEN)
            return wrong_type;
        return f->bytes.n == 0 || f->bytes.n == (l == L_ID16 ? 16 : 8) ? NULL
                                                                       : "wrong length of id";
    case L_PACK_I64:
    case L_PACK_VARINT:
        if (f->type == (l == L_PACK_I64 ? WIRE_I64 : WIRE_VARINT))
            return NULL;
        return f->type == WIRE_LEN && packed_ok(l, f->bytes) ? NULL : wrong_type;
    default:
        return NULL;
    }
}

static bool fail(struct err *e, const struct level *levels, unsigned depth, const char *field,
                 const char *what)
{
    size_t n = 0;
    e->text[0] = '\0';
    for (unsigned i = 1; i < depth && n < sizeof(e->text) / 2; i++)
        n += (size_t)snprintf(e->text + n, sizeof(e->text) - n, "%s.", levels[i].name);
    snprintf(e->text + n, sizeof(e->text) - n, "%s: %s", field, what);
    return false;
}

/* Most strings are short ASCII: told by one look at each eight bytes, the rest by the full test. */
static inline bool is_text(struct str s)
{
    const uint8_t *p = (const uint8_t *)s.p, *end = p + s.n;
    uint64_t high = 0, word;
    for (; end - p >= 8; p += 8) {
        memcpy(&word, p, 8);
        high |= word;
    }
    for (; p < end; p++)
        high |= *p;
    /* Every byte of the tail was or'ed into the lowest one. */
    return (high & 0x8080808080808080ULL) == 0 || str_is_utf8(s.p, s.n);
}

static bool validate(enum message top, struct str body, struct err *e)
{
    struct level levels[MAX_DEPTH];
    struct wire w = wire_of(body); /* the innermost cursor: outer ones lie in levels */
    const struct field_type *table = types[top];
    unsigned depth = 1;
    levels[0] = (struct level){.message = (uint8_t)top};
    for (;;) {
        struct field f;
        int r = wire_next(&w, &f);
        if (UNLIKELY(r < 0))
            return fail(e, levels, depth, "(message)", "malformed protobuf");
        if (r == 0) {
            if (--depth == 0)
                return true;
            w = levels[depth - 1].w;
            table = types[levels[depth - 1].message];
            continue;
        }
        if (f.number >= ARRAY_LEN(types[0]))
            continue;
        const struct field_type *t = &table[f.number];
        if (t->leaf == L_MSG && f.type == WIRE_LEN) {
            if (UNLIKELY(depth == MAX_DEPTH))
                return fail(e, levels, 4, t->name, "nested too deep");
            levels[depth - 1].w = w;
            levels[depth++] = (struct level){.message = t->message, .name = t->name};
            w = wire_of(f.bytes);
            table = types[t->message];
            continue;
        }
        if (LIKELY(t->leaf == L_STRING && f.type == WIRE_LEN && is_text(f.bytes)))
            continue;
        const char *what =
            t->leaf == L_MSG ? "wrong wire type" : check_leaf((enum leaf)t->leaf, &f);
        if (UNLIKELY(what != NULL))
            return fail(e, levels, depth, t->name, what);
    }
}

bool otlp_validate_record(enum signal signal, struct str body, struct err *e)
{
    static const enum message tops[SIGNAL_COUNT] = {M_SPAN, M_METRIC, M_LOG};
    return validate(tops[signal], body, e);
}

bool otlp_validate_resource(struct str envelope, struct err *e)
{
    return validate(M_RESOURCE_ENVELOPE, envelope, e);
}

bool otlp_validate_scope(struct str envelope, struct err *e)
{
    return validate(M_SCOPE_ENVELOPE, envelope, e);
}
