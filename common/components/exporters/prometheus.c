/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prometheus: shows the latest value of every series at an HTTP endpoint, for a server to scrape.
 *
 *   consume (any loop) ─► store, under its lock ◄─ GET /metrics (any loop)
 */
#include <pthread.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/components/exporters/prometheus_store.h"
#include "common/io/http_server.h"
#include "common/pipeline/node.h"

struct prometheus_config {
    const char *endpoint, *path;
    struct prometheus_options o;
    struct {
        bool enabled, exclude_service;
    } resource_to_telemetry;
};

#define AT(field) offsetof(struct prometheus_config, field)
static const struct option resource_options[] = {
    {.key = "enabled",
     .type = OPT_BOOL,
     .offset = 0,
     .def = "false",
     .help = "Resource attributes become labels of every series."},
    {.key = "exclude_service_attributes",
     .type = OPT_BOOL,
     .offset = AT(resource_to_telemetry.exclude_service) - AT(resource_to_telemetry),
     .def = "false",
     .help = "But not service.name, service.namespace and service.instance.id."},
    OPTION_END,
};

static const struct option prometheus_options[] = {
    {.key = "endpoint",
     .type = OPT_ENDPOINT,
     .offset = AT(endpoint),
     .flags = OPT_REQUIRED,
     .help = "Address to listen on."},
    {.key = "path",
     .type = OPT_STRING,
     .offset = AT(path),
     .def = "/metrics",
     .help = "Path that is scraped."},
    {.key = "namespace",
     .type = OPT_STRING,
     .offset = AT(o.namespace),
     .help = "In front of every metric's name."},
    {.key = "const_labels",
     .type = OPT_MAP,
     .offset = AT(o.const_labels),
     .help = "Labels of every series."},
    {.key = "send_timestamps",
     .type = OPT_BOOL,
     .offset = AT(o.send_timestamps),
     .def = "false",
     .help = "Show the time of each value."},
    {.key = "metric_expiration",
     .type = OPT_DURATION,
     .offset = AT(o.expiration_ns),
     .def = "5m",
     .help = "A series without update for so long disappears."},
    {.key = "add_metric_suffixes",
     .type = OPT_BOOL,
     .offset = AT(o.with_suffixes),
     .def = "true",
     .help = "Units and _total, _ratio at the end of names."},
    {.key = "without_scope_info",
     .type = OPT_BOOL,
     .offset = AT(o.without_scope),
     .def = "false",
     .help = "No otel_scope_ labels."},
    {.key = "resource_to_telemetry_conversion",
     .type = OPT_STRUCT,
     .offset = AT(resource_to_telemetry),
     .sub = resource_options,
     .help = "Whether resource attributes become labels."},
    OPTION_UNSUPPORTED("enable_open_metrics"),
    OPTION_UNSUPPORTED("translation_strategy"),
    OPTION_UNSUPPORTED("resource_constant_labels"),
    OPTION_UNSUPPORTED("tls"),
    OPTION_UNSUPPORTED("auth"),
    OPTION_UNSUPPORTED("cors"),
    OPTION_END,
};

#define PROMETHEUS_MAGIC 0x50524f4du

struct prometheus {
    unsigned magic, refs;
    struct instance *_Atomic in;
    pthread_mutex_t lock;
    struct prometheus_store store;
    struct http_server *server;
    struct http_handler handler;
};

static struct prometheus_options options_of(const struct instance *in)
{
    const struct prometheus_config *c = in->config;
    struct prometheus_options o = c->o;
    o.resource_to_labels = c->resource_to_telemetry.enabled;
    o.without_service_labels = c->resource_to_telemetry.exclude_service;
    return o;
}

static int on_head(void *arg, struct http_request *r, uint64_t *max_body)
{
    struct prometheus *self = arg;
    const struct prometheus_config *c = self->in->config;
    *max_body = 4096;
    if (!str_is(r->path, c->path))
        return 404;
    return str_is(r->method, "GET") || str_is(r->method, "HEAD") ? 0 : 405;
}

static void on_message(void *arg, struct http_request *r)
{
    struct prometheus *self = CAST_OBJ(struct prometheus, arg, PROMETHEUS_MAGIC);
    struct prometheus_options o = options_of(self->in);
    struct http_header type = {"content-type", STR("text/plain; version=0.0.4; charset=utf-8")};
    struct buf out;
    buf_init(&out);
    pthread_mutex_lock(&self->lock);
    prometheus_store_expose(&self->store, &o, clock_mono_ns(), &out);
    pthread_mutex_unlock(&self->lock);
    struct http_response resp = {.status = buf_error(&out) ? 500 : 200,
                                 .headers = &type,
                                 .n_headers = 1,
                                 .body = buf_str(&out)};
    http_respond(r, &resp);
    buf_fini(&out);
}

