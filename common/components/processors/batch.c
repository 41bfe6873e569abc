/* SPDX-License-Identifier: Apache-2.0 */
/*
 * batch: collects items until there are send_batch_size of them or `timeout` has passed, and sends
 * them as one. One state for the process: all loops add to the same batch, as every number in a
 * configuration holds for the process. Senders get success at insertion.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/pipeline/node.h"
#include "common/pipeline/telemetry.h"

enum { TICK_MS_MIN = 10, TICK_MS_MAX = 100, TICK_MS_IDLE = 1000, MAX_PARTS = 4096 };

struct batch_config {
    uint64_t send_batch_size, timeout_ns, send_batch_max_size;
};

#define AT(field) offsetof(struct batch_config, field)
static const struct option batch_options[] = {
    {.key = "send_batch_size",
     .type = OPT_UINT,
     .offset = AT(send_batch_size),
     .def = "8192",
     .help = "Number of spans, data points or log records at which a batch is sent."},
    {.key = "timeout",
     .type = OPT_DURATION,
     .offset = AT(timeout_ns),
     .def = "200ms",
     .help = "Time after which a batch is sent whatever its size; 0 = at once."},
    {.key = "send_batch_max_size",
     .type = OPT_UINT,
     .offset = AT(send_batch_max_size),
     .def = "0",
     .help = "Largest batch; larger ones are split. 0 = no bound."},
    OPTION_UNSUPPORTED("metadata_keys"),
    OPTION_UNSUPPORTED("metadata_cardinality_limit"),
    OPTION_END,
};

#define BATCHER_MAGIC 0x42544348u

struct batcher {
    unsigned magic;
    struct instance *in;
    const struct batch_config *c;
    pthread_mutex_t lock;
    struct batch *parts[MAX_PARTS];
    uint32_t n;
    uint64_t items, since_ns; /* monotonic, of the oldest part */
    _Atomic uint64_t held;
    struct loop_timer *timer;
    uint64_t tick_ms, idle_ms; /* its pace while something waits, and while nothing does */
    struct series *by_size, *by_timeout, *sizes;
};

static const double size_bounds[] = {10,   25,    50,    75,    100,   250,   500,  750,
                                     1000, 2000,  3000,  4000,  5000,  6000,  7000, 8000,
                                     9000, 10000, 20000, 30000, 50000, 100000};
static const struct metric_desc by_size_desc = {"processor_batch_batch_size_trigger_send",
                                                "Batches sent because of their size.",
                                                "{times}",
                                                METRIC_KIND_COUNTER,
                                                LEVEL_NORMAL,
                                                NULL,
                                                0};
static const struct metric_desc by_timeout_desc = {"processor_batch_timeout_trigger_send",
                                                   "Batches sent because of the timeout.",
                                                   "{times}",
                                                   METRIC_KIND_COUNTER,
                                                   LEVEL_NORMAL,
                                                   NULL,
                                                   0};
static const struct metric_desc sizes_desc = {"processor_batch_batch_send_size",
                                              "Items in the batches that were sent.",
                                              "{units}",
                                              METRIC_KIND_HISTOGRAM,
                                              LEVEL_NORMAL,
                                              size_bounds,
                                              ARRAY_LEN(size_bounds)};

static int batch_validate(const void *config, struct err *e)
{
    const struct batch_config *c = config;
    if (c->send_batch_max_size && c->send_batch_max_size < c->send_batch_size)
        return err_set(e, -EINVAL, "send_batch_max_size must be at least send_batch_size");
    return 0;
}

static int batch_create(struct instance *in, struct err *e)
{
    struct batcher *self = xcalloc(1, sizeof(*self));
    struct label label = {"processor", in->id};
    (void)e;
    SET_MAGIC(self, BATCHER_MAGIC);
    self->in = in;
    self->c = in->config;
    pthread_mutex_init(&self->lock, NULL);
    self->by_size = telemetry_series(&by_size_desc, &label, 1);
    self->by_timeout = telemetry_series(&by_timeout_desc, &label, 1);
    self->sizes = telemetry_series(&sizes_desc, &label, 1);
    in->self = self;
    return 0;
}

static void emit(struct batcher *self, struct batch *b, struct series *trigger)
{
    series_add(trigger, 1);
    series_observe(self->sizes, (double)b->items);
    atomic_fetch_sub(&self->held, b->items);
    node_emit(self->in, b, ack_detached());
}

static void drop(struct batcher *self, struct batch *b, const char *reason)
{
    log_error(&self->in->log, "%llu items dropped: %s", (unsigned long long)b->items, reason);
    ledger_dropped(self->in, b->signal, b->items, reason);
    atomic_fetch_sub(&self->held, b->items);
    batch_unref(&b);
}

/*
 * Sends b in pieces of at most send_batch_max_size. What a size trigger leaves below
 * send_batch_size is returned: it goes on waiting, as in the Collector.
 */
static struct batch *send(struct batcher *self, struct batch *b, struct series *trigger)
{
    uint64_t max = self->c->send_batch_max_size;
    bool is_cut = false;
    while (max && b && b->items > max) {
        struct batch *head, *tail;
        if (batch_split(&head, &tail, b, max) != 0) {
            drop(self, b, "out_of_memory");
            return NULL;
        }
        batch_unref(&b);
        emit(self, head, trigger);
        b = tail;
        is_cut = true;
    }
    if (b && is_cut && trigger == self->by_size && self->c->timeout_ns &&
        b->items < self->c->send_batch_size)
        return b;
    if (b)
        emit(self, b, trigger);
    return NULL;
}

