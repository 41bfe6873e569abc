/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OTLP/JSON out of views: lowerCamelCase, hex ids, 64-bit integers as strings, enums as numbers,
 * defaults left out, spans always with status.
 * https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
 */
#ifndef OTLP_JSON_H
#define OTLP_JSON_H

#include "common/otlp/batch.h"

/* Appends one Export*ServiceRequest as a single line, without the newline. Errors latch in out. */
void batch_to_json(const struct batch *b, struct buf *out);

#endif