static void on_refuse(void *arg, struct http_request *r, enum http_refusal why)
{
    struct http_response resp = {.status = why == HTTP_OVERLOADED ? 503 : 400};
    (void)arg;
    http_respond(r, &resp);
}

static int prometheus_create(struct instance *in, struct err *e)
{
    struct prometheus *self = xcalloc(1, sizeof(*self));
    (void)e;
    SET_MAGIC(self, PROMETHEUS_MAGIC);
    self->refs = 1;
    self->in = in;
    pthread_mutex_init(&self->lock, NULL);
    prometheus_store_init(&self->store);
    self->handler = (struct http_handler){
        .arg = self, .head = on_head, .message = on_message, .refuse = on_refuse};
    in->self = self;
    return 0;
}

static void prometheus_free(struct instance *in)
{
    struct prometheus *self = CAST_OBJ(struct prometheus, in->self, PROMETHEUS_MAGIC);
    in->self = NULL;
    if (--self->refs > 0)
        return;
    prometheus_store_fini(&self->store);
    pthread_mutex_destroy(&self->lock);
    CLEAR_MAGIC(self);
    free(self);
}

static bool prometheus_adopt(struct instance *in, struct instance *old)
{
    const struct prometheus_config *a = in->config, *b = old->config;
    struct prometheus *running = CAST_OBJ(struct prometheus, old->self, PROMETHEUS_MAGIC);
    if (in->self == running || strcmp(a->endpoint, b->endpoint) != 0)
        return false;
    prometheus_free(in);
    running->refs++;
    in->self = running;
    return true;
}

static int prometheus_start(struct instance *in, struct err *e)
{
    struct prometheus *self = in->self;
    const struct prometheus_config *c = in->config;
    struct http_server_config sc = {.endpoint = c->endpoint};
    self->in = in;
    return self->server ? 0 : http_server_open(&self->server, &sc, &self->handler, e);
}

static void tell_lost(struct instance *in, uint64_t n, const char *reason, const char *why)
{
    if (n == 0)
        return;
    ledger_dropped(in, SIGNAL_METRICS, n, reason);
    log_warn(&in->log, "%llu points %s and were dropped", (unsigned long long)n, why);
}

static void prometheus_consume(struct instance *in, struct batch *b, struct ack *a)
{
    struct prometheus *self = CAST_OBJ(struct prometheus, in->self, PROMETHEUS_MAGIC);
    struct prometheus_options o = options_of(in);
    struct prometheus_losses lost = {0};
    pthread_mutex_lock(&self->lock);
    prometheus_store_add(&self->store, &o, b, clock_mono_ns(), &lost);
    pthread_mutex_unlock(&self->lock);
    uint64_t all = lost.unsupported + lost.conflicts + lost.duplicates + lost.malformed;
    ledger_sent(in, b->signal, b->items - all);
    tell_lost(in, lost.unsupported, "no_text_form", "have no text form");
    tell_lost(in, lost.conflicts, "type_conflict",
              "are of another type than the metric of that name");
    tell_lost(in, lost.duplicates, "duplicate_label", "have two attributes that give one label");
    tell_lost(in, lost.malformed, "malformed", "have buckets that do not fit their bounds");
    batch_unref(&b);
    ack_ok(a);
}

static void on_closed(void *arg)
{
    struct prometheus *self = CAST_OBJ(struct prometheus, arg, PROMETHEUS_MAGIC);
    instance_stopped(self->in);
}

static void prometheus_stop(struct instance *in)
{
    struct prometheus *self = in->self;
    if (self->server)
        http_server_close(&self->server, on_closed, self);
    else
        instance_stopped(in);
}

const struct component prometheus_component = {
    .kind = KIND_EXPORTER,
    .name = "prometheus",
    .help = "Shows metrics to a Prometheus server.",
    .signals = SIGNAL_BIT(SIGNAL_METRICS),
    .stability = STABILITY_BETA,
    .affinity = AFFINITY_SERIES,
    .options = prometheus_options,
    .config_size = sizeof(struct prometheus_config),
    .create = prometheus_create,
    .adopt = prometheus_adopt,
    .start = prometheus_start,
    .consume = prometheus_consume,
    .stop = prometheus_stop,
    .free = prometheus_free,
};
