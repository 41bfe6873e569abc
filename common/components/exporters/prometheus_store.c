/* SPDX-License-Identifier: Apache-2.0 */
#include "common/components/exporters/prometheus_store.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/components/exporters/prometheus_naming.h"
#include "common/otlp/encode.h"
#include "common/otlp/view.h"

enum { DELTA = 1 };

void prometheus_store_init(struct prometheus_store *s)
{
    *s = (struct prometheus_store){0};
}

static void heap_free(struct str *s)
{
    free((void *)(uintptr_t)s->p);
}

static struct str heap_copy(struct str s)
{
    char *p = xalloc(s.n + 1);
    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    return str_make(p, s.n);
}

static void series_free(struct prometheus_series *s)
{
    heap_free(&s->key);
    free(s->bounds);
    free(s->quantiles);
    free(s->buckets);
    free(s);
}

void prometheus_store_fini(struct prometheus_store *s)
{
    while (s->all) {
        struct prometheus_series *x = s->all;
        s->all = x->next;
        series_free(x);
    }
    while (s->families) {
        struct prometheus_family *f = s->families;
        s->families = f->next;
        heap_free(&f->name);
        heap_free(&f->help);
        free(f);
    }
    hashmap_fini(&s->series);
}

/* ---- labels ---- */

static void add_label(struct buf *out, struct str key, struct str value)
{
    if (out->n)
        buf_add_byte(out, ',');
    prometheus_label_name(out, key);
    buf_add_cstr(out, "=\"");
    prometheus_label_value(out, value);
    buf_add_byte(out, '"');
}

static void add_any_label(struct buf *out, struct str key, struct str any_bytes)
{
    struct buf text;
    buf_init(&text);
    any_to_text(any_read(any_bytes), &text);
    add_label(out, key, buf_str(&text));
    buf_fini(&text);
}

/* job = [service.namespace/]service.name, instance = service.instance.id. */
static void add_job(struct buf *out, struct str envelope)
{
    struct any name, space, id;
    bool has_name = envelope_attr_find(envelope, RESOURCE_ATTRIBUTES, STR("service.name"), &name) &&
                    name.type == ANY_STRING;
    bool has_space =
        envelope_attr_find(envelope, RESOURCE_ATTRIBUTES, STR("service.namespace"), &space) &&
        space.type == ANY_STRING;
    if (envelope_attr_find(envelope, RESOURCE_ATTRIBUTES, STR("service.instance.id"), &id) &&
        id.type == ANY_STRING)
        add_label(out, STR("instance"), id.s);
    if (!has_name)
        return;
    struct buf job;
    buf_init(&job);
    if (has_space) {
        buf_add_str(&job, space.s);
        buf_add_byte(&job, '/');
    }
    buf_add_str(&job, name.s);
    add_label(out, STR("job"), buf_str(&job));
    buf_fini(&job);
}

static bool is_identity(struct str key)
{
    return str_is(key, "service.name") || str_is(key, "service.namespace") ||
           str_is(key, "service.instance.id");
}

/* Resource attributes beyond the identity; number of them. */
static unsigned add_resource_labels(struct buf *out, struct str envelope)
{
    struct envelope_iter it;
    struct attr a;
    unsigned n = 0;
    envelope_attrs(&it, envelope);
    while (envelope_attr_next(&it, RESOURCE_ATTRIBUTES, &a)) {
        if (is_identity(a.key))
            continue;
        add_any_label(out, a.key, a.value);
        n++;
    }
    return n;
}

struct context {
    struct prometheus_store *store;
    const struct prometheus_options *o;
    uint64_t now_ns, *unsupported, *conflicts;
    struct str resource, scope;
    struct buf common; /* labels of every point of this scope */
};

static void set_scope(struct context *x)
{
    const struct option_pair *p = x->o->const_labels.items;
    buf_reset(&x->common);
    for (size_t i = 0; i < x->o->const_labels.n; i++)
        add_label(&x->common, str_of(p[i].key), str_of(p[i].value));
    add_job(&x->common, x->resource);
    if (x->o->resource_to_labels)
        add_resource_labels(&x->common, x->resource);
    if (x->o->without_scope)
        return;
    add_label(&x->common, STR("otel_scope_name"), scope_name(x->scope));
    add_label(&x->common, STR("otel_scope_version"), scope_version(x->scope));
}

