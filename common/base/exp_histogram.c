/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exponential histogram of OTLP. An index at scale s-1 is the index at scale s shifted right by
 * one, so that losing a step of resolution merges pairs of buckets and never misplaces an
 * observation. https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/histogram.h"

enum { MAX_SCALE = 20, MIN_SCALE = -10 };

void exp_histogram_init(struct exp_histogram *h, uint32_t max_size)
{
    ASSERT(max_size >= 2);
    *h = (struct exp_histogram){.max_size = max_size};
    exp_histogram_reset(h);
}

void exp_histogram_fini(struct exp_histogram *h)
{
    free(h->positive.counts);
    free(h->negative.counts);
    h->positive = h->negative = (struct exp_buckets){0};
}

void exp_histogram_reset(struct exp_histogram *h)
{
    h->scale = MAX_SCALE;
    h->count = h->zero_count = 0;
    h->sum = 0;
    h->min = INFINITY;
    h->max = -INFINITY;
    h->positive.n = h->negative.n = 0;
}

/* Index of a finite v > 0: base^index < v <= base^(index+1). */
static int32_t index_of(double v, int32_t scale)
{
    int exponent;
    double fraction = frexp(v, &exponent); /* v = fraction * 2^exponent, fraction in [0.5, 1) */
    if (fraction == 0.5) { /* an exact power of two is the upper edge of its bucket */
        int32_t edge = exponent - 1;
        return scale > 0 ? (int32_t)((uint32_t)edge << scale) - 1 : (edge - 1) >> -scale;
    }
    if (scale <= 0)
        return (exponent - 1) >> -scale;
    return (int32_t)ceil(ldexp(log2(v), scale)) - 1;
}

static void halve(struct exp_buckets *b)
{
    if (b->n == 0)
        return;
    int32_t offset = b->offset >> 1;
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n; i++) {
        uint32_t to = (uint32_t)(((b->offset + (int32_t)i) >> 1) - offset);
        uint64_t count = b->counts[i];
        if (to >= n) {
            b->counts[to] = count;
            n = to + 1;
        } else {
            b->counts[to] += count;
        }
    }
    b->offset = offset;
    b->n = n;
}

static void downscale(struct exp_histogram *h, int32_t to)
{
    for (; h->scale > to; h->scale--) {
        halve(&h->positive);
        halve(&h->negative);
    }
}

/* Steps of resolution to lose until [low, high] fits into max_size buckets. */
static int32_t steps_to_fit(int64_t low, int64_t high, uint32_t max_size)
{
    int32_t steps = 0;
    while (high - low >= (int64_t)max_size) {
        low >>= 1;
        high >>= 1;
        steps++;
    }
    return steps;
}

static void add_at(struct exp_buckets *b, int32_t index, uint64_t times)
{
    if (b->n == 0)
        b->offset = index;
    uint32_t before = index < b->offset ? (uint32_t)(b->offset - index) : 0;
    uint32_t n = MAX(b->n + before, (uint32_t)(index - b->offset + (int32_t)before) + 1);
    if (n > b->cap) {
        b->counts = xrealloc(b->counts, 2 * sizeof(*b->counts) * n);
        b->cap = n * 2;
    }
    if (before) {
        memmove(b->counts + before, b->counts, b->n * sizeof(*b->counts));
        memset(b->counts, 0, before * sizeof(*b->counts));
        b->n += before;
        b->offset = index;
    }
    if (n > b->n) {
        memset(b->counts + b->n, 0, (n - b->n) * sizeof(*b->counts));
        b->n = n;
    }
    b->counts[index - b->offset] += times;
}

/* Makes room for an index at the present scale on side b; returns the index at the new scale. */
static int32_t fit(struct exp_histogram *h, struct exp_buckets *b, int32_t index)
{
    if (b->n == 0)
        return index;
    int64_t low = MIN(index, b->offset), high = MAX(index, b->offset + (int32_t)b->n - 1);
    int32_t steps = steps_to_fit(low, high, h->max_size);
    if (steps)
        downscale(h, MAX(h->scale - steps, MIN_SCALE));
    return index >> steps;
}

void exp_histogram_observe(struct exp_histogram *h, double v, uint64_t times)
{
    if (!isfinite(v))
        return;
    h->count += times;
    h->sum += v * (double)times;
    h->min = fmin(h->min, v);
    h->max = fmax(h->max, v);
    if (fabs(v) < 0x1p-1022) { /* zero and subnormals */
        h->zero_count += times;
        return;
    }
    struct exp_buckets *b = v > 0 ? &h->positive : &h->negative;
    add_at(b, fit(h, b, index_of(fabs(v), h->scale)), times);
}

static void merge_side(struct exp_histogram *h, struct exp_buckets *b,
                       const struct exp_buckets *src, int32_t src_scale)
{
    for (uint32_t i = 0; i < src->n; i++) {
        if (src->counts[i] == 0)
            continue;
        /* fit() may lower h->scale: the shift is taken afresh for each bucket. */
        int32_t index = (src->offset + (int32_t)i) >> (src_scale - h->scale);
        add_at(b, fit(h, b, index), src->counts[i]);
    }
}

void exp_histogram_merge(struct exp_histogram *h, const struct exp_histogram *src)
{
    if (src->count == 0)
        return;
    downscale(h, MIN(h->scale, src->scale));
    h->count += src->count;
    h->zero_count += src->zero_count;
    h->sum += src->sum;
    h->min = fmin(h->min, src->min);
    h->max = fmax(h->max, src->max);
    merge_side(h, &h->positive, &src->positive, src->scale);
    merge_side(h, &h->negative, &src->negative, src->scale);
}
