/* SPDX-License-Identifier: Apache-2.0 */
/*
 * span_metrics: calls and durations of spans, by service, span name, kind, status and dimensions.
 *
 *   consume (any loop) ─► key of each span ─► the loop's part
 *   flush timer (loop 0) ─► parts into the master ─► one batch of metrics ─► node_emit
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/pipeline/node.h"
#include "common/pipeline/telemetry.h"
#include "gateway/span_metrics/adjusted.h"
#include "gateway/span_metrics/series.h"

struct dimension {
    const char *name;
    struct option_any fallback;
};

struct span_metrics_config {
    const char *namespace;
    struct option_list dimensions; /* struct dimension */
    struct option_list exclude;    /* const char * */
    struct {
        bool disable;
        int unit;
        struct {
            bool on;
            struct option_list buckets; /* uint64_t ns */
        } explicit;
    } histogram;
    const char *temporality;
    uint64_t flush_ns, metrics_expiration_ns, series_expiration_ns, cache_size, max_series,
        max_times;
    struct option_list key_attributes; /* const char * */
};

enum { SPAN_TRACE_STATE = 3, SPAN_NAME = 5 };
enum { UNIT_MS, UNIT_S };
static const char *const units[] = {"ms", "s", NULL};

#define AT(field) offsetof(struct span_metrics_config, field)
#define HIST(field) (AT(histogram.field) - AT(histogram))
static const struct option explicit_options[] = {
    {.key = "buckets",
     .type = OPT_DURATIONS,
     .offset = AT(histogram.explicit.buckets) - AT(histogram.explicit),
     .help = "Upper bounds of buckets, ascending."},
    OPTION_END,
};
static const struct option histogram_options[] = {
    {.key = "disable",
     .type = OPT_BOOL,
     .offset = HIST(disable),
     .def = "false",
     .help = "Only calls, no durations."},
    {.key = "unit",
     .type = OPT_ENUM,
     .offset = HIST(unit),
     .names = units,
     .def = "ms",
     .help = "Unit of durations."},
    {.key = "explicit",
     .type = OPT_STRUCT,
     .offset = HIST(explicit),
     .sub = explicit_options,
     .presence = OPT_OFF_DEFAULT,
     .on_offset = HIST(explicit.on),
     .help = "Explicit buckets."},
    OPTION_UNSUPPORTED("exponential"),
    OPTION_UNSUPPORTED("dimensions"),
    OPTION_END,
};
static const struct option dimension_options[] = {
    {.key = "name",
     .type = OPT_STRING,
     .offset = offsetof(struct dimension, name),
     .flags = OPT_REQUIRED,
     .help = "Attribute of the span, else of the resource."},
    {.key = "default",
     .type = OPT_ANY,
     .offset = offsetof(struct dimension, fallback),
     .help = "Value where it is missing; without it the dimension is left out there."},
    OPTION_UNSUPPORTED("glob"),
    OPTION_END,
};

