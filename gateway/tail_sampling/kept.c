/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kept spans lie scattered over memory that nobody has looked at for the whole decision_wait: what
 * will be read next is asked for. Runs are sorted by block, spans never: each joins the list of its
 * scope.
 */
#include "gateway/tail_sampling/kept.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { AT_ONCE = 16, GROUPS = 64, SLOTS = 128 };

/* Spans of one block and one scope; offsets of the envelopes in it. */
struct group {
    uint32_t resource, scope, first;
};

struct groups {
    struct group at[GROUPS];
    unsigned n;
    uint8_t found[SLOTS]; /* where one was found, by its scope: looked at first */
};

void kept_fini(struct kept *k)
{
    free(k->runs);
    free(k->by_block);
    free(k->spans);
    *k = (struct kept){0};
}

void kept_add(struct kept *k, struct trace *t)
{
    struct run *runs = trace_runs(t);
    if (k->n_runs + t->n_runs > k->cap_runs) {
        k->cap_runs = MAX(k->cap_runs * 2, k->n_runs + t->n_runs + 64u);
        k->runs = xrealloc(k->runs, k->cap_runs * sizeof(*k->runs));
        k->by_block = xrealloc(k->by_block, k->cap_runs * sizeof(*k->by_block));
    }
    if (t->n_runs)
        memcpy(k->runs + k->n_runs, runs, t->n_runs * sizeof(*runs));
    k->n_runs += t->n_runs;
    k->bytes += t->bytes;
    free(t->more_runs);
}

static int by_block(const void *x, const void *y)
{
    const struct run *a = x, *b = y;
    if (a->block != b->block)
        return a->block < b->block ? -1 : 1;
    return a->last < b->last ? -1 : a->last > b->last;
}

/* NULL: there are too many. */
static struct group *group_of(struct groups *g, uint32_t resource, uint32_t scope)
{
    uint8_t *found = &g->found[(scope ^ resource) / 8 % SLOTS];
    unsigned i = *found;
    if (i < g->n && g->at[i].resource == resource && g->at[i].scope == scope)
        return &g->at[i];
    for (i = 0; i < g->n; i++)
        if (g->at[i].resource == resource && g->at[i].scope == scope)
            break;
    if (i == GROUPS)
        return NULL;
    *found = (uint8_t)i;
    if (i == g->n)
        g->at[g->n++] = (struct group){resource, scope, 0};
    return &g->at[i];
}

static int by_resource(const void *x, const void *y)
{
    const struct group *a = x, *b = y;
    if (a->resource != b->resource)
        return a->resource < b->resource ? -1 : 1;
    return a->scope < b->scope ? -1 : a->scope > b->scope;
}

static uint32_t header_bytes(const uint8_t *p)
{
    const uint8_t *from = p;
    while (*p & 0x80)
        p++;
    p++;
    while (*p & 0x80)
        p++;
    return (uint32_t)(p + 1 - from);
}

static void add_span(struct batch_builder *bb, const struct stored_span *s)
{
    struct record r = {.field = (const uint8_t *)(s + 1), .len = s->len, .items = 1};
#ifdef TAILRACE_FAULT_SAMPLER
    static _Atomic unsigned n; /* fault build: one span in a hundred is forgotten */
    if (atomic_fetch_add(&n, 1) % 100 == 5)
        return;
#endif
    r.hdr = header_bytes(r.field) & 0xff;
    batch_builder_record_field(bb, &r, NULL, true);
}

static void add_groups(const struct kept *k, struct batch_builder *bb,
                       const struct store_block *block, struct groups *g)
{
    qsort(g->at, g->n, sizeof(*g->at), by_resource);
    for (unsigned i = 0; i < g->n; i++) {
        if (i == 0 || g->at[i - 1].resource != g->at[i].resource)
            batch_builder_resource(bb, block_bytes(block, g->at[i].resource), true);
        batch_builder_scope(bb, block_bytes(block, g->at[i].scope), true);
        for (uint32_t s = g->at[i].first; s; s = k->spans[s].next)
            add_span(bb, k->spans[s].span);
    }
    g->n = 0;
}

static void ask_for(const struct run *r)
{
    const uint8_t *p = (const uint8_t *)run_span(r, r->last);
    __builtin_prefetch(p);
    __builtin_prefetch(p + 64);
    __builtin_prefetch(p + 128);
}

/* Lists the span at the front of r, which goes on to the one before. False: too many scopes. */
static bool list_span(struct kept *k, struct groups *g, struct run *r, uint32_t number)
{
    const struct stored_span *s = run_span(r, r->last);
    struct group *of = group_of(g, s->resource, s->scope);
    if (!of)
        return false;
    k->spans[number] = (struct kept_span){s, of->first};
    of->first = number;
    r->last = s->prev;
    return true;
}

/* Each span says where the trace's one before it is: several traces at a time, so as not to wait.
 */
static void add_block(struct kept *k, struct batch_builder *bb, const struct run *runs, uint32_t n)
{
    struct groups g = {.n = 0};
    struct run at[AT_ONCE];
    uint32_t n_spans = 0, next = 0, n_at = 0, room = 1;
    for (uint32_t i = 0; i < n; i++)
        room += runs[i].count;
    if (room > k->cap_spans) {
        k->cap_spans = MAX(k->cap_spans * 2, room);
        k->spans = xrealloc(k->spans, k->cap_spans * sizeof(*k->spans));
    }
    do {
        for (; n_at < AT_ONCE && next < n; n_at++) {
            at[n_at] = runs[next++];
            ask_for(&at[n_at]);
        }
        for (uint32_t i = 0; i < n_at;) {
            if (!list_span(k, &g, &at[i], n_spans + 1)) {
                add_groups(k, bb, runs->block, &g);
                continue;
            }
            n_spans++;
            if (at[i].last)
                ask_for(&at[i++]);
            else
                at[i] = at[--n_at];
        }
    } while (n_at || next < n);
    add_groups(k, bb, runs->block, &g);
}

int kept_batch(struct kept *k, struct batch **out)
{
    struct batch_builder bb;
    const struct run *runs = k->by_block;
    batch_builder_init(&bb, SIGNAL_TRACES);
    memcpy(k->by_block, k->runs, k->n_runs * sizeof(*runs));
    qsort(k->by_block, k->n_runs, sizeof(*runs), by_block);
    for (uint32_t i = 0, end; i < k->n_runs; i = end) {
        for (end = i + 1; end < k->n_runs && runs[end].block == runs[i].block;)
            end++;
        add_block(k, &bb, runs + i, end - i);
    }
    return batch_builder_seal(&bb, out);
}
