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
 * Life of a trace: store_insert ─► PENDING ─ store_take_due ─► the caller's, decided ─►
 * store_remember ─► SAMPLED or NOT_SAMPLED without spans ─► forgotten, oldest first.
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

enum trace_state { TRACE_PENDING, TRACE_SAMPLED, TRACE_NOT_SAMPLED };

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
    uint64_t hash;
    uint64_t first_ns;           /* monotonic arrival of the first span */
    uint64_t min_start, max_end; /* Unix ns */
    uint64_t bytes;
    uint32_t n_spans, index;    /* index: 1 + place in the pages */
    uint8_t state, status_mask; /* 1 << status for each seen */
    uint16_t n_runs, cap_runs;
    struct run inline_runs[STORE_INLINE_RUNS];
    struct run *more_runs; /* all runs, once they do not fit inline */
    struct list in_order;  /* of its state's list, oldest first */
};

struct store_slot {
    uint32_t tag; /* high half of the hash */
    uint32_t at;  /* 1 + index into traces; 0 = free */
};

struct store {
    struct store_slot *slots;
    size_t mask, n;
    struct trace **pages; /* of 1024 traces */
    uint32_t n_pages, used;
    struct trace *free; /* linked by more_runs */
    struct store_block *current;
    uint32_t next_block;
    struct list pending, sampled, not_sampled;
    uint64_t n_pending, n_sampled, n_not_sampled;
};

void store_init(struct store *s);
void store_fini(struct store *s);
/* The trace of that id, or NULL. */
struct trace *store_find(struct store *s, uint64_t hash, const uint8_t id[16]);
/* A new pending trace. NULL when memory is refused. */
struct trace *store_add(struct store *s, uint64_t hash, const uint8_t id[16], uint64_t now_ns);
/* Copies record i of b into the current block. -ENOMEM. `last`: scratch of one batch, zero at
 * first. */
struct store_last {
    struct store_block *block;
    uint32_t scope_index, resource, scope;
};
int store_insert(struct store *s, struct trace *t, const struct batch *b, uint32_t i,
                 struct store_last *last) MUSTCHECK;
struct run *trace_runs(struct trace *t);
/* The trace has been decided: its runs are the caller's now, it is remembered with that state. */
void store_remember(struct store *s, struct trace *t, enum trace_state state);
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