static const struct option span_metrics_options[] = {
    {.key = "namespace",
     .type = OPT_STRING,
     .offset = AT(namespace),
     .def = "traces.span.metrics",
     .help = "In front of metric names."},
    {.key = "dimensions",
     .type = OPT_LIST,
     .offset = AT(dimensions),
     .sub = dimension_options,
     .elem_size = sizeof(struct dimension),
     .help = "Further attributes of the series."},
    {.key = "exclude_dimensions",
     .type = OPT_STRINGS,
     .offset = AT(exclude),
     .help =
         "Of service.name, span.name, span.kind, status.code, collector.instance.id: left out."},
    {.key = "histogram",
     .type = OPT_STRUCT,
     .offset = AT(histogram),
     .sub = histogram_options,
     .help = "The duration histogram."},
    {.key = "aggregation_temporality",
     .type = OPT_STRING,
     .offset = AT(temporality),
     .def = "AGGREGATION_TEMPORALITY_CUMULATIVE",
     .help = "AGGREGATION_TEMPORALITY_DELTA gives deltas, anything else cumulative values."},
    {.key = "metrics_flush_interval",
     .type = OPT_DURATION,
     .offset = AT(flush_ns),
     .def = "60s",
     .min = 1e6,
     .max = 1e18,
     .help = "Time between two outputs."},
    {.key = "metrics_expiration",
     .type = OPT_DURATION,
     .offset = AT(metrics_expiration_ns),
     .def = "0s",
     .help = "A resource without spans for so long is forgotten; 0 = never."},
    {.key = "series_expiration",
     .type = OPT_DURATION,
     .offset = AT(series_expiration_ns),
     .def = "0s",
     .help = "A series without spans for so long is forgotten; 0 = never."},
    {.key = "resource_metrics_cache_size",
     .type = OPT_UINT,
     .offset = AT(cache_size),
     .def = "1000",
     .help = "Resources that are kept."},
    {.key = "resource_metrics_key_attributes",
     .type = OPT_STRINGS,
     .offset = AT(key_attributes),
     .help = "Resource attributes that tell resources apart; empty = all."},
    {.key = "aggregation_cardinality_limit",
     .type = OPT_UINT,
     .offset = AT(max_series),
     .def = "0",
     .help = "Series of a resource; more are counted in one overflow series. 0 = no limit."},
    {.key = "dimensions_cache_size",
     .type = OPT_TREE,
     .flags = OPT_NO_EFFECT,
     .help = "Has no effect in the Collector either."},
    OPTION_UNSUPPORTED("calls_dimensions"),
    OPTION_UNSUPPORTED("events"),
    OPTION_UNSUPPORTED("exemplars"),
    {.key = "metric_timestamp_cache_size",
     .type = OPT_UINT,
     .offset = AT(max_times),
     .def = "1000",
     .min = 1,
     .max = 1e9,
     .help = "Deltas: series without spans whose last time is remembered, so that the next point "
             "begins there."},
    OPTION_UNSUPPORTED("include_instrumentation_scope"),
    OPTION_UNSUPPORTED("add_resource_attributes"),
    OPTION_UNSUPPORTED("enable_metrics_sampling_method"),
    OPTION_END,
};

static const uint64_t default_bounds_ms[] = {2,   4,   6,    8,    10,   50,   100,   200,
                                             400, 800, 1000, 1400, 2000, 5000, 10000, 15000};
static const char *const builtin_names[] = {"service.name", "span.name", "span.kind", "status.code",
                                            "collector.instance.id"};
enum { DIM_SERVICE, DIM_NAME, DIM_KIND, DIM_STATUS, DIM_INSTANCE, DIM_BUILTINS };

#define SPAN_METRICS_MAGIC 0x53504d54u

struct span_metrics {
    unsigned magic;
    _Atomic unsigned refs;
    struct instance *_Atomic in;
    struct part *parts; /* by loop */
    struct master master;
    struct master_config mc;
    double *bounds;
    double per_unit; /* ns of the unit */
    char *calls_name, *duration_name;
    bool excluded[DIM_BUILTINS];
    struct loop_timer *timer;
};

/* A dimension twice, or one that is there anyway, would give points two attributes of one key. */
static int check_dimensions(const struct option_list *l, struct err *e)
{
    const struct dimension *d = l->items;
    for (size_t i = 0; i < l->n; i++) {
        bool twice = false;
        for (unsigned k = 0; k < DIM_INSTANCE; k++)
            twice |= strcmp(d[i].name, builtin_names[k]) == 0;
        for (size_t k = 0; k < i; k++)
            twice |= strcmp(d[i].name, d[k].name) == 0;
        if (twice)
            return err_set(e, -EINVAL, "dimensions[%zu]: '%s' is a dimension already", i,
                           d[i].name);
    }
    return 0;
}

