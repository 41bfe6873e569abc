/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool belongs to the thread that made it; only that thread touches its free lists. A chunk freed
 * by another thread is pushed on the owner's return list, a lock-free stack that the owner takes as
 * a whole. When the owner thread ends, the stack's head becomes a mark, and whoever frees a chunk
 * after that destroys it himself. The pool's memory goes with its last chunk.
 */
#include "common/base/chunk.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { CLASSES = 6, MMAP_FROM = 256 << 10 };
static const size_t class_bytes[CLASSES] = {4 << 10,   16 << 10, 64 << 10,
                                            256 << 10, 1 << 20,  4 << 20};

struct pool {
    _Atomic(struct chunk *) returned;
    _Atomic uint32_t refs; /* the thread, and each chunk that exists */
    struct {
        struct chunk *head;
        uint32_t n, lowest; /* free now; fewest free since the last trim: nobody needed those */
    } free[CLASSES];
};

/* The stack head of a pool whose thread has ended. */
static struct chunk detached_mark;
#define DETACHED (&detached_mark)

static _Atomic uint64_t mapped, in_use, reserved, limit, refused;
/* The ceiling that was asked for last: above it free blocks are not kept. */
static _Atomic uint64_t keep_below = UINT64_MAX;
static _Thread_local struct pool *thread_pool;
static pthread_key_t detach_key;
static pthread_once_t detach_once = PTHREAD_ONCE_INIT;

static void detach_at_exit(void *p)
{
    thread_pool = p;
    pool_detach();
}

static void make_key(void)
{
    ASSERT(pthread_key_create(&detach_key, detach_at_exit) == 0);
}

struct pool *pool_current(void)
{
    if (LIKELY(thread_pool))
        return thread_pool;
    pthread_once(&detach_once, make_key);
    thread_pool = xcalloc(1, sizeof(*thread_pool));
    atomic_init(&thread_pool->refs, 1);
    pthread_setspecific(detach_key, thread_pool);
    return thread_pool;
}

static void pool_unref(struct pool *p)
{
    if (atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) == 1)
        free(p);
}

/* -1 for sizes beyond the largest class. */
static int class_of(size_t cap)
{
    for (int i = 0; i < CLASSES; i++)
        if (cap <= class_bytes[i])
            return i;
    return -1;
}

static bool map_allowed(size_t n)
{
    uint64_t max = atomic_load_explicit(&limit, memory_order_relaxed);
    uint64_t now = atomic_fetch_add_explicit(&mapped, n, memory_order_relaxed) + n;
    if (max == 0 || now <= max)
        return true;
    atomic_fetch_sub_explicit(&mapped, n, memory_order_relaxed);
    return false;
}

static uint8_t *map_bytes(size_t n)
{
    if (n < MMAP_FROM) {
        void *p = NULL;
        return posix_memalign(&p, 64, n) == 0 ? p : NULL;
    }
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void chunk_destroy(struct chunk *c)
{
    struct pool *owner = c->owner;
    if (c->cap < MMAP_FROM)
        free(c->data);
    else
        munmap(c->data, c->cap);
    atomic_fetch_sub_explicit(&mapped, c->cap, memory_order_relaxed);
    CLEAR_MAGIC(c);
    free(c);
    pool_unref(owner);
}

static struct chunk *pop_free(struct pool *p, int class)
{
    struct chunk *c = p->free[class].head;
    if (!c)
        return NULL;
    p->free[class].head = c->next;
    p->free[class].n--;
    p->free[class].lowest = MIN(p->free[class].lowest, p->free[class].n);
    return c;
}

/* At the limit, what lies free in other classes gives way. */
static bool make_room(struct pool *p, size_t cap)
{
    for (int i = CLASSES - 1; i >= 0; i--) {
        struct chunk *c;
        while ((c = pop_free(p, i))) {
            chunk_destroy(c);
            if (map_allowed(cap))
                return true;
        }
    }
    return false;
}

static struct chunk *chunk_create(struct pool *p, size_t cap)
{
    struct chunk *c;
    if (!map_allowed(cap) && !make_room(p, cap))
        return NULL;
    c = try_alloc(sizeof(*c));
    uint8_t *data = c ? map_bytes(cap) : NULL;
    if (!data) {
        free(c);
        atomic_fetch_sub_explicit(&mapped, cap, memory_order_relaxed);
        return NULL;
    }
    *c = (struct chunk){.magic = CHUNK_MAGIC, .owner = p, .data = data, .cap = cap};
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return c;
}

static void keep_free(struct pool *p, struct chunk *c)
{
    int class = class_of(c->cap);
    bool is_much = atomic_load_explicit(&mapped, memory_order_relaxed) >
                   atomic_load_explicit(&keep_below, memory_order_relaxed);
    if (class < 0 || c->cap != class_bytes[class] || is_much) {
        chunk_destroy(c);
        return;
    }
    c->next = p->free[class].head;
    p->free[class].head = c;
    p->free[class].n++;
}

static void take_returned(struct pool *p)
{
    if (!atomic_load_explicit(&p->returned, memory_order_relaxed))
        return;
    struct chunk *c = atomic_exchange_explicit(&p->returned, NULL, memory_order_acquire);
    while (c) {
        struct chunk *next = c->next;
        keep_free(p, c);
        c = next;
    }
}

size_t chunk_room(size_t cap)
{
    int class = class_of(cap);
    if (class >= 0)
        return class_bytes[class];
    return cap > SIZE_MAX - 4095 ? cap : (cap + 4095) & ~(size_t)4095;
}

static struct chunk *hand_out(struct chunk *c)
{
    if (!c) {
        atomic_fetch_add_explicit(&refused, 1, memory_order_relaxed);
        return NULL;
    }
    atomic_fetch_add_explicit(&in_use, c->cap, memory_order_relaxed);
    atomic_store_explicit(&c->refs, 1, memory_order_relaxed);
    c->len = 0;
    c->next = NULL;
    return c;
}

struct chunk *chunk_new_exact(size_t cap)
{
    size_t rounded = (cap + 63) & ~(size_t)63;
    return rounded < cap ? NULL : hand_out(chunk_create(pool_current(), rounded));
}

struct chunk *chunk_new(size_t cap)
{
    struct pool *p = pool_current();
    int class = class_of(cap);
    struct chunk *c = NULL;
    if (cap > SIZE_MAX - 4095)
        return NULL;
    cap = chunk_room(cap);
    if (class >= 0) {
        c = pop_free(p, class);
        if (!c) {
            take_returned(p);
            c = pop_free(p, class);
        }
    }
    return hand_out(c ? c : chunk_create(p, cap));
}

struct chunk *chunk_ref(struct chunk *c)
{
    CHECK_OBJ(c, CHUNK_MAGIC);
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

static void give_back(struct chunk *c)
{
    struct pool *owner = c->owner;
    if (owner == thread_pool) {
        keep_free(owner, c);
        return;
    }
    struct chunk *head = atomic_load_explicit(&owner->returned, memory_order_acquire);
    do {
        if (head == DETACHED) {
            chunk_destroy(c);
            return;
        }
        c->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&owner->returned, &head, c,
                                                    memory_order_release, memory_order_acquire));
}

void chunk_unref(struct chunk **cp)
{
    struct chunk *c = *cp;
    if (!c)
        return;
    CHECK_OBJ(c, CHUNK_MAGIC);
    *cp = NULL;
    uint32_t before = atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel);
    ASSERT(before > 0);
    if (before > 1)
        return;
    atomic_fetch_sub_explicit(&in_use, c->cap, memory_order_relaxed);
    give_back(c);
}

