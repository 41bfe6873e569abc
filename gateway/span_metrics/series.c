/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/span_metrics/series.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"

#define OVERFLOW_KEY                                                                               \
    STR("\xff"                                                                                     \
        "overflow")

static struct str heap_copy(struct str s)
{
    char *p = xalloc(s.n + 1);
    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    return str_make(p, s.n);
}

static void heap_free(struct str *s)
{
    free((void *)(uintptr_t)s->p);
    *s = (struct str){NULL, 0};
}

static void id_free(struct series_id *id)
{
    heap_free(&id->key);
    heap_free(&id->attrs);
}

/* ---- parts ---- */

void part_init(struct part *p)
{
    pthread_mutex_init(&p->lock, NULL);
    hashmap_init(&p->series);
    p->seed = clock_mono_ns() | 1;
}

static void part_series_free(struct part_series *s)
{
    id_free(&s->id);
    heap_free(&s->envelope);
    histogram_fini(&s->duration);
    free(s);
}

void part_fini(struct part *p)
{
    size_t pos = 0;
    for (struct part_series *s; (s = hashmap_next(&p->series, &pos));)
        part_series_free(s);
    hashmap_fini(&p->series);
    pthread_mutex_destroy(&p->lock);
}

static bool same_part_key(const void *value, const void *key)
{
    const struct part_series *s = value;
    return str_eq(s->id.key, *(const struct str *)key);
}

struct part_series *part_find(struct part *p, uint64_t hash, struct str key)
{
    return hashmap_find(&p->series, hash, same_part_key, &key);
}

struct part_series *part_add(struct part *p, uint64_t hash, uint64_t resource, struct str key,
                             struct str attrs, struct str envelope, const double *bounds,
                             uint32_t n_bounds)
{
    struct part_series *s = xcalloc(1, sizeof(*s));
    s->id = (struct series_id){
        .resource = resource, .hash = hash, .key = heap_copy(key), .attrs = heap_copy(attrs)};
    s->envelope = heap_copy(envelope);
    histogram_init(&s->duration, bounds, n_bounds);
    if (hashmap_add(&p->series, hash, s)) {
        part_series_free(s);
        return NULL;
    }
    return s;
}

/* ---- the master ---- */

void master_init(struct master *m)
{
    *m = (struct master){0};
    list_init(&m->times_order);
}

static bool same_time_key(const void *value, const void *key)
{
    const struct last_time *t = value;
    return str_eq(t->key, *(const struct str *)key);
}

static void forget_time(struct master *m, struct last_time *t)
{
    hashmap_take(&m->times, t->hash, same_time_key, &t->key);
    list_remove(&t->in_order);
    heap_free(&t->key);
    free(t);
}

/* The series was written at that time. */
static void remember_time(struct master *m, const struct series_id *id, uint64_t at_ns,
                          uint64_t max)
{
    struct last_time *t = hashmap_find(&m->times, id->hash, same_time_key, &id->key);
    if (t) {
        list_remove(&t->in_order);
    } else {
        t = xcalloc(1, sizeof(*t));
        t->hash = id->hash;
        t->key = heap_copy(id->key);
        if (hashmap_add(&m->times, t->hash, t)) { /* no memory: it will begin at its first span */
            heap_free(&t->key);
            free(t);
            return;
        }
    }
    t->at_ns = at_ns;
    list_push(&m->times_order, &t->in_order);
    while (m->times.n > max)
        forget_time(m, LIST_ENTRY(m->times_order.next, struct last_time, in_order));
}

static uint64_t start_of(const struct master *m, const struct series_id *id, uint64_t first_ns)
{
    const struct last_time *t = hashmap_find(&m->times, id->hash, same_time_key, &id->key);
    return t ? t->at_ns : first_ns;
}

static void series_free(struct master_series *s)
{
    id_free(&s->id);
    histogram_fini(&s->duration);
    free(s);
}

static bool same_key(const void *value, const void *key)
{
    const struct master_series *s = value;
    return str_eq(s->id.key, *(const struct str *)key);
}

static bool same_series(const void *value, const void *key)
{
    return value == key;
}

static bool same_resource(const void *value, const void *key)
{
    const struct resource_series *r = value;
    return r->hash == *(const uint64_t *)key;
}

static void drop_series(struct master *m, struct master_series *s)
{
    hashmap_take(&m->series, s->id.hash, same_series, s);
    series_free(s);
}

static void drop_resource(struct master *m, struct resource_series *r)
{
    while (r->series) {
        struct master_series *s = r->series;
        r->series = s->next;
        drop_series(m, s);
    }
    hashmap_take(&m->resources, r->hash, same_resource, &r->hash);
    heap_free(&r->envelope);
    free(r);
    m->n_resources--;
}