/* ---- series ---- */

static struct prometheus_family *need_family(struct prometheus_store *s, struct str name,
                                             struct str help, enum prometheus_type type)
{
    struct prometheus_family **at = &s->families;
    for (; *at; at = &(*at)->next) { /* sorted by name */
        int order = str_cmp((*at)->name, name);
        if (order == 0)
            return (*at)->type == type ? *at : NULL;
        if (order > 0)
            break;
    }
    struct prometheus_family *f = xcalloc(1, sizeof(*f));
    f->name = heap_copy(name);
    f->help = heap_copy(help);
    f->type = type;
    f->next = *at;
    *at = f;
    return f;
}

static bool same_key(const void *value, const void *key)
{
    const struct prometheus_series *s = value;
    return str_eq(s->key, *(const struct str *)key);
}

static struct prometheus_series *need_series(struct context *x, struct prometheus_family *f,
                                             struct str labels)
{
    struct buf key;
    buf_init(&key);
    buf_add_str(&key, f->name);
    buf_add_byte(&key, 0);
    buf_add_str(&key, labels);
    struct str k = buf_str(&key);
    uint64_t hash = hash_str(k);
    struct prometheus_series *s = hashmap_find(&x->store->series, hash, same_key, &k);
    if (!s && buf_error(&key) == 0) {
        s = xcalloc(1, sizeof(*s));
        s->family = f;
        s->key = heap_copy(k);
        s->labels = str_make(s->key.p + f->name.n + 1, labels.n);
        if (hashmap_add(&x->store->series, hash, s)) {
            series_free(s);
            s = NULL;
        } else {
            s->next = x->store->all;
            x->store->all = s;
        }
    }
    buf_fini(&key);
    return s;
}

/* A metric on its way in: what all its points share. */
struct metric {
    struct str name, help, unit, data;
    uint32_t kind; /* field number of data */
    bool is_delta, is_monotonic;
    struct prometheus_family *family;
};

static double f64(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof(d));
    return d;
}

/* Labels of the point: those of its scope and its own attributes. */
static struct prometheus_series *series_of(struct context *x, const struct metric *m,
                                           struct str point, uint32_t attributes)
{
    struct buf labels;
    struct wire w = wire_of(point);
    struct attr a;
    buf_init(&labels);
    buf_add_str(&labels, buf_str(&x->common));
    while (attr_next(&w, attributes, &a))
        add_any_label(&labels, a.key, a.value);
    struct prometheus_series *s = need_series(x, m->family, buf_str(&labels));
    buf_fini(&labels);
    return s;
}

/*
 * Whether the point replaces what is there (cumulative, newest wins), or is added to it (delta that
 * begins where the last one ended; any other delta begins anew). -1: older than what is there.
 */
static int relation(struct prometheus_series *s, const struct metric *m, uint64_t start,
                    uint64_t time)
{
    bool continues = m->is_delta && s->time_ns && start == s->time_ns;
    if (!m->is_delta && s->time_ns > time)
        return -1;
    if (!continues)
        s->start_ns = start;
    s->time_ns = time;
    return continues;
}

static void add_number(struct context *x, const struct metric *m, struct str point)
{
    struct prometheus_series *s = series_of(x, m, point, NUMBER_POINT_ATTRIBUTES);
    struct wire w = wire_of(point);
    struct field f;
    double v = 0;
    if (!s)
        return;
    while (wire_next(&w, &f) == 1) {
        if (f.number == 4 && f.type == WIRE_I64)
            v = f64(f.value);
        else if (f.number == 6 && f.type == WIRE_I64)
            v = (double)(int64_t)f.value;
    }
    int r = relation(s, m, message_u64(point, 2, 0), message_u64(point, 3, 0));
    if (r < 0)
        return;
    s->value = r ? s->value + v : v;
    s->updated_ns = x->now_ns;
}

