/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/histogram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void histogram_init(struct histogram *h, const double *bounds, uint32_t n_bounds)
{
    *h = (struct histogram){.bounds = bounds, .n_bounds = n_bounds};
    h->buckets = xcalloc(n_bounds + 1, sizeof(*h->buckets));
    histogram_reset(h);
}

void histogram_fini(struct histogram *h)
{
    free(h->buckets);
    h->buckets = NULL;
}

void histogram_reset(struct histogram *h)
{
    h->count = 0;
    h->sum = 0;
    h->min = INFINITY;
    h->max = -INFINITY;
    memset(h->buckets, 0, (h->n_bounds + 1) * sizeof(*h->buckets));
}

void histogram_observe(struct histogram *h, double v, uint64_t times)
{
    uint32_t low = 0, high = h->n_bounds;
    while (low < high) { /* first bound that is not below v */
        uint32_t mid = (low + high) / 2;
        if (h->bounds[mid] < v)
            low = mid + 1;
        else
            high = mid;
    }
    h->buckets[low] += times;
    h->count += times;
    h->sum += v * (double)times;
    h->min = fmin(h->min, v);
    h->max = fmax(h->max, v);
}

void histogram_merge(struct histogram *h, const struct histogram *src)
{
    ASSERT(h->n_bounds == src->n_bounds);
    for (uint32_t i = 0; i <= h->n_bounds; i++)
        h->buckets[i] += src->buckets[i];
    h->count += src->count;
    h->sum += src->sum;
    h->min = fmin(h->min, src->min);
    h->max = fmax(h->max, src->max);
}
