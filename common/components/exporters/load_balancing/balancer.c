/* SPDX-License-Identifier: Apache-2.0 */
#include "common/components/exporters/load_balancing/balancer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/pipeline/graph.h"
#include "common/pipeline/telemetry.h"

#define BACKEND_MAGIC 0x4c424245u
#define PART_MAGIC 0x4c425041u
#define BALANCER_MAGIC 0x4c424c42u

enum { SWEEP_MS = 100 };

/* What the log says of it, whichever generation it belongs to. */
#define LOG_OF(lb) (&(struct log_ctx){.component = (lb)->id})

/*
 * A backend:
 *
 *   backend_new ─► serving ─► (left the list) leaving: diverted, stopping ─► stopped ─► freed by
 * the sweep once no set and no part holds it
 */
struct backend {
    unsigned magic;
    _Atomic uint32_t refs; /* the list's own, sets', parts' */
    struct balancer *balancer;
    struct node node; /* the sub-exporter's instance; its accounts are the balancer's */
    char *endpoint;   /* with port */
    void *config;
    struct series *latency, *success, *failure;
    bool is_leaving, is_stopping; /* loop 0 */
    unsigned idle_sweeps;         /* seen stopped and unheld */
    struct list link;
};

struct backend_set {
    _Atomic uint32_t refs;
    struct ring *ring;
    struct backend *of[]; /* by ring endpoint; NULL: could not be made */
};

struct balancer {
    unsigned magic;
    struct instance *_Atomic in; /* of the newest generation */
    char *id;                    /* outlives the configuration that named it */
    const struct balancer_sub *sub;
    const void *lb_config; /* loop 0 */
    enum route_key key;
    pthread_mutex_t lock;    /* set, backends */
    struct backend_set *set; /* NULL until something was resolved */
    struct list backends;
    struct entry entry; /* closed while no backend takes anything */
    struct loop_timer *sweep;
    bool is_stopping, is_stopped; /* loop 0 */
    struct series *backends_now, *updates, *resolved, *unresolved;
};

/* ---- self metrics ---- */

static const double latency_bounds[] = {5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000};

static const struct metric_desc metric_latency = {
    .name = "loadbalancer_backend_latency",
    .help = "Response latency in ms for the backends.",
    .unit = "ms",
    .kind = METRIC_KIND_HISTOGRAM,
    .level = LEVEL_BASIC,
    .bounds = latency_bounds,
    .n_bounds = ARRAY_LEN(latency_bounds),
};
static const struct metric_desc metric_outcome = {
    .name = "loadbalancer_backend_outcome",
    .help = "Number of successes and failures for each endpoint.",
    .unit = "{outcomes}",
    .kind = METRIC_KIND_COUNTER,
    .level = LEVEL_BASIC,
};
static const struct metric_desc metric_backends = {
    .name = "loadbalancer_num_backends",
    .help = "Current number of backends in use.",
    .unit = "{backends}",
    .kind = METRIC_KIND_GAUGE,
    .level = LEVEL_BASIC,
};
static const struct metric_desc metric_updates = {
    .name = "loadbalancer_num_backend_updates",
    .help = "Number of times the list of backends was updated.",
    .unit = "{updates}",
    .kind = METRIC_KIND_COUNTER,
    .level = LEVEL_BASIC,
};
static const struct metric_desc metric_resolutions = {
    .name = "loadbalancer_num_resolutions",
    .help = "Number of times the resolver has triggered new resolutions.",
    .unit = "{resolutions}",
    .kind = METRIC_KIND_COUNTER,
    .level = LEVEL_BASIC,
};

void balancer_set_resolver(struct balancer *lb, const char *resolver)
{
    struct label l[] = {{"resolver", resolver}, {"success", "true"}};
    lb->backends_now = telemetry_series(&metric_backends, l, 1);
    lb->updates = telemetry_series(&metric_updates, l, 1);
    lb->resolved = telemetry_series(&metric_resolutions, l, 2);
    l[1].value = "false";
    lb->unresolved = telemetry_series(&metric_resolutions, l, 2);
}

void balancer_resolved(struct balancer *lb, bool success)
{
    series_add(success ? lb->resolved : lb->unresolved, 1);
}

