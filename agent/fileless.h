/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration without a file: flags tell what to observe, the OTEL_ variables of the
 * OpenTelemetry SDK specification tell where telemetry goes.
 * https://opentelemetry.io/docs/specs/otel/protocol/exporter/
 */
#ifndef AGENT_FILELESS_H
#define AGENT_FILELESS_H

#include "common/pipeline/service.h"

extern const struct service_flag fileless_flags[];
/* YAML text, heap; NULL with e empty when neither a flag nor a variable says anything. */
char *fileless_config(struct err *e);

#endif
