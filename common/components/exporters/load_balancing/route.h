/* SPDX-License-Identifier: Apache-2.0 */
/* Which backend each record of a batch belongs to. */
#ifndef LOAD_BALANCING_ROUTE_H
#define LOAD_BALANCING_ROUTE_H

#include "common/otlp/batch.h"
#include "common/pipeline/ring.h"

enum route_key { ROUTE_DEFAULT, ROUTE_TRACE_ID, ROUTE_SERVICE };

/*
 * Records by owner: idx[begin[o] .. begin[o+1]) belong to ring endpoint o, in their order. What has
 * no owner (metrics without service.name) stands at idx[begin[n] .. n_records).
 */
struct route {
    uint32_t n;      /* owners: ring_size */
    uint32_t *begin; /* n + 1 */
    uint32_t *idx;
    uint32_t n_records;
};

/* The key in use when none is configured: traces by trace id, everything else by service. */
enum route_key route_key_of(enum route_key configured, enum signal signal);
/* -ENOMEM. */
int route_batch(struct route *out, const struct batch *b, const struct ring *ring,
                enum route_key key) MUSTCHECK;
void route_fini(struct route *r);

static inline uint32_t route_count(const struct route *r, uint32_t owner)
{
    return r->begin[owner + 1] - r->begin[owner];
}
/* Records without owner. */
static inline uint32_t route_strays(const struct route *r)
{
    return r->n_records - r->begin[r->n];
}

#endif
