/* SPDX-License-Identifier: Apache-2.0 */
/* A small registry for tests of configuration: shapes like the real components', no function. */
#ifndef TEST_SAMPLE_COMPONENTS_H
#define TEST_SAMPLE_COMPONENTS_H

#include <errno.h>

#include "common/pipeline/component.h"

#define TRACES SIGNAL_BIT(SIGNAL_TRACES)
#define METRICS SIGNAL_BIT(SIGNAL_METRICS)

struct sample_receiver {
    bool grpc_on;
    const char *endpoint;
};

static const struct option sample_grpc_options[] = {
    {.key = "endpoint",
     .type = OPT_ENDPOINT,
     .offset = offsetof(struct sample_receiver, endpoint),
     .def = "localhost:4317",
     .help = "Where to listen."},
    OPTION_END,
};

static const struct option sample_protocols_options[] = {
    {.key = "grpc",
     .type = OPT_STRUCT,
     .sub = sample_grpc_options,
     .presence = OPT_OFF_DEFAULT,
     .on_offset = offsetof(struct sample_receiver, grpc_on)},
    OPTION_END,
};

static const struct option sample_receiver_options[] = {
    {.key = "protocols", .type = OPT_STRUCT, .sub = sample_protocols_options},
    OPTION_END,
};

static int sample_receiver_validate(const void *config, struct err *e)
{
    const struct sample_receiver *r = config;
    return r->grpc_on ? 0 : err_set(e, -EINVAL, "no protocol is switched on");
}

struct sample_batch {
    uint64_t size, timeout;
};

static const struct option sample_batch_options[] = {
    {.key = "send_batch_size",
     .type = OPT_UINT,
     .offset = offsetof(struct sample_batch, size),
     .def = "8192",
     .help = "Items that send a batch at once."},
    {.key = "timeout",
     .type = OPT_DURATION,
     .offset = offsetof(struct sample_batch, timeout),
     .def = "200ms",
     .help = "Longest time to wait."},
    OPTION_END,
};

struct sample_exporter {
    const char *endpoint, *token;
};

static const struct option sample_exporter_options[] = {
    {.key = "endpoint",
     .type = OPT_ENDPOINT,
     .offset = offsetof(struct sample_exporter, endpoint),
     .flags = OPT_REQUIRED,
     .help = "The other side."},
    {.key = "token", .type = OPT_SECRET, .offset = offsetof(struct sample_exporter, token)},
    OPTION_END,
};

static const struct component sample_otlp = {
    .kind = KIND_RECEIVER,
    .name = "otlp",
    .signals = SIGNAL_ALL,
    .stability = STABILITY_STABLE,
    .options = sample_receiver_options,
    .config_size = sizeof(struct sample_receiver),
    .validate = sample_receiver_validate,
};
static const struct component sample_span_source = {
    .kind = KIND_RECEIVER, .name = "span_source", .signals = TRACES};
static const struct component sample_batch = {
    .kind = KIND_PROCESSOR,
    .name = "batch",
    .signals = SIGNAL_ALL,
    .stability = STABILITY_BETA,
    .options = sample_batch_options,
    .config_size = sizeof(struct sample_batch),
};
static const struct component sample_otlp_grpc = {
    .kind = KIND_EXPORTER,
    .name = "otlp_grpc",
    .aliases = (const char *const[]){"otlp", NULL},
    .help = "Sends OTLP over gRPC.",
    .signals = SIGNAL_ALL,
    .stability = STABILITY_STABLE,
    .options = sample_exporter_options,
    .config_size = sizeof(struct sample_exporter),
};
static const struct component sample_debug = {
    .kind = KIND_EXPORTER, .name = "debug", .signals = SIGNAL_ALL};
static const struct component sample_span_metrics = {
    .kind = KIND_CONNECTOR,
    .name = "span_metrics",
    .aliases = (const char *const[]){"spanmetrics", NULL},
    .signals = TRACES,
    .makes = METRICS,
};
static const struct component sample_forward = {
    .kind = KIND_CONNECTOR, .name = "forward", .signals = SIGNAL_ALL};
static const struct component sample_health = {.kind = KIND_EXTENSION, .name = "health_check"};

static const struct component *const sample_components[] = {
    &sample_otlp,      &sample_span_source, &sample_batch,
    &sample_otlp_grpc, &sample_debug,       &sample_span_metrics,
    &sample_forward,   &sample_health,      NULL,
};

#endif
