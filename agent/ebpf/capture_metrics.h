/* SPDX-License-Identifier: Apache-2.0 */
/* The capture ledger and what else the receiver counts of itself, as self metrics. */
#ifndef AGENT_CAPTURE_METRICS_H
#define AGENT_CAPTURE_METRICS_H

#include "agent/ebpf/capture.h"

struct capture_metrics;
struct capture_metrics *capture_metrics_new(const char *receiver_id);
void capture_metrics_free(struct capture_metrics **m);
/* Brings the series up to date; call it each second. */
void capture_metrics_update(struct capture_metrics *m, const struct capture *c);

#endif
