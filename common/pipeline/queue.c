/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One queue for all loops, under one lock that is never held while calling out.
 *
 *   consume: item ─► `waiting` ─ dispatch (≤ num_consumers) ─► request ─► push ─► queue_done
 *                                                                ▲          │ retryable
 *                                                   due by tick  └─ `backing_off`
 *
 * An item is held from insertion until its outcome; `held` counts its items all that time.
 */
#include "common/pipeline/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/list.h"
#include "common/pipeline/telemetry.h"

/* While draining nobody waits longer between two attempts. */
enum { TICK_MS = 20, TICK_MS_IDLE = 100, PACK_AFTER_MS = 250, DRAIN_RETRY_MS = 1000 };
#define QUEUE_MAGIC 0x51554555u

struct item {
    struct list in_list;
    struct batch *batch;
    struct ack *ack; /* wait_for_result, or no queue; else NULL */
    uint64_t size, enqueued_ns;
};

/* A request: one item, or several merged; tried until it is settled. */
struct request {
    struct queue_request r; /* first */
    struct list in_list;
    struct list items; /* those whose acks wait */
    struct queue *queue;
    uint64_t first_ns, due_ns, size;
    double interval_ns;
    struct task task;
};

struct queue {
    unsigned magic;
    _Atomic unsigned refs;
    pthread_mutex_t lock;
    struct instance *_Atomic in;
    const struct queue_config *_Atomic c; /* of the newest instance: lives as long as that */
    queue_push_fn *push;
    struct list waiting, backing_off;
    unsigned n_waiting;
    uint64_t size;       /* of waiting, in sizer units */
    uint64_t batch_size; /* of waiting, in batch sizer units */
    unsigned in_flight;  /* requests pushed or backing off */
    struct entry entry;
    bool is_stopped;
    _Atomic bool is_draining, is_abandoned; /* set under the lock */
    _Atomic uint64_t held;
    struct loop_timer *timer; /* on loop 0 */
    struct series *sent, *failed, *enqueue_failed;
    queue_divert_fn *_Atomic divert; /* set once, after its argument */
    void *divert_arg;
};

/* ---- self metrics ---- */

static const struct metric_desc size_desc = {"exporter_queue_size",
                                             "Current size of the retry queue (in batches).",
                                             "{batches}",
                                             METRIC_KIND_GAUGE,
                                             LEVEL_BASIC,
                                             NULL,
                                             0};
static const struct metric_desc capacity_desc = {"exporter_queue_capacity",
                                                 "Fixed capacity of the retry queue (in batches).",
                                                 "{batches}",
                                                 METRIC_KIND_GAUGE,
                                                 LEVEL_BASIC,
                                                 NULL,
                                                 0};

static const struct metric_desc in_flight_desc = {
    "exporter_in_flight_requests",
    "Requests that were sent and not answered, or wait to be tried again.",
    "{requests}",
    METRIC_KIND_GAUGE,
    LEVEL_BASIC,
    NULL,
    0};

/* One description for each (name, signal), so that instances share the series. */
static const struct metric_desc *item_desc(unsigned which, enum signal s)
{
    static const char *const names[] = {"exporter_sent", "exporter_send_failed",
                                        "exporter_enqueue_failed"};
    static struct metric_desc descs[3][SIGNAL_COUNT];
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct metric_desc *d = &descs[which][s];
    pthread_mutex_lock(&lock);
    if (!d->name) {
        *d = (struct metric_desc){.help = "Items by the outcome of sending them.",
                                  .unit = "{items}",
                                  .kind = METRIC_KIND_COUNTER,
                                  .level = LEVEL_BASIC};
        d->name = xasprintf("%s_%s", names[which], signal_info[s].items);
    }
    pthread_mutex_unlock(&lock);
    return d;
}

static double read_size(void *arg)
{
    struct queue *q = arg;
    pthread_mutex_lock(&q->lock);
    uint64_t n = q->size;
    pthread_mutex_unlock(&q->lock);
    return (double)n;
}

