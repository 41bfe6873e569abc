/* SPDX-License-Identifier: Apache-2.0 */
#include "common/components/exporters/prometheus_store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/components/exporters/prometheus_labels.h"
#include "common/components/exporters/prometheus_naming.h"
#include "common/otlp/encode.h"
#include "common/otlp/view.h"

enum { SCHEMA_URL = 3, SUMMARY_POINT_ATTRIBUTES = 7, NO_RECORDED_VALUE = 1 }; /* flag of a point */

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
    if (s->has_own_labels)
        heap_free(&s->labels);
    heap_free(&s->key);
    s->family->n_series--;
    free(s->bounds);
    free(s->quantiles);
    free(s->buckets);
    free(s);
}

static void drop_empty_families(struct prometheus_store *s)
{
    for (struct prometheus_family **at = &s->families; *at;) {
        struct prometheus_family *f = *at;
        if (f->n_series) {
            at = &f->next;
            continue;
        }
        *at = f->next;
        heap_free(&f->name);
        heap_free(&f->help);
        free(f);
    }
}

void prometheus_store_fini(struct prometheus_store *s)
{
    while (s->all) {
        struct prometheus_series *x = s->all;
        s->all = x->next;
        series_free(x);
    }
    drop_empty_families(s);
    hashmap_fini(&s->series);
}

/* ---- labels ---- */

static void add_any_label(struct prometheus_labels *out, struct str key, struct any value)
{
    struct buf text;
    buf_init(&text);
    any_to_text(value, &text);
    prometheus_labels_add(out, key, buf_str(&text));
    buf_fini(&text);
}

/* job = [service.namespace/]service.name, instance = service.instance.id. False without both. */
static bool add_job(struct prometheus_labels *out, struct str envelope)
{
    struct any name, space, id;
    bool has_name = envelope_attr_find(envelope, RESOURCE_ATTRIBUTES, STR("service.name"), &name);
    bool has_id =
        envelope_attr_find(envelope, RESOURCE_ATTRIBUTES, STR("service.instance.id"), &id);
    if (has_id)
        add_any_label(out, STR("instance"), id);
    if (!has_name)
        return has_id;
    struct buf job;
    buf_init(&job);
    if (envelope_attr_find(envelope, RESOURCE_ATTRIBUTES, STR("service.namespace"), &space)) {
        any_to_text(space, &job);
        buf_add_byte(&job, '/');
    }
    any_to_text(name, &job);
    prometheus_labels_add(out, STR("job"), buf_str(&job));
    buf_fini(&job);
    return true;
}

static bool is_identity(struct str key)
{
    return str_is(key, "service.name") || str_is(key, "service.namespace") ||
           str_is(key, "service.instance.id");
}

/* Resource attributes, with or without the identity; number of them. */
static unsigned add_resource_labels(struct prometheus_labels *out, struct str envelope,
                                    bool with_identity)
{
    struct envelope_iter it;
    struct attr a;
    unsigned n = 0;
    envelope_attrs(&it, envelope);
    while (envelope_attr_next(&it, RESOURCE_ATTRIBUTES, &a)) {
        if (!with_identity && is_identity(a.key))
            continue;
        add_any_label(out, a.key, any_read(a.value));
        n++;
    }
    return n;
}

struct context {
    struct prometheus_store *store;
    const struct prometheus_options *o;
    uint64_t now_ns;
    struct prometheus_losses *lost;
    struct str resource, scope;
    struct prometheus_labels labels; /* the first n_common are of every point of this scope */
    uint32_t n_common;
};

static void add_scope_labels(struct prometheus_labels *out, struct str scope)
{
    struct envelope_iter it;
    struct attr a;
    struct buf key;
    prometheus_labels_add(out, STR("otel_scope_name"), scope_name(scope));
    prometheus_labels_add(out, STR("otel_scope_version"), scope_version(scope));
    prometheus_labels_add(out, STR("otel_scope_schema_url"), message_bytes(scope, SCHEMA_URL));
    buf_init(&key);
    envelope_attrs(&it, scope);
    while (envelope_attr_next(&it, SCOPE_ATTRIBUTES, &a)) {
        buf_reset(&key);
        buf_add_cstr(&key, "otel_scope_");
        buf_add_str(&key, a.key);
        add_any_label(out, buf_str(&key), any_read(a.value));
    }
    buf_fini(&key);
}

static void set_scope(struct context *x)
{
    const struct option_pair *p = x->o->const_labels.items;
    prometheus_labels_cut(&x->labels, 0);
    for (size_t i = 0; i < x->o->const_labels.n; i++)
        prometheus_labels_add(&x->labels, str_of(p[i].key), str_of(p[i].value));
    (void)add_job(&x->labels, x->resource);
    if (x->o->resource_to_labels)
        add_resource_labels(&x->labels, x->resource, !x->o->without_service_labels);
    if (!x->o->without_scope)
        add_scope_labels(&x->labels, x->scope);
    x->n_common = x->labels.n;
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
        f->n_series++;
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
    uint32_t kind;        /* field number of data */
    uint64_t temporality; /* of sums and histograms */
    bool is_monotonic;
    struct prometheus_family *family;
};

