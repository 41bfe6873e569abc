/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/metrics.h"

#include <stdlib.h>

/* The semantic conventions' advice for durations of requests. */
static const double duration_bounds[] = {0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25,
                                         0.5,   0.75, 1,     2.5,  5,     7.5, 10};
enum { EXP_BUCKETS = 160 };

static const struct {
    const char *name, *description, *unit;
    enum metric_type type;
} descriptions[AGENT_METRIC_COUNT] = {
    [METRIC_HTTP_SERVER] = {"http.server.request.duration", "Duration of HTTP server requests.",
                            "s", METRIC_HISTOGRAM},
    [METRIC_HTTP_CLIENT] = {"http.client.request.duration", "Duration of HTTP client requests.",
                            "s", METRIC_HISTOGRAM},
    [METRIC_TCP_CONNECT] = {"tcp.connect.duration", "From SYN to the established connection.", "s",
                            METRIC_EXP_HISTOGRAM},
    [METRIC_TCP_FAILURES] = {"tcp.connect.failures", "Connections that were not established.",
                             "{connection}", METRIC_SUM},
    [METRIC_TCP_RETRANSMITS] = {"tcp.retransmits", "Segments sent again.", "{segment}", METRIC_SUM},
    [METRIC_TCP_RTT] = {"tcp.rtt", "Smoothed round-trip time, as the kernel estimates it.", "s",
                        METRIC_EXP_HISTOGRAM},
    [METRIC_RUNQUEUE] = {"sched.runqueue.duration", "Time that runnable tasks waited for a CPU.",
                         "s", METRIC_EXP_HISTOGRAM},
};

uint32_t metrics_attr_field(enum agent_metric id)
{
    switch (descriptions[id].type) {
    case METRIC_HISTOGRAM:
        return HISTOGRAM_POINT_ATTRIBUTES;
    case METRIC_EXP_HISTOGRAM:
        return EXP_POINT_ATTRIBUTES;
    default:
        return NUMBER_POINT_ATTRIBUTES;
    }
}

void metrics_init(struct metrics *m, size_t max_series, const char *version, uint64_t wall_ns)
{
    memset(m, 0, sizeof(*m));
    hashmap_init(&m->by_key);
    buf_init(&m->scope);
    buf_init(&m->attrs);
    m->max = max_series;
    m->start_ns = wall_ns;
    encode_scope_envelope(&m->scope, STR("tailrace/ebpf"), str_of(version), (struct str){NULL, 0});
}

static void series_free(struct metric_series *s)
{
    if (descriptions[s->metric].type == METRIC_HISTOGRAM)
        histogram_fini(&s->explicit_h);
    else
        exp_histogram_fini(&s->exp);
    free(s);
}

void metrics_fini(struct metrics *m)
{
    for (size_t i = 0; i < m->n; i++)
        series_free(m->list[i]);
    free(m->list);
    hashmap_fini(&m->by_key);
    buf_fini(&m->scope);
    buf_fini(&m->attrs);
}

struct series_key {
    enum agent_metric metric;
    struct str resource, attrs;
};

static bool series_eq(const void *value, const void *key)
{
    const struct metric_series *s = value;
    const struct series_key *k = key;

    return s->metric == k->metric && str_eq(s->attrs, k->attrs) && str_eq(s->resource, k->resource);
}

static struct metric_series *series_new(struct metrics *m, const struct series_key *k,
                                        uint64_t hash)
{
    struct metric_series *s;
    char *p;

    if (m->n == m->cap) {
        m->cap = m->cap ? m->cap * 2 : 64;
        m->list = xrealloc(m->list, m->cap * sizeof(*m->list));
    }
    s = xcalloc(1, sizeof(*s) + k->resource.n + k->attrs.n);
    p = (char *)(s + 1);
    memcpy(p, k->resource.p, k->resource.n);
    if (k->attrs.n)
        memcpy(p + k->resource.n, k->attrs.p, k->attrs.n);
    s->metric = k->metric;
    s->resource = str_make(p, k->resource.n);
    s->attrs = str_make(p + k->resource.n, k->attrs.n);
    s->resource_hash = hash_str(s->resource);
    s->start_ns = m->start_ns;
    if (descriptions[k->metric].type == METRIC_HISTOGRAM)
        histogram_init(&s->explicit_h, duration_bounds, ARRAY_LEN(duration_bounds));
    else
        exp_histogram_init(&s->exp, EXP_BUCKETS);
    if (hashmap_add(&m->by_key, hash, s)) {
        free(s);
        return NULL;
    }
    m->list[m->n++] = s;
    return s;
}