static double read_in_flight(void *arg)
{
    struct queue *q = arg;
    pthread_mutex_lock(&q->lock);
    unsigned n = q->in_flight;
    pthread_mutex_unlock(&q->lock);
    return n;
}

static double read_capacity(void *arg)
{
    struct queue *q = arg;
    return q->c->queue_on ? (double)q->c->queue_size : 0;
}

static void make_series(struct queue *q)
{
    struct label by_id = {"exporter", q->in->id};
    /* One of several queues of an exporter (a balancer's backends) is told apart by its endpoint.
     */
    struct label all[] = {
        by_id, {"data_type", signal_info[q->in->signal].name}, {"endpoint", q->in->log.peer}};
    unsigned n = q->in->log.peer ? 3 : 2;
    q->sent = telemetry_series(item_desc(0, q->in->signal), &by_id, 1);
    q->failed = telemetry_series(item_desc(1, q->in->signal), &by_id, 1);
    q->enqueue_failed = telemetry_series(item_desc(2, q->in->signal), &by_id, 1);
    telemetry_gauge(&size_desc, all, n, read_size, q);
    telemetry_gauge(&capacity_desc, all, n, read_capacity, q);
    telemetry_gauge(&in_flight_desc, all, n, read_in_flight, q);
}

/* ---- sizes ---- */

static bool batches(const struct queue *q)
{
    const struct queue_config *c = q->c;
    return c->queue_on && c->batch_on;
}

static uint64_t size_of(enum queue_sizer sizer, const struct batch *b)
{
    return sizer == SIZER_ITEMS ? b->items : sizer == SIZER_BYTES ? batch_pinned_bytes(b) : 1;
}

static uint64_t batch_size_of(const struct queue *q, const struct batch *b)
{
    return queue_batch_sizer_of(q->c) == SIZER_ITEMS ? b->items : b->bytes;
}

/* Full at 7/8, until it is at 3/4. */
static bool is_full(void *arg, bool was)
{
    struct queue *q = arg;
    pthread_mutex_lock(&q->lock);
    uint64_t cap = q->c->queue_size, size = q->size;
    bool on = q->c->queue_on;
    pthread_mutex_unlock(&q->lock);
    return on && (was ? size > cap / 4 * 3 : size >= cap - cap / 8);
}

/* ---- taking and sending ---- */

static void settle_items(struct list *items, const struct verdict *v)
{
    for (struct list *it; (it = list_pop(items));) {
        struct item *i = LIST_ENTRY(it, struct item, in_list);
        if (i->ack)
            ack_settle(i->ack, v);
        batch_unref(&i->batch);
        free(i);
    }
}

/* False when there is no memory for it. */
static bool unpack(struct batch **b)
{
    struct batch *whole;
    if (!batch_is_packed(*b))
        return true;
    if (batch_unpack(&whole, *b))
        return false;
    batch_unref(b);
    *b = whole;
    return true;
}

static void start_request(struct task *t)
{
    struct request *r = CONTAINER_OF(t, struct request, task);
    struct queue *q = r->queue;
    uint64_t timeout = q->c->timeout_ns;
    r->r.deadline_ns = timeout ? clock_mono_ns() + timeout : 0;
    if (unpack(&r->r.batch))
        q->push(q->in, &r->r);
    else
        queue_done(q, &r->r,
                   &(struct outcome){.kind = OUTCOME_RETRYABLE, .reason = "out of memory"});
}

/* On whose loop the request runs: the caller's, or loop 0 for threads without one. */
static void send_request(struct request *r)
{
    r->task.run = start_request;
    loop_post(r->r.loop, &r->task);
}

static struct request *new_request(struct queue *q, struct batch *b)
{
    struct request *r = xcalloc(1, sizeof(*r));
    r->queue = q;
    r->r.batch = b;
    r->r.loop = loop_current() ? loop_current() : loops_get(0);
    r->first_ns = clock_mono_ns();
    r->interval_ns = (double)q->c->initial_interval_ns;
    list_init(&r->items);
    list_init(&r->in_list);
    return r;
}

