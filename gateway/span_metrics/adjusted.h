/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many spans a sampled span stands for: its W3C tracestate says by which threshold it was kept
 * (member ot, field th, OpenTelemetry's probability sampling).
 */
#ifndef SPAN_METRICS_ADJUSTED_H
#define SPAN_METRICS_ADJUSTED_H

#include "common/base/str.h"

/* 2^56 / (2^56 - threshold), or 1 where there is no readable threshold. */
double adjusted_count(struct str trace_state);
/* A whole number whose mean over many calls is `count`. *seed must not be 0. */
uint64_t adjusted_round(double count, uint64_t *seed);

#endif
