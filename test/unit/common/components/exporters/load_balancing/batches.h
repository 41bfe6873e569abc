/* SPDX-License-Identifier: Apache-2.0 */
/* Small batches for tests of routing. */
#ifndef TEST_LOAD_BALANCING_BATCHES_H
#define TEST_LOAD_BALANCING_BATCHES_H

#include "common/otlp/encode.h"

static inline struct buf resource_envelope(const char *service)
{
    struct buf attrs, out;
    buf_init(&attrs);
    buf_init(&out);
    if (service)
        encode_attr_str(&attrs, RESOURCE_ATTRIBUTES, "service.name", str_of(service));
    encode_attr_str(&attrs, RESOURCE_ATTRIBUTES, "k", STR("v"));
    encode_resource_envelope(&out, buf_str(&attrs), STR(""));
    buf_fini(&attrs);
    return out;
}

static inline void begin_resource(struct batch_builder *bb, const char *service)
{
    struct buf r = resource_envelope(service), s;
    buf_init(&s);
    encode_scope_envelope(&s, STR("lib"), STR("1"), STR(""));
    batch_builder_resource(bb, buf_str(&r), true);
    batch_builder_scope(bb, buf_str(&s), true);
    buf_fini(&r);
    buf_fini(&s);
}

/* Trace id: n spread over 16 bytes. */
static inline void trace_id_of(uint64_t n, uint8_t id[16])
{
    uint64_t halves[2] = {(n + 1) * 0x9e3779b97f4a7c15ULL, ~n};
    memcpy(id, halves, 16);
}

static inline void add_span(struct batch_builder *bb, uint64_t trace, uint64_t span,
                            const char *service)
{
    struct span_draft d = {.name = STR("op"), .kind = 2, .start_ns = 1, .end_ns = 2};
    struct buf attrs;
    uint8_t out[512];
    buf_init(&attrs);
    trace_id_of(trace, d.trace_id);
    span++;
    memcpy(d.span_id, &span, 8);
    if (service)
        encode_attr_str(&attrs, SPAN_ATTRIBUTES, "service.name", str_of(service));
    d.attrs = buf_str(&attrs);
    assert_true(encode_span_most(&d) <= sizeof(out));
    batch_builder_record(bb, str_make(out, (size_t)(encode_span(out, &d) - out)), 1, NULL);
    buf_fini(&attrs);
}

/* n spans, `per_trace` of each trace, one resource. */
static inline struct batch *make_traces(uint64_t first_trace, uint32_t n, uint32_t per_trace)
{
    struct batch_builder bb;
    struct batch *b;
    batch_builder_init(&bb, SIGNAL_TRACES);
    begin_resource(&bb, "shop");
    for (uint32_t i = 0; i < n; i++)
        add_span(&bb, first_trace + i / per_trace, i, NULL);
    int rc = batch_builder_seal(&bb, &b);
    ASSERT(rc == 0);
    return b;
}

#endif