/* ---- backends ---- */

static void backend_unref(struct backend *be)
{
    uint32_t before = atomic_fetch_sub(&be->refs, 1);
    ASSERT(before > 1); /* the last one is the list's: the sweep frees */
}

/* host:port; only what is dialled gets the port, not what is hashed. */
static char *with_port(const char *endpoint)
{
    return strchr(endpoint, ':') ? xstrdup(endpoint) : xasprintf("%s:4317", endpoint);
}

static void backend_free(struct backend *be)
{
    if (be->node.in.component->free)
        be->node.in.component->free(&be->node.in);
    CLEAR_MAGIC(be);
    free(be->endpoint);
    free(be->config);
    free(be);
}

/* The sub-exporter counts on the balancer's accounts, but closes and stops for itself. */
static void set_node(struct backend *be, struct balancer *lb)
{
    struct node *parent = node_of(lb->in);
    be->node.graph = parent->graph;
    for (unsigned s = 0; s < SIGNAL_COUNT; s++)
        be->node.account[s] = parent->account[s];
    be->node.in = (struct instance){
        .magic = INSTANCE_MAGIC,
        .component = lb->sub->component,
        .id = lb->id,
        .signal = lb->in->signal,
        .makes = lb->in->signal,
        .config = be->config,
        .log = {.component = lb->id, .peer = be->endpoint},
        .node = &be->node,
    };
}

static int start_sub(struct backend *be, struct err *e)
{
    const struct component *c = be->node.in.component;
    int rc = c->create ? c->create(&be->node.in, e) : 0;
    if (rc < 0)
        return rc;
    rc = c->start ? c->start(&be->node.in, e) : 0;
    if (rc < 0 && c->free)
        c->free(&be->node.in);
    return rc;
}

/* Takes over the text of the endpoint. NULL: it could not be made, logged. */
static struct backend *backend_new(struct balancer *lb, char *endpoint)
{
    struct backend *be = xcalloc(1, sizeof(*be));
    struct label l[] = {{"endpoint", endpoint}, {"success", "true"}};
    struct err e = {{0}};

    SET_MAGIC(be, BACKEND_MAGIC);
    atomic_init(&be->refs, 1);
    be->balancer = lb;
    be->endpoint = endpoint;
    be->config = lb->sub->config_for(lb->lb_config, endpoint);
    set_node(be, lb);
    if (start_sub(be, &e) < 0) {
        log_error(LOG_OF(lb), "backend %s cannot be used: %s", endpoint, e.text);
        free(be->config);
        free(endpoint);
        free(be);
        return NULL;
    }
    be->latency = telemetry_series(&metric_latency, l, 1);
    be->success = telemetry_series(&metric_outcome, l, 2);
    l[1].value = "false";
    be->failure = telemetry_series(&metric_outcome, l, 2);
    pthread_mutex_lock(&lb->lock);
    list_push(&lb->backends, &be->link);
    pthread_mutex_unlock(&lb->lock);
    return be;
}

/* ---- sets ---- */

static struct backend_set *set_get(struct balancer *lb)
{
    pthread_mutex_lock(&lb->lock);
    struct backend_set *s = lb->set;
    if (s)
        atomic_fetch_add(&s->refs, 1);
    pthread_mutex_unlock(&lb->lock);
    return s;
}

static void set_unref(struct backend_set *s)
{
    if (!s || atomic_fetch_sub(&s->refs, 1) > 1)
        return;
    for (uint32_t i = 0; i < ring_size(s->ring); i++)
        if (s->of[i])
            backend_unref(s->of[i]);
    ring_free(&s->ring);
    free(s);
}

/* ---- delivery ---- */

/* One backend's share of a batch, until its verdict. */
struct part {
    unsigned magic;
    struct ack ack;
    struct ack *parent;
    struct backend *backend;
    uint64_t begun_ns;
};