/* Packed or not, into a fresh array; *n its length. */
static uint64_t *read_fixed(struct str point, uint32_t number, uint32_t *n)
{
    struct wire w = wire_of(point);
    struct field f;
    uint64_t *v = NULL;
    *n = 0;
    while (wire_next(&w, &f) == 1) {
        if (f.number != number || (f.type != WIRE_LEN && f.type != WIRE_I64))
            continue;
        uint32_t more = f.type == WIRE_LEN ? (uint32_t)(f.bytes.n / 8) : 1;
        v = xrealloc(v, (*n + more) * sizeof(*v));
        if (f.type == WIRE_LEN && more)
            memcpy(v + *n, f.bytes.p, more * sizeof(*v));
        else if (more)
            v[*n] = f.value;
        *n += more;
    }
    return v;
}

static void add_histogram(struct context *x, const struct metric *m, struct str point)
{
    struct prometheus_series *s = series_of(x, m, point, HISTOGRAM_POINT_ATTRIBUTES);
    uint32_t n_buckets, n_bounds;
    if (!s)
        return;
    uint64_t *buckets = read_fixed(point, 6, &n_buckets);
    uint64_t *bounds = read_fixed(point, 7, &n_bounds);
    int r = relation(s, m, message_u64(point, 2, 0), message_u64(point, 3, 0));
    bool same = s->n_bounds == n_bounds && s->buckets &&
                (n_bounds == 0 || memcmp(s->bounds, bounds, n_bounds * sizeof(double)) == 0);
    if (r < 0 || n_buckets != n_bounds + 1) {
        free(buckets);
        free(bounds);
        return;
    }
    bool adds = r == 1 && same;
    s->count = message_u64(point, 4, 0) + (adds ? s->count : 0);
    s->sum = f64(message_u64(point, 5, 0)) + (adds ? s->sum : 0);
    for (uint32_t i = 0; adds && i < n_buckets; i++)
        buckets[i] += s->buckets[i];
    free(s->buckets);
    free(s->bounds);
    s->buckets = buckets;
    s->bounds = xcalloc(n_bounds + 1, sizeof(double));
    if (n_bounds)
        memcpy(s->bounds, bounds, n_bounds * sizeof(double));
    s->n_bounds = n_bounds;
    s->updated_ns = x->now_ns;
    free(bounds);
}

static void add_summary(struct context *x, const struct metric *m, struct str point)
{
    struct prometheus_series *s = series_of(x, m, point, 7);
    struct wire w = wire_of(point);
    struct field f;
    if (!s || relation(s, m, message_u64(point, 2, 0), message_u64(point, 3, 0)) < 0)
        return;
    s->count = message_u64(point, 4, 0);
    s->sum = f64(message_u64(point, 5, 0));
    s->n_bounds = 0;
    while (wire_next(&w, &f) == 1) {
        if (f.number != 6 || f.type != WIRE_LEN)
            continue;
        s->bounds = xrealloc(s->bounds, (s->n_bounds + 1) * sizeof(double));
        s->quantiles = xrealloc(s->quantiles, (s->n_bounds + 1) * sizeof(double));
        s->bounds[s->n_bounds] = f64(message_u64(f.bytes, 1, 0));
        s->quantiles[s->n_bounds++] = f64(message_u64(f.bytes, 2, 0));
    }
    s->updated_ns = x->now_ns;
}

/* ---- metrics ---- */

static enum prometheus_type type_of(const struct metric *m)
{
    if (m->kind == METRIC_HISTOGRAM)
        return PROM_HISTOGRAM;
    if (m->kind == METRIC_SUMMARY)
        return PROM_SUMMARY;
    return m->kind == METRIC_SUM && m->is_monotonic ? PROM_COUNTER : PROM_GAUGE;
}

static void read_metric(struct str body, struct metric *m)
{
    struct wire w = wire_of(body);
    struct field f;
    *m = (struct metric){0};
    while (wire_next(&w, &f) == 1) {
        if (f.type != WIRE_LEN)
            continue;
        if (f.number == 1)
            m->name = f.bytes;
        else if (f.number == 2)
            m->help = f.bytes;
        else if (f.number == 3)
            m->unit = f.bytes;
        else if (f.number == 5 || f.number == 7 || (f.number >= 9 && f.number <= 11)) {
            m->kind = f.number;
            m->data = f.bytes;
        }
    }
    if (m->kind == METRIC_SUM || m->kind == METRIC_HISTOGRAM)
        m->is_delta = message_u64(m->data, 2, 0) == DELTA;
    m->is_monotonic = m->kind == METRIC_SUM && message_u64(m->data, 3, 0) != 0;
}

