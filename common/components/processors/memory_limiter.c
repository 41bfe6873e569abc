/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory_limiter: sets the marks that the receivers above it ask before they take a message in.
 * Nothing is refused here: what has been read is let through, what cannot be read waits in the
 * sender, and is answered UNAVAILABLE when that takes too long.
 */
#include <errno.h>

#include "common/pipeline/memory.h"
#include "common/pipeline/telemetry.h"

struct memory_limiter_config {
    uint64_t check_interval_ns, limit_mib, spike_limit_mib, limit_percentage,
        spike_limit_percentage;
};

#define AT(field) offsetof(struct memory_limiter_config, field)
#define GC_KEY(k)                                                                                  \
    {                                                                                              \
        .key = k, .type = OPT_TREE, .flags = OPT_NO_EFFECT,                                        \
        .help = "There is no garbage collector."                                                   \
    }
static const struct option memory_limiter_options[] = {
    {.key = "check_interval",
     .type = OPT_DURATION,
     .offset = AT(check_interval_ns),
     .def = "0s",
     .help = "Must be above zero, as in the Collector; here every message is checked."},
    {.key = "limit_mib",
     .type = OPT_UINT,
     .offset = AT(limit_mib),
     .def = "0",
     .help = "Hard limit in MiB."},
    {.key = "spike_limit_mib",
     .type = OPT_UINT,
     .offset = AT(spike_limit_mib),
     .def = "0",
     .help = "Soft limit = limit - spike; 0 = 20 % of the limit."},
    {.key = "limit_percentage",
     .type = OPT_UINT,
     .offset = AT(limit_percentage),
     .def = "0",
     .min = 0,
     .max = 100,
     .help = "Hard limit in percent of the memory granted."},
    {.key = "spike_limit_percentage",
     .type = OPT_UINT,
     .offset = AT(spike_limit_percentage),
     .def = "0",
     .min = 0,
     .max = 100,
     .help = "Spike in percent of the memory granted."},
    GC_KEY("min_gc_interval_when_soft_limited"),
    GC_KEY("min_gc_interval_when_hard_limited"),
    GC_KEY("max_gc_interval_when_soft_limited"),
    GC_KEY("max_gc_interval_when_hard_limited"),
    OPTION_END,
};

static int memory_limiter_validate(const void *config, struct err *e)
{
    const struct memory_limiter_config *c = config;
    if (c->check_interval_ns == 0)
        return err_set(e, -EINVAL, "check_interval must be greater than zero");
    if (c->limit_mib == 0 && c->limit_percentage == 0)
        return err_set(e, -EINVAL, "limit_mib or limit_percentage must be greater than zero");
    if ((c->limit_mib && c->spike_limit_mib >= c->limit_mib) ||
        (!c->limit_mib && c->spike_limit_percentage >= c->limit_percentage))
        return err_set(e, -EINVAL, "the spike limit must be smaller than the limit");
    return 0;
}

static int memory_limiter_create(struct instance *in, struct err *e)
{
    const struct memory_limiter_config *c = in->config;
    struct memory_marks m;
    uint64_t total = memory_total(), spike;
    (void)e;
    m.hard = c->limit_mib ? c->limit_mib << 20 : total / 100 * c->limit_percentage;
    spike = c->limit_mib ? c->spike_limit_mib << 20 : total / 100 * c->spike_limit_percentage;
    m.soft = m.hard - (spike ? spike : m.hard / 5);
    memory_marks_set(in, m);
    log_info(&in->log, "memory limit %llu MiB, spike limit %llu MiB",
             (unsigned long long)m.hard >> 20, (unsigned long long)(m.hard - m.soft) >> 20);
    return 0;
}

/* What was refused for want of memory never became items: the receivers count it as requests. */
static const struct metric_desc *accepted_desc(enum signal s)
{
#define DESC(items, unit)                                                                          \
    {                                                                                              \
        "processor_memory_limiter_accepted_" items,                                                \
            "Number of items successfully pushed into the next component.", unit,                  \
            METRIC_KIND_COUNTER, LEVEL_BASIC, NULL, 0                                              \
    }
    static const struct metric_desc descs[SIGNAL_COUNT] = {
        [SIGNAL_TRACES] = DESC("spans", "{spans}"),
        [SIGNAL_METRICS] = DESC("metric_points", "{datapoints}"),
        [SIGNAL_LOGS] = DESC("log_records", "{records}")};
#undef DESC
    return &descs[s];
}

static int memory_limiter_start(struct instance *in, struct err *e)
{
    struct label by_id = {"processor", in->id};
    (void)e;
    in->self = telemetry_series(accepted_desc(in->signal), &by_id, 1);
    return 0;
}

static void memory_limiter_consume(struct instance *in, struct batch *b, struct ack *a)
{
    series_add(in->self, b->items);
    node_emit(in, b, a);
}

const struct component memory_limiter_component = {
    .kind = KIND_PROCESSOR,
    .name = "memory_limiter",
    .help = "Bounds the memory of what is being processed.",
    .signals = SIGNAL_ALL,
    .stability = STABILITY_BETA,
    .affinity = AFFINITY_NONE,
    .options = memory_limiter_options,
    .config_size = sizeof(struct memory_limiter_config),
    .validate = memory_limiter_validate,
    .create = memory_limiter_create,
    .start = memory_limiter_start,
    .consume = memory_limiter_consume,
};