static void part_done(void *arg, const struct verdict *v)
{
    struct part *p = CAST_OBJ(struct part, arg, PART_MAGIC);
    struct ack *parent = p->parent;
    struct backend *be = p->backend;

    series_observe(be->latency, (double)(clock_mono_ns() - p->begun_ns) / (double)NS_PER_MS);
    series_add(v->status == ACK_OK ? be->success : be->failure, 1);
    struct verdict verdict = *v;
    CLEAR_MAGIC(p);
    free(p);
    backend_unref(be);
    ack_settle(parent, &verdict);
}

/* Gives up records that nobody takes, with one count of the ack. */
static void refuse(struct balancer *lb, uint64_t items, struct ack *a, const char *why)
{
    ledger_dropped(lb->in, lb->in->signal, items, why);
    ack_settle(a, &VERDICT_RETRY(why));
}

/* Takes the batch and one count. True when the backend is full now. */
static bool deliver(struct balancer *lb, struct backend *be, struct batch *b, struct ack *a)
{
    struct part *p = be ? try_alloc(sizeof(*p)) : NULL;
    if (!p) {
        refuse(lb, b->items, a, be ? "no_memory" : "no_backend");
        batch_unref(&b);
        return false;
    }
    memset(p, 0, sizeof(*p));
    SET_MAGIC(p, PART_MAGIC);
    p->parent = a;
    p->backend = be;
    p->begun_ns = clock_mono_ns();
    atomic_fetch_add(&be->refs, 1);
    ack_init(&p->ack, NULL, part_done, p);
    be->node.in.component->consume(&be->node.in, b, &p->ack);
    return atomic_load(&be->node.closed) > 0;
}

static uint64_t items_of(const struct batch *b, const uint32_t *idx, uint32_t n)
{
    uint64_t items = 0;
    for (uint32_t i = 0; i < n; i++)
        items += b->records[idx[i]].items;
    return items;
}

static bool deliver_some(struct balancer *lb, struct backend *be, struct batch *b,
                         const uint32_t *idx, uint32_t n, struct ack *a)
{
    struct batch *part;
    if (batch_select(&part, b, idx, n) == 0)
        return deliver(lb, be, part, a);
    refuse(lb, items_of(b, idx, n), a, "no_memory");
    return false;
}

/* Metrics without service.name belong nowhere: as in the Collector they are dropped, and it is
 * said. */
static void drop_strays(struct balancer *lb, const struct route *r, const struct batch *b,
                        struct ack *a)
{
    uint64_t items = items_of(b, r->idx + r->begin[r->n], route_strays(r));
    ledger_dropped(lb->in, lb->in->signal, items, "no_service_name");
    log_warn(LOG_OF(lb), "%llu metric points dropped: their resource has no service.name",
             (unsigned long long)items);
    ack_ok(a);
}

/* Takes the batch and one count. True when a backend is full. */
static bool deliver_parts(struct balancer *lb, struct backend_set *set, const struct route *r,
                          struct batch *b, struct ack *a)
{
    uint32_t parts = route_strays(r) > 0, only = 0;
    bool full = false;
    for (uint32_t o = 0; o < r->n; o++) {
        parts += route_count(r, o) > 0;
        if (route_count(r, o))
            only = o;
    }
    if (parts == 1 && route_count(r, only))
        return deliver(lb, set->of[only], b, a);
    if (parts == 0) { /* an empty batch */
        batch_unref(&b);
        ack_ok(a);
        return false;
    }
    if (parts > 1)
        ack_take(a, parts - 1);
    for (uint32_t o = 0; o < r->n; o++)
        if (route_count(r, o))
            full |= deliver_some(lb, set->of[o], b, r->idx + r->begin[o], route_count(r, o), a);
    if (route_strays(r))
        drop_strays(lb, r, b, a);
    batch_unref(&b);
    return full;
}

static bool route_and_deliver(struct balancer *lb, struct batch *b, struct ack *a)
{
    struct backend_set *set = set_get(lb);
    struct route r;
    bool full = false;
    if (!set || route_batch(&r, b, set->ring, lb->key) < 0) {
        refuse(lb, b->items, a, set ? "no_memory" : "no_backend");
        batch_unref(&b);
    } else {
        full = deliver_parts(lb, set, &r, b, a);
        route_fini(&r);
    }
    set_unref(set);
    return full;
}

/* ---- the entry ---- */

