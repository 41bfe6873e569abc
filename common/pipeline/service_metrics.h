/* SPDX-License-Identifier: Apache-2.0 */
/* The service's own Prometheus endpoint: GET /metrics. */
#ifndef PIPELINE_SERVICE_METRICS_H
#define PIPELINE_SERVICE_METRICS_H

#include "common/pipeline/config.h"

struct service_metrics;

/* On loop 0. *out stays NULL when the configuration has no reader. */
int service_metrics_open(struct service_metrics **out, const struct config_telemetry *c,
                         const char *program, struct err *e) MUSTCHECK;
/* Closes the endpoint; closed is told by is_closed. */
void service_metrics_close(struct service_metrics **m);
/* Endpoints that are still closing. */
unsigned service_metrics_closing(void);

#endif