/* Parts were taken out under the lock; sent here without it. Returns what is to wait on. */
static struct batch *send_parts(struct batcher *self, struct batch **parts, uint32_t n,
                                struct series *trigger)
{
    struct batch *b = NULL;
    if (n > 1 && batch_concat(&b, parts, n) == 0) {
        for (uint32_t i = 0; i < n; i++)
            batch_unref(&parts[i]);
        return send(self, b, trigger);
    }
    if (n == 1)
        return send(self, parts[0], trigger);
    for (uint32_t i = 0; i < n; i++) /* no memory to merge them: as they are */
        emit(self, parts[i], trigger);
    return NULL;
}

/* With the lock held. The array is the caller's to free. */
static struct batch **take_parts(struct batcher *self, uint32_t *n)
{
    struct batch **parts = xalloc((self->n + 1) * sizeof(struct batch *));
    memcpy(parts, self->parts, self->n * sizeof(struct batch *));
    *n = self->n;
    self->n = 0;
    self->items = 0;
    return parts;
}

static void flush_if(struct batcher *self, bool due)
{
    struct batch **parts = NULL;
    uint32_t n = 0;
    pthread_mutex_lock(&self->lock);
    if (self->n && (due || clock_mono_ns() - self->since_ns >= self->c->timeout_ns))
        parts = take_parts(self, &n);
    pthread_mutex_unlock(&self->lock);
    send_parts(self, parts, n, self->by_timeout);
    free(parts);
}

/* What comes between two of the rare ticks is due after the second one. */
static void on_tick(void *arg)
{
    struct batcher *self = CAST_OBJ(struct batcher, arg, BATCHER_MAGIC);
    pthread_mutex_lock(&self->lock);
    bool is_idle = self->n == 0;
    pthread_mutex_unlock(&self->lock);
    loop_timer_pace(self->timer, is_idle ? self->idle_ms : self->tick_ms);
    flush_if(self, false);
}

static int batch_start(struct instance *in, struct err *e)
{
    struct batcher *self = in->self;
    uint64_t ms = self->c->timeout_ns / NS_PER_MS;
    (void)e;
    if (!self->c->timeout_ns)
        ms = TICK_MS_IDLE; /* nothing ever waits */
    /* A tenth late is soon enough: a host at rest is not to be woken for nothing. */
    self->tick_ms = MIN(MAX(ms / 10, (uint64_t)TICK_MS_MIN), (uint64_t)TICK_MS_MAX);
    self->idle_ms = MIN(MAX(ms, (uint64_t)TICK_MS_MIN), (uint64_t)TICK_MS_IDLE);
    self->timer = loop_timer_new(loops_get(0), on_tick, self);
    loop_timer_pace(self->timer, self->idle_ms);
    return 0;
}

/* Adds b, in front of the others or behind them. The parts when they are to be sent now. */
static struct batch **add(struct batcher *self, struct batch *b, bool in_front, uint32_t *n)
{
    struct batch **parts = NULL;
    *n = 0;
    pthread_mutex_lock(&self->lock);
    if (self->n == 0 || in_front)
        self->since_ns = clock_mono_ns();
    if (in_front)
        memmove(self->parts + 1, self->parts, self->n * sizeof(struct batch *));
    self->parts[in_front ? 0 : self->n] = b;
    self->n++;
    self->items += b->items;
    if (self->items >= self->c->send_batch_size || self->n == MAX_PARTS || self->c->timeout_ns == 0)
        parts = take_parts(self, n);
    pthread_mutex_unlock(&self->lock);
    return parts;
}

static void batch_consume(struct instance *in, struct batch *b, struct ack *a)
{
    struct batcher *self = CAST_OBJ(struct batcher, in->self, BATCHER_MAGIC);
    bool is_rest = false;
    atomic_fetch_add(&self->held, b->items);
    while (b) {
        uint32_t n;
        struct batch **parts = add(self, b, is_rest, &n);
        if (!is_rest)
            ack_ok(a);
        b = send_parts(self, parts, n, self->by_size);
        is_rest = true;
        free(parts);
    }
}

static void batch_stop(struct instance *in)
{
    struct batcher *self = in->self;
    flush_if(self, true);
    loop_timer_free(&self->timer);
    instance_stopped(in);
}

static uint64_t batch_held(struct instance *in)
{
    struct batcher *self = in->self;
    return self->held;
}

static void batch_free(struct instance *in)
{
    struct batcher *self = CAST_OBJ(struct batcher, in->self, BATCHER_MAGIC);
    for (uint32_t i = 0; i < self->n; i++)
        batch_unref(&self->parts[i]);
    loop_timer_free(&self->timer);
    pthread_mutex_destroy(&self->lock);
    CLEAR_MAGIC(self);
    free(self);
    in->self = NULL;
}

const struct component batch_component = {
    .kind = KIND_PROCESSOR,
    .name = "batch",
    .help = "Collects data into batches.",
    .signals = SIGNAL_ALL,
    .stability = STABILITY_BETA,
    .affinity = AFFINITY_PROCESS,
    .options = batch_options,
    .config_size = sizeof(struct batch_config),
    .validate = batch_validate,
    .create = batch_create,
    .start = batch_start,
    .consume = batch_consume,
    .stop = batch_stop,
    .held = batch_held,
    .free = batch_free,
};
