/* SPDX-License-Identifier: Apache-2.0 */
#include "common/pipeline/node.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/pipeline/graph.h"

#ifdef TAILRACE_FAULT_FANOUT
/* Fault build: one branch of one fan-out in a hundred is forgotten; the ledger must show it. */
static _Atomic unsigned emitted;
#define FORGET_BRANCH(n) ((n) > 1 && atomic_fetch_add(&emitted, 1) % 100 == 5)
#else
#define FORGET_BRANCH(n) false
#endif

static void deliver(struct edge *e, struct batch *b, struct ack *a)
{
    struct node *to = e->to;
    uint64_t items = b->items;
    atomic_fetch_add_explicit(&e->ledger->taken, items, memory_order_relaxed);
    atomic_fetch_add_explicit(&to->account[b->signal]->in, items, memory_order_relaxed);
    to->in.component->consume(&to->in, b, a);
}

void node_emit(struct instance *in, struct batch *b, struct ack *a)
{
    struct node *n = in->node;
    struct edges *out = &n->out[b->signal];
    struct ledger_account *account = n->account[b->signal];
    uint64_t items = b->items;
    ASSERT(account);
    atomic_fetch_add_explicit(&account->out, items, memory_order_relaxed);
    if (UNLIKELY(out->n == 0)) { /* a connector's or receiver's signal that no pipeline takes */
        atomic_fetch_sub_explicit(&account->out, items, memory_order_relaxed);
        ledger_count(account->dropped, "no_pipeline", items);
        batch_unref(&b);
        ack_ok(a);
        return;
    }
    if (out->n > 1)
        ack_take(a, out->n - 1);
    /* The last branch gets the caller's reference, which may free the batch. */
    for (unsigned i = 0; i < out->n; i++) {
        atomic_fetch_add_explicit(&out->v[i].ledger->given, items, memory_order_relaxed);
        if (i + 1 < out->n)
            batch_ref(b);
        if (i == 0 && FORGET_BRANCH(out->n)) {
            struct batch *forgotten = b;
            batch_unref(&forgotten);
            ack_ok(a);
            continue;
        }
        deliver(&out->v[i], b, a);
    }
}

bool node_has_output(const struct instance *in, enum signal s)
{
    return in->node->out[s].n > 0;
}

bool node_outputs_open_for(const struct instance *in, enum signal s)
{
    for (unsigned i = 0; i < in->node->out[s].n; i++)
        if (atomic_load_explicit(&in->node->out[s].v[i].to->closed, memory_order_acquire) > 0)
            return false;
    return true;
}

bool node_outputs_open(const struct instance *in)
{
    for (unsigned s = 0; s < SIGNAL_COUNT; s++)
        if (!node_outputs_open_for(in, (enum signal)s))
            return false;
    return true;
}

/* ---- gates ---- */

static void run_gate(struct task *t)
{
    struct gate_task *g = CONTAINER_OF(t, struct gate_task, task);
    struct instance *in = &g->node->in;
    struct loop *loop = g->loop;
    /* First the mark goes, then the state is read: a change after this posts again. */
    atomic_store(&g->is_posted, false);
    if (atomic_load(&in->node->is_started))
        in->component->gate(in, loop, node_outputs_open(in));
}

void node_tell_gate(struct node *n)
{
    if (!n->in.component->gate)
        return;
    for (unsigned i = 0; i < loops_count(); i++) {
        struct gate_task *g = &n->gates[i];
        if (atomic_exchange(&g->is_posted, true))
            continue;
        g->task.run = run_gate;
        g->node = n;
        g->loop = loops_get(i);
        loop_post(g->loop, &g->task);
    }
}

/*
 * A close and the open that answers it may overtake each other on two threads. Only the step from 0
 * to 1 closes and only the one from 1 to 0 opens, so a count that is -1 for a moment changes
 * nothing.
 */
static void close_one(struct node *n)
{
    if (atomic_fetch_add(&n->closed, 1) != 0)
        return;
    for (unsigned i = 0; i < n->n_up; i++) {
        close_one(n->up[i]);
        node_tell_gate(n->up[i]);
    }
}

static void open_one(struct node *n)
{
    if (atomic_fetch_sub(&n->closed, 1) != 1)
        return;
    for (unsigned i = 0; i < n->n_up; i++) {
        open_one(n->up[i]);
        node_tell_gate(n->up[i]);
    }
}

void node_close(struct instance *in)
{
    close_one(in->node);
}

void node_open(struct instance *in)
{
    open_one(in->node);
}

void entry_init(struct entry *e, struct instance *in)
{
    pthread_mutex_init(&e->lock, NULL);
    e->in = in;
    e->is_closed = false;
}

void entry_update(struct entry *e, entry_full_fn *is_full, void *arg)
{
    bool was = e->is_closed;
    /* Asked again after the change is seen: who drained meanwhile may have looked before it was. */
    while (is_full(arg, was) != was) {
        pthread_mutex_lock(&e->lock);
        was = e->is_closed;
        bool closed = is_full(arg, was);
        e->is_closed = closed;
        if (closed && !was)
            node_close(e->in);
        if (was && !closed)
            node_open(e->in);
        pthread_mutex_unlock(&e->lock);
        was = closed;
    }
}

void entry_move(struct entry *e, struct instance *to)
{
    pthread_mutex_lock(&e->lock);
    if (e->is_closed) {
        node_close(to);
        node_open(e->in);
    }
    e->in = to;
    pthread_mutex_unlock(&e->lock);
}

void entry_fini(struct entry *e)
{
    pthread_mutex_destroy(&e->lock);
}

/* ---- ledger ---- */

static struct ledger_account *account_of(struct instance *in, enum signal s)
{
    struct ledger_account *a = in->node->account[s];
    ASSERT(a);
    return a;
}

void ledger_made(struct instance *in, enum signal s, uint64_t items)
{
    atomic_fetch_add_explicit(&account_of(in, s)->made, items, memory_order_relaxed);
}

void ledger_dropped(struct instance *in, enum signal s, uint64_t items, const char *reason)
{
    ledger_count(account_of(in, s)->dropped, reason, items);
}

void ledger_sent(struct instance *in, enum signal s, uint64_t items)
{
    atomic_fetch_add_explicit(&account_of(in, s)->sent, items, memory_order_relaxed);
}

void ledger_uncertain(struct instance *in, enum signal s, uint64_t items)
{
    atomic_fetch_add_explicit(&account_of(in, s)->uncertain, items, memory_order_relaxed);
}

/* ---- life ---- */

void instance_stopped(struct instance *in)
{
    bool was = atomic_exchange(&in->node->is_stopped, true);
    ASSERT(!was);
}

void instance_fatal(struct instance *in, const char *fmt, ...)
{
    char why[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    log_error(&in->log, "%s", why);
    if (in->node->graph->on_fatal)
        in->node->graph->on_fatal(in, why);
}

struct instance *instance_find(struct instance *in, enum component_kind kind, const char *id)
{
    struct graph *g = in->node->graph;
    for (unsigned i = 0; i < g->n; i++)
        if (g->nodes[i]->in.component->kind == kind && strcmp(g->nodes[i]->in.id, id) == 0)
            return &g->nodes[i]->in;
    return NULL;
}
