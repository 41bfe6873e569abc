/* SPDX-License-Identifier: Apache-2.0 */
/* The three signals. A signal is a parameter: whatever differs between them stands in one table. */
#ifndef OTLP_SIGNAL_H
#define OTLP_SIGNAL_H

#include "common/base/str.h"

enum signal { SIGNAL_TRACES, SIGNAL_METRICS, SIGNAL_LOGS, SIGNAL_COUNT };

#define SIGNAL_BIT(s) (1u << (s))
#define SIGNAL_ALL ((1u << SIGNAL_COUNT) - 1)

struct signal_info {
    const char *name;      /* "traces": the key in service.pipelines */
    const char *items;     /* "spans", "metric_points", "log_records": suffix of self metrics */
    const char *http_path; /* "/v1/traces" */
    const char *grpc_path; /* "/opentelemetry.proto.collector.trace.v1.TraceService/Export" */
    /* JSON names of the three levels, e.g. "resourceSpans", "scopeSpans", "spans". */
    const char *json_resource, *json_scope, *json_record;
};

extern const struct signal_info signal_info[SIGNAL_COUNT];

/* -ENOENT when there is no such signal. */
int signal_parse(struct str name, enum signal *out);

/* Field numbers that are the same for all three signals. */
enum {
    OTLP_REQUEST_RESOURCE = 1,  /* Export*ServiceRequest.resource_* */
    OTLP_RESOURCE_RESOURCE = 1, /* Resource*.resource */
    OTLP_RESOURCE_SCOPE = 2,    /* Resource*.scope_* */
    OTLP_RESOURCE_SCHEMA_URL = 3,
    OTLP_SCOPE_SCOPE = 1, /* Scope*.scope */
    OTLP_SCOPE_RECORD = 2,
    OTLP_SCOPE_SCHEMA_URL = 3,
};

#endif
