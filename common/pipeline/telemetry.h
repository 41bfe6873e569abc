/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Self metrics. A metric is declared where it is counted, by a static description; a series is a
 * (metric, labels) pair that lives as long as the service. Names are the Collector's without
 * "otelcol_", which is added at exposition: dashboards and alerts keep working.
 */
#ifndef PIPELINE_TELEMETRY_H
#define PIPELINE_TELEMETRY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"

enum metric_kind { METRIC_KIND_COUNTER, METRIC_KIND_GAUGE, METRIC_KIND_HISTOGRAM };
enum metric_level { LEVEL_NONE, LEVEL_BASIC, LEVEL_NORMAL, LEVEL_DETAILED };

struct metric_desc {
    const char *name; /* "receiver_accepted_spans" */
    const char *help;
    const char *unit; /* UCUM: "{spans}", "By", "ms" */
    enum metric_kind kind;
    enum metric_level level;
    const double *bounds; /* histograms */
    uint32_t n_bounds;
};

struct series;

#define TELEMETRY_MAX_LABELS 6
struct label {
    const char *key, *value; /* copied */
};

/* The series of those labels: found or made. Never NULL. Thread-safe, not for hot paths: keep it.
 */
struct series *telemetry_series(const struct metric_desc *d, const struct label *labels,
                                unsigned n);
/* Hot paths: relaxed atomics, striped per thread for counters. */
void series_add(struct series *s, uint64_t n);
void series_set(struct series *s, int64_t v);
void series_observe(struct series *s, double v);
/* Sum over stripes (tests, ledger). */
uint64_t series_value(const struct series *s);

/* Gauges that are read when asked: fn is called at exposition, on loop 0. Removed by
 * telemetry_forget. */
typedef double telemetry_read_fn(void *arg);
void telemetry_gauge(const struct metric_desc *d, const struct label *labels, unsigned n,
                     telemetry_read_fn *fn, void *arg);
void telemetry_forget(void *arg);

/* service.instance.id of this run: a random UUID, the same until the process ends. */
const char *service_instance_id(void);
/* enum metric_level; what is above it is not exposed. */
void telemetry_set_level(int level);
/* Whether exposed names carry `_total` behind counters, and units. Default: neither. */
void telemetry_set_names(bool type_suffix, bool units);
/* The name of a metric as it is exposed: "otelcol_process_uptime", "..._seconds_total". */
void telemetry_name(const struct metric_desc *d, struct buf *out);
/* Prometheus text 0.0.4 of all series up to the configured level. */
void telemetry_expose(struct buf *out);

#endif
