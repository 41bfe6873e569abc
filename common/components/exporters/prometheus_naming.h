/* SPDX-License-Identifier: Apache-2.0 */
/* From OTLP's names and units to Prometheus' names, as the Collector's exporters have it. */
#ifndef COMPONENTS_PROMETHEUS_NAMING_H
#define COMPONENTS_PROMETHEUS_NAMING_H

#include <stdbool.h>

#include "common/base/buf.h"

struct prometheus_name {
    struct str name, unit, namespace;
    bool is_monotonic_sum, is_gauge, with_suffixes;
};

/* Appends the metric's name: tokens joined by _, unit and _total or _ratio where they belong. */
void prometheus_metric_name(struct buf *out, const struct prometheus_name *n);
/* Appends a label's name. */
void prometheus_label_name(struct buf *out, struct str key);
/* Appends a label's value, escaped, without the quotes. */
void prometheus_label_value(struct buf *out, struct str value);

#endif