static double f64(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof(d));
    return d;
}

/* Where resource attributes become labels they win over a point's of the same key. */
static bool is_hidden(const struct context *x, struct str key)
{
    struct any unused;
    return x->o->resource_to_labels && !(x->o->without_service_labels && is_identity(key)) &&
           envelope_attr_find(x->resource, RESOURCE_ATTRIBUTES, key, &unused);
}

/* Labels of the point: those of its scope and its own attributes. NULL: it is not shown. */
static struct prometheus_series *series_of(struct context *x, const struct metric *m,
                                           struct str point, uint32_t attributes)
{
    struct buf labels;
    struct wire w = wire_of(point);
    struct attr a;
    struct prometheus_series *s = NULL;
    buf_init(&labels);
    prometheus_labels_cut(&x->labels, x->n_common);
    while (attr_next(&w, attributes, &a))
        if (!is_hidden(x, a.key))
            add_any_label(&x->labels, a.key, any_read(a.value));
    int r = prometheus_labels_write(&labels, &x->labels, false);
    if (r == -EEXIST)
        x->lost->duplicates++;
    else if (r == 0)
        s = need_series(x, m->family, buf_str(&labels));
    buf_fini(&labels);
    return s;
}

/* A point without a value ends its series: it is not shown until one with a value comes. */
static bool ends_series(struct prometheus_series *s, uint64_t flags)
{
    if (!(flags & NO_RECORDED_VALUE))
        return false;
    s->has_value = false;
    s->is_stale = true;
    return true;
}

enum relation { SKIPS, REPLACES, ADDS };

/*
 * What a point is to what is there: the newest cumulative value wins; a delta is added if it begins
 * where the last one ended. A histogram's delta that begins before that is a second writer's.
 */
static enum relation relation(const struct prometheus_series *s, const struct metric *m,
                              uint64_t start, uint64_t time)
{
    bool continues = m->temporality == TEMPORALITY_DELTA && start == s->time_ns;
    if (!s->has_value)
        return REPLACES;
    if (m->kind == METRIC_HISTOGRAM && m->temporality == TEMPORALITY_DELTA)
        return continues ? ADDS : start > s->time_ns ? REPLACES : SKIPS;
    if (time < s->time_ns)
        return SKIPS;
    return continues ? ADDS : REPLACES;
}

static void take_times(struct prometheus_series *s, enum relation r, uint64_t start, uint64_t time)
{
    if (r == REPLACES)
        s->start_ns = start;
    s->time_ns = time;
    s->has_value = true;
    s->is_stale = false;
}

