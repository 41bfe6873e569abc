/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tail_sampling: holds the spans of a trace for decision_wait, then keeps or drops all of them.
 *
 *   consume (any loop): sort by shard ─► lock ─► copy spans into the shard's blocks ─► unlock ─►
 * ack tick (the shard's loop): lock ─► take due traces, decide ─► unlock ─► kept spans, grouped by
 * resource, into one batch ─► node_emit ─► lock ─► give the blocks back ─► unlock a late span: of a
 * kept trace it goes on at once, of a dropped one it is dropped
 *
 * Shards, buffered traces and decisions outlive a reload (adopt); only the policies are new.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/pipeline/node.h"
#include "common/pipeline/shard.h"
#include "gateway/tail_sampling/kept.h"
#include "gateway/tail_sampling/policy.h"

enum { TICK_MS = 20, TICK_MS_IDLE = 1000, DECIDE_AT_ONCE = 256, KEEP_BYTES_AT_ONCE = 896 << 10 };

struct tail_config {
    struct option_list policies; /* struct policy_config */
    uint64_t decision_wait_ns, num_traces;
    bool first_match, drop_pending, block_on_overflow;
    struct {
        uint64_t sampled, not_sampled;
    } cache;
};

#define AT(field) offsetof(struct tail_config, field)
static const struct option cache_options[] = {
    {.key = "sampled_cache_size",
     .type = OPT_UINT,
     .offset = AT(cache.sampled) - AT(cache),
     .def = "0",
     .help = "Kept traces that are remembered; 0 = num_traces."},
    {.key = "non_sampled_cache_size",
     .type = OPT_UINT,
     .offset = AT(cache.not_sampled) - AT(cache),
     .def = "0",
     .help = "Dropped traces that are remembered; 0 = num_traces."},
    OPTION_END,
};

static const struct option tail_options[] = {
    {.key = "policies",
     .type = OPT_LIST,
     .offset = AT(policies),
     .sub = policy_options,
     .elem_size = sizeof(struct policy_config),
     .flags = OPT_REQUIRED,
     .help = "A trace is kept when any of them says so."},
    {.key = "decision_wait",
     .type = OPT_DURATION,
     .offset = AT(decision_wait_ns),
     .def = "30s",
     .help = "Time from a trace's first span to its decision."},
    {.key = "num_traces",
     .type = OPT_UINT,
     .offset = AT(num_traces),
     .def = "50000",
     .min = 1,
     .max = 1e9,
     .help = "Traces that wait at most; each new one beyond drops the oldest without a decision."},
    {.key = "expected_new_traces_per_sec",
     .type = OPT_TREE,
     .flags = OPT_NO_EFFECT,
     .help = "Tables grow as needed."},
    {.key = "num_shards",
     .type = OPT_TREE,
     .flags = OPT_NO_EFFECT,
     .help = "There are always 16 shards, served by all threads."},
    {.key = "sample_on_first_match",
     .type = OPT_BOOL,
     .offset = AT(first_match),
     .def = "false",
     .help = "Policies after the first that keeps the trace are not asked."},
    {.key = "drop_pending_traces_on_shutdown",
     .type = OPT_BOOL,
     .offset = AT(drop_pending),
     .def = "false",
     .help = "At the end: drop what waits (true) or decide on it (false)."},
    {.key = "block_on_overflow",
     .type = OPT_BOOL,
     .offset = AT(block_on_overflow),
     .def = "false",
     .help = "At num_traces: hold senders back instead of dropping."},
    {.key = "decision_cache",
     .type = OPT_STRUCT,
     .offset = AT(cache),
     .sub = cache_options,
     .help = "How many decisions are remembered for late spans."},
    OPTION_UNSUPPORTED("sampling_strategy"),
    OPTION_UNSUPPORTED("decision_wait_after_root_received"),
    OPTION_UNSUPPORTED("maximum_trace_size_bytes"),
    OPTION_UNSUPPORTED("tail_storage"),
    OPTION_END,
};

#define SAMPLER_MAGIC 0x54534d50u

struct shard {
    pthread_mutex_t lock;
    struct store store;
};

struct sampler;

/* Ticks the shards of one loop. */
struct ticker {
    struct sampler *self;
    struct loop *loop;
    struct loop_timer *timer;
    struct task task;
    bool is_started;
};

struct sampler {
    unsigned magic;
    _Atomic unsigned refs;
    struct instance *_Atomic in;
    struct policies *_Atomic policies;
    struct policies **retired; /* of earlier generations: a tick may still use the last one */
    unsigned n_retired;
    _Atomic uint64_t decision_wait_ns, max_pending, max_sampled, max_not_sampled;
    _Atomic bool block_on_overflow;
    struct shard shards[SHARD_COUNT];
    struct ticker *tickers;     /* by loop */
    _Atomic uint64_t held;      /* spans */
    _Atomic uint64_t n_pending; /* traces, all shards */
    _Atomic unsigned tickers_left;
    _Atomic bool is_draining;
    struct entry entry;
    struct series *new_traces, *evicted, *late_kept, *late_dropped, *timer;
};

static const double timer_bounds[] = {1,    2,    5,    10,    25,    50,    75,   100,
                                      150,  200,  300,  400,   500,   750,   1000, 2000,
                                      3000, 4000, 5000, 10000, 20000, 30000, 50000};
#define PREFIX "processor_tail_sampling_"
static const struct metric_desc new_traces_desc = {PREFIX "new_trace_id_received",
                                                   "Traces seen for the first time.",
                                                   "{traces}",
                                                   METRIC_KIND_COUNTER,
                                                   LEVEL_NORMAL,
                                                   NULL,
                                                   0};
static const struct metric_desc evicted_desc = {
    PREFIX "sampling_trace_dropped_too_early",
    "Traces dropped without a decision: num_traces was reached.",
    "{traces}",
    METRIC_KIND_COUNTER,
    LEVEL_NORMAL,
    NULL,
    0};
static const struct metric_desc late_desc = {PREFIX "early_releases_from_cache_decision",
                                             "Spans that came after the decision of their trace.",
                                             "{spans}",
                                             METRIC_KIND_COUNTER,
                                             LEVEL_NORMAL,
                                             NULL,
                                             0};
static const struct metric_desc timer_desc = {PREFIX "sampling_decision_timer_latency",
                                              "Time of one round of decisions.",
                                              "ms",
                                              METRIC_KIND_HISTOGRAM,
                                              LEVEL_NORMAL,
                                              timer_bounds,
                                              ARRAY_LEN(timer_bounds)};
static const struct metric_desc on_memory_desc = {PREFIX "sampling_traces_on_memory",
                                                  "Traces that wait for their decision.",
                                                  "{traces}",
                                                  METRIC_KIND_GAUGE,
                                                  LEVEL_NORMAL,
                                                  NULL,
                                                  0};

/* ---- taking in ---- */

/* What of a part was late or could not be stored. */
struct leftovers {
    uint32_t *late; /* indexes of records whose trace is kept */
    uint32_t n_late;
    uint64_t late_dropped, refused, taken, new_traces;
    uint64_t evicted_traces, evicted_spans;
};

/*
 * num_traces is reached: the oldest trace of this shard makes room, as the Collector's oldest does.
 * A shard that has none goes beyond it by one.
 */
static void make_room(struct sampler *self, struct store *s, struct leftovers *left)
{
    if (self->block_on_overflow || self->n_pending < self->max_pending)
        return;
    uint32_t spans = store_evict_oldest(s);
    if (spans == 0)
        return;
    atomic_fetch_sub_explicit(&self->n_pending, 1, memory_order_relaxed);
    left->evicted_traces++;
    left->evicted_spans += spans;
}

static void insert_one(struct sampler *self, struct store *s, struct store_source *src, uint32_t i,
                       uint64_t hash, struct leftovers *left)
{
    const uint8_t *id = src->b->keys[i].trace_id;
    struct trace *t = NULL;
    enum trace_state state = store_find(s, hash, id, &t);
    if (state == TRACE_UNKNOWN) {
        make_room(self, s, left);
        t = store_add(s, hash, id, src->b->received_ns);
        if (!t) {
            left->refused++;
            return;
        }
        left->new_traces++;
        atomic_fetch_add_explicit(&self->n_pending, 1, memory_order_relaxed);
    }
    if (state == TRACE_SAMPLED)
        left->late[left->n_late++] = i;
    else if (state == TRACE_NOT_SAMPLED)
        left->late_dropped++;
    else if (store_insert(s, t, src, i))
        left->refused++;
    else
        left->taken++;
}

static void insert_part(struct sampler *self, struct store_source *src,
                        const struct shard_parts *parts, unsigned shard, struct leftovers *left)
{
    struct shard *sh = &self->shards[shard];
    uint32_t end = parts->begin[shard + 1];
    store_source_next(src);
    pthread_mutex_lock(&sh->lock);
    for (uint32_t k = parts->begin[shard]; k < end; k++) {
        uint32_t i = parts->idx[k];
        if (k + 8 < end)
            store_prefetch_slot(&sh->store, parts->hash[parts->idx[k + 8]]);
        if (k + 4 < end)
            store_prefetch_trace(&sh->store, parts->hash[parts->idx[k + 4]]);
        insert_one(self, &sh->store, src, i, parts->hash[i], left);
    }
    pthread_mutex_unlock(&sh->lock);
}

static int by_index(const void *x, const void *y)
{
    const uint32_t *a = x, *b = y;
    return (*a > *b) - (*a < *b);
}

static void emit_late(struct sampler *self, struct instance *in, const struct batch *b,
                      struct leftovers *left)
{
    struct batch *out;
    if (left->n_late == 0)
        return;
    /* Parts came shard by shard: records go back into the order in which they lie. */
    qsort(left->late, left->n_late, sizeof(*left->late), by_index);
    series_add(self->late_kept, left->n_late);
    if (batch_select(&out, b, left->late, left->n_late) == 0)
        node_emit(in, out, ack_detached());
    else
        ledger_dropped(in, SIGNAL_TRACES, left->n_late, "out_of_memory");
}

static bool is_full(void *arg, bool was)
{
    struct sampler *self = arg;
    uint64_t max = self->max_pending;
    return self->block_on_overflow && self->n_pending >= (was ? max / 8 * 7 + 1 : max);
}

static void tail_consume(struct instance *in, struct batch *b, struct ack *a)
{
    struct sampler *self = CAST_OBJ(struct sampler, in->self, SAMPLER_MAGIC);
    struct shard_parts parts;
    struct leftovers left = {0};
    struct store_source src;
    if (shard_sort(b, &parts) || store_source_init(&src, b)) {
        ledger_dropped(in, SIGNAL_TRACES, b->items, "out_of_memory");
        batch_unref(&b);
        ack_settle(a, &VERDICT_RETRY("out of memory"));
        return;
    }
    left.late = xalloc(b->n_records * sizeof(*left.late));
    /* Counted before they can be decided, so that the ledger never shows less than there is. */
    atomic_fetch_add(&self->held, b->items);
    for (unsigned s = 0; s < SHARD_COUNT; s++)
        if (parts.begin[s] < parts.begin[s + 1])
            insert_part(self, &src, &parts, s, &left);
    store_source_fini(&src);
    series_add(self->new_traces, left.new_traces);
    atomic_fetch_sub(&self->held, b->items - left.taken);
    if (left.evicted_traces) {
        series_add(self->evicted, left.evicted_traces);
        atomic_fetch_sub(&self->held, left.evicted_spans);
        ledger_dropped(in, SIGNAL_TRACES, left.evicted_spans, "dropped_too_early");
    }
    if (left.late_dropped) {
        series_add(self->late_dropped, left.late_dropped);
        ledger_dropped(in, SIGNAL_TRACES, left.late_dropped, "not_sampled_late");
    }
    if (left.refused)
        ledger_dropped(in, SIGNAL_TRACES, left.refused, "out_of_memory");
    emit_late(self, in, b, &left);
    free(left.late);
    batch_unref(&b);
    entry_update(&self->entry, is_full, self);
    /* What was taken must not come again; what was refused is counted as lost. */
    ack_settle(a, left.refused && !left.taken ? &VERDICT_RETRY("out of memory") : &VERDICT_OK);
}

/* ---- deciding ---- */

/* Of what a tick keeps, the part of each shard. */
struct kept_parts {
    struct kept all;
    struct {
        struct shard *shard;
        uint32_t end; /* of its runs; they begin where the part before ends */
    } parts[SHARD_COUNT];
    uint32_t n_parts;
};

static void drop_trace(struct store *s, struct trace *t)
{
    struct run *runs = trace_runs(t);
    for (unsigned i = 0; i < t->n_runs; i++)
        store_release(s, &runs[i]);
    free(t->more_runs);
}

struct round {
    uint64_t decided, dropped_spans;
    bool more;
};

static bool is_due(const struct sampler *self, const struct trace *t, uint64_t now)
{
    return self->is_draining || now >= t->first_ns + self->decision_wait_ns;
}

static void decide_some(const struct sampler *self, const struct policies *policies,
                        struct store *s, uint64_t now, struct kept *kept, struct round *r,
                        uint32_t *votes)
{
    while (!list_is_empty(&s->pending)) {
        struct trace *t = LIST_ENTRY(s->pending.next, struct trace, in_order);
        if (!is_due(self, t, now))
            return;
        if (r->decided == DECIDE_AT_ONCE || kept->bytes > KEEP_BYTES_AT_ONCE) {
            r->more = true;
            return;
        }
        store_prefetch_next(s, t);
        bool keep = policies_decide(policies, t, votes);
        r->decided++;
        if (keep) {
            kept_add(kept, t);
        } else {
            r->dropped_spans += t->n_spans;
            drop_trace(s, t);
        }
        store_remember(s, t, keep ? TRACE_SAMPLED : TRACE_NOT_SAMPLED);
    }
}

/* With the shard's lock held: decides due traces, some at a time. */
static void decide(struct sampler *self, struct store *s, uint64_t now, struct kept *kept,
                   struct round *r)
{
    const struct policies *policies = self->policies;
    uint32_t *votes;
    if (list_is_empty(&s->pending))
        return;
    votes = policies_votes_new(policies);
    decide_some(self, policies, s, now, kept, r, votes);
    policies_count(policies, votes);
    free(votes);
    atomic_fetch_sub_explicit(&self->n_pending, r->decided, memory_order_relaxed);
}

/* Remembered decisions beyond their number are forgotten; each shard has its part of it. */
static void forget(struct sampler *self, struct store *s)
{
    while (store_remembered(s, TRACE_SAMPLED) > self->max_sampled / SHARD_COUNT + 1)
        store_forget_oldest(s, TRACE_SAMPLED);
    while (store_remembered(s, TRACE_NOT_SAMPLED) > self->max_not_sampled / SHARD_COUNT + 1)
        store_forget_oldest(s, TRACE_NOT_SAMPLED);
}

static void note_part(struct kept_parts *k, struct shard *sh)
{
    uint32_t n = k->n_parts;
    if (k->all.n_runs == (n ? k->parts[n - 1].end : 0))
        return;
    if (n == 0 || k->parts[n - 1].shard != sh)
        k->parts[k->n_parts++].shard = sh;
    k->parts[k->n_parts - 1].end = k->all.n_runs;
}

static void release_kept(struct kept_parts *k)
{
    uint32_t i = 0;
    for (uint32_t n = 0; n < k->n_parts; n++) {
        struct shard *sh = k->parts[n].shard;
        pthread_mutex_lock(&sh->lock);
        for (; i < k->parts[n].end; i++)
            store_release(&sh->store, &k->all.runs[i]);
        pthread_mutex_unlock(&sh->lock);
    }
    k->n_parts = k->all.n_runs = 0;
    k->all.bytes = 0;
}

static void send_kept(struct sampler *self, struct kept_parts *k)
{
    struct instance *in = self->in;
    struct batch *out = NULL;
    uint64_t spans = 0;
    if (k->all.n_runs == 0)
        return;
    int r = kept_batch(&k->all, &out);
    for (uint32_t i = 0; i < k->all.n_runs; i++)
        spans += k->all.runs[i].count;
    release_kept(k);
    atomic_fetch_sub(&self->held, spans);
    if (r)
        ledger_dropped(in, SIGNAL_TRACES, spans, "out_of_memory");
    else if (out)
        node_emit(in, out, ack_detached());
}

static void tick_shard(struct sampler *self, struct shard *sh, uint64_t now,
                       struct kept_parts *kept)
{
    struct round r;
    do {
        r = (struct round){0};
        /* A decided trace that cannot leave stays held. */
        if (!node_outputs_open(self->in) && !self->is_draining)
            return;
        pthread_mutex_lock(&sh->lock);
        decide(self, &sh->store, now, &kept->all, &r);
        forget(self, &sh->store);
        pthread_mutex_unlock(&sh->lock);
        if (r.dropped_spans) {
            ledger_dropped(self->in, SIGNAL_TRACES, r.dropped_spans, "not_sampled");
            atomic_fetch_sub(&self->held, r.dropped_spans);
        }
        note_part(kept, sh);
        if (kept->all.bytes > KEEP_BYTES_AT_ONCE)
            send_kept(self, kept);
    } while (r.more);
}

static void tick_all(struct sampler *self, unsigned first, unsigned step)
{
    struct kept_parts kept = {0};
    uint64_t now = clock_mono_ns();
    for (unsigned s = first; s < SHARD_COUNT; s += step)
        tick_shard(self, &self->shards[s], now, &kept);
    send_kept(self, &kept);
    kept_fini(&kept.all);
    uint64_t took = clock_mono_ns() - now;
    if (took > NS_PER_MS / 2)
        series_observe(self->timer, (double)took / 1e6);
    entry_update(&self->entry, is_full, self);
}

/* Rarely while nothing is held; often again before what comes meanwhile is due. */
static void on_tick(void *arg)
{
    struct ticker *t = arg;
    uint64_t wait_ms = t->self->decision_wait_ns / NS_PER_MS;
    bool is_idle = t->self->n_pending == 0;
    loop_timer_pace(t->timer, is_idle ? MIN(MAX(wait_ms, TICK_MS), TICK_MS_IDLE) : TICK_MS);
    tick_all(t->self, loop_index(t->loop), loops_count());
}

/* ---- life ---- */

static struct policies *make_policies(struct instance *in, struct err *e)
{
    const struct tail_config *c = in->config;
    const char *slash = strchr(in->id, '/');
    char *prefix = slash ? xasprintf("%s.", slash + 1) : xstrdup("");
    struct policies *p = NULL;
    int r = policies_new(&p, &c->policies, c->first_match, prefix, e);
    free(prefix);
    return r ? NULL : p;
}

static void configure(struct sampler *self, const struct tail_config *c)
{
    self->decision_wait_ns = c->decision_wait_ns;
    self->max_pending = c->num_traces;
    self->max_sampled = c->cache.sampled ? c->cache.sampled : c->num_traces;
    self->max_not_sampled = c->cache.not_sampled ? c->cache.not_sampled : c->num_traces;
    self->block_on_overflow = c->block_on_overflow;
}

static int tail_create(struct instance *in, struct err *e)
{
    struct policies *policies = make_policies(in, e);
    if (!policies)
        return -EINVAL;
    struct sampler *self = xcalloc(1, sizeof(*self));
    SET_MAGIC(self, SAMPLER_MAGIC);
    self->refs = 1;
    self->in = in;
    entry_init(&self->entry, in);
    self->policies = policies;
    configure(self, in->config);
    for (unsigned s = 0; s < SHARD_COUNT; s++) {
        pthread_mutex_init(&self->shards[s].lock, NULL);
        store_init(&self->shards[s].store);
    }
    self->tickers = xcalloc(loops_count(), sizeof(*self->tickers));
    in->self = self;
    return 0;
}

static void sampler_unref(struct sampler *self)
{
    if (atomic_fetch_sub(&self->refs, 1) > 1)
        return;
    telemetry_forget(self);
    for (unsigned s = 0; s < SHARD_COUNT; s++) {
        store_fini(&self->shards[s].store);
        pthread_mutex_destroy(&self->shards[s].lock);
    }
    struct policies *p = self->policies;
    policies_free(&p);
    for (unsigned i = 0; i < self->n_retired; i++)
        policies_free(&self->retired[i]);
    free(self->retired);
    free(self->tickers);
    entry_fini(&self->entry);
    CLEAR_MAGIC(self);
    free(self);
}

static void tail_free(struct instance *in)
{
    sampler_unref(CAST_OBJ(struct sampler, in->self, SAMPLER_MAGIC));
    in->self = NULL;
}

/* Buffered traces go on; from the next tick they are judged by the new policies. */
static bool tail_adopt(struct instance *in, struct instance *old)
{
    struct sampler *mine = CAST_OBJ(struct sampler, in->self, SAMPLER_MAGIC);
    struct sampler *running = CAST_OBJ(struct sampler, old->self, SAMPLER_MAGIC);
    if (mine == running)
        return false;
    running->retired =
        xrealloc(running->retired, (running->n_retired + 1) * sizeof(struct policies *));
    running->retired[running->n_retired++] = running->policies;
    running->policies = mine->policies;
    mine->policies = NULL;
    sampler_unref(mine);
    running->refs++;
    running->in = in;
    configure(running, in->config);
    in->self = running;
    entry_move(&running->entry, in);
    return true;
}

static double read_pending(void *arg)
{
    struct sampler *self = arg;
    return (double)self->n_pending;
}

static void start_ticker(struct task *task)
{
    struct ticker *t = CONTAINER_OF(task, struct ticker, task);
    t->timer = loop_timer_new(t->loop, on_tick, t);
    loop_timer_start(t->timer, TICK_MS, TICK_MS);
}

static void make_series(struct sampler *self, const char *id)
{
    struct label label = {"processor", id};
    struct label kept[] = {label, {"sampled", "true"}}, dropped[] = {label, {"sampled", "false"}};
    self->new_traces = telemetry_series(&new_traces_desc, &label, 1);
    self->evicted = telemetry_series(&evicted_desc, &label, 1);
    self->late_kept = telemetry_series(&late_desc, kept, 2);
    self->late_dropped = telemetry_series(&late_desc, dropped, 2);
    self->timer = telemetry_series(&timer_desc, &label, 1);
    telemetry_gauge(&on_memory_desc, &label, 1, read_pending, self);
}

static int tail_start(struct instance *in, struct err *e)
{
    struct sampler *self = in->self;
    (void)e;
    if (!self->new_traces) /* after an adoption they are there, and in use on all loops */
        make_series(self, in->id);
    for (unsigned i = 0; i < loops_count(); i++) {
        struct ticker *t = &self->tickers[i];
        if (t->is_started)
            continue;
        *t = (struct ticker){.self = self, .loop = loops_get(i), .is_started = true};
        t->task.run = start_ticker;
        loop_post(t->loop, &t->task);
    }
    return 0;
}

/* Each loop decides what its shards still hold, then lets its timer go; the last one is the end. */
static void stop_ticker(struct task *task)
{
    struct ticker *t = CONTAINER_OF(task, struct ticker, task);
    struct sampler *self = t->self;
    loop_timer_free(&t->timer);
    tick_all(self, loop_index(t->loop), loops_count());
    if (atomic_fetch_sub(&self->tickers_left, 1) == 1)
        instance_stopped(self->in);
}

static void drop_pending(struct sampler *self)
{
    for (unsigned s = 0; s < SHARD_COUNT; s++) {
        struct shard *sh = &self->shards[s];
        uint64_t spans = 0;
        pthread_mutex_lock(&sh->lock);
        while (!list_is_empty(&sh->store.pending)) {
            struct trace *t = LIST_ENTRY(sh->store.pending.next, struct trace, in_order);
            spans += t->n_spans;
            drop_trace(&sh->store, t);
            store_remember(&sh->store, t, TRACE_NOT_SAMPLED);
        }
        pthread_mutex_unlock(&sh->lock);
        atomic_fetch_sub(&self->held, spans);
        if (spans)
            ledger_dropped(self->in, SIGNAL_TRACES, spans, "shutdown");
    }
}

static void tail_stop(struct instance *in)
{
    struct sampler *self = in->self;
    const struct tail_config *c = in->config;
    if (c->drop_pending)
        drop_pending(self);
    self->is_draining = true;
    self->tickers_left = loops_count();
    for (unsigned i = 0; i < loops_count(); i++) {
        self->tickers[i].task.run = stop_ticker;
        loop_post(self->tickers[i].loop, &self->tickers[i].task);
    }
}

static void tail_abandon(struct instance *in)
{
    drop_pending(in->self);
}

static uint64_t tail_held(struct instance *in)
{
    struct sampler *self = in->self;
    return self->held;
}

const struct component tail_sampling_component = {
    .kind = KIND_PROCESSOR,
    .name = "tail_sampling",
    .help = "Keeps or drops whole traces, once their spans are here.",
    .signals = SIGNAL_BIT(SIGNAL_TRACES),
    .stability = STABILITY_BETA,
    .affinity = AFFINITY_TRACE,
    .mutates = true,
    .options = tail_options,
    .config_size = sizeof(struct tail_config),
    .create = tail_create,
    .adopt = tail_adopt,
    .start = tail_start,
    .consume = tail_consume,
    .stop = tail_stop,
    .abandon = tail_abandon,
    .held = tail_held,
    .free = tail_free,
};
