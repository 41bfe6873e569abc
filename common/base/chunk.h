/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks of bytes, from one accounted pool: message bodies, arenas, tail-sampling blocks and
 * export buffers all draw here, so that one pair of counters tells the memory of telemetry.
 *
 * Size classes 4 K, 16 K, 64 K, 256 K, 1 M, 4 M; larger ones are mapped by themselves. Each thread
 * has its own pool (pool_attach); a chunk freed on another thread goes on its owner's atomic return
 * list and is reused there. Free blocks beyond a few of each class are unmapped slowly, by
 * pool_trim() from the loop's timer; at once while more is mapped than the last ceiling asked of
 * mem_reserve.
 *
 *      chunk_new ── refs 1 ── chunk_ref/chunk_unref from any thread ── refs 0 ─► owner's free list
 */
#ifndef BASE_CHUNK_H
#define BASE_CHUNK_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/base/mem.h"

#define CHUNK_MAGIC 0x43484e4bu

struct pool;

struct chunk {
    unsigned magic;
    _Atomic uint32_t refs;
    struct pool *owner;
    uint8_t *data;      /* cap bytes, 64-byte aligned */
    size_t cap;         /* of its class */
    size_t len;         /* bytes in use; the writer's to keep */
    struct chunk *next; /* pool's own, while free */
};

/* The calling thread's pool, made at first use; also serves allocations from threads without a
 * loop. */
struct pool *pool_current(void);
/* Gives the thread's pool back at its end; chunks still out keep it alive. */
void pool_detach(void);
/* Unmaps some free blocks if there are more than recent use explains. Call it each second. */
void pool_trim(void);

/* A chunk of at least cap bytes, len 0, refs 1. NULL when the hard limit or the OS refuses:
 * counted. */
struct chunk *chunk_new(size_t cap) MUSTCHECK;
/* The same of just that size, to be kept for long; its memory goes when it is free. */
struct chunk *chunk_new_exact(size_t cap) MUSTCHECK;
/* What a chunk made for cap bytes will hold, and cost. */
size_t chunk_room(size_t cap);
struct chunk *chunk_ref(struct chunk *c);
void chunk_unref(struct chunk **c);
/* Room for cap bytes, old bytes kept. The chunk may move; refs must be 1. -ENOMEM leaves *c as it
 * was. */
int chunk_grow(struct chunk **c, size_t cap) MUSTCHECK;

/*
 * Accounting, process-wide. mapped: every byte asked from the OS through here or declared by
 * mem_account (tables, library hooks); never passes the limit. in_use: what is handed out.
 * reserved: promised to messages whose size is known and whose bytes are not here yet.
 */
struct mem_usage {
    uint64_t mapped, in_use, reserved, limit, refused;
};
void mem_usage_get(struct mem_usage *out);
/* 0 = no limit. */
void mem_limit_set(uint64_t limit_bytes);
/* Adds to mapped and in_use memory that was allocated elsewhere (negative gives back). */
void mem_account(int64_t bytes);
/* Promise of n bytes: 0, or -ENOMEM when in_use + reserved + n would pass `ceiling` (0: the limit).
 */
int mem_reserve(uint64_t n, uint64_t ceiling) MUSTCHECK;
void mem_unreserve(uint64_t n);

#endif
