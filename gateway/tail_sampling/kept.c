/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kept spans lie scattered over memory that nobody has looked at for the whole decision_wait: what
 * will be read next is asked for. Runs are sorted by block, spans never: each joins the list of its
 * scope. Block by block, while its spans are warm, they are written as the request that will leave.
 */
#include "gateway/tail_sampling/kept.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/otlp/wire.h"

enum { AT_ONCE = 16, GROUPS = 64, SLOTS = 128, FIRST_ROOM = 1024 };

/* Spans of one block and one scope; offsets of the envelopes in it. */
struct group {
    uint32_t resource, scope, first, bytes;
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
        g->at[g->n++] = (struct group){.resource = resource, .scope = scope};
    return &g->at[i];
}

static int by_resource(const void *x, const void *y)
{
    const struct group *a = x, *b = y;
    if (a->resource != b->resource)
        return a->resource < b->resource ? -1 : 1;
    return a->scope < b->scope ? -1 : a->scope > b->scope;
}

/* Groups [from, to) are one resource's: the size of its message. */
static size_t resource_size(const struct store_block *block, const struct group *from,
                            const struct group *to)
{
    size_t n = block_bytes(block, from->resource).n;
    for (const struct group *g = from; g < to; g++)
        n += wire_field_size(block_bytes(block, g->scope).n + g->bytes);
    return n;
}

static void put(struct chunk *c, const void *p, size_t n)
{
    if (n)
        memcpy(c->data + c->len, p, n);
    c->len += n;
}

static void put_head(struct chunk *c, uint32_t number, size_t n, struct str envelope)
{
    c->len = (size_t)(wire_write_head(c->data + c->len, number, n) - c->data);
    put(c, envelope.p, envelope.n);
}

static int write_resource(struct kept *k, const struct store_block *block, const struct group *from,
                          const struct group *to)
{
    size_t n = resource_size(block, from, to), want = k->out->len + wire_field_size(n);
    if (want > k->out->cap && chunk_grow(&k->out, want + want / 2))
        return -ENOMEM;
    put_head(k->out, OTLP_REQUEST_RESOURCE, n, block_bytes(block, from->resource));
    for (const struct group *g = from; g < to; g++) {
        struct str scope = block_bytes(block, g->scope);
        put_head(k->out, OTLP_RESOURCE_SCOPE, scope.n + g->bytes, scope);
        for (uint32_t s = g->first; s; s = k->spans[s].next)
            put(k->out, k->spans[s].span + 1, k->spans[s].span->len);
    }
    ASSERT(k->out->len == want);
    return 0;
}

static int write_groups(struct kept *k, const struct store_block *block, struct groups *g)
{
    struct group *end = g->at + g->n;
    qsort(g->at, g->n, sizeof(*g->at), by_resource);
    g->n = 0;
    for (struct group *from = g->at, *to; from < end; from = to) {
        for (to = from + 1; to < end && to->resource == from->resource;)
            to++;
        if (write_resource(k, block, from, to))
            return -ENOMEM;
    }
    return 0;
}

static void ask_for(const struct run *r)
{
    const uint8_t *p = (const uint8_t *)run_span(r, r->last);
    __builtin_prefetch(p);
    __builtin_prefetch(p + 64);
    __builtin_prefetch(p + 128);
}

/* Fault build: one span in a hundred is forgotten. */
static bool is_lost(void)
{
#ifdef TAILRACE_FAULT_SAMPLER
    static _Atomic unsigned n;
    return atomic_fetch_add(&n, 1) % 100 == 5;
#else
    return false;
#endif
}

/* Lists the span at the front of r, which goes on to the one before. False: too many scopes. */
static bool list_span(struct kept *k, struct groups *g, struct run *r, uint32_t number)
{
    const struct stored_span *s = run_span(r, r->last);
    struct group *of = group_of(g, s->resource, s->scope);
    if (!of)
        return false;
    r->last = s->prev;
    if (is_lost())
        return true;
    k->spans[number] = (struct kept_span){s, of->first};
    of->first = number;
    of->bytes += s->len;
    return true;
}

/* Each span says where the trace's one before it is: several traces at a time, so as not to wait.
 */
static int add_block(struct kept *k, const struct run *runs, uint32_t n)
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
                if (write_groups(k, runs->block, &g))
                    return -ENOMEM;
                continue;
            }
            n_spans++;
            if (at[i].last)
                ask_for(&at[i++]);
            else
                at[i] = at[--n_at];
        }
    } while (n_at || next < n);
    return write_groups(k, runs->block, &g);
}

/* Writes the request. Its size is not known, but envelopes are seldom an eighth of the spans. */
static int write_all(struct kept *k)
{
    const struct run *runs = k->by_block;
    k->out = chunk_new(k->bytes + k->bytes / 8 + FIRST_ROOM);
    if (!k->out)
        return -ENOMEM;
    memcpy(k->by_block, k->runs, k->n_runs * sizeof(*runs));
    qsort(k->by_block, k->n_runs, sizeof(*runs), by_block);
    for (uint32_t i = 0, end; i < k->n_runs; i = end) {
        for (end = i + 1; end < k->n_runs && runs[end].block == runs[i].block;)
            end++;
        if (add_block(k, runs + i, end - i))
            return -ENOMEM;
    }
    return 0;
}

int kept_batch(struct kept *k, struct batch **out)
{
    struct err e;
    *out = NULL;
    int r = write_all(k);
    if (r == 0 && k->out->len > 0)
        r = batch_read(out, SIGNAL_TRACES, k->out, 0, k->out->len, 0, &e);
    chunk_unref(&k->out);
    return r;
}
