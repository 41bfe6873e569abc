/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one trace shard holds: spans in blocks, traces in a table, the order in which they fall due.
 *
 *   table (hash ─► trace) ── trace: runs ── run: (block, last span, count)
 *                                            block: envelopes at first use, spans, each with the
 * offset of the span before it of the same trace
 *
 * A block is position-independent: all its references are offsets into itself. Dropping a trace
 * touches its record and the counters of its blocks, never its spans.
 *
 * Life of a trace: store_add ─► PENDING, store_insert* ─► decided by the caller ─► store_remember:
 * its spans are the caller's, its id is remembered as SAMPLED or NOT_SAMPLED in a tenth of the room
 * ─► forgotten, oldest first.
 *
 * Not thread-safe: the shard's lock is the caller's. Span bytes of a detached run may be read
 * without the lock until store_release.
 */
#ifndef TAIL_SAMPLING_STORE_H
#define TAIL_SAMPLING_STORE_H

#include "common/base/list.h"
#include "common/otlp/batch.h"

#define STORE_BLOCK_BYTES (256 << 10)
#define STORE_INLINE_RUNS 3

enum trace_state {
    TRACE_PENDING,
    TRACE_SAMPLED,
    TRACE_NOT_SAMPLED,
    TRACE_UNKNOWN,
};
#define STORE_DECIDED (TRACE_NOT_SAMPLED + 1)

struct store_block {
    struct chunk *chunk;
    uint32_t live;   /* spans that a trace refers to */
    bool is_current; /* still filled */
    uint32_t id;
    struct {
        uint64_t hash;
        uint32_t at; /* 0 = free */
    } interned[64];  /* envelopes of this block: a cache, compared before use */
};

/* In a block, 8-byte aligned; the span field's bytes follow. */
struct stored_span {
    uint32_t len, prev;       /* prev: offset of the trace's span before this one here, 0 = none */
    uint32_t resource, scope; /* offsets of u32 length and bytes */
};

struct run {
    struct store_block *block;
    uint32_t last, count; /* offset of the newest span */
};

struct trace {
    uint8_t id[16];
    uint64_t first_ns;           /* monotonic arrival of the first span */
    uint64_t min_start, max_end; /* Unix ns */
    uint64_t bytes;
    uint32_t n_spans, index; /* index: place in the pages */
    uint32_t tag;            /* of its slot */
    uint8_t status_mask;     /* 1 << status for each seen */
    uint16_t n_runs, cap_runs;
    struct run inline_runs[STORE_INLINE_RUNS];
    struct run *more_runs; /* all runs, once they do not fit inline; of a free one the next */
    struct list in_order;  /* pending, oldest first */
};

/* Decided traces of one outcome, in the order of their decisions, in pages that come and go. */
struct decision {
    uint8_t id[16];
    uint32_t tag;
};
struct decisions {
    struct decision **pages; /* a ring: page k of all time lies at k & mask */
    uint32_t mask;           /* 0 with pages NULL: none yet */
    uint64_t first, end;     /* numbers of the oldest and of the next */
};

/* `at`: enum trace_state in the two high bits; index of the trace, or number of the decision. */
struct store_slot {
    uint32_t tag; /* of the hash, never 0; 0 = free */
    uint32_t at;
};

struct store {
    struct store_slot *slots;
    size_t mask, n;
    struct trace **pages; /* of 1024 traces */
    uint32_t n_pages, used;
    struct trace *free;   /* linked by more_runs */
    struct trace *recent; /* the last one found or added: its next span often follows; or NULL */
    struct store_block *current;
    uint32_t next_block;
    struct list pending;
    struct decisions decided[STORE_DECIDED]; /* by state; [TRACE_PENDING] is unused */
};

void store_init(struct store *s);
void store_fini(struct store *s);
/* What is known of that id; *t is set when it is PENDING. */
enum trace_state store_find(struct store *s, uint64_t hash, const uint8_t id[16], struct trace **t);
/* Ask for the memory that store_find will look at: first its slot, some spans later the trace. */
void store_prefetch_slot(const struct store *s, uint64_t hash);
void store_prefetch_trace(const struct store *s, uint64_t hash);
/* Asks for what store_remember of the trace after t, in order, will look at. */
void store_prefetch_next(const struct store *s, const struct trace *t);
/* A new pending trace. NULL when memory is refused. */
struct trace *store_add(struct store *s, uint64_t hash, const uint8_t id[16], uint64_t now_ns);

/* A batch on its way into stores. */
struct store_source {
    const struct batch *b;
    uint64_t *resource_hash, *scope_hash; /* of the envelopes, by group; 0 = not computed yet */
    struct {                              /* the last span, in one store */
        struct store_block *block;
        uint32_t scope_index, resource_index, resource, scope; /* indexes + 1 */
    } last;
};
int store_source_init(struct store_source *src, const struct batch *b) MUSTCHECK; /* -ENOMEM */
void store_source_fini(struct store_source *src);
/* To be called when the source goes on to another store. */
static inline void store_source_next(struct store_source *src)
{
    src->last.block = NULL;
}

/* Copies record i of the source into the current block. -ENOMEM. */
int store_insert(struct store *s, struct trace *t, struct store_source *src, uint32_t i) MUSTCHECK;
struct run *trace_runs(struct trace *t);
/* The trace has been decided: its runs are the caller's now, its id is remembered, *t is gone. */
void store_remember(struct store *s, struct trace *t, enum trace_state state);
/* The oldest pending trace and its spans go without a decision; number of them, 0 without trace. */
uint32_t store_evict_oldest(struct store *s);
static inline uint64_t store_remembered(const struct store *s, enum trace_state state)
{
    return s->decided[state].end - s->decided[state].first;
}
/* The oldest remembered trace of that state is forgotten. */
void store_forget_oldest(struct store *s, enum trace_state state);
/* Gives the spans of a run back. */
void store_release(struct store *s, const struct run *r);

static inline const struct stored_span *run_span(const struct run *r, uint32_t at)
{
    return (const struct stored_span *)(const void *)(r->block->chunk->data + at);
}

static inline struct str block_bytes(const struct store_block *b, uint32_t at)
{
    uint32_t n;
    __builtin_memcpy(&n, b->chunk->data + at, sizeof(n));
    return str_make(b->chunk->data + at + sizeof(n), n);
}

#endif