/* Whether waiting items make a batch now. */
static bool is_ripe(const struct queue *q, uint64_t now)
{
    if (list_is_empty(&q->waiting))
        return false;
    if (!batches(q) || q->is_draining || q->batch_size >= q->c->min_size)
        return true;
    struct item *oldest = LIST_ENTRY(q->waiting.next, struct item, in_list);
    return now - oldest->enqueued_ns >= q->c->flush_timeout_ns;
}

static struct item *take_item(struct queue *q)
{
    struct item *i = LIST_ENTRY(q->waiting.next, struct item, in_list);
    list_remove(&i->in_list);
    q->n_waiting--;
    q->size -= i->size;
    q->batch_size -= batch_size_of(q, i->batch);
    return i;
}

/* The first part of b that is no larger than `most` in batch sizer units, or of one record. */
static int cut(const struct queue *q, struct batch **head, struct batch **tail, struct batch *b,
               uint64_t most)
{
    uint64_t items = b->items, n = batch_size_of(q, b);
    do {
        /* Bytes are not spread evenly over items: what is still too large is cut again. */
        items = MAX((uint64_t)((double)items * (double)most / (double)n), 1u);
        int r = batch_split(head, tail, b, items);
        if (r)
            return r;
        n = batch_size_of(q, *head);
        if (n <= most || items == 1)
            return 0;
        batch_unref(head);
        batch_unref(tail);
    } while (true);
}

/*
 * With the lock held: a part of the first item, which alone is larger than max_size, as an item of
 * its own; the rest stays and keeps the item's share of the queue. NULL when there is nothing to
 * cut, or no memory for it: then it goes as it is.
 */
static struct item *take_part(struct queue *q, uint64_t most)
{
    struct item *whole = LIST_ENTRY(q->waiting.next, struct item, in_list);
    struct batch *head, *tail;
    if (!unpack(&whole->batch) || cut(q, &head, &tail, whole->batch, most))
        return NULL;
    if (!tail) {
        batch_unref(&head);
        return NULL;
    }
    struct item *part = xcalloc(1, sizeof(*part));
    *part = (struct item){.batch = head, .ack = whole->ack, .enqueued_ns = whole->enqueued_ns};
    if (part->ack)
        ack_take(part->ack, 1);
    q->batch_size -= batch_size_of(q, whole->batch);
    batch_unref(&whole->batch);
    whole->batch = tail;
    q->batch_size += batch_size_of(q, tail);
    return part;
}

/* With the lock held: items for one request, up to max_size (at least one). */
static void take_items(struct queue *q, struct list *out)
{
    uint64_t sum = 0, most = q->c->max_size ? q->c->max_size : UINT64_MAX;
    uint64_t want = q->c->max_size ? q->c->max_size : MAX(q->c->min_size, 1);
    do {
        struct item *next = LIST_ENTRY(q->waiting.next, struct item, in_list);
        uint64_t n = batch_size_of(q, next->batch);
        if (sum && sum + n > most)
            return;
        struct item *part = batches(q) && n > most ? take_part(q, most) : NULL;
        if (part) {
            list_push(out, &part->in_list);
            return;
        }
        sum += n;
        list_push(out, &take_item(q)->in_list);
    } while (batches(q) && sum < want && !list_is_empty(&q->waiting));
}

static struct batch *merge(struct list *items)
{
    struct batch *parts[512], *out = NULL;
    uint32_t n = 0;
    LIST_EACH (it, items) {
        if (n == ARRAY_LEN(parts))
            return NULL;
        struct item *i = LIST_ENTRY(it, struct item, in_list);
        if (!unpack(&i->batch))
            return NULL;
        parts[n++] = i->batch;
    }
    if (n == 1)
        return batch_ref(parts[0]);
    return batch_concat(&out, parts, n) == 0 ? out : NULL;
}

