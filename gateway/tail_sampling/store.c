/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/tail_sampling/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hashmap.h"

enum { PAGE = 1024, FIRST_SLOTS = 256, BLOCK_HEADER = 16, AT_BITS = 30 };
#define AT_MASK ((1u << AT_BITS) - 1)

void store_init(struct store *s)
{
    *s = (struct store){0};
    list_init(&s->pending);
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

static void free_page(struct decisions *d, uint64_t page)
{
    free(d->pages[page & d->mask]);
    mem_account(-(int64_t)(PAGE * sizeof(struct decision)));
}

static void decisions_fini(struct decisions *d)
{
    for (uint64_t page = d->first / PAGE; page < (d->end + PAGE - 1) / PAGE; page++)
        free_page(d, page);
    free(d->pages);
}

void store_fini(struct store *s)
{
    LIST_EACH (it, &s->pending)
        free_runs(s, LIST_ENTRY(it, struct trace, in_order));
    if (s->current)
        free_block(s->current);
    for (uint32_t i = 0; i < s->n_pages; i++)
        free(s->pages[i]);
    mem_account(-(int64_t)(sizeof(struct trace) * PAGE * s->n_pages));
    if (s->slots)
        mem_account(-(int64_t)((s->mask + 1) * sizeof(*s->slots)));
    for (unsigned i = 0; i < STORE_DECIDED; i++)
        decisions_fini(&s->decided[i]);
    free(s->pages);
    free(s->slots);
    *s = (struct store){0};
}

/* ---- decisions ---- */

static struct decision *decision_at(const struct decisions *d, uint64_t number)
{
    return &d->pages[number / PAGE & d->mask][number % PAGE];
}

/* The decision that a slot names: numbers are kept in thirty bits, and fewer than that exist. */
static struct decision *decision_of(const struct decisions *d, uint32_t at)
{
    return decision_at(d, d->first + ((at - d->first) & AT_MASK));
}

static bool grow_ring(struct decisions *d)
{
    uint32_t old = d->pages ? d->mask + 1 : 0, n = old ? old * 2 : 4;
    struct decision **pages = try_alloc(n * sizeof(*pages));
    if (!pages)
        return false;
    for (uint64_t page = d->first / PAGE; old && page < d->end / PAGE; page++)
        pages[page & (n - 1)] = d->pages[page & d->mask];
    free(d->pages);
    d->pages = pages;
    d->mask = n - 1;
    return true;
}

/* Room for the next decision, NULL when memory is refused. */
static struct decision *next_decision(struct decisions *d)
{
    if (d->end % PAGE == 0) {
        uint64_t pages = d->end / PAGE - d->first / PAGE;
        if ((!d->pages || pages > d->mask) && !grow_ring(d))
            return NULL;
        struct decision *page = try_alloc(PAGE * sizeof(*page));
        if (!page)
            return NULL;
        mem_account(PAGE * sizeof(*page));
        d->pages[d->end / PAGE & d->mask] = page;
    }
    return decision_at(d, d->end++);
}

/* ---- the table ---- */

static struct trace *trace_at(const struct store *s, uint32_t index)
{
    return &s->pages[index / PAGE][index % PAGE];
}

/* The shard took the highest four bits of the hash. */
static uint32_t tag_of(uint64_t hash)
{
    uint32_t tag = (uint32_t)(hash >> 28);
    return tag ? tag : 1;
}

static uint32_t slot_at(enum trace_state state, uint64_t number)
{
    return (uint32_t)state << AT_BITS | (uint32_t)(number & AT_MASK);
}

void store_prefetch_slot(const struct store *s, uint64_t hash)
{
    if (s->slots)
        __builtin_prefetch(&s->slots[tag_of(hash) & s->mask]);
}

void store_prefetch_trace(const struct store *s, uint64_t hash)
{
    if (!s->slots)
        return;
    uint32_t tag = tag_of(hash);
    struct store_slot slot = s->slots[tag & s->mask];
    if (slot.tag == tag && slot.at >> AT_BITS == TRACE_PENDING) {
        __builtin_prefetch(trace_at(s, slot.at));
        __builtin_prefetch((const char *)trace_at(s, slot.at) + 64);
    }
}

void store_prefetch_next(const struct store *s, const struct trace *t)
{
    const struct list *next = t->in_order.next;
    if (next == &s->pending)
        return;
    __builtin_prefetch(&s->slots[LIST_ENTRY(next, struct trace, in_order)->tag & s->mask]);
    __builtin_prefetch(LIST_ENTRY(next->next, struct trace, in_order));
}

enum trace_state store_find(struct store *s, uint64_t hash, const uint8_t id[16], struct trace **t)
{
    uint32_t tag = tag_of(hash);
    if (s->recent && memcmp(s->recent->id, id, 16) == 0) {
        *t = s->recent;
        return TRACE_PENDING;
    }
    if (!s->slots)
        return TRACE_UNKNOWN;
    for (size_t i = tag & s->mask; s->slots[i].tag; i = (i + 1) & s->mask) {
        if (s->slots[i].tag != tag)
            continue;
        uint32_t at = s->slots[i].at;
        enum trace_state state = (enum trace_state)(at >> AT_BITS);
        if (state == TRACE_PENDING) {
            *t = trace_at(s, at);
            if (memcmp((*t)->id, id, 16) == 0) {
                s->recent = *t;
                return state;
            }
        } else if (memcmp(decision_of(&s->decided[state], at)->id, id, 16) == 0) {
            return state;
        }
    }
    return TRACE_UNKNOWN;
}

static void place(struct store_slot *slots, size_t mask, struct store_slot slot)
{
    size_t i = slot.tag & mask;
    while (slots[i].tag)
        i = (i + 1) & mask;
    slots[i] = slot;
}

static int grow_slots(struct store *s)
{
    size_t old = s->slots ? s->mask + 1 : 0, n = old ? old * 2 : FIRST_SLOTS;
    struct store_slot *slots = try_alloc_table(n * sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    for (size_t i = 0; i < old; i++)
        if (s->slots[i].tag)
            place(slots, n - 1, s->slots[i]);
    free(s->slots);
    mem_account((int64_t)((n - old) * sizeof(*slots)));
    s->slots = slots;
    s->mask = n - 1;
    return 0;
}

static struct store_slot *find_slot(struct store *s, uint32_t tag, uint32_t at)
{
    size_t i = tag & s->mask;
    while (s->slots[i].tag != tag || s->slots[i].at != at)
        i = (i + 1) & s->mask;
    return &s->slots[i];
}

static void remove_slot(struct store *s, uint32_t tag, uint32_t at)
{
    size_t hole = (size_t)(find_slot(s, tag, at) - s->slots);
    for (size_t i = (hole + 1) & s->mask; s->slots[i].tag; i = (i + 1) & s->mask) {
        size_t home = s->slots[i].tag & s->mask;
        if (((i - home) & s->mask) < ((i - hole) & s->mask))
            continue; /* it would move in front of its home */
        s->slots[hole] = s->slots[i];
        hole = i;
    }
    s->slots[hole] = (struct store_slot){0, 0};
    s->n--;
}

/* ---- traces ---- */

/* A trace that nobody uses, its index set. NULL when memory is refused. */
static struct trace *unused_trace(struct store *s)
{
    struct trace *t = s->free;
    if (t) {
        s->free = (struct trace *)(void *)t->more_runs;
        return t;
    }
    if (s->used == s->n_pages * PAGE) {
        struct trace **pages = try_realloc(s->pages, (s->n_pages + 1) * sizeof(struct trace *));
        if (!pages)
            return NULL;
        s->pages = pages;
        pages[s->n_pages] = try_alloc(PAGE * sizeof(struct trace));
        if (!pages[s->n_pages])
            return NULL;
        s->n_pages++;
        mem_account(PAGE * sizeof(struct trace));
    }
    t = trace_at(s, s->used);
    t->index = s->used++;
    return t;
}

static void give_up_trace(struct store *s, struct trace *t)
{
    t->more_runs = (struct run *)(void *)s->free;
    s->free = t;
    if (s->recent == t)
        s->recent = NULL;
}

struct trace *store_add(struct store *s, uint64_t hash, const uint8_t id[16], uint64_t now_ns)
{
    if ((!s->slots || (s->n + 1) * 8 > (s->mask + 1) * 5) && grow_slots(s))
        return NULL;
    struct trace *t = unused_trace(s);
    if (!t)
        return NULL;
    *t = (struct trace){
        .tag = tag_of(hash), .first_ns = now_ns, .min_start = UINT64_MAX, .index = t->index};
    memcpy(t->id, id, 16);
    list_push(&s->pending, &t->in_order);
    place(s->slots, s->mask, (struct store_slot){t->tag, slot_at(TRACE_PENDING, t->index)});
    s->n++;
    s->recent = t;
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
static uint32_t intern(struct store_block *b, struct str envelope, uint64_t *hash)
{
    if (!*hash)
        *hash = hash_str(envelope) | 1;
    unsigned slot = (unsigned)(*hash >> 32) & (ARRAY_LEN(b->interned) - 1);
    if (b->interned[slot].at && b->interned[slot].hash == *hash &&
        str_eq(block_bytes(b, b->interned[slot].at), envelope))
        return b->interned[slot].at;
    uint32_t at = (uint32_t)b->chunk->len, n = (uint32_t)envelope.n;
    memcpy(b->chunk->data + at, &n, sizeof(n));
    if (n)
        memcpy(b->chunk->data + at + sizeof(n), envelope.p, n);
    b->chunk->len = align8(at + sizeof(n) + n);
    b->interned[slot].hash = *hash;
    b->interned[slot].at = at;
    return at;
}

int store_source_init(struct store_source *src, const struct batch *b)
{
    size_t n = (size_t)b->n_resources + b->n_scopes;
    *src = (struct store_source){.b = b, .resource_hash = try_alloc(n * sizeof(uint64_t))};
    if (!src->resource_hash)
        return -ENOMEM;
    memset(src->resource_hash, 0, n * sizeof(uint64_t));
    src->scope_hash = src->resource_hash + b->n_resources;
    return 0;
}

void store_source_fini(struct store_source *src)
{
    free(src->resource_hash);
}

/* Both envelopes of the span are in the block, and src->last says where. */
static void intern_both(struct store_block *block, struct store_source *src, uint32_t resource,
                        uint32_t scope)
{
    if (src->last.block != block) {
        src->last.block = block;
        src->last.resource_index = src->last.scope_index = 0;
    }
    if (src->last.resource_index != resource + 1) {
        src->last.resource_index = resource + 1;
        src->last.resource =
            intern(block, src->b->resources[resource].envelope, &src->resource_hash[resource]);
    }
    if (src->last.scope_index != scope + 1) {
        src->last.scope_index = scope + 1;
        src->last.scope = intern(block, src->b->scopes[scope].envelope, &src->scope_hash[scope]);
    }
}

int store_insert(struct store *s, struct trace *t, struct store_source *src, uint32_t i)
{
    const struct record *rec = &src->b->records[i];
    const struct span_key *k = &src->b->keys[i];
    /* Room for the worst case: both envelopes are written anew. */
    size_t need = sizeof(struct stored_span) + align8(rec->len) +
                  src->b->resources[k->resource].envelope.n + src->b->scopes[k->scope].envelope.n +
                  32;
    struct store_block *block = block_with_room(s, need);
    struct run *run = block ? run_for(t, block) : NULL;
    if (!run)
        return -ENOMEM;
    intern_both(block, src, k->resource, k->scope);
    uint32_t at = (uint32_t)block->chunk->len;
    struct stored_span head = {rec->len, run->last, src->last.resource, src->last.scope};
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
    struct decisions *d = &s->decided[state];
    uint32_t pending = slot_at(TRACE_PENDING, t->index);
    struct decision *made = next_decision(d);
    list_remove(&t->in_order);
    if (made) {
        memcpy(made->id, t->id, 16);
        made->tag = t->tag;
        find_slot(s, t->tag, pending)->at = slot_at(state, d->end - 1);
    } else { /* no memory to remember it: what comes late is a new trace */
        remove_slot(s, t->tag, pending);
    }
    give_up_trace(s, t);
}

uint32_t store_evict_oldest(struct store *s)
{
    if (list_is_empty(&s->pending))
        return 0;
    struct trace *t = LIST_ENTRY(s->pending.next, struct trace, in_order);
    uint32_t spans = t->n_spans;
    free_runs(s, t);
    list_remove(&t->in_order);
    remove_slot(s, t->tag, slot_at(TRACE_PENDING, t->index));
    give_up_trace(s, t);
    return spans;
}

void store_forget_oldest(struct store *s, enum trace_state state)
{
    struct decisions *d = &s->decided[state];
    if (d->first == d->end)
        return;
    remove_slot(s, decision_at(d, d->first)->tag, slot_at(state, d->first));
    if (++d->first % PAGE == 0)
        free_page(d, d->first / PAGE - 1);
}
