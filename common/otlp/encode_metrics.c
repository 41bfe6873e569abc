/* SPDX-License-Identifier: Apache-2.0 */
/* Metric messages, field numbers of opentelemetry/proto/metrics/v1. */
#include <math.h>

#include "common/otlp/encode.h"

void metric_begin(struct metric_draft *m, struct buf *out, const struct metric_head *h)
{
    wire_put_bytes(out, 1, h->name);
    if (h->description.n)
        wire_put_bytes(out, 2, h->description);
    if (h->unit.n)
        wire_put_bytes(out, 3, h->unit);
    *m = (struct metric_draft){.out = out, .type = h->type};
    m->data_mark = wire_begin(out, h->type);
    bool has_temporality =
        h->type == METRIC_SUM || h->type == METRIC_HISTOGRAM || h->type == METRIC_EXP_HISTOGRAM;
    if (has_temporality)
        wire_put_u64(out, 2, h->temporality);
    if (h->type == METRIC_SUM && h->monotonic)
        wire_put_u64(out, 3, 1);
}

static size_t begin_point(struct metric_draft *m, const struct point_head *p)
{
    size_t mark = wire_begin(m->out, 1);
    m->points++;
    buf_add_str(m->out, p->attrs);
    if (p->start_ns)
        wire_put_i64(m->out, 2, p->start_ns);
    wire_put_i64(m->out, 3, p->time_ns);
    return mark;
}

void metric_point_int(struct metric_draft *m, const struct point_head *p, int64_t v)
{
    size_t mark = begin_point(m, p);
    wire_put_i64(m->out, 6, (uint64_t)v);
    wire_end(m->out, mark);
}

void metric_point_double(struct metric_draft *m, const struct point_head *p, double v)
{
    size_t mark = begin_point(m, p);
    wire_put_double(m->out, 4, v);
    wire_end(m->out, mark);
}

void metric_point_histogram(struct metric_draft *m, const struct point_head *p,
                            const struct histogram *h, struct str exemplars)
{
    struct buf *b = m->out;
    size_t mark = begin_point(m, p), packed;
    wire_put_i64(b, 4, h->count);
    wire_put_double(b, 5, h->sum);
    packed = wire_begin(b, 6);
    buf_add(b, h->buckets, (h->n_bounds + 1) * sizeof(*h->buckets));
    wire_end(b, packed);
    if (h->n_bounds) {
        packed = wire_begin(b, 7);
        buf_add(b, h->bounds, h->n_bounds * sizeof(*h->bounds));
        wire_end(b, packed);
    }
    buf_add_str(b, exemplars);
    wire_end(b, mark);
}

/* sint32: 0, -1, 1, -2 ... are 0, 1, 2, 3 ... */
static uint32_t zigzag(int32_t v)
{
    return ((uint32_t)v << 1) ^ (v < 0 ? UINT32_MAX : 0);
}

static void put_buckets(struct buf *b, uint32_t number, const struct exp_buckets *v)
{
    if (v->n == 0)
        return;
    size_t mark = wire_begin(b, number);
    wire_put_u64(b, 1, zigzag(v->offset));
    size_t packed = wire_begin(b, 2);
    for (uint32_t i = 0; i < v->n; i++)
        wire_put_varint(b, v->counts[i]);
    wire_end(b, packed);
    wire_end(b, mark);
}

void metric_point_exp_histogram(struct metric_draft *m, const struct point_head *p,
                                const struct exp_histogram *h, struct str exemplars)
{
    struct buf *b = m->out;
    size_t mark = begin_point(m, p);
    wire_put_i64(b, 4, h->count);
    wire_put_double(b, 5, h->sum);
    wire_put_u64(b, 6, zigzag(h->scale));
    wire_put_i64(b, 7, h->zero_count);
    put_buckets(b, 8, &h->positive);
    put_buckets(b, 9, &h->negative);
    buf_add_str(b, exemplars);
    if (h->count && isfinite(h->min)) {
        wire_put_double(b, 12, h->min);
        wire_put_double(b, 13, h->max);
    }
    if (h->zero_threshold > 0)
        wire_put_double(b, 14, h->zero_threshold);
    wire_end(b, mark);
}

uint32_t metric_end(struct metric_draft *m)
{
    wire_end(m->out, m->data_mark);
    return m->points;
}