/* A request of the items; when they cannot be merged (memory) the rest go back to the front. */
static struct request *make_request(struct queue *q, struct list *items)
{
    struct batch *b = merge(items);
    struct request *r = new_request(q, NULL);
    if (!b) {
        struct list *first = list_pop(items);
        list_push(&r->items, first);
        b = batch_ref(LIST_ENTRY(first, struct item, in_list)->batch);
        pthread_mutex_lock(&q->lock);
        while (!list_is_empty(items)) {
            struct item *i = LIST_ENTRY(items->prev, struct item, in_list);
            list_remove(&i->in_list);
            list_insert_before(q->waiting.next, &i->in_list);
            q->n_waiting++;
            q->size += i->size;
            q->batch_size += batch_size_of(q, i->batch);
        }
        pthread_mutex_unlock(&q->lock);
    } else {
        list_splice(&r->items, items);
    }
    r->r.batch = b;
    return r;
}

/* Sends what may be sent now. */
static void dispatch(struct queue *q)
{
    for (;;) {
        struct list items;
        list_init(&items);
        pthread_mutex_lock(&q->lock);
        if (q->in_flight < q->c->num_consumers && is_ripe(q, clock_mono_ns())) {
            take_items(q, &items);
            q->in_flight++;
        }
        pthread_mutex_unlock(&q->lock);
        if (list_is_empty(&items))
            break;
        send_request(make_request(q, &items));
    }
    entry_update(&q->entry, is_full, q);
}

/* With the lock held: the back end does not keep up, and not just for a moment. */
static bool is_stuck(const struct queue *q)
{
    if (q->in_flight < q->c->num_consumers || list_is_empty(&q->waiting) ||
        q->n_waiting < q->c->num_consumers)
        return false;
    const struct item *oldest = LIST_ENTRY(q->waiting.next, struct item, in_list);
    return clock_mono_ns() - oldest->enqueued_ns >= PACK_AFTER_MS * NS_PER_MS;
}

/*
 * A batch that will wait is packed: tables and the spare room of chunks are as much again as the
 * data. While the queue moves nothing is copied and walked again: that costs as much as forwarding.
 */
static void pack_if_waiting(struct queue *q, struct batch **b)
{
    struct batch *packed;
    pthread_mutex_lock(&q->lock);
    bool waits = is_stuck(q);
    pthread_mutex_unlock(&q->lock);
    if (!waits || batch_is_packed(*b) || batch_pack(&packed, *b) != 0)
        return;
    batch_unref(b);
    *b = packed;
}

static void refuse(struct queue *q, struct batch *b, struct ack *a, const struct verdict *v,
                   const char *reason)
{
    series_add(q->enqueue_failed, b->items);
    ledger_dropped(q->in, b->signal, b->items, reason);
    batch_unref(&b);
    ack_settle(a, v);
}

/* What this queue gives away is held by it no longer. */
static void give_away(struct queue *q, struct list *items)
{
    for (struct list *it; (it = list_pop(items));) {
        struct item *i = LIST_ENTRY(it, struct item, in_list);
        struct ack *a = i->ack ? i->ack : ack_detached();
        struct batch *b = i->batch;
        free(i);
        atomic_fetch_sub(&q->held, b->items);
        if (unpack(&b))
            q->divert(q->divert_arg, b, a);
        else
            refuse(q, b, a, &VERDICT_RETRY("out of memory"), "out_of_memory");
    }
}

static void send_directly(struct queue *q, struct batch *b, struct ack *a)
{
    struct request *r = new_request(q, batch_ref(b));
    struct item *i = xcalloc(1, sizeof(*i));
    *i = (struct item){.batch = b, .ack = a};
    list_push(&r->items, &i->in_list);
    pthread_mutex_lock(&q->lock);
    q->in_flight++;
    pthread_mutex_unlock(&q->lock);
    send_request(r);
}

