/* SPDX-License-Identifier: Apache-2.0 */
#include "common/otlp/signal.h"

#include <errno.h>

#define SERVICE(package, name)                                                                     \
    "/opentelemetry.proto.collector." package ".v1." name "Service/Export"

const struct signal_info signal_info[SIGNAL_COUNT] = {
    [SIGNAL_TRACES] = {"traces", "spans", "/v1/traces", SERVICE("trace", "Trace"), "resourceSpans",
                       "scopeSpans", "spans"},
    [SIGNAL_METRICS] = {"metrics", "metric_points", "/v1/metrics", SERVICE("metrics", "Metrics"),
                        "resourceMetrics", "scopeMetrics", "metrics"},
    [SIGNAL_LOGS] = {"logs", "log_records", "/v1/logs", SERVICE("logs", "Logs"), "resourceLogs",
                     "scopeLogs", "logRecords"},
};

int signal_parse(struct str name, enum signal *out)
{
    for (int s = 0; s < SIGNAL_COUNT; s++) {
        if (str_is(name, signal_info[s].name)) {
            *out = (enum signal)s;
            return 0;
        }
    }
    return -ENOENT;
}
