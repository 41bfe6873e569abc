/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OTLP/JSON out of a batch, as protobuf's JSON mapping has it: lowerCamelCase, 64-bit integers as
 * strings, bytes in base64, what is absent or zero left out; with OTLP's two differences: trace and
 * span ids are lower-case hex, enums are numbers. Unknown fields are left out.
 * https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
 */
#ifndef OTLP_JSON_H
#define OTLP_JSON_H

#include "common/base/buf.h"
#include "common/otlp/batch.h"

/*
 * Appends one Export*ServiceRequest as a single line, without the newline. Not recursive. Errors
 * latch in out: -EBADMSG for a record that BATCH_VALIDATE would refuse (malformed, nested more than
 * 100 deep), -ENOMEM.
 */
void batch_to_json(const struct batch *b, struct buf *out);

#endif
