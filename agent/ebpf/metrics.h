/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metrics of the agent: series found by (metric, resource, attributes), cumulative, written as one
 * batch at each flush. Request durations are observed here; what the kernel counted (connect
 * latency, RTT, run queue) is set as a whole from its tables.
 */
#ifndef AGENT_METRICS_H
#define AGENT_METRICS_H

#include "agent/ebpf/requests.h"
#include "common/base/hashmap.h"
#include "common/base/histogram.h"
#include "common/otlp/batch.h"
#include "common/otlp/encode.h"

enum agent_metric {
    METRIC_HTTP_SERVER,
    METRIC_HTTP_CLIENT,
    METRIC_TCP_CONNECT,
    METRIC_TCP_FAILURES,
    METRIC_TCP_RETRANSMITS,
    METRIC_TCP_RTT,
    METRIC_RUNQUEUE,
    AGENT_METRIC_COUNT,
};

struct metric_series {
    enum agent_metric metric;
    struct str resource, attrs; /* owned: behind the struct */
    uint64_t resource_hash, start_ns;
    struct histogram explicit_h;
    struct exp_histogram exp;
    uint64_t sum;
    bool is_ended; /* goes after it was told once more */
};

struct metrics {
    struct hashmap by_key;
    struct metric_series **list; /* all, in the order of their making */
    size_t n, cap, max;
    uint64_t overflowed; /* observations that went to an overflow series */
    uint64_t start_ns;   /* wall */
    bool changed;        /* since the last flush */
    struct buf scope, attrs;
    /* Servers' requests mostly repeat: the series of the last one, and by what it is known again.
     */
    struct {
        struct metric_series *series;
        unsigned status;
        const char *scheme, *version; /* constants */
        char method[16];
    } last;
};

void metrics_init(struct metrics *m, size_t max_series, const char *version, uint64_t wall_ns);
void metrics_fini(struct metrics *m);
/* The series, made when new; past max_series the overflow series of that metric and resource. */
struct metric_series *metrics_series(struct metrics *m, enum agent_metric id, struct str resource,
                                     struct str attrs);
/* The same whatever max_series says: of what is set as a whole, which an overflow series cannot be
 * twice; the kernel's tables bound it. */
struct metric_series *metrics_counted(struct metrics *m, enum agent_metric id, struct str resource,
                                      struct str attrs);
/* Duration of a request; incomplete ones are not counted, their times are not known. */
void metrics_request(struct metrics *m, const struct request *r, struct str resource);
/* What the resource names is gone: its series end after the next batch. */
void metrics_end(struct metrics *m, struct str resource);
/* All series as one batch; NULL when nothing changed since the last flush or memory is out. */
struct batch *metrics_take(struct metrics *m, uint64_t wall_ns);

/* Field number of attributes in points of that metric. */
uint32_t metrics_attr_field(enum agent_metric id);

#endif