static int span_metrics_validate(const void *config, struct err *e)
{
    const struct span_metrics_config *c = config;
    const uint64_t *b = c->histogram.explicit.buckets.items;
    const char *const *x = c->exclude.items;
    for (size_t i = 1; i < c->histogram.explicit.buckets.n; i++)
        if (b[i] <= b[i - 1])
            return err_set(e, -EINVAL, "histogram: explicit: buckets must ascend");
    for (size_t i = 0; i < c->exclude.n; i++) {
        bool known = false;
        for (unsigned k = 0; k < DIM_BUILTINS; k++)
            known |= strcmp(x[i], builtin_names[k]) == 0;
        if (!known)
            return err_set(e, -EINVAL, "exclude_dimensions: '%s' is not a default dimension", x[i]);
    }
    return check_dimensions(&c->dimensions, e);
}

static void make_bounds(struct span_metrics *self, const struct span_metrics_config *c)
{
    const uint64_t *b = c->histogram.explicit.buckets.items;
    size_t n = c->histogram.explicit.buckets.n;
    self->per_unit = c->histogram.unit == UNIT_S ? 1e9 : 1e6;
    self->mc.n_bounds = (uint32_t)(n ? n : ARRAY_LEN(default_bounds_ms));
    self->bounds = xcalloc(self->mc.n_bounds, sizeof(*self->bounds));
    for (uint32_t i = 0; i < self->mc.n_bounds; i++)
        self->bounds[i] = (n ? (double)b[i] : (double)default_bounds_ms[i] * 1e6) / self->per_unit;
    self->mc.bounds = self->bounds;
}

static int span_metrics_create(struct instance *in, struct err *e)
{
    const struct span_metrics_config *c = in->config;
    const char *const *excluded = c->exclude.items;
    struct span_metrics *self = xcalloc(1, sizeof(*self));
    const char *dot = c->namespace[0] ? "." : "";
    (void)e;
    SET_MAGIC(self, SPAN_METRICS_MAGIC);
    self->refs = 1;
    self->in = in;
    self->calls_name = xasprintf("%s%scalls", c->namespace, dot);
    self->duration_name = xasprintf("%s%sduration", c->namespace, dot);
    self->mc = (struct master_config){
        .calls_name = str_of(self->calls_name),
        .duration_name = str_of(self->duration_name),
        .duration_unit = str_of(units[c->histogram.unit]),
        .is_delta = strcmp(c->temporality, "AGGREGATION_TEMPORALITY_DELTA") == 0,
        .has_histogram = !c->histogram.disable,
        .resource_expiration_ns = c->metrics_expiration_ns,
        .series_expiration_ns = c->series_expiration_ns,
        .max_resources = c->cache_size,
        .max_series = c->max_series,
        .max_times = c->max_times,
    };
    make_bounds(self, c);
    for (size_t i = 0; i < c->exclude.n; i++)
        for (unsigned k = 0; k < DIM_BUILTINS; k++)
            self->excluded[k] |= strcmp(excluded[i], builtin_names[k]) == 0;
    self->parts = xcalloc(loops_count(), sizeof(*self->parts));
    for (unsigned i = 0; i < loops_count(); i++)
        part_init(&self->parts[i]);
    master_init(&self->master);
    in->self = self;
    return 0;
}

static void span_metrics_unref(struct span_metrics *self)
{
    if (atomic_fetch_sub(&self->refs, 1) > 1)
        return;
    for (unsigned i = 0; i < loops_count(); i++)
        part_fini(&self->parts[i]);
    master_fini(&self->master);
    loop_timer_free(&self->timer);
    free(self->parts);
    free(self->bounds);
    free(self->calls_name);
    free(self->duration_name);
    CLEAR_MAGIC(self);
    free(self);
}

static void span_metrics_free(struct instance *in)
{
    span_metrics_unref(CAST_OBJ(struct span_metrics, in->self, SPAN_METRICS_MAGIC));
    in->self = NULL;
}

static bool same_strings(const struct option_list *a, const struct option_list *b)
{
    const char *const *x = a->items, *const *y = b->items;
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(x[i], y[i]) != 0)
            return false;
    return true;
}