static void add_metric(struct context *x, const struct record *r)
{
    struct metric m;
    struct buf name;
    struct field f;
    read_metric(record_body(r), &m);
    /* Non-monotonic deltas cannot be turned into a value; exponential histograms have no text form.
     */
    if (m.kind == METRIC_EXP_HISTOGRAM || m.kind == 0 ||
        (m.kind == METRIC_SUM && m.is_delta && !m.is_monotonic)) {
        *x->unsupported += r->items;
        return;
    }
    struct prometheus_name pn = {.name = m.name,
                                 .unit = m.unit,
                                 .namespace = str_of(x->o->namespace),
                                 .is_monotonic_sum = m.is_monotonic,
                                 .is_gauge = m.kind == METRIC_GAUGE,
                                 .with_suffixes = x->o->with_suffixes};
    buf_init(&name);
    prometheus_metric_name(&name, &pn);
    m.family = need_family(x->store, buf_str(&name), m.help, type_of(&m));
    buf_fini(&name);
    if (!m.family) {
        *x->conflicts += r->items;
        return;
    }
    struct wire points = wire_of(m.data);
    while (wire_next(&points, &f) == 1) {
        if (f.number != 1 || f.type != WIRE_LEN)
            continue;
        if (m.kind == METRIC_HISTOGRAM)
            add_histogram(x, &m, f.bytes);
        else if (m.kind == METRIC_SUMMARY)
            add_summary(x, &m, f.bytes);
        else
            add_number(x, &m, f.bytes);
    }
}

/* target_info: the resource's other attributes, once per resource that has any. */
static void add_target(struct context *x)
{
    struct buf labels;
    buf_init(&labels);
    add_job(&labels, x->resource);
    if (add_resource_labels(&labels, x->resource) > 0) {
        struct prometheus_family *f =
            need_family(x->store, STR("target_info"), STR("Target metadata"), PROM_GAUGE);
        struct prometheus_series *s = f ? need_series(x, f, buf_str(&labels)) : NULL;
        if (s) {
            s->value = 1;
            s->updated_ns = x->now_ns;
        }
    }
    buf_fini(&labels);
}

void prometheus_store_add(struct prometheus_store *s, const struct prometheus_options *o,
                          const struct batch *b, uint64_t now_ns, uint64_t *unsupported,
                          uint64_t *conflicts)
{
    struct context x = {
        .store = s, .o = o, .now_ns = now_ns, .unsupported = unsupported, .conflicts = conflicts};
    buf_init(&x.common);
    for (uint32_t r = 0; r < b->n_resources; r++) {
        const struct resource_group *res = &b->resources[r];
        x.resource = res->envelope;
        add_target(&x);
        for (uint32_t k = res->first_scope; k < res->first_scope + res->n_scopes; k++) {
            const struct scope_group *g = &b->scopes[k];
            x.scope = g->envelope;
            set_scope(&x);
            for (uint32_t i = g->first_record; i < g->first_record + g->n_records; i++)
                add_metric(&x, &b->records[i]);
        }
    }
    buf_fini(&x.common);
}

/* ---- exposition ---- */

static void put_double(struct buf *out, double v)
{
    if (isnan(v))
        buf_add_cstr(out, "NaN");
    else if (isinf(v))
        buf_add_cstr(out, v > 0 ? "+Inf" : "-Inf");
    else
        any_to_text((struct any){.type = ANY_DOUBLE, .d = v}, out);
}

