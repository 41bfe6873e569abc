/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BUSY (1u << 31)    /* reserved, not submitted */
#define DISCARD (1u << 30) /* submitted as nothing */
enum { HEAD = 8 };
/* What is read, before the room is given back: each time is dear for writers. */
enum { PUBLISH_SHARE = 64, PUBLISH_MIN = 4096 };

int ring_open(struct ring *r, int fd, size_t size, ring_fn *fn, void *arg)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *consumer, *producer;

    memset(r, 0, sizeof(*r));
    consumer = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (consumer == MAP_FAILED)
        return -errno;
    producer = mmap(NULL, page + size, PROT_READ, MAP_SHARED, fd, (off_t)page);
    if (producer == MAP_FAILED) {
        int r2 = -errno;

        munmap(consumer, page);
        return r2;
    }
    *r = (struct ring){.consumer = consumer,
                       .producer = producer,
                       .data = (const uint8_t *)producer + page,
                       .size = size,
                       .page = page,
                       .fn = fn,
                       .arg = arg};
    return 0;
}

void ring_close(struct ring *r)
{
    if (r->consumer)
        munmap(r->consumer, r->page);
    if (r->producer)
        munmap((void *)(uintptr_t)r->producer, r->page + r->size);
    free(r->copy);
    memset(r, 0, sizeof(*r));
}

/* The record's bytes in one piece. */
static const void *whole(struct ring *r, size_t at, size_t len)
{
    size_t first = r->size - at;

    if (at == r->size) /* only its head is before the end */
        return r->data;
    if (len <= first)
        return r->data + at;
    if (r->copy_cap < len) {
        r->copy = xrealloc(r->copy, len);
        r->copy_cap = len;
    }
    memcpy(r->copy, r->data + at, first);
    memcpy(r->copy + first, r->data, len - first);
    return r->copy;
}

size_t ring_consume(struct ring *r, size_t max)
{
    unsigned long *consumed = (void *)r->consumer;
    const unsigned long *produced = (const void *)r->producer;
    unsigned long at, published, publish = MAX(r->size / PUBLISH_SHARE, PUBLISH_MIN);
    size_t n = 0;

    if (r->is_reading)
        return 0;
    r->is_reading = true;
    at = published = __atomic_load_n(consumed, __ATOMIC_RELAXED); /* nobody else writes it */
    while (n < max && at < __atomic_load_n(produced, __ATOMIC_ACQUIRE)) {
        size_t offset = at & (r->size - 1);
        uint32_t head =
            __atomic_load_n((const uint32_t *)(const void *)(r->data + offset), __ATOMIC_ACQUIRE);
        uint32_t len = head & ~(BUSY | DISCARD);

        if (head & BUSY)
            break;
        if (!(head & DISCARD)) {
            r->fn(r->arg, whole(r, offset + HEAD, len), len);
            n++;
        }
        at += ((size_t)len + HEAD + 7) & ~(size_t)7;
        if (at - published >= publish) {
            __atomic_store_n(consumed, at, __ATOMIC_RELEASE);
            published = at;
        }
    }
    __atomic_store_n(consumed, at, __ATOMIC_RELEASE);
    r->is_reading = false;
    return n;
}
