/* SPDX-License-Identifier: Apache-2.0 */
/* service.telemetry: what the program logs, counts and shows of itself. */
#include <stdio.h>

#include "common/base/log.h"
#include "common/pipeline/config_load.h"
#include "common/pipeline/config_telemetry.h"
#include "common/pipeline/option_value.h"
#include "common/pipeline/telemetry.h"

struct prometheus_reader {
    bool on;
    const char *host;
    uint64_t port;
    bool without_type_suffix, without_units, without_scope_info;
};

struct reader {
    bool pull_on;
    struct prometheus_reader prometheus;
};

struct telemetry {
    int logs_level, logs_encoding, metrics_level, traces_level;
    struct option_list readers;
    const struct yaml_node *resource;
};

static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const encodings[] = {"console", "json", NULL};
static const char *const metric_levels[] = {"none", "basic", "normal", "detailed", NULL};
static const char *const trace_levels[] = {"none", NULL};

#define P(f) offsetof(struct prometheus_reader, f)
static const struct option prometheus_options[] = {
    {.key = "host",
     .type = OPT_STRING,
     .offset = P(host),
     .flags = OPT_REQUIRED,
     .help = "Address to listen on."},
    {.key = "port",
     .type = OPT_UINT,
     .offset = P(port),
     .flags = OPT_REQUIRED,
     .min = 0,
     .max = 65535,
     .help = "Port to listen on."},
    {.key = "without_type_suffix",
     .type = OPT_BOOL,
     .offset = P(without_type_suffix),
     .def = "true",
     .help = "Counters have no _total."},
    {.key = "without_units",
     .type = OPT_BOOL,
     .offset = P(without_units),
     .def = "true",
     .help = "Names have no unit."},
    {.key = "without_scope_info",
     .type = OPT_BOOL,
     .offset = P(without_scope_info),
     .def = "true",
     .help = "No otel_scope labels."},
    {.key = "with_resource_constant_labels", .type = OPT_TREE, .flags = OPT_UNSUPPORTED},
    OPTION_END,
};

#define R(f) offsetof(struct reader, f)
static const struct option exporter_options[] = {
    {.key = "prometheus",
     .type = OPT_STRUCT,
     .offset = R(prometheus),
     .sub = prometheus_options,
     .presence = OPT_OFF_DEFAULT,
     .on_offset = R(prometheus.on),
     .help = "Prometheus text at /metrics."},
    OPTION_END,
};

static const struct option pull_options[] = {
    {.key = "exporter",
     .type = OPT_STRUCT,
     .offset = 0,
     .sub = exporter_options,
     .help = "What serves the metrics."},
    OPTION_END,
};

static const struct option reader_options[] = {
    {.key = "pull",
     .type = OPT_STRUCT,
     .offset = 0,
     .sub = pull_options,
     .presence = OPT_OFF_NONE,
     .on_offset = R(pull_on),
     .help = "Metrics are fetched."},
    {.key = "periodic",
     .type = OPT_TREE,
     .flags = OPT_UNSUPPORTED,
     .help = "scrape the Prometheus reader"},
    OPTION_END,
};

#define T(f) offsetof(struct telemetry, f)
static const struct option logs_options[] = {
    {.key = "level",
     .type = OPT_ENUM,
     .offset = T(logs_level),
     .names = log_levels,
     .def = "info",
     .help = "Least level that is written."},
    {.key = "encoding",
     .type = OPT_ENUM,
     .offset = T(logs_encoding),
     .names = encodings,
     .def = "console",
     .help = "Text, or one JSON object a line."},
    {.key = "development", .type = OPT_TREE, .flags = OPT_NO_EFFECT},
    {.key = "disable_caller", .type = OPT_TREE, .flags = OPT_NO_EFFECT},
    {.key = "disable_stacktrace", .type = OPT_TREE, .flags = OPT_NO_EFFECT},
    {.key = "sampling",
     .type = OPT_TREE,
     .flags = OPT_UNSUPPORTED,
     .help = "lines are always thinned out: 10 a place in 10 s, then each 100th"},
    {.key = "output_paths",
     .type = OPT_TREE,
     .flags = OPT_UNSUPPORTED,
     .help = "the log goes to standard error"},
    {.key = "error_output_paths", .type = OPT_TREE, .flags = OPT_UNSUPPORTED},
    {.key = "initial_fields", .type = OPT_TREE, .flags = OPT_UNSUPPORTED},
    {.key = "disable_zap_resource", .type = OPT_TREE, .flags = OPT_UNSUPPORTED},
    {.key = "processors", .type = OPT_TREE, .flags = OPT_UNSUPPORTED},
    OPTION_END,
};