void master_fini(struct master *m)
{
    while (m->all) {
        struct resource_series *r = m->all;
        m->all = r->next;
        drop_resource(m, r);
    }
    while (!list_is_empty(&m->times_order))
        forget_time(m, LIST_ENTRY(m->times_order.next, struct last_time, in_order));
    hashmap_fini(&m->series);
    hashmap_fini(&m->resources);
    hashmap_fini(&m->times);
}

static struct resource_series *need_resource(struct master *m, const struct part_series *p)
{
    uint64_t hash = p->id.resource;
    struct resource_series *r = hashmap_find(&m->resources, hash, same_resource, &hash);
    if (r)
        return r;
    r = xcalloc(1, sizeof(*r));
    r->hash = hash;
    r->envelope = heap_copy(p->envelope);
    if (hashmap_add(&m->resources, hash, r)) {
        heap_free(&r->envelope);
        free(r);
        return NULL;
    }
    r->next = m->all;
    m->all = r;
    m->n_resources++;
    return r;
}

static struct master_series *add_series(struct master *m, struct resource_series *r,
                                        const struct series_id *id, const struct master_config *c,
                                        uint64_t start_ns)
{
    struct master_series *s = xcalloc(1, sizeof(*s));
    s->id = *id;
    s->id.key = heap_copy(id->key);
    s->id.attrs = heap_copy(id->attrs);
    s->resource = r;
    s->start_ns = start_of(m, id, start_ns);
    histogram_init(&s->duration, c->bounds, c->n_bounds);
    if (hashmap_add(&m->series, s->id.hash, s)) {
        series_free(s);
        return NULL;
    }
    s->next = r->series;
    r->series = s;
    r->n_series++;
    return s;
}

/* Past the limit of a resource all that is new is counted in one series. */
static struct master_series *overflow_series(struct master *m, struct resource_series *r,
                                             const struct master_config *c, uint64_t start_ns)
{
    struct buf attrs, key;
    buf_init(&attrs);
    buf_init(&key);
    buf_add_str(&key, OVERFLOW_KEY);
    buf_add(&key, &r->hash, sizeof(r->hash));
    encode_attr_str(&attrs, 1, "otel.metric.overflow", STR("true"));
    struct series_id id = {.resource = r->hash,
                           .hash = hash_str(buf_str(&key)),
                           .key = buf_str(&key),
                           .attrs = buf_str(&attrs)};
    struct master_series *s = hashmap_find(&m->series, id.hash, same_key, &id.key);
    if (!s)
        s = add_series(m, r, &id, c, start_ns);
    buf_fini(&attrs);
    buf_fini(&key);
    return s;
}

static struct master_series *need_series(struct master *m, const struct part_series *p,
                                         const struct master_config *c)
{
    struct master_series *s = hashmap_find(&m->series, p->id.hash, same_key, &p->id.key);
    if (s)
        return s;
    struct resource_series *r = need_resource(m, p);
    if (!r)
        return NULL;
    if (c->max_series && r->n_series >= c->max_series)
        return overflow_series(m, r, c, p->first_ns);
    return add_series(m, r, &p->id, c, p->first_ns);
}

static bool same_part_series(const void *value, const void *key)
{
    return value == key;
}

/* Those without spans since the last time; a part would else keep every series that ever was. */
static void drop_idle(struct part *p, struct part_series *idle)
{
    while (idle) {
        struct part_series *s = idle;
        idle = s->next_idle;
        hashmap_take(&p->series, s->id.hash, same_part_series, s);
        part_series_free(s);
    }
}

void master_take(struct master *m, struct part *p, const struct master_config *c, uint64_t now_ns)
{
    struct part_series *idle = NULL;
    size_t pos = 0;
    pthread_mutex_lock(&p->lock);
    for (struct part_series *s; (s = hashmap_next(&p->series, &pos));) {
        if (s->calls == 0) {
            s->next_idle = idle;
            idle = s;
            continue;
        }
        struct master_series *to = need_series(m, s, c);
        if (!to)
            continue; /* no memory: what it counted stays and comes next time */
        to->calls += s->calls;
        histogram_merge(&to->duration, &s->duration);
        to->last_seen_ns = to->resource->last_seen_ns = now_ns;
        s->calls = 0;
        s->first_ns = now_ns; /* the next span comes after this */
        histogram_reset(&s->duration);
    }
    drop_idle(p, idle);
    pthread_mutex_unlock(&p->lock);
}

/* KeyValue fields are kept with number 1 and written with the point's own. */
static void renumber(struct buf *out, struct str attrs, uint32_t number)
{
    struct wire w = wire_of(attrs);
    struct field f;
    buf_reset(out);
    while (wire_next(&w, &f) == 1)
        wire_put_bytes(out, number, f.bytes);
}

