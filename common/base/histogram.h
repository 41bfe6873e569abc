/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Explicit and exponential histograms as OTLP defines them.
 * Explicit: bucket i holds (bounds[i-1], bounds[i]]; one more bucket than bounds.
 * Exponential: base 2^(2^-scale), bucket index i holds (base^i, base^(i+1)]; it halves its scale
 * when an observation would need more than max_size buckets on one side.
 */
#ifndef BASE_HISTOGRAM_H
#define BASE_HISTOGRAM_H

#include <stdint.h>

#include "common/base/mem.h"

struct histogram {
    const double *bounds; /* borrowed, ascending */
    uint32_t n_bounds;
    uint64_t count;
    double sum, min, max;
    uint64_t *buckets; /* n_bounds + 1 */
};

void histogram_init(struct histogram *h, const double *bounds, uint32_t n_bounds);
void histogram_fini(struct histogram *h);
void histogram_observe(struct histogram *h, double v, uint64_t times);
void histogram_reset(struct histogram *h);
/* Adds src's counts; bounds must be equal. */
void histogram_merge(struct histogram *h, const struct histogram *src);

struct exp_buckets {
    int32_t offset;
    uint32_t n, cap;
    uint64_t *counts;
};

struct exp_histogram {
    int32_t scale; /* starts at 20 */
    uint32_t max_size;
    uint64_t count, zero_count;
    double zero_threshold; /* values up to it are in zero_count */
    double sum, min, max;
    struct exp_buckets positive, negative;
};

void exp_histogram_init(struct exp_histogram *h, uint32_t max_size);
void exp_histogram_fini(struct exp_histogram *h);
void exp_histogram_observe(struct exp_histogram *h, double v, uint64_t times);
void exp_histogram_reset(struct exp_histogram *h);
void exp_histogram_merge(struct exp_histogram *h, const struct exp_histogram *src);

#endif