static bool same_dimensions(const struct option_list *a, const struct option_list *b)
{
    const struct dimension *x = a->items, *y = b->items;
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(x[i].name, y[i].name) != 0 || x[i].fallback.type != y[i].fallback.type ||
            (x[i].fallback.type && strcmp(x[i].fallback.s, y[i].fallback.s) != 0))
            return false;
    return true;
}

/* Counters go on over a reload that changes nothing of what they are. */
static bool span_metrics_adopt(struct instance *in, struct instance *old)
{
    struct span_metrics *mine = in->self, *running = old->self;
    const struct span_metrics_config *a = in->config, *b = old->config;
    if (mine == running || strcmp(a->namespace, b->namespace) != 0 ||
        !same_dimensions(&a->dimensions, &b->dimensions) ||
        !same_strings(&a->exclude, &b->exclude) || mine->mc.n_bounds != running->mc.n_bounds ||
        mine->mc.is_delta != running->mc.is_delta ||
        mine->mc.has_histogram != running->mc.has_histogram || a->flush_ns != b->flush_ns ||
        memcmp(mine->bounds, running->bounds, mine->mc.n_bounds * sizeof(double)) != 0)
        return false;
    running->mc.resource_expiration_ns = mine->mc.resource_expiration_ns;
    running->mc.series_expiration_ns = mine->mc.series_expiration_ns;
    running->mc.max_resources = mine->mc.max_resources;
    running->mc.max_series = mine->mc.max_series;
    running->mc.max_times = mine->mc.max_times;
    span_metrics_unref(mine);
    running->refs++;
    running->in = in;
    in->self = running;
    return true;
}

/* ---- counting ---- */

struct resource_view {
    bool is_known, is_skipped;
    uint64_t hash;
    struct str service;
};

static bool is_key_attribute(const struct span_metrics_config *c, struct str key)
{
    const char *const *names = c->key_attributes.items;
    for (size_t i = 0; i < c->key_attributes.n; i++)
        if (str_is(key, names[i]))
            return true;
    return c->key_attributes.n == 0;
}

/* The order of attributes does not matter: hashes of the pairs are added up. */
static void view_resource(struct resource_view *v, const struct span_metrics_config *c,
                          struct str envelope)
{
    struct envelope_iter it;
    struct attr a;
    v->is_known = true;
    v->service = resource_service_name(envelope);
    v->is_skipped = v->service.p == NULL;
    v->hash = 1;
    envelope_attrs(&it, envelope);
    while (envelope_attr_next(&it, RESOURCE_ATTRIBUTES, &a))
        if (is_key_attribute(c, a.key))
            v->hash += hash_mix(hash_str(a.key), hash_str(a.value));
}

static bool dimension_value(const struct dimension *d, struct str span, struct str envelope,
                            struct any *out)
{
    struct str key = str_of(d->name);
    if (attr_find(span, SPAN_ATTRIBUTES, key, out) ||
        envelope_attr_find(envelope, RESOURCE_ATTRIBUTES, key, out))
        return true;
    if (d->fallback.type == OPTION_NONE)
        return false;
    *out = any_str(str_of(d->fallback.s));
    return true;
}

static const char *kind_name(unsigned k)
{
    static const char *const names[] = {"SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL",
                                        "SPAN_KIND_SERVER",      "SPAN_KIND_CLIENT",
                                        "SPAN_KIND_PRODUCER",    "SPAN_KIND_CONSUMER"};
    return names[k];
}

static const char *status_name(unsigned s)
{
    static const char *const names[] = {"STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"};
    return names[s];
}

struct span_view {
    const struct span_key *key;
    struct str name, state, body, envelope; /* state: W3C tracestate */
    const struct resource_view *resource;
};

/* Name and tracestate in one walk. */
static void read_texts(struct span_view *s)
{
    struct wire w = wire_of(s->body);
    struct field f;
    while (wire_next(&w, &f) == 1) {
        if (f.number == SPAN_NAME && f.type == WIRE_LEN)
            s->name = f.bytes;
        else if (f.number == SPAN_TRACE_STATE && f.type == WIRE_LEN)
            s->state = f.bytes;
    }
}