static uint64_t series_hash(enum agent_metric id, struct str resource, struct str attrs)
{
    return hash_mix(hash_mix(hash_str(resource), hash_str(attrs)), id);
}

struct metric_series *metrics_counted(struct metrics *m, enum agent_metric id, struct str resource,
                                      struct str attrs)
{
    struct series_key k = {id, resource, attrs};
    uint64_t hash = series_hash(id, resource, attrs);
    struct metric_series *s = hashmap_find(&m->by_key, hash, series_eq, &k);

    if (s)
        return s;
    m->changed = true;
    return series_new(m, &k, hash);
}

struct metric_series *metrics_series(struct metrics *m, enum agent_metric id, struct str resource,
                                     struct str attrs)
{
    struct series_key k = {id, resource, attrs};
    uint64_t hash = series_hash(id, resource, attrs);
    struct metric_series *s = hashmap_find(&m->by_key, hash, series_eq, &k);
    struct buf overflow;

    if (s || m->n < m->max)
        return s ? s : metrics_counted(m, id, resource, attrs);
    m->changed = true;
    m->overflowed++;
    buf_init(&overflow);
    encode_attr(&overflow, metrics_attr_field(id), STR("otel.metric.overflow"),
                (struct any){.type = ANY_BOOL, .b = true});
    k.attrs = buf_str(&overflow);
    hash = series_hash(id, resource, k.attrs);
    s = hashmap_find(&m->by_key, hash, series_eq, &k);
    if (!s)
        s = series_new(m, &k, hash);
    buf_fini(&overflow);
    return s;
}

static bool is_last(const struct metrics *m, const struct request *r, struct str resource)
{
    const struct metric_series *s = m->last.series;

    return s && r->role == ROLE_SERVER && !r->error_type.n && r->status == m->last.status &&
           r->scheme.p == m->last.scheme && r->version == m->last.version &&
           str_is(r->method, m->last.method) && str_eq(s->resource, resource);
}

static void remember(struct metrics *m, const struct request *r, struct metric_series *s)
{
    bool is_overflow = s && !str_eq(s->attrs, buf_str(&m->attrs));

    if (!s || is_overflow || r->role != ROLE_SERVER || r->error_type.n ||
        r->method.n >= sizeof(m->last.method))
        return;
    m->last.series = s;
    m->last.status = r->status;
    m->last.scheme = r->scheme.p;
    m->last.version = r->version;
    memcpy(m->last.method, r->method.p, r->method.n);
    m->last.method[r->method.n] = '\0';
}

static struct metric_series *request_series(struct metrics *m, const struct request *r,
                                            struct str resource)
{
    enum agent_metric id = r->role == ROLE_SERVER ? METRIC_HTTP_SERVER : METRIC_HTTP_CLIENT;
    uint32_t f = HISTOGRAM_POINT_ATTRIBUTES;
    struct metric_series *s;

    buf_reset(&m->attrs);
    encode_attr_str(&m->attrs, f, "http.request.method", r->method);
    encode_attr_str(&m->attrs, f, "url.scheme", r->scheme);
    if (r->status)
        encode_attr_int(&m->attrs, f, "http.response.status_code", r->status);
    if (r->error_type.n)
        encode_attr_str(&m->attrs, f, "error.type", r->error_type);
    encode_attr_str(&m->attrs, f, "network.protocol.version", str_of(r->version));
    if (r->role == ROLE_CLIENT) {
        if (r->server_address.n && str_is_utf8(r->server_address.p, r->server_address.n))
            encode_attr_str(&m->attrs, f, "server.address", r->server_address);
        encode_attr_int(&m->attrs, f, "server.port", r->server_port);
    }
    if (buf_error(&m->attrs))
        return NULL;
    s = metrics_series(m, id, resource, buf_str(&m->attrs));
    remember(m, r, s);
    return s;
}

