/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/tail_sampling/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hashmap.h"

enum { PAGE = 1024, FIRST_SLOTS = 256, BLOCK_HEADER = 16 };

void store_init(struct store *s)
{
    *s = (struct store){0};
    list_init(&s->pending);
    list_init(&s->sampled);
    list_init(&s->not_sampled);
}

static void free_block(struct store_block *b)
{
    chunk_unref(&b->chunk);
    free(b);
}

static void free_runs(struct store *s, struct trace *t)
{
    struct run *r = trace_runs(t);
    for (unsigned i = 0; i < t->n_runs; i++)
        store_release(s, &r[i]);
    free(t->more_runs);
    t->more_runs = NULL;
    t->n_runs = 0;
}

void store_fini(struct store *s)
{
    LIST_EACH (it, &s->pending)
        free_runs(s, LIST_ENTRY(it, struct trace, in_order));
    if (s->current)
        free_block(s->current);
    for (uint32_t i = 0; i < s->n_pages; i++)
        free(s->pages[i]);
    mem_account(-(int64_t)(s->n_pages * PAGE * sizeof(struct trace)));
    if (s->slots)
        mem_account(-(int64_t)((s->mask + 1) * sizeof(*s->slots)));
    free(s->pages);
    free(s->slots);
    *s = (struct store){0};
}

/* ---- the table ---- */

static struct trace *trace_at(const struct store *s, uint32_t at)
{
    return &s->pages[(at - 1) / PAGE][(at - 1) % PAGE];
}

static uint32_t tag_of(uint64_t hash)
{
    return (uint32_t)(hash >> 28); /* the shard took the highest four bits */
}

static size_t home_of(const struct store *s, uint32_t at)
{
    return trace_at(s, at)->hash & s->mask;
}

struct trace *store_find(struct store *s, uint64_t hash, const uint8_t id[16])
{
    if (!s->slots)
        return NULL;
    for (size_t i = hash & s->mask; s->slots[i].at; i = (i + 1) & s->mask) {
        if (s->slots[i].tag != tag_of(hash))
            continue;
        struct trace *t = trace_at(s, s->slots[i].at);
        if (memcmp(t->id, id, 16) == 0)
            return t;
    }
    return NULL;
}

static void place(struct store_slot *slots, size_t mask, uint64_t hash, uint32_t at)
{
    size_t i = hash & mask;
    while (slots[i].at)
        i = (i + 1) & mask;
    slots[i] = (struct store_slot){tag_of(hash), at};
}

