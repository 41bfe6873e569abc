/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Series of span metrics. Each loop counts into its own part; at a flush the owner takes what the
 * parts have gathered since the last one into the one master set, from which points are written:
 * one writer per series, whatever the number of loops.
 *
 *   span ─► part_observe (own lock, hardly ever contended) ─► master_take(part) ─► master_write
 */
#ifndef SPAN_METRICS_SERIES_H
#define SPAN_METRICS_SERIES_H

#include <pthread.h>

#include "common/base/hashmap.h"
#include "common/base/histogram.h"
#include "common/base/list.h"
#include "common/otlp/batch.h"
#include "common/otlp/encode.h"

/* What identifies a series and how it is written; made at first sight, shared by nobody. */
struct series_id {
    uint64_t resource; /* order-independent hash of the resource's attributes */
    uint64_t hash;     /* of key */
    struct str key;    /* heap: kind, status, name, dimensions */
    struct str attrs;  /* heap: KeyValue fields with number 1; renumbered when written */
};

struct part_series {
    struct series_id id;
    struct str envelope;      /* heap: of the resource that it was first seen with */
    uint64_t calls, first_ns; /* Unix time of its first span */
    struct histogram duration;
    struct part_series *next_idle; /* while idle ones are dropped */
};

struct part {
    pthread_mutex_t lock;
    struct hashmap series; /* struct part_series by id.hash */
    uint64_t seed;         /* for rounding adjusted counts */
};

void part_init(struct part *p);
void part_fini(struct part *p);
/* The series of that key, or NULL. With the lock held. */
struct part_series *part_find(struct part *p, uint64_t hash, struct str key);
/* A new one; takes copies of all texts. NULL when memory is refused. */
struct part_series *part_add(struct part *p, uint64_t hash, uint64_t resource, struct str key,
                             struct str attrs, struct str envelope, const double *bounds,
                             uint32_t n_bounds);

struct master_series {
    struct series_id id;
    struct resource_series *resource;
    uint64_t calls, start_ns, last_seen_ns;
    struct histogram duration;
    bool is_shown; /* the starting zero of calls was written */
    struct master_series *next;
};

struct resource_series {
    uint64_t hash, last_seen_ns;
    struct str envelope; /* heap */
    struct master_series *series;
    uint64_t n_series;
    struct resource_series *next;
};

struct master_config {
    struct str calls_name, duration_name, duration_unit;
    bool is_delta, has_histogram;
    uint64_t resource_expiration_ns, series_expiration_ns, max_resources, max_series;
    uint64_t max_times; /* deltas: series whose last time is remembered */
    const double *bounds;
    uint32_t n_bounds;
};

/* Deltas: when a series was last written, which is where its next point begins. */
struct last_time {
    uint64_t hash, at_ns;
    struct str key; /* heap */
    struct list in_order;
};

struct master {
    struct hashmap series;    /* struct master_series */
    struct hashmap resources; /* struct resource_series */
    struct resource_series *all;
    uint64_t n_resources;
    struct hashmap times;    /* struct last_time by the series' hash */
    struct list times_order; /* the one written longest ago first */
};

void master_init(struct master *m);
void master_fini(struct master *m);
/* Takes over all that the part has counted; the part goes on at zero, and forgets series that
 * counted nothing. */
void master_take(struct master *m, struct part *p, const struct master_config *c, uint64_t now_ns);
/* Writes all series as a batch of metrics (*out NULL when there is none); then lets expired ones
 * go. */
int master_write(struct master *m, const struct master_config *c, uint64_t now_ns,
                 struct batch **out) MUSTCHECK;

#endif
