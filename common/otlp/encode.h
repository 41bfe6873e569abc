/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages that we make ourselves: spans and metrics into batches, and the small answers of the
 * export protocol (nanopb).
 */
#ifndef OTLP_ENCODE_H
#define OTLP_ENCODE_H

#include "common/base/histogram.h"
#include "common/otlp/view.h"

/* KeyValue with an AnyValue, appended as repeated field `number`. */
void encode_attr(struct buf *b, uint32_t number, struct str key, struct any value);
void encode_attr_str(struct buf *b, uint32_t number, const char *key, struct str value);
void encode_attr_int(struct buf *b, uint32_t number, const char *key, int64_t value);
static inline struct any any_str(struct str s)
{
    return (struct any){.type = ANY_STRING, .s = s};
}
static inline struct any any_int(int64_t i)
{
    return (struct any){.type = ANY_INT, .i = i};
}

/*
 * The same bytes as encode_attr writes, where the key is a constant: the compiler writes it in
 * place. The number is below 16.
 */
static ALWAYS_INLINE void encode_text(struct buf *b, uint32_t number, struct str key,
                                      struct str value)
{
    size_t kv = key.n + value.n + 6;
    uint8_t *p = kv < 128 ? buf_reserve(b, kv + 2) : NULL;
    if (!p) {
        encode_attr(b, number, key, any_str(value));
        return;
    }
    p[0] = (uint8_t)(number << 3 | WIRE_LEN);
    p[1] = (uint8_t)kv;
    p[2] = 1 << 3 | WIRE_LEN;
    p[3] = (uint8_t)key.n;
    memcpy(p + 4, key.p, key.n);
    p += 4 + key.n;
    p[0] = 2 << 3 | WIRE_LEN;
    p[1] = (uint8_t)(value.n + 2);
    p[2] = 1 << 3 | WIRE_LEN;
    p[3] = (uint8_t)value.n;
    if (value.n)
        memcpy(p + 4, value.p, value.n);
    buf_commit(b, kv + 2);
}

static ALWAYS_INLINE void encode_number(struct buf *b, uint32_t number, struct str key,
                                        uint64_t value)
{
    uint8_t *p = key.n < 100 ? buf_reserve(b, key.n + 18) : NULL, *scalar, *end;
    if (!p) {
        encode_attr(b, number, key, any_int((int64_t)value));
        return;
    }
    p[0] = (uint8_t)(number << 3 | WIRE_LEN);
    p[2] = 1 << 3 | WIRE_LEN;
    p[3] = (uint8_t)key.n;
    memcpy(p + 4, key.p, key.n);
    scalar = p + 4 + key.n + 2;
    scalar[-2] = 2 << 3 | WIRE_LEN;
    scalar[0] = 3 << 3 | WIRE_VARINT;
    end = wire_write_varint(scalar + 1, value);
    scalar[-1] = (uint8_t)(end - scalar);
    p[1] = (uint8_t)(end - p - 2);
    buf_commit(b, (size_t)(end - p));
}

/* Envelopes: `attrs` are already encoded KeyValue fields (number 1 for resource, 3 for scope). */
void encode_resource_envelope(struct buf *out, struct str attrs, struct str schema_url);
void encode_scope_envelope(struct buf *out, struct str name, struct str version, struct str attrs);

struct span_event {
    uint64_t time_ns;
    struct str name, attrs; /* attrs: KeyValue fields, number 3 */
};

struct span_draft {
    uint8_t trace_id[16], span_id[8], parent_span_id[8];
    bool has_parent;
    uint32_t flags;
    struct str trace_state, name, status_message;
    uint8_t kind, status;
    uint64_t start_ns, end_ns;
    struct str attrs; /* KeyValue fields, number 9 */
    uint32_t dropped_attributes;
};
/* Writes the Span message (no tag, no length) to where encode_span_most bytes are free: its end. */
uint8_t *encode_span(uint8_t *p, const struct span_draft *s);
size_t encode_span_most(const struct span_draft *s);

/* Metrics. A metric: metric_begin, points, metric_end. Attributes of a point are KeyValue fields,
 * number 7 for NumberDataPoint, 9 for HistogramDataPoint, 1 for ExponentialHistogramDataPoint. */
enum temporality { TEMPORALITY_DELTA = 1, TEMPORALITY_CUMULATIVE = 2 };
enum metric_type {
    METRIC_GAUGE = 5,
    METRIC_SUM = 7,
    METRIC_HISTOGRAM = 9,
    METRIC_EXP_HISTOGRAM = 10,
    METRIC_SUMMARY = 11,
};
enum { NUMBER_POINT_ATTRIBUTES = 7, HISTOGRAM_POINT_ATTRIBUTES = 9, EXP_POINT_ATTRIBUTES = 1 };

struct metric_draft {
    struct buf *out;
    size_t data_mark;
    enum metric_type type;
    uint32_t points;
};
struct metric_head {
    struct str name, description, unit;
    enum metric_type type;
    enum temporality temporality; /* sums and histograms */
    bool monotonic;               /* sums */
};
struct point_head {
    struct str attrs;
    uint64_t start_ns, time_ns;
};
/* Begins a Metric message at the end of `out` (no tag, no length of its own). */
void metric_begin(struct metric_draft *m, struct buf *out, const struct metric_head *h);
void metric_point_int(struct metric_draft *m, const struct point_head *p, int64_t v);
void metric_point_double(struct metric_draft *m, const struct point_head *p, double v);
/* `exemplars`: encoded Exemplar fields (number 8), may be empty. */
void metric_point_histogram(struct metric_draft *m, const struct point_head *p,
                            const struct histogram *h, struct str exemplars);
void metric_point_exp_histogram(struct metric_draft *m, const struct point_head *p,
                                const struct exp_histogram *h, struct str exemplars);
/* Ends it and returns the number of points, the record's items. */
uint32_t metric_end(struct metric_draft *m);

/* ---- the export protocol's small messages ---- */

/* google.rpc.Status; retry_after_ms > 0 adds RetryInfo. */
void encode_rpc_status(struct buf *out, int code, const char *message, uint64_t retry_after_ms);
/* google.rpc.RetryInfo; it may be there without a delay. */
struct retry_hint {
    bool is_there;
    uint64_t delay_ms;
};
/* Reads a google.rpc.Status: code, message into msg[n], retry hint. -EBADMSG. */
int decode_rpc_status(struct str s, int *code, char *msg, size_t n, struct retry_hint *hint);
/* Reads an Export*ServiceResponse: rejected items and message of partial_success. -EBADMSG. */
int decode_export_response(struct str s, int64_t *rejected, char *msg, size_t n);

#endif
