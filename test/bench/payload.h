/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests for benchmarks: encoded once, replayed for ever with fresh trace ids.
 *
 * Shapes, by bytes of a span: S 131 (one attribute, one event), M 351 (seven attributes, resources
 * of 14), L 805 (a full set of HTTP attributes and an event). Traces have 10 spans, spread over
 * three neighbouring requests. 2 % of traces have an error, 3 % last over a second.
 */
#ifndef BENCH_PAYLOAD_H
#define BENCH_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

enum shape { SHAPE_S, SHAPE_M, SHAPE_L, SHAPE_COUNT };
extern const char *const shape_names[]; /* "S", "M", "L" */

#define PAYLOAD_TRACE_SPANS 10

struct payload_request {
    uint8_t *bytes;
    size_t len;
    uint32_t n_spans;
    uint32_t *trace_at; /* n_spans offsets of the 16 bytes of a trace id */
};

struct payload {
    enum shape shape;
    uint32_t n_requests, spans_per_request;
    struct payload_request *requests;
    size_t span_bytes; /* mean length of a span field */
};

/* n_requests is rounded up to whole traces. Deterministic for a seed. */
void payload_init(struct payload *p, enum shape shape, uint32_t n_requests,
                  uint32_t spans_per_request, uint64_t seed);
void payload_fini(struct payload *p);
/*
 * Copies request i into dst (its len bytes) with the trace ids of that pass: the same trace keeps
 * one id over its requests within a pass, and no id comes twice over passes.
 */
void payload_copy(const struct payload *p, uint32_t i, uint64_t pass, uint8_t *dst);

#endif