static void add_number(struct context *x, const struct metric *m, struct str point)
{
    struct prometheus_series *s = series_of(x, m, point, NUMBER_POINT_ATTRIBUTES);
    struct wire w = wire_of(point);
    struct field f;
    double v = 0;
    if (!s || ends_series(s, message_u64(point, 8, 0)))
        return;
    while (wire_next(&w, &f) == 1) {
        if (f.number == 4 && f.type == WIRE_I64)
            v = f64(f.value);
        else if (f.number == 6 && f.type == WIRE_I64)
            v = (double)(int64_t)f.value;
    }
    uint64_t start = message_u64(point, 2, 0), time = message_u64(point, 3, 0);
    enum relation r = relation(s, m, start, time);
    if (r == SKIPS)
        return;
    take_times(s, r, start, time);
    s->value = r == ADDS ? s->value + v : v;
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

static void set_buckets(struct prometheus_series *s, uint64_t *buckets, const uint64_t *bounds,
                        uint32_t n_bounds)
{
    free(s->buckets);
    free(s->bounds);
    s->buckets = buckets;
    s->bounds = xcalloc(n_bounds + 1, sizeof(double));
    if (n_bounds)
        memcpy(s->bounds, bounds, n_bounds * sizeof(double));
    s->n_bounds = n_bounds;
}

static void add_histogram(struct context *x, const struct metric *m, struct str point)
{
    struct prometheus_series *s = series_of(x, m, point, HISTOGRAM_POINT_ATTRIBUTES);
    uint64_t start = message_u64(point, 2, 0), time = message_u64(point, 3, 0);
    uint32_t n_buckets, n_bounds;
    if (!s || ends_series(s, message_u64(point, 10, 0)))
        return;
    enum relation r = relation(s, m, start, time);
    if (r == SKIPS)
        return;
    uint64_t *buckets = read_fixed(point, 6, &n_buckets);
    uint64_t *bounds = read_fixed(point, 7, &n_bounds);
    /* No buckets at all: count and sum are all there is. */
    if (n_buckets ? n_buckets != n_bounds + 1 : n_bounds > 0) {
        x->lost->malformed++;
        free(buckets);
        free(bounds);
        return;
    }
    /* With other bounds the new point stands for itself. */
    bool same = !buckets == !s->buckets && s->n_bounds == n_bounds &&
                (n_bounds == 0 || memcmp(s->bounds, bounds, n_bounds * sizeof(double)) == 0);
    bool adds = r == ADDS && same;
    take_times(s, r, start, time);
    s->count = message_u64(point, 4, 0) + (adds ? s->count : 0);
    s->sum = f64(message_u64(point, 5, 0)) + (adds ? s->sum : 0);
    for (uint32_t i = 0; adds && i < n_buckets; i++)
        buckets[i] += s->buckets[i];
    set_buckets(s, buckets, bounds, n_bounds);
    s->updated_ns = x->now_ns;
    free(bounds);
}

static void add_summary(struct context *x, const struct metric *m, struct str point)
{
    struct prometheus_series *s = series_of(x, m, point, SUMMARY_POINT_ATTRIBUTES);
    uint64_t start = message_u64(point, 2, 0), time = message_u64(point, 3, 0);
    struct wire w = wire_of(point);
    struct field f;
    if (!s || ends_series(s, message_u64(point, 8, 0)) || relation(s, m, start, time) == SKIPS)
        return;
    take_times(s, REPLACES, start, time);
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
        m->temporality = message_u64(m->data, 2, 0);
    m->is_monotonic = m->kind == METRIC_SUM && message_u64(m->data, 3, 0) != 0;
}

/* Non-monotonic deltas cannot be turned into a value; exponential histograms have no text form. */
static bool is_shown(const struct metric *m)
{
    if (m->kind == METRIC_GAUGE || m->kind == METRIC_SUMMARY)
        return true;
    if (m->kind != METRIC_SUM && m->kind != METRIC_HISTOGRAM)
        return false;
    return m->temporality == TEMPORALITY_CUMULATIVE ||
           (m->temporality == TEMPORALITY_DELTA &&
            (m->is_monotonic || m->kind == METRIC_HISTOGRAM));
}

static void add_metric(struct context *x, const struct record *r)
{
    struct metric m;
    struct buf name;
    struct field f;
    read_metric(record_body(r), &m);
    if (!is_shown(&m)) {
        x->lost->unsupported += r->items;
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
        x->lost->conflicts += r->items;
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

/*
 * target_info: the other attributes of a resource with job or instance, once for each of these. Of
 * several resources with one identity the latest stands there.
 */
static void add_target(struct context *x)
{
    struct buf name, key, labels;
    struct prometheus_labels *all = &x->labels;
    buf_init(&name);
    buf_init(&key);
    buf_init(&labels);
    prometheus_labels_cut(all, 0);
    if (x->o->namespace[0])
        buf_addf(&name, "%s_", x->o->namespace);
    buf_add_cstr(&name, "target_info");
    bool is_known = add_job(all, x->resource);
    int r = prometheus_labels_write(&key, all, true);
    if (is_known && r == 0 && add_resource_labels(all, x->resource, false) > 0 &&
        prometheus_labels_write(&labels, all, true) == 0) {
        struct prometheus_family *f =
            need_family(x->store, buf_str(&name), STR("Target metadata"), PROM_GAUGE);
        struct prometheus_series *s = f ? need_series(x, f, buf_str(&key)) : NULL;
        if (s) {
            if (s->has_own_labels)
                heap_free(&s->labels);
            s->labels = heap_copy(buf_str(&labels));
            s->has_own_labels = s->has_value = true;
            s->value = 1;
            s->updated_ns = x->now_ns;
        }
    }
    buf_fini(&name);
    buf_fini(&key);
    buf_fini(&labels);
}

void prometheus_store_add(struct prometheus_store *s, const struct prometheus_options *o,
                          const struct batch *b, uint64_t now_ns, struct prometheus_losses *lost)
{
    struct context x = {.store = s, .o = o, .now_ns = now_ns, .lost = lost};
    prometheus_labels_init(&x.labels);
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
    prometheus_labels_fini(&x.labels);
}

static bool same_series(const void *value, const void *key)
{
    return value == key;
}

void prometheus_store_expire(struct prometheus_store *s, const struct prometheus_options *o,
                             uint64_t now_ns)
{
    for (struct prometheus_series **at = &s->all; *at;) {
        struct prometheus_series *x = *at;
        bool is_old = o->expiration_ns && now_ns - x->updated_ns >= o->expiration_ns;
        if (!is_old && !x->is_stale) {
            at = &x->next;
            continue;
        }
        *at = x->next;
        hashmap_take(&s->series, hash_str(x->key), same_series, x);
        series_free(x);
    }
    drop_empty_families(s);
}