/* Kind, status, name and dimensions, each with its length, so that no two spans share a key by
 * chance. */
static void build_key(const struct span_metrics *self, const struct span_metrics_config *c,
                      const struct span_view *s, struct buf *key)
{
    const struct dimension *d = c->dimensions.items;
    uint32_t n = self->excluded[DIM_NAME] ? 0 : (uint32_t)s->name.n;
    buf_reset(key);
    buf_add(key, &s->resource->hash, sizeof(uint64_t));
    buf_add_byte(key, self->excluded[DIM_KIND] ? 0 : s->key->kind);
    buf_add_byte(key, self->excluded[DIM_STATUS] ? 0 : s->key->status);
    buf_add(key, &n, sizeof(n));
    buf_add(key, s->name.p, n);
    for (size_t i = 0; i < c->dimensions.n; i++) {
        struct any v;
        bool there = dimension_value(&d[i], s->body, s->envelope, &v);
        size_t mark = key->n;
        buf_add_byte(key, there ? (uint8_t)(1 + v.type) : 0);
        buf_add(key, &n, sizeof(n)); /* place of the length */
        if (there)
            any_to_text(v, key);
        uint32_t len = (uint32_t)(key->n - mark - 1 - sizeof(n));
        if (!buf_error(key))
            memcpy(key->p + mark + 1, &len, sizeof(len));
    }
}

static void build_attrs(const struct span_metrics *self, const struct span_metrics_config *c,
                        const struct span_view *s, struct buf *out)
{
    const struct dimension *d = c->dimensions.items;
    if (!self->excluded[DIM_SERVICE])
        encode_attr_str(out, 1, "service.name", s->resource->service);
    if (!self->excluded[DIM_NAME])
        encode_attr_str(out, 1, "span.name", s->name);
    if (!self->excluded[DIM_KIND])
        encode_attr_str(out, 1, "span.kind", str_of(kind_name(s->key->kind)));
    if (!self->excluded[DIM_STATUS])
        encode_attr_str(out, 1, "status.code", str_of(status_name(s->key->status)));
    if (!self->excluded[DIM_INSTANCE])
        encode_attr_str(out, 1, "collector.instance.id", str_of(service_instance_id()));
    for (size_t i = 0; i < c->dimensions.n; i++) {
        struct any v;
        if (dimension_value(&d[i], s->body, s->envelope, &v))
            encode_attr(out, 1, str_of(d[i].name), v);
    }
}

static struct part_series *first_sight(struct span_metrics *self, struct part *part,
                                       const struct span_metrics_config *c,
                                       const struct span_view *s, struct str key, uint64_t hash)
{
    struct buf attrs;
    buf_init(&attrs);
    build_attrs(self, c, s, &attrs);
    struct part_series *ps = NULL;
    if (buf_error(&attrs) == 0)
        ps = part_add(part, hash, s->resource->hash, key, buf_str(&attrs), s->envelope,
                      self->bounds, self->mc.n_bounds);
    buf_fini(&attrs);
    if (ps)
        ps->first_ns = clock_wall_ns();
    return ps;
}