void metrics_request(struct metrics *m, const struct request *r, struct str resource)
{
    struct metric_series *s;

    if (r->incomplete)
        return;
    s = is_last(m, r, resource) ? m->last.series : request_series(m, r, resource);
    m->changed = true;
    if (s)
        histogram_observe(&s->explicit_h, (double)(r->end_ns - r->start_ns) / 1e9, 1);
}

static int by_resource(const void *a, const void *b)
{
    const struct metric_series *x = *(struct metric_series *const *)a;
    const struct metric_series *y = *(struct metric_series *const *)b;

    if (x->resource_hash != y->resource_hash)
        return x->resource_hash < y->resource_hash ? -1 : 1;
    return (int)x->metric - (int)y->metric;
}

static void put_point(struct metric_draft *d, const struct metric_series *s, uint64_t wall_ns)
{
    struct point_head p = {s->attrs, s->start_ns, wall_ns};

    switch (descriptions[s->metric].type) {
    case METRIC_HISTOGRAM:
        metric_point_histogram(d, &p, &s->explicit_h, (struct str){NULL, 0});
        break;
    case METRIC_EXP_HISTOGRAM:
        metric_point_exp_histogram(d, &p, &s->exp, (struct str){NULL, 0});
        break;
    default:
        metric_point_int(d, &p, (int64_t)s->sum);
    }
}

/* One Metric message with the points of list[0..n), all of one metric and resource. */
static void put_metric(struct batch_builder *bb, struct metric_series *const *list, size_t n,
                       uint64_t wall_ns)
{
    enum agent_metric id = list[0]->metric;
    struct metric_head h = {.name = str_of(descriptions[id].name),
                            .description = str_of(descriptions[id].description),
                            .unit = str_of(descriptions[id].unit),
                            .type = descriptions[id].type,
                            .temporality = TEMPORALITY_CUMULATIVE,
                            .monotonic = true};
    struct metric_draft d;
    struct buf out;
    uint32_t points;

    buf_init(&out);
    metric_begin(&d, &out, &h);
    for (size_t i = 0; i < n; i++)
        put_point(&d, list[i], wall_ns);
    points = metric_end(&d);
    if (!buf_error(&out))
        batch_builder_record(bb, buf_str(&out), points, NULL);
    buf_fini(&out);
}

void metrics_end(struct metrics *m, struct str resource)
{
    uint64_t hash = hash_str(resource);

    for (size_t i = 0; i < m->n; i++) {
        if (m->list[i]->resource_hash != hash || !str_eq(m->list[i]->resource, resource))
            continue;
        m->list[i]->is_ended = true;
        m->changed = true;
    }
}

static bool is_same(const void *value, const void *key)
{
    return value == key;
}

static void remove_ended(struct metrics *m)
{
    size_t kept = 0;

    for (size_t i = 0; i < m->n; i++) {
        struct metric_series *s = m->list[i];

        if (s->is_ended) {
            m->last.series = NULL;
            hashmap_take(&m->by_key, series_hash(s->metric, s->resource, s->attrs), is_same, s);
            series_free(s);
        } else {
            m->list[kept++] = s;
        }
    }
    m->n = kept;
}

struct batch *metrics_take(struct metrics *m, uint64_t wall_ns)
{
    struct batch_builder bb;
    struct batch *out = NULL;

    if (!m->changed || m->n == 0)
        return NULL;
    m->changed = false;
    qsort(m->list, m->n, sizeof(*m->list), by_resource);
    batch_builder_init(&bb, SIGNAL_METRICS);
    for (size_t i = 0, n; i < m->n; i += n) {
        const struct metric_series *s = m->list[i];

        for (n = 1; i + n < m->n && m->list[i + n]->resource_hash == s->resource_hash &&
                    m->list[i + n]->metric == s->metric;
             n++)
            continue;
        if (i == 0 || m->list[i - 1]->resource_hash != s->resource_hash) {
            batch_builder_resource(&bb, s->resource, true);
            batch_builder_scope(&bb, buf_str(&m->scope), true);
        }
        put_metric(&bb, m->list + i, n, wall_ns);
    }
    if (batch_builder_seal(&bb, &out))
        return NULL;
    remove_ended(m);
    return out;
}