void queue_consume(struct queue *q, struct batch *b, struct ack *a)
{
    bool full;
    CHECK_OBJ(q, QUEUE_MAGIC);
#ifdef TAILRACE_FAULT_QUEUE
    static _Atomic unsigned n; /* fault build: one batch in a hundred is forgotten */
    if (atomic_fetch_add(&n, 1) % 100 == 5) {
        batch_unref(&b);
        ack_ok(a);
        return;
    }
#endif
    if (q->divert) {
        q->divert(q->divert_arg, b, a);
        return;
    }
    if (q->is_abandoned) {
        refuse(q, b, a, &VERDICT_RETRY("shutting down"), "shutdown");
        return;
    }
    if (!q->c->queue_on) {
        atomic_fetch_add(&q->held, b->items);
        send_directly(q, b, a);
        return;
    }
    pack_if_waiting(q, &b);
    struct item *i = xcalloc(1, sizeof(*i));
    *i = (struct item){
        .batch = b, .size = size_of(queue_sizer_of(q->c), b), .enqueued_ns = clock_mono_ns()};
    if (i->size > q->c->queue_size) {
        free(i);
        refuse(q, b, a, &VERDICT_PERMANENT("request is larger than the sending queue"),
               "too_large");
        return;
    }
    i->ack = q->c->wait_for_result ? a : NULL;
    pthread_mutex_lock(&q->lock);
    full = !q->c->block_on_overflow && q->size + i->size > q->c->queue_size;
    if (!full) {
        list_push(&q->waiting, &i->in_list);
        q->n_waiting++;
        q->size += i->size;
        q->batch_size += batch_size_of(q, b);
        atomic_fetch_add(&q->held, b->items);
    }
    pthread_mutex_unlock(&q->lock);
    if (full) {
        free(i);
        refuse(q, b, a, &VERDICT_RETRY("sending queue is full"), "queue_full");
        return;
    }
    if (!q->c->wait_for_result)
        ack_ok(a); /* the queue is responsible from here on */
    dispatch(q);
}

/* ---- outcomes ---- */

static void check_stopped(struct queue *q)
{
    bool stopped = false;
    pthread_mutex_lock(&q->lock);
    if (q->is_draining && !q->is_stopped && q->in_flight == 0 && list_is_empty(&q->waiting)) {
        q->is_stopped = true;
        stopped = true;
    }
    pthread_mutex_unlock(&q->lock);
    if (stopped)
        instance_stopped(q->in);
}

static void forget(struct queue *q, struct request *r)
{
    batch_unref(&r->r.batch);
    free(r);
    pthread_mutex_lock(&q->lock);
    q->in_flight--;
    pthread_mutex_unlock(&q->lock);
    dispatch(q);
    check_stopped(q);
}

static void finish(struct queue *q, struct request *r, const struct verdict *v)
{
    uint64_t items = r->r.batch->items;
    settle_items(&r->items, v);
    atomic_fetch_sub(&q->held, items);
    forget(q, r);
}

static void give_up(struct queue *q, struct request *r, const struct outcome *o, const char *reason)
{
    uint64_t items = r->r.batch->items;
    struct verdict v = {.status = o->kind == OUTCOME_PERMANENT ? ACK_PERMANENT : ACK_RETRYABLE,
                        .grpc_code = o->grpc_code,
                        .retry_after_ms = (uint32_t)o->retry_after_ms,
                        .reason = o->reason};
    series_add(q->failed, items);
    ledger_dropped(q->in, q->in->signal, items, reason);
    log_error(&q->in->log, "Exporting failed. Dropping data: %s%s%s (%llu items, %s)", o->reason,
              o->detail ? ": " : "", o->detail ? o->detail : "", (unsigned long long)items, reason);
    finish(q, r, &v);
}