/* Number of spans that could not be counted. */
static uint64_t count_batch(struct span_metrics *self, struct part *part, const struct batch *b,
                            const struct span_metrics_config *c, struct resource_view *views)
{
    uint64_t missed = 0;
    struct buf key;
    buf_init(&key);
    for (uint32_t i = 0; i < b->n_records; i++) {
        const struct span_key *k = &b->keys[i];
        struct resource_view *r = &views[k->resource];
        if (!r->is_known)
            view_resource(r, c, b->resources[k->resource].envelope);
        if (r->is_skipped) {
            missed++;
            continue;
        }
        struct span_view s = {.key = k,
                              .body = record_body(&b->records[i]),
                              .envelope = b->resources[k->resource].envelope,
                              .resource = r};
        read_texts(&s);
        build_key(self, c, &s, &key);
        uint64_t hash = hash_str(buf_str(&key));
        struct part_series *ps = part_find(part, hash, buf_str(&key));
        if (!ps)
            ps = first_sight(self, part, c, &s, buf_str(&key), hash);
        if (!ps) {
            missed++;
            continue;
        }
        uint64_t took = k->end_ns > k->start_ns ? k->end_ns - k->start_ns : 0;
        uint64_t n = s.state.n ? adjusted_round(adjusted_count(s.state), &part->seed) : 1;
        ps->calls += n;
        histogram_observe(&ps->duration, (double)took / self->per_unit, n);
    }
    buf_fini(&key);
    return missed;
}

static void span_metrics_consume(struct instance *in, struct batch *b, struct ack *a)
{
    struct span_metrics *self = CAST_OBJ(struct span_metrics, in->self, SPAN_METRICS_MAGIC);
    struct loop *l = loop_current();
    struct part *part = &self->parts[l ? loop_index(l) : 0];
    struct resource_view *views = xcalloc(b->n_resources + 1, sizeof(*views));
    pthread_mutex_lock(&part->lock);
    uint64_t missed = count_batch(self, part, b, in->config, views);
    pthread_mutex_unlock(&part->lock);
    free(views);
    ledger_sent(in, SIGNAL_TRACES, b->items - missed);
    if (missed)
        ledger_dropped(in, SIGNAL_TRACES, missed, "no_service_name");
    batch_unref(&b);
    ack_ok(a);
}

/* ---- flushing ---- */

static void flush(struct span_metrics *self, bool is_last)
{
    struct instance *in = self->in;
    struct batch *out = NULL;
    uint64_t now = clock_wall_ns();
    if (!is_last && !node_outputs_open(in))
        return; /* counters only grow: the next flush tells all of it */
    for (unsigned i = 0; i < loops_count(); i++)
        master_take(&self->master, &self->parts[i], &self->mc, now);
    if (master_write(&self->master, &self->mc, now, &out)) {
        log_error(&in->log, "out of memory: metrics not written this time");
        return;
    }
    if (!out)
        return;
    ledger_made(in, SIGNAL_METRICS, out->items);
    node_emit(in, out, ack_detached());
}

static void on_flush(void *arg)
{
    flush(CAST_OBJ(struct span_metrics, arg, SPAN_METRICS_MAGIC), false);
}

static int span_metrics_start(struct instance *in, struct err *e)
{
    struct span_metrics *self = in->self;
    const struct span_metrics_config *c = in->config;
    uint64_t ms = MAX(c->flush_ns / NS_PER_MS, 1u);
    (void)e;
    if (self->timer)
        return 0;
    self->timer = loop_timer_new(loops_get(0), on_flush, self);
    loop_timer_start(self->timer, ms, ms);
    return 0;
}

static void span_metrics_stop(struct instance *in)
{
    struct span_metrics *self = in->self;
    flush(self, true);
    loop_timer_free(&self->timer);
    instance_stopped(in);
}

static const char *const old_names[] = {"spanmetrics", NULL};

const struct component span_metrics_component = {
    .kind = KIND_CONNECTOR,
    .name = "span_metrics",
    .aliases = old_names,
    .help = "Makes metrics of spans: calls and durations.",
    .signals = SIGNAL_BIT(SIGNAL_TRACES),
    .makes = SIGNAL_BIT(SIGNAL_METRICS),
    .stability = STABILITY_ALPHA,
    .affinity = AFFINITY_SERIES,
    .options = span_metrics_options,
    .config_size = sizeof(struct span_metrics_config),
    .validate = span_metrics_validate,
    .create = span_metrics_create,
    .adopt = span_metrics_adopt,
    .start = span_metrics_start,
    .consume = span_metrics_consume,
    .stop = span_metrics_stop,
    .free = span_metrics_free,
};
