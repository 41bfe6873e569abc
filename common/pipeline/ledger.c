/* SPDX-License-Identifier: Apache-2.0 */
#include "common/pipeline/ledger.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/pipeline/telemetry.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ledger_account *accounts;
static struct ledger_edge *edges;

static const char *const kind_names[] = {"receiver", "processor", "exporter", "connector",
                                         "extension"};

struct ledger_account *ledger_account(const struct instance *in, enum signal s)
{
    char *name = in->pipeline
                     ? xasprintf("%s/%s@%s", kind_names[in->component->kind], in->id, in->pipeline)
                     : xasprintf("%s/%s", kind_names[in->component->kind], in->id);
    struct ledger_account *a;
    pthread_mutex_lock(&lock);
    for (a = accounts; a; a = a->next)
        if (a->signal == s && strcmp(a->node, name) == 0)
            break;
    if (!a) {
        a = xcalloc(1, sizeof(*a));
        a->node = name;
        a->signal = s;
        a->kind = in->component->kind;
        a->id = xstrdup(in->id);
        a->next = accounts;
        accounts = a;
        name = NULL;
    }
    pthread_mutex_unlock(&lock);
    free(name);
    return a;
}

struct ledger_edge *ledger_edge(struct ledger_account *from, struct ledger_account *to)
{
    struct ledger_edge *e;
    pthread_mutex_lock(&lock);
    for (e = edges; e; e = e->next)
        if (e->from == from && e->to == to)
            break;
    if (!e) {
        e = xcalloc(1, sizeof(*e));
        e->from = from;
        e->to = to;
        e->next = edges;
        edges = e;
    }
    pthread_mutex_unlock(&lock);
    return e;
}

void ledger_set_holder(struct ledger_account *a, struct instance *in)
{
    pthread_mutex_lock(&lock);
    a->holder = in;
    pthread_mutex_unlock(&lock);
}

void ledger_clear_holder(struct ledger_account *a, const struct instance *in)
{
    pthread_mutex_lock(&lock);
    if (a->holder == in)
        a->holder = NULL;
    pthread_mutex_unlock(&lock);
}

void ledger_count(struct ledger_reason *table, const char *reason, uint64_t items)
{
    for (unsigned i = 0; i < LEDGER_REASONS; i++) {
        const char *name = atomic_load_explicit(&table[i].name, memory_order_acquire);
        if (!name && !atomic_compare_exchange_strong(&table[i].name, &name, reason)) {
            /* somebody was faster: name is his now */
        } else if (!name) {
            name = reason;
        }
        /* The last place takes what has no place: reasons are few and static, sums stay right. */
        if (strcmp(name, reason) == 0 || i == LEDGER_REASONS - 1) {
            atomic_fetch_add_explicit(&table[i].items, items, memory_order_relaxed);
            return;
        }
    }
}

uint64_t ledger_sum(const struct ledger_reason *table)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < LEDGER_REASONS; i++)
        sum += atomic_load_explicit(&table[i].items, memory_order_relaxed);
    return sum;
}

static uint64_t held(const struct ledger_account *a)
{
    const struct instance *in = a->holder;
    if (!in || !in->component->held || !in->self)
        return 0;
    return in->component->held((struct instance *)in);
}

static int64_t unexplained(const struct ledger_account *a)
{
    return (int64_t)(a->in + a->made) -
           (int64_t)(a->out + a->sent + ledger_sum(a->dropped) + held(a));
}

int64_t ledger_unexplained(struct ledger_account *a)
{
    pthread_mutex_lock(&lock);
    int64_t n = unexplained(a);
    pthread_mutex_unlock(&lock);
    return n;
}

uint64_t ledger_unexplained_total(void)
{
    uint64_t sum = 0;
    pthread_mutex_lock(&lock);
    for (struct ledger_account *a = accounts; a; a = a->next)
        sum += (uint64_t)llabs(unexplained(a));
    for (struct ledger_edge *e = edges; e; e = e->next)
        sum += (uint64_t)llabs((int64_t)(e->given - e->taken));
    pthread_mutex_unlock(&lock);
    return sum;
}

static const struct metric_desc incoming_desc = {"processor_incoming_items",
                                                 "Number of items passed to the processor.",
                                                 "{items}",
                                                 METRIC_KIND_COUNTER,
                                                 LEVEL_BASIC,
                                                 NULL,
                                                 0};