static void write_calls(struct batch_builder *bb, const struct resource_series *r,
                        const struct master_config *c, uint64_t now_ns)
{
    struct metric_head head = {.name = c->calls_name,
                               .type = METRIC_SUM,
                               .temporality =
                                   c->is_delta ? TEMPORALITY_DELTA : TEMPORALITY_CUMULATIVE,
                               .monotonic = true};
    struct metric_draft m;
    struct buf body, attrs;
    buf_init(&body);
    buf_init(&attrs);
    metric_begin(&m, &body, &head);
    for (struct master_series *s = r->series; s; s = s->next) {
        /* A starting zero lets rate() see the first calls; the real value comes with the next
         * flush. */
        bool zero = !c->is_delta && !s->is_shown;
        renumber(&attrs, s->id.attrs, NUMBER_POINT_ATTRIBUTES);
        struct point_head p = {buf_str(&attrs), s->start_ns, now_ns};
        metric_point_int(&m, &p, zero ? 0 : (int64_t)s->calls);
        s->is_shown = true;
    }
    uint32_t points = metric_end(&m);
    if (buf_error(&body) || buf_error(&attrs))
        bb->error = -ENOMEM;
    batch_builder_record(bb, buf_str(&body), points, NULL);
    buf_fini(&body);
    buf_fini(&attrs);
}

static void write_durations(struct batch_builder *bb, const struct resource_series *r,
                            const struct master_config *c, uint64_t now_ns)
{
    struct metric_head head = {.name = c->duration_name,
                               .unit = c->duration_unit,
                               .type = METRIC_HISTOGRAM,
                               .temporality =
                                   c->is_delta ? TEMPORALITY_DELTA : TEMPORALITY_CUMULATIVE};
    struct metric_draft m;
    struct buf body, attrs;
    buf_init(&body);
    buf_init(&attrs);
    metric_begin(&m, &body, &head);
    for (struct master_series *s = r->series; s; s = s->next) {
        renumber(&attrs, s->id.attrs, HISTOGRAM_POINT_ATTRIBUTES);
        struct point_head p = {buf_str(&attrs), s->start_ns, now_ns};
        metric_point_histogram(&m, &p, &s->duration, (struct str){NULL, 0});
    }
    uint32_t points = metric_end(&m);
    if (buf_error(&body) || buf_error(&attrs))
        bb->error = -ENOMEM;
    batch_builder_record(bb, buf_str(&body), points, NULL);
    buf_fini(&body);
    buf_fini(&attrs);
}

static bool is_expired(uint64_t last_ns, uint64_t expiration_ns, uint64_t now_ns)
{
    return expiration_ns && now_ns > last_ns && now_ns - last_ns >= expiration_ns;
}

static void expire_series(struct master *m, struct resource_series *r,
                          const struct master_config *c, uint64_t now_ns)
{
    for (struct master_series **at = &r->series; *at;) {
        struct master_series *s = *at;
        if (!c->is_delta && !is_expired(s->last_seen_ns, c->series_expiration_ns, now_ns)) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        r->n_series--;
        if (c->is_delta)
            remember_time(m, &s->id, now_ns, c->max_times);
        drop_series(m, s);
    }
}

/* Resources that are too old, and the least recent beyond max_resources; they were just written. */
static void expire(struct master *m, const struct master_config *c, uint64_t now_ns)
{
    for (struct resource_series **at = &m->all; *at;) {
        struct resource_series *r = *at;
        expire_series(m, r, c, now_ns);
        if (r->series && !is_expired(r->last_seen_ns, c->resource_expiration_ns, now_ns)) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        drop_resource(m, r);
    }
    while (c->max_resources && m->n_resources > c->max_resources) {
        struct resource_series **oldest = &m->all;
        for (struct resource_series **at = &m->all; *at; at = &(*at)->next)
            if ((*at)->last_seen_ns < (*oldest)->last_seen_ns)
                oldest = at;
        struct resource_series *r = *oldest;
        ASSERT(r); /* n_resources counts them */
        *oldest = r->next;
        drop_resource(m, r);
    }
}

int master_write(struct master *m, const struct master_config *c, uint64_t now_ns,
                 struct batch **out)
{
    struct batch_builder bb;
    struct buf scope;
    buf_init(&scope);
    encode_scope_envelope(&scope, STR("spanmetricsconnector"), STR(""), STR(""));
    batch_builder_init(&bb, SIGNAL_METRICS);
    for (struct resource_series *r = m->all; r; r = r->next) {
        if (!r->series)
            continue;
        batch_builder_resource(&bb, r->envelope, true);
        batch_builder_scope(&bb, buf_str(&scope), true);
        write_calls(&bb, r, c, now_ns);
        if (c->has_histogram)
            write_durations(&bb, r, c, now_ns);
    }
    buf_fini(&scope);
    int r = batch_builder_seal(&bb, out);
    if (r == 0)
        expire(m, c, now_ns);
    return r;
}