int chunk_grow(struct chunk **cp, size_t cap)
{
    struct chunk *old = *cp;
    ASSERT(atomic_load_explicit(&old->refs, memory_order_relaxed) == 1);
    if (cap <= old->cap)
        return 0;
    struct chunk *c = chunk_new(cap);
    if (!c)
        return -ENOMEM;
    memcpy(c->data, old->data, old->len);
    c->len = old->len;
    chunk_unref(cp);
    *cp = c;
    return 0;
}

void pool_detach(void)
{
    struct pool *p = thread_pool;
    if (!p)
        return;
    thread_pool = NULL;
    pthread_setspecific(detach_key, NULL);
    struct chunk *c = atomic_exchange_explicit(&p->returned, DETACHED, memory_order_acq_rel);
    for (int i = 0; i <= CLASSES; i++) {
        while (c) {
            struct chunk *next = c->next;
            chunk_destroy(c);
            c = next;
        }
        if (i < CLASSES) {
            c = p->free[i].head;
            p->free[i].head = NULL;
        }
    }
    pool_unref(p);
}

void pool_trim(void)
{
    struct pool *p = pool_current();
    take_returned(p);
    for (int i = 0; i < CLASSES; i++) {
        /*
         * A quarter of what nobody needed in the last second: load comes in waves, and clearing a
         * fresh page costs more than filling it.
         */
        for (uint32_t n = (p->free[i].lowest + 3) / 4; n > 0; n--) {
            struct chunk *c = pop_free(p, i);
            if (!c)
                break;
            chunk_destroy(c);
        }
        p->free[i].lowest = p->free[i].n;
    }
}

void mem_usage_get(struct mem_usage *out)
{
    *out = (struct mem_usage){.mapped = mapped,
                              .in_use = in_use,
                              .reserved = reserved,
                              .limit = limit,
                              .refused = refused};
}

void mem_limit_set(uint64_t bytes)
{
    atomic_store(&limit, bytes);
}

void mem_account(int64_t bytes)
{
    atomic_fetch_add_explicit(&mapped, (uint64_t)bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&in_use, (uint64_t)bytes, memory_order_relaxed);
}

int mem_reserve(uint64_t n, uint64_t ceiling)
{
    uint64_t max = atomic_load_explicit(&limit, memory_order_relaxed);
    if (ceiling && (max == 0 || ceiling < max))
        max = ceiling;
    if (ceiling && ceiling != atomic_load_explicit(&keep_below, memory_order_relaxed))
        atomic_store_explicit(&keep_below, ceiling, memory_order_relaxed);
    uint64_t now = atomic_fetch_add_explicit(&reserved, n, memory_order_relaxed) + n +
                   atomic_load_explicit(&in_use, memory_order_relaxed);
    if (max == 0 || now <= max)
        return 0;
    mem_unreserve(n);
    return -ENOMEM;
}

void mem_unreserve(uint64_t n)
{
    uint64_t before = atomic_fetch_sub_explicit(&reserved, n, memory_order_relaxed);
    ASSERT(before >= n);
}
