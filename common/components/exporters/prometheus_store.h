/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The series that a Prometheus endpoint shows: the latest value of each, by (name, labels). One
 * writer at a time; the caller locks.
 */
#ifndef COMPONENTS_PROMETHEUS_STORE_H
#define COMPONENTS_PROMETHEUS_STORE_H

#include "common/base/buf.h"
#include "common/base/hashmap.h"
#include "common/otlp/batch.h"
#include "common/pipeline/option.h"

struct prometheus_options {
    const char *namespace;
    struct option_list const_labels; /* struct option_pair */
    bool send_timestamps, with_suffixes, without_scope;
    bool resource_to_labels, without_service_labels;
    uint64_t expiration_ns;
};

enum prometheus_type { PROM_COUNTER, PROM_GAUGE, PROM_HISTOGRAM, PROM_SUMMARY };

struct prometheus_family {
    struct str name, help; /* heap */
    enum prometheus_type type;
    uint32_t n_series; /* a family without series goes at the next exposition */
    struct prometheus_family *next;
};

struct prometheus_series {
    struct prometheus_family *family;
    struct str key;             /* heap: name, 0, labels as exposed without braces */
    struct str labels;          /* into key; of target_info on the heap */
    bool has_own_labels;        /* target_info: the key is job and instance only */
    bool has_value, is_stale;   /* stale: told to have no value any more */
    uint64_t start_ns, time_ns; /* Unix, of the point */
    uint64_t updated_ns;        /* monotonic */
    double value, sum;
    uint64_t count;
    uint32_t n_bounds; /* histograms; summaries: quantiles */
    double *bounds, *quantiles;
    uint64_t *buckets; /* n_bounds + 1 */
    struct prometheus_series *next;
};

struct prometheus_store {
    struct hashmap series;
    struct prometheus_series *all;
    struct prometheus_family *families;
};

void prometheus_store_init(struct prometheus_store *s);
void prometheus_store_fini(struct prometheus_store *s);
/* Points that are not shown, by reason. */
struct prometheus_losses {
    uint64_t unsupported; /* exponential histograms, non-monotonic deltas, no temporality */
    uint64_t conflicts;   /* another type than the metric of that name */
    uint64_t duplicates;  /* two attributes that give the same label */
    uint64_t malformed;   /* buckets that do not fit their bounds */
};
/* Takes a batch of metrics; adds to *lost. */
void prometheus_store_add(struct prometheus_store *s, const struct prometheus_options *o,
                          const struct batch *b, uint64_t now_ns, struct prometheus_losses *lost);
/* Forgets what is older than the expiration, and what was told to have no value. */
void prometheus_store_expire(struct prometheus_store *s, const struct prometheus_options *o,
                             uint64_t now_ns);
/* Text 0.0.4 of what is not older than the expiration; the rest is forgotten. */
void prometheus_store_expose(struct prometheus_store *s, const struct prometheus_options *o,
                             uint64_t now_ns, struct buf *out);

#endif