static const struct option metrics_options[] = {
    {.key = "level",
     .type = OPT_ENUM,
     .offset = T(metrics_level),
     .names = metric_levels,
     .def = "normal",
     .help = "How much is shown; none switches the reader off."},
    {.key = "readers",
     .type = OPT_LIST,
     .offset = T(readers),
     .sub = reader_options,
     .elem_size = sizeof(struct reader),
     .help = "At most one. Default: Prometheus at localhost:8888."},
    {.key = "address",
     .type = OPT_TREE,
     .flags = OPT_NO_EFFECT,
     .help = "As in the Collector since 0.123: write readers."},
    {.key = "views", .type = OPT_TREE, .flags = OPT_UNSUPPORTED},
    OPTION_END,
};

static const struct option traces_options[] = {
    {.key = "level",
     .type = OPT_ENUM,
     .offset = T(traces_level),
     .names = trace_levels,
     .def = "none",
     .help = "No spans are made of the program's own work."},
    {.key = "processors", .type = OPT_TREE, .flags = OPT_UNSUPPORTED},
    {.key = "propagators", .type = OPT_TREE, .flags = OPT_UNSUPPORTED},
    {.key = "sampler", .type = OPT_TREE, .flags = OPT_UNSUPPORTED},
    OPTION_END,
};

const struct option telemetry_options[] = {
    {.key = "logs", .type = OPT_STRUCT, .sub = logs_options, .help = "The log."},
    {.key = "metrics", .type = OPT_STRUCT, .sub = metrics_options, .help = "Metrics of itself."},
    {.key = "traces", .type = OPT_STRUCT, .sub = traces_options, .help = "Spans of itself."},
    {.key = "resource",
     .type = OPT_TREE,
     .offset = T(resource),
     .help = "Attributes of target_info; null removes a default one."},
    OPTION_END,
};

/* Attributes by name; a value of NULL takes a default attribute away. */
static void read_resource(struct loader *l, const struct yaml_node *n)
{
    struct option_list *out = &l->config->telemetry.resource;
    size_t mark = option_enter(&l->opt, "resource");

    if (n && n->kind == YAML_MAPPING && n->n) {
        struct option_pair *pairs = option_alloc(&l->opt, n->n * sizeof(*pairs));
        for (size_t i = 0; pairs && i < n->n; i++) {
            const struct yaml_node *v = n->pairs[i].value;
            pairs[i].key = n->pairs[i].key->text;
            if (v->kind == YAML_SCALAR || v->orig)
                pairs[i].value = v->orig ? v->orig : v->text;
            else if (v->kind != YAML_NULL)
                option_error(&l->opt, v, "the value of '%s' must be a text or null", pairs[i].key);
            out->n = i + 1;
        }
        out->items = pairs;
    } else if (n && n->kind != YAML_MAPPING && n->kind != YAML_NULL) {
        option_error(&l->opt, n, "expected a mapping of attributes");
    }
    option_leave(&l->opt, mark);
}

static void read_readers(struct loader *l, const struct telemetry *t, const struct yaml_node *node)
{
    struct config_telemetry *out = &l->config->telemetry;
    const struct yaml_node *given = yaml_get(yaml_get(node, "metrics"), "readers");
    const struct reader *r = t->readers.items;

    if (t->metrics_level == LEVEL_NONE) {
        out->metrics_on = false;
        return;
    }
    if (!given || given->kind == YAML_NULL)
        return; /* the built-in reader */
    size_t mark = option_enter(&l->opt, "metrics::readers");
    if (given->kind == YAML_LIST && t->readers.n == 0)
        option_error(&l->opt, given, "no reader although metrics::level is not none");
    else if (t->readers.n > 1)
        option_error(&l->opt, given->items[1], "only one reader is supported");
    else if (t->readers.n == 1 && !r->prometheus.on)
        option_error(&l->opt, given->items[0],
                     "expected pull: {exporter: {prometheus: {host: ..., port: ...}}}");
    else if (t->readers.n == 1 && !r->prometheus.without_scope_info)
        option_error(&l->opt, given->items[0], "without_scope_info: only true is supported");
    option_leave(&l->opt, mark);
    if (t->readers.n != 1)
        return;
    out->metrics_host = r->prometheus.host;
    out->metrics_port = r->prometheus.port;
    out->without_type_suffix = r->prometheus.without_type_suffix;
    out->without_units = r->prometheus.without_units;
    out->without_scope_info = r->prometheus.without_scope_info;
}

void loader_telemetry(struct loader *l, const struct yaml_node *node)
{
    struct config_telemetry *out = &l->config->telemetry;
    struct telemetry t = {0};

    size_t mark = option_enter(&l->opt, "telemetry");
    option_fill(&l->opt, &t, telemetry_options, node, false);
    *out = (struct config_telemetry){
        .logs_level = t.logs_level,
        .logs_json = t.logs_encoding == 1,
        .metrics_level = t.metrics_level,
        .metrics_host = "localhost",
        .metrics_port = 8888,
        .metrics_on = true,
        .without_type_suffix = true,
        .without_units = true,
        .without_scope_info = true,
    };
    read_readers(l, &t, node);
    read_resource(l, t.resource);
    option_leave(&l->opt, mark);
}
