/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of what is no component, for the reference page and the schema. */
#ifndef PIPELINE_CONFIG_TELEMETRY_H
#define PIPELINE_CONFIG_TELEMETRY_H

#include "common/pipeline/option.h"

extern const struct option telemetry_options[]; /* service.telemetry */

#endif