/* random(interval * (1 ± factor)), at least the back end's own wish. */
static uint64_t next_delay(struct queue *q, struct request *r, uint64_t throttle_ms)
{
    static _Thread_local unsigned seed;
    if (seed == 0)
        seed = (unsigned)clock_mono_ns() | 1;
    double f = q->c->randomization_factor;
    double at = (double)rand_r(&seed) / (double)RAND_MAX;
    double delay = r->interval_ns * (1 - f + 2 * f * at);
    r->interval_ns = MIN(r->interval_ns * q->c->multiplier, (double)q->c->max_interval_ns);
    return MAX((uint64_t)delay, throttle_ms * NS_PER_MS);
}

static void retry(struct queue *q, struct request *r, const struct outcome *o)
{
    if (q->divert) {
        give_away(q, &r->items);
        forget(q, r);
        return;
    }
    uint64_t now = clock_mono_ns(), delay = next_delay(q, r, o->retry_after_ms);
    bool is_over = q->c->max_elapsed_ns && now + delay > r->first_ns + q->c->max_elapsed_ns;
    bool cut;
    if (q->is_draining)
        delay = MIN(delay, DRAIN_RETRY_MS * NS_PER_MS);
    if (!q->c->retry_on || is_over) {
        give_up(q, r, o, q->c->retry_on ? "no_more_retries" : "retry_off");
        return;
    }
    pthread_mutex_lock(&q->lock);
    cut = q->is_abandoned;
    if (!cut) {
        r->due_ns = now + delay;
        list_push(&q->backing_off, &r->in_list);
    }
    pthread_mutex_unlock(&q->lock);
    if (cut)
        give_up(q, r, o, "shutdown");
    else
        log_info(&q->in->log,
                 "Exporting failed. Will retry the request after interval: %s%s%s (%llu ms)",
                 o->reason, o->detail ? ": " : "", o->detail ? o->detail : "",
                 (unsigned long long)(delay / NS_PER_MS));
}

void queue_done(struct queue *q, struct queue_request *qr, const struct outcome *o)
{
    struct request *r = CONTAINER_OF(qr, struct request, r);
    uint64_t items = qr->batch->items;
    CHECK_OBJ(q, QUEUE_MAGIC);
    if (o->uncertain)
        ledger_uncertain(q->in, q->in->signal, items);
    switch (o->kind) {
    case OUTCOME_SENT:
        series_add(q->sent, items);
        ledger_sent(q->in, q->in->signal, items - MIN(o->rejected, items));
        if (o->rejected)
            ledger_dropped(q->in, q->in->signal, MIN(o->rejected, items), "rejected");
        finish(q, r, &VERDICT_OK);
        return;
    case OUTCOME_PERMANENT:
        give_up(q, r, o, "permanent");
        return;
    case OUTCOME_RETRYABLE:
        retry(q, r, o);
        return;
    }
}

/* What is due: on loop 0. */
static void send_due(struct queue *q)
{
    uint64_t now = clock_mono_ns();
    struct list due;
    list_init(&due);
    pthread_mutex_lock(&q->lock);
    LIST_EACH_SAFE (it, next, &q->backing_off) {
        struct request *r = LIST_ENTRY(it, struct request, in_list);
        if (now >= r->due_ns) {
            list_remove(it);
            list_push(&due, it);
        }
    }
    pthread_mutex_unlock(&q->lock);
    for (struct list *it; (it = list_pop(&due));)
        send_request(LIST_ENTRY(it, struct request, in_list));
    dispatch(q);
    check_stopped(q);
}

/* Rarely while nothing waits for its time. */
static void on_tick(void *arg)
{
    struct queue *q = CAST_OBJ(struct queue, arg, QUEUE_MAGIC);
    pthread_mutex_lock(&q->lock);
    bool is_idle = list_is_empty(&q->backing_off) && list_is_empty(&q->waiting);
    pthread_mutex_unlock(&q->lock);
    loop_timer_pace(q->timer, is_idle ? TICK_MS_IDLE : TICK_MS);
    send_due(q);
}

/* ---- life ---- */