static const struct metric_desc outgoing_desc = {"processor_outgoing_items",
                                                 "Number of items emitted from the processor.",
                                                 "{items}",
                                                 METRIC_KIND_COUNTER,
                                                 LEVEL_BASIC,
                                                 NULL,
                                                 0};

static bool same_processor(const struct ledger_account *a, const struct ledger_account *b)
{
    return a->kind == KIND_PROCESSOR && b->kind == KIND_PROCESSOR && a->signal == b->signal &&
           strcmp(a->id, b->id) == 0;
}

/* One line for each processor and signal: the sum over its pipelines. */
static void expose_items(struct buf *out, const struct metric_desc *d, bool incoming)
{
    struct buf name;
    buf_init(&name);
    telemetry_name(d, &name);
    buf_addf(out, "# HELP %s %s\n# TYPE %s counter\n", buf_cstr(&name), d->help, buf_cstr(&name));
    for (struct ledger_account *a = accounts; a; a = a->next) {
        struct ledger_account *first = accounts;
        uint64_t sum = 0;
        while (first != a && !same_processor(first, a))
            first = first->next;
        if (a->kind != KIND_PROCESSOR || first != a)
            continue;
        for (struct ledger_account *b = a; b; b = b->next)
            if (same_processor(a, b))
                sum += incoming ? b->in : b->out;
        buf_addf(out, "%s{processor=\"%s\",otel_signal=\"%s\"} %" PRIu64 "\n", buf_cstr(&name),
                 a->id, signal_info[a->signal].name, sum);
    }
    buf_fini(&name);
}

void ledger_expose_processors(struct buf *out)
{
    pthread_mutex_lock(&lock);
    expose_items(out, &incoming_desc, true);
    expose_items(out, &outgoing_desc, false);
    pthread_mutex_unlock(&lock);
}

static void expose_term(struct buf *out, const struct ledger_account *a, const char *term,
                        const char *reason, uint64_t v)
{
    buf_addf(out, "tailrace_ledger_items{node=\"%s\",signal=\"%s\",term=\"%s\"", a->node,
             signal_info[a->signal].name, term);
    if (reason)
        buf_addf(out, ",reason=\"%s\"", reason);
    buf_addf(out, "} %" PRIu64 "\n", v);
}

static void expose_dropped(struct buf *out, const struct ledger_account *a)
{
    for (unsigned i = 0; i < LEDGER_REASONS; i++) {
        const char *why = atomic_load_explicit(&a->dropped[i].name, memory_order_acquire);
        if (why)
            expose_term(out, a, "dropped", why, a->dropped[i].items);
    }
}

static void expose_account(struct buf *out, const struct ledger_account *a)
{
    expose_term(out, a, "in", NULL, a->in);
    expose_term(out, a, "made", NULL, a->made);
    expose_term(out, a, "out", NULL, a->out);
    expose_term(out, a, "sent", NULL, a->sent);
    expose_term(out, a, "held", NULL, held(a));
    expose_term(out, a, "uncertain", NULL, a->uncertain);
    expose_dropped(out, a);
}

void ledger_expose(struct buf *out)
{
    pthread_mutex_lock(&lock);
    buf_add_cstr(out, "# HELP tailrace_ledger_items Items by node and term: in + made = out + sent "
                      "+ dropped + held.\n# TYPE tailrace_ledger_items gauge\n");
    for (struct ledger_account *a = accounts; a; a = a->next)
        expose_account(out, a);
    buf_add_cstr(out, "# HELP tailrace_ledger_unexplained Items that a node cannot account for.\n"
                      "# TYPE tailrace_ledger_unexplained gauge\n");
    for (struct ledger_account *a = accounts; a; a = a->next)
        buf_addf(out, "tailrace_ledger_unexplained{node=\"%s\",signal=\"%s\"} %" PRId64 "\n",
                 a->node, signal_info[a->signal].name, unexplained(a));
    buf_add_cstr(out, "# HELP tailrace_ledger_edge_unexplained Items given on an edge and not "
                      "taken.\n# TYPE tailrace_ledger_edge_unexplained gauge\n");
    for (struct ledger_edge *e = edges; e; e = e->next)
        buf_addf(out,
                 "tailrace_ledger_edge_unexplained{from=\"%s\",to=\"%s\",signal=\"%s\"} %" PRId64
                 "\n",
                 e->from->node, e->to->node, signal_info[e->to->signal].name,
                 (int64_t)(e->given - e->taken));
    pthread_mutex_unlock(&lock);
}