/* Unless some backend takes more. */
static bool is_full(void *arg, bool was)
{
    struct balancer *lb = arg;
    struct backend_set *set = set_get(lb);
    (void)was;
    bool open = false;
    for (uint32_t i = 0; set && i < ring_size(set->ring) && !open; i++)
        open = set->of[i] && atomic_load(&set->of[i]->node.closed) == 0;
    set_unref(set);
    return !open;
}

static void update_gate(struct balancer *lb)
{
    entry_update(&lb->entry, is_full, lb);
}

void balancer_consume(struct balancer *lb, struct batch *b, struct ack *a)
{
    if (route_and_deliver(lb, b, a))
        update_gate(lb);
}

/* ---- changes of the list ---- */

static void divert(void *arg, struct batch *b, struct ack *a)
{
    struct backend *be = CAST_OBJ(struct backend, arg, BACKEND_MAGIC);
    route_and_deliver(be->balancer, b, a);
}

static struct backend *find_backend(const struct balancer *lb, const char *endpoint)
{
    LIST_EACH (it, &lb->backends) {
        struct backend *be = LIST_ENTRY(it, struct backend, link);
        if (!be->is_leaving && strcmp(be->endpoint, endpoint) == 0)
            return be;
    }
    return NULL;
}

static struct backend_set *set_new(struct balancer *lb, struct ring *ring)
{
    uint32_t n = ring_size(ring);
    struct backend_set *s = xcalloc(1, sizeof(*s) + n * sizeof(s->of[0]));
    atomic_init(&s->refs, 1);
    s->ring = ring;
    for (uint32_t i = 0; i < n; i++) {
        char *endpoint = with_port(ring_endpoint(ring, i));
        struct backend *be = find_backend(lb, endpoint);
        if (be)
            free(endpoint);
        else
            be = backend_new(lb, endpoint);
        s->of[i] = be;
        if (be)
            atomic_fetch_add(&be->refs, 1);
    }
    return s;
}

static bool set_has(const struct backend_set *s, const struct backend *be)
{
    for (uint32_t i = 0; i < ring_size(s->ring); i++)
        if (s->of[i] == be)
            return true;
    return false;
}

static void leave(struct balancer *lb, struct backend *be)
{
    log_info(LOG_OF(lb), "backend %s left: what waits for it goes to others", be->endpoint);
    be->is_leaving = true;
    lb->sub->divert(&be->node.in, divert, be);
    be->is_stopping = true;
    be->node.in.component->stop(&be->node.in);
}

void balancer_set_endpoints(struct balancer *lb, const char *const *endpoints, size_t n)
{
    struct ring *ring;
    if (n == 0 || lb->is_stopping)
        return;
    if (ring_new(&ring, endpoints, n) < 0) {
        log_error(LOG_OF(lb), "no memory for a ring of %zu backends: the old one stays", n);
        return;
    }
    if (lb->set && ring_eq(lb->set->ring, ring)) {
        ring_free(&ring);
        return;
    }
    struct backend_set *now = set_new(lb, ring), *before = lb->set;
    pthread_mutex_lock(&lb->lock);
    lb->set = now;
    pthread_mutex_unlock(&lb->lock);
    LIST_EACH (it, &lb->backends) {
        struct backend *be = LIST_ENTRY(it, struct backend, link);
        if (!be->is_leaving && !set_has(now, be))
            leave(lb, be);
    }
    set_unref(before);
    series_set(lb->backends_now, (int64_t)ring_size(ring));
    series_add(lb->updates, 1);
    log_info(LOG_OF(lb), "%u backends", ring_size(ring));
    update_gate(lb);
}

bool balancer_has_list(const struct balancer *lb)
{
    return lb->set != NULL;
}

/* ---- life ---- */

/* Frees what has left for good. A sweep passes between seeing it stopped and freeing it. */
static void sweep_backends(struct balancer *lb)
{
    LIST_EACH_SAFE (it, next, &lb->backends) {
        struct backend *be = LIST_ENTRY(it, struct backend, link);
        bool idle =
            be->is_leaving && atomic_load(&be->node.is_stopped) && atomic_load(&be->refs) == 1;
        be->idle_sweeps = idle ? be->idle_sweeps + 1 : 0;
        if (be->idle_sweeps < 2)
            continue;
        pthread_mutex_lock(&lb->lock);
        list_remove(&be->link);
        pthread_mutex_unlock(&lb->lock);
        backend_free(be);
    }
}