/* name_suffix{labels,extra="value"} */
static void put_name(struct buf *out, const struct prometheus_series *s, const char *suffix,
                     const char *extra, double at)
{
    buf_add_str(out, s->family->name);
    buf_add_cstr(out, suffix);
    if (s->labels.n || extra)
        buf_add_byte(out, '{');
    buf_add_str(out, s->labels);
    if (extra) {
        if (s->labels.n)
            buf_add_byte(out, ',');
        buf_addf(out, "%s=\"", extra);
        put_double(out, at);
        buf_add_byte(out, '"');
    }
    if (s->labels.n || extra)
        buf_add_byte(out, '}');
    buf_add_byte(out, ' ');
}

static void end_line(struct buf *out, const struct prometheus_options *o,
                     const struct prometheus_series *s)
{
    if (o->send_timestamps && s->time_ns)
        buf_addf(out, " %" PRIu64, (uint64_t)(s->time_ns / NS_PER_MS));
    buf_add_byte(out, '\n');
}

static void put_count_and_sum(struct buf *out, const struct prometheus_options *o,
                              const struct prometheus_series *s)
{
    put_name(out, s, "_sum", NULL, 0);
    put_double(out, s->sum);
    end_line(out, o, s);
    put_name(out, s, "_count", NULL, 0);
    buf_addf(out, "%" PRIu64, s->count);
    end_line(out, o, s);
}

static void put_series(struct buf *out, const struct prometheus_options *o,
                       const struct prometheus_series *s)
{
    uint64_t cumulative = 0;
    switch (s->family->type) {
    case PROM_HISTOGRAM:
        for (uint32_t i = 0; i <= s->n_bounds; i++) {
            cumulative += s->buckets ? s->buckets[i] : 0;
            put_name(out, s, "_bucket", "le", i < s->n_bounds ? s->bounds[i] : INFINITY);
            buf_addf(out, "%" PRIu64, cumulative);
            end_line(out, o, s);
        }
        put_count_and_sum(out, o, s);
        break;
    case PROM_SUMMARY:
        for (uint32_t i = 0; i < s->n_bounds; i++) {
            put_name(out, s, "", "quantile", s->bounds[i]);
            put_double(out, s->quantiles[i]);
            end_line(out, o, s);
        }
        put_count_and_sum(out, o, s);
        break;
    default:
        put_name(out, s, "", NULL, 0);
        put_double(out, s->value);
        end_line(out, o, s);
    }
}

static bool same_series(const void *value, const void *key)
{
    return value == key;
}

static void expire(struct prometheus_store *s, const struct prometheus_options *o, uint64_t now_ns)
{
    for (struct prometheus_series **at = &s->all; *at;) {
        struct prometheus_series *x = *at;
        if (!o->expiration_ns || now_ns - x->updated_ns < o->expiration_ns) {
            at = &x->next;
            continue;
        }
        *at = x->next;
        hashmap_take(&s->series, hash_str(x->key), same_series, x);
        series_free(x);
    }
}

static int by_family(const void *a, const void *b)
{
    struct prometheus_series *const *x = a, *const *y = b;
    return str_cmp((*x)->key, (*y)->key); /* begins with the family's name and a NUL */
}

void prometheus_store_expose(struct prometheus_store *s, const struct prometheus_options *o,
                             uint64_t now_ns, struct buf *out)
{
    static const char *const types[] = {"counter", "gauge", "histogram", "summary"};
    const struct prometheus_family *last = NULL;
    expire(s, o, now_ns);
    struct prometheus_series **sorted =
        xcalloc(s->series.n + 1, sizeof(struct prometheus_series *));
    size_t n = 0;
    for (struct prometheus_series *x = s->all; x; x = x->next)
        sorted[n++] = x;
    qsort(sorted, n, sizeof(struct prometheus_series *), by_family);
    for (size_t i = 0; i < n; i++) {
        const struct prometheus_family *f = sorted[i]->family;
        if (f != last) {
            buf_addf(out, "# HELP " STR_FMT " ", STR_ARG(f->name));
            for (size_t k = 0; k < f->help.n; k++) /* one line, whatever stands in it */
                buf_add_byte(out, f->help.p[k] == '\n' ? ' ' : (uint8_t)f->help.p[k]);
            buf_addf(out, "\n# TYPE " STR_FMT " %s\n", STR_ARG(f->name), types[f->type]);
            last = f;
        }
        put_series(out, o, sorted[i]);
    }
    free(sorted);
}