int queue_new(struct queue **out, struct instance *in, const struct queue_config *c,
              queue_push_fn *push)
{
    struct queue *q = xcalloc(1, sizeof(*q));
    SET_MAGIC(q, QUEUE_MAGIC);
    q->refs = 1;
    q->in = in;
    q->c = c;
    q->push = push;
    pthread_mutex_init(&q->lock, NULL);
    entry_init(&q->entry, in);
    list_init(&q->waiting);
    list_init(&q->backing_off);
    *out = q;
    return 0;
}

void queue_start(struct queue *q)
{
    if (q->timer) /* shared with the generation before: its series are this one's, and in use */
        return;
    make_series(q);
    q->timer = loop_timer_new(loops_get(0), on_tick, q);
    loop_timer_pace(q->timer, TICK_MS);
}

struct queue *queue_share(struct queue *q, struct instance *in, const struct queue_config *c)
{
    q->refs++;
    pthread_mutex_lock(&q->lock);
    q->in = in;
    q->c = c;
    pthread_mutex_unlock(&q->lock);
    entry_move(&q->entry, in);
    return q;
}

void queue_divert(struct queue *q, queue_divert_fn *fn, void *arg)
{
    struct list items, requests;
    list_init(&items);
    list_init(&requests);
    pthread_mutex_lock(&q->lock);
    q->divert_arg = arg;
    q->divert = fn;
    list_splice(&items, &q->waiting);
    list_splice(&requests, &q->backing_off);
    q->size = q->batch_size = q->n_waiting = 0;
    pthread_mutex_unlock(&q->lock);
    give_away(q, &items);
    for (struct list *it; (it = list_pop(&requests));) {
        struct request *r = LIST_ENTRY(it, struct request, in_list);
        give_away(q, &r->items);
        forget(q, r);
    }
}

struct instance *queue_instance(const struct queue *q)
{
    return q->in;
}

uint64_t queue_held(const struct queue *q)
{
    return atomic_load(&q->held);
}

void queue_stop(struct queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->is_draining = true;
    LIST_EACH (it, &q->backing_off) {
        struct request *r = LIST_ENTRY(it, struct request, in_list);
        r->due_ns = 0; /* once at once */
    }
    pthread_mutex_unlock(&q->lock);
    send_due(q);
}

/* With the lock held: everything that waits, for an attempt or for the next one. */
static uint64_t take_all(struct queue *q, struct list *items)
{
    uint64_t n = 0;
    list_splice(items, &q->waiting);
    q->size = q->batch_size = q->n_waiting = 0;
    for (struct list *it; (it = list_pop(&q->backing_off));) {
        struct request *r = LIST_ENTRY(it, struct request, in_list);
        list_splice(items, &r->items);
        batch_unref(&r->r.batch);
        free(r);
        q->in_flight--;
    }
    LIST_EACH (it, items) {
        n += LIST_ENTRY(it, struct item, in_list)->batch->items;
    }
    return n;
}

void queue_abandon(struct queue *q)
{
    struct list gone;
    list_init(&gone);
    pthread_mutex_lock(&q->lock);
    q->is_draining = q->is_abandoned = true;
    uint64_t n = take_all(q, &gone);
    pthread_mutex_unlock(&q->lock);
    if (n) {
        series_add(q->failed, n);
        ledger_dropped(q->in, q->in->signal, n, "shutdown");
        log_error(&q->in->log, "Exporting failed. Dropping data: shutting down (%llu items)",
                  (unsigned long long)n);
        atomic_fetch_sub(&q->held, n);
    }
    settle_items(&gone, &VERDICT_RETRY("shutting down"));
    check_stopped(q);
}

void queue_free(struct queue **qp)
{
    struct queue *q = *qp;
    if (!q)
        return;
    CHECK_OBJ(q, QUEUE_MAGIC);
    *qp = NULL;
    if (atomic_fetch_sub(&q->refs, 1) > 1)
        return;
    telemetry_forget(q);
    loop_timer_free(&q->timer);
    entry_fini(&q->entry);
    pthread_mutex_destroy(&q->lock);
    CLEAR_MAGIC(q);
    free(q);
}