/* Stops the rest when those that leave have left; true when all have stopped. */
static bool go_on_stopping(struct balancer *lb)
{
    bool all = true;
    LIST_EACH (it, &lb->backends) {
        struct backend *be = LIST_ENTRY(it, struct backend, link);
        all = all && (!be->is_leaving || atomic_load(&be->node.is_stopped));
    }
    if (!all)
        return false;
    LIST_EACH (it, &lb->backends) {
        struct backend *be = LIST_ENTRY(it, struct backend, link);
        if (!be->is_stopping) {
            be->is_stopping = true;
            be->node.in.component->stop(&be->node.in);
        }
        all = all && atomic_load(&be->node.is_stopped);
    }
    return all;
}

static void sweep(void *arg)
{
    struct balancer *lb = CAST_OBJ(struct balancer, arg, BALANCER_MAGIC);
    if (lb->is_stopped)
        return;
    sweep_backends(lb);
    if (!lb->is_stopping) {
        update_gate(lb);
    } else if (go_on_stopping(lb)) {
        lb->is_stopped = true;
        loop_timer_stop(lb->sweep);
        instance_stopped(lb->in);
    }
}

int balancer_new(struct balancer **out, struct instance *in, const struct balancer_sub *sub,
                 const void *lb_config, enum route_key key)
{
    struct balancer *lb = xcalloc(1, sizeof(*lb));
    SET_MAGIC(lb, BALANCER_MAGIC);
    lb->in = in;
    lb->id = xstrdup(in->id);
    lb->sub = sub;
    lb->lb_config = lb_config;
    lb->key = key;
    pthread_mutex_init(&lb->lock, NULL);
    entry_init(&lb->entry, in);
    list_init(&lb->backends);
    *out = lb;
    return 0;
}

void balancer_start(struct balancer *lb)
{
    lb->sweep = loop_timer_new(loops_get(0), sweep, lb);
    loop_timer_start(lb->sweep, SWEEP_MS, SWEEP_MS);
    update_gate(lb); /* closed until there is a backend */
}

void balancer_adopt(struct balancer *lb, struct instance *in, const void *lb_config)
{
    entry_move(&lb->entry, in);
    lb->in = in;
    lb->lb_config = lb_config;
    LIST_EACH (it, &lb->backends) {
        LIST_ENTRY(it, struct backend, link)->node.graph = node_of(in)->graph;
    }
}

uint64_t balancer_held(struct balancer *lb)
{
    uint64_t held = 0;
    pthread_mutex_lock(&lb->lock);
    LIST_EACH (it, &lb->backends) {
        struct backend *be = LIST_ENTRY(it, struct backend, link);
        if (be->node.in.component->held)
            held += be->node.in.component->held(&be->node.in);
    }
    pthread_mutex_unlock(&lb->lock);
    return held;
}

void balancer_stop(struct balancer *lb)
{
    lb->is_stopping = true;
    sweep(lb);
}

void balancer_abandon(struct balancer *lb)
{
    LIST_EACH (it, &lb->backends) {
        struct backend *be = LIST_ENTRY(it, struct backend, link);
        if (!atomic_load(&be->node.is_stopped) && be->node.in.component->abandon)
            be->node.in.component->abandon(&be->node.in);
    }
}

void balancer_free(struct balancer **p)
{
    struct balancer *lb = *p;
    if (!lb)
        return;
    if (lb->sweep)
        loop_timer_free(&lb->sweep);
    set_unref(lb->set);
    LIST_EACH_SAFE (it, next, &lb->backends) {
        struct backend *be = LIST_ENTRY(it, struct backend, link);
        list_remove(&be->link);
        backend_free(be);
    }
    pthread_mutex_destroy(&lb->lock);
    entry_fini(&lb->entry);
    CLEAR_MAGIC(lb);
    free(lb->id);
    free(lb);
    *p = NULL;
}
