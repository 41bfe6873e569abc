/* SPDX-License-Identifier: Apache-2.0 */
/* W3C Trace Context (https://www.w3.org/TR/trace-context/): the traceparent field, and new ids. */
#ifndef AGENT_TRACEPARENT_H
#define AGENT_TRACEPARENT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/str.h"

struct trace_context {
    uint8_t trace_id[16], span_id[8];
    uint8_t flags;
};

/* Strict: false for anything the specification calls invalid; then the field counts as absent. */
bool traceparent_parse(struct str s, struct trace_context *out);
/* n random bytes (a multiple of 8), not all zero. From a generator seeded by the kernel; not for
 * secrets. */
void random_id(uint8_t *out, size_t n);

#endif