static int grow_slots(struct store *s)
{
    size_t old = s->slots ? s->mask + 1 : 0, n = old ? old * 2 : FIRST_SLOTS;
    struct store_slot *slots = try_alloc(n * sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    memset(slots, 0, n * sizeof(*slots));
    for (size_t i = 0; i < old; i++)
        if (s->slots[i].at)
            place(slots, n - 1, trace_at(s, s->slots[i].at)->hash, s->slots[i].at);
    free(s->slots);
    mem_account((int64_t)((n - old) * sizeof(*slots)));
    s->slots = slots;
    s->mask = n - 1;
    return 0;
}

static void remove_slot(struct store *s, const struct trace *t)
{
    size_t hole = t->hash & s->mask;
    while (trace_at(s, s->slots[hole].at) != t)
        hole = (hole + 1) & s->mask;
    for (size_t i = (hole + 1) & s->mask; s->slots[i].at; i = (i + 1) & s->mask) {
        size_t home = home_of(s, s->slots[i].at);
        if (((i - home) & s->mask) < ((i - hole) & s->mask))
            continue; /* it would move in front of its home */
        s->slots[hole] = s->slots[i];
        hole = i;
    }
    s->slots[hole] = (struct store_slot){0, 0};
    s->n--;
}

/* ---- traces ---- */

/* Index + 1 of an unused trace, 0 when memory is refused. */
static uint32_t new_trace(struct store *s)
{
    if (s->used == s->n_pages * PAGE) {
        struct trace **pages = try_realloc(s->pages, (s->n_pages + 1) * sizeof(struct trace *));
        if (!pages)
            return 0;
        s->pages = pages;
        pages[s->n_pages] = try_alloc(PAGE * sizeof(struct trace));
        if (!pages[s->n_pages])
            return 0;
        s->n_pages++;
        mem_account(PAGE * sizeof(struct trace));
    }
    return ++s->used;
}

struct trace *store_add(struct store *s, uint64_t hash, const uint8_t id[16], uint64_t now_ns)
{
    struct trace *t = s->free;
    uint32_t at;
    if ((!s->slots || (s->n + 1) * 8 > (s->mask + 1) * 5) && grow_slots(s))
        return NULL;
    if (t) {
        s->free = (struct trace *)(void *)t->more_runs;
        at = t->index;
    } else {
        at = new_trace(s);
        if (!at)
            return NULL;
        t = trace_at(s, at);
    }
    *t = (struct trace){.hash = hash, .first_ns = now_ns, .min_start = UINT64_MAX, .index = at};
    memcpy(t->id, id, 16);
    list_push(&s->pending, &t->in_order);
    s->n_pending++;
    place(s->slots, s->mask, hash, at);
    s->n++;
    return t;
}

struct run *trace_runs(struct trace *t)
{
    return t->more_runs ? t->more_runs : t->inline_runs;
}

static struct run *run_for(struct trace *t, struct store_block *b)
{
    struct run *r = trace_runs(t);
    if (t->n_runs && r[t->n_runs - 1].block == b)
        return &r[t->n_runs - 1];
    if (t->n_runs == (t->more_runs ? t->cap_runs : STORE_INLINE_RUNS)) {
        uint32_t cap = t->n_runs * 2u;
        struct run *more = cap <= UINT16_MAX ? try_alloc(cap * sizeof(*more)) : NULL;
        if (!more)
            return NULL;
        memcpy(more, r, t->n_runs * sizeof(*r));
        free(t->more_runs);
        t->more_runs = r = more;
        t->cap_runs = (uint16_t)cap;
    }
    r[t->n_runs] = (struct run){.block = b};
    return &r[t->n_runs++];
}

/* ---- blocks ---- */

static size_t align8(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

/* The current block, or a new one where n more bytes do not fit. */
static struct store_block *block_with_room(struct store *s, size_t n)
{
    struct store_block *b = s->current;
    if (b && b->chunk->cap - b->chunk->len >= n)
        return b;
    struct store_block *fresh = try_alloc(sizeof(*fresh));
    struct chunk *c = fresh ? chunk_new(MAX((size_t)STORE_BLOCK_BYTES, n + BLOCK_HEADER)) : NULL;
    if (!c) {
        free(fresh);
        return NULL;
    }
    memset(fresh, 0, sizeof(*fresh));
    fresh->chunk = c;
    fresh->is_current = true;
    fresh->id = ++s->next_block;
    c->len = BLOCK_HEADER; /* offset 0 means "none" */
    if (b) {
        b->is_current = false;
        if (b->live == 0)
            free_block(b);
    }
    s->current = fresh;
    return fresh;
}

/* The envelope's offset in the block: found by its hash and compared, or written. */
static uint32_t intern(struct store_block *b, struct str envelope)
{
    uint64_t hash = hash_str(envelope);
    unsigned slot = hash & (ARRAY_LEN(b->interned) - 1);
    if (b->interned[slot].at && b->interned[slot].hash == hash &&
        str_eq(block_bytes(b, b->interned[slot].at), envelope))
        return b->interned[slot].at;
    uint32_t at = (uint32_t)b->chunk->len, n = (uint32_t)envelope.n;
    memcpy(b->chunk->data + at, &n, sizeof(n));
    if (n)
        memcpy(b->chunk->data + at + sizeof(n), envelope.p, n);
    b->chunk->len = align8(at + sizeof(n) + n);
    b->interned[slot].hash = hash;
    b->interned[slot].at = at;
    return at;
}

int store_insert(struct store *s, struct trace *t, const struct batch *b, uint32_t i,
                 struct store_last *last)
{
    const struct record *rec = &b->records[i];
    const struct span_key *k = &b->keys[i];
    struct str resource = b->resources[k->resource].envelope, scope = b->scopes[k->scope].envelope;
    /* Room for the worst case: both envelopes are written anew. */
    size_t need = sizeof(struct stored_span) + align8(rec->len) + resource.n + scope.n + 32;
    struct store_block *block = block_with_room(s, need);
    struct run *run = block ? run_for(t, block) : NULL;
    if (!run)
        return -ENOMEM;
    if (last->block != block || last->scope_index != k->scope + 1) {
        *last = (struct store_last){.block = block, .scope_index = k->scope + 1};
        last->resource = intern(block, resource);
        last->scope = intern(block, scope);
    }
    uint32_t at = (uint32_t)block->chunk->len;
    struct stored_span head = {rec->len, run->last, last->resource, last->scope};
    memcpy(block->chunk->data + at, &head, sizeof(head));
    memcpy(block->chunk->data + at + sizeof(head), rec->field, rec->len);
    block->chunk->len = at + sizeof(head) + align8(rec->len);
    block->live++;
    run->last = at;
    run->count++;
    t->n_spans++;
    t->bytes += rec->len;
    t->status_mask |= (uint8_t)(1u << k->status);
    t->min_start = MIN(t->min_start, k->start_ns);
    t->max_end = MAX(t->max_end, k->end_ns);
    return 0;
}

void store_release(struct store *s, const struct run *r)
{
    (void)s;
    ASSERT(r->block->live >= r->count);
    r->block->live -= r->count;
    if (r->block->live == 0 && !r->block->is_current)
        free_block(r->block);
}

void store_remember(struct store *s, struct trace *t, enum trace_state state)
{
    ASSERT(t->state == TRACE_PENDING);
    list_remove(&t->in_order);
    s->n_pending--;
    t->state = (uint8_t)state;
    t->more_runs = NULL; /* the caller has them */
    t->n_runs = 0;
    list_push(state == TRACE_SAMPLED ? &s->sampled : &s->not_sampled, &t->in_order);
    *(state == TRACE_SAMPLED ? &s->n_sampled : &s->n_not_sampled) += 1;
}

void store_forget_oldest(struct store *s, enum trace_state state)
{
    struct list *it = list_pop(state == TRACE_SAMPLED ? &s->sampled : &s->not_sampled);
    if (!it)
        return;
    struct trace *t = LIST_ENTRY(it, struct trace, in_order);
    *(state == TRACE_SAMPLED ? &s->n_sampled : &s->n_not_sampled) -= 1;
    remove_slot(s, t);
    t->more_runs = (struct run *)(void *)s->free;
    s->free = t;
}
