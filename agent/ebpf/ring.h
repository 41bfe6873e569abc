/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads a BPF ring buffer through a mapping of its own. libbpf maps the data twice, so that no
 * record is cut at the end, and each page then counts twice as resident: 16 MB for a ring of 8.
 * Here it is mapped once, and the rare record that goes round the end is put together in a copy.
 *
 * The kernel's layout (Documentation/bpf/ringbuf.rst): a page with the consumer's position, one
 * with the producers', the data; positions only grow. A record is a length of 32 bits with two
 * flags, 32 bits that are the kernel's, and the bytes, in units of 8.
 */
#ifndef AGENT_RING_H
#define AGENT_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/mem.h"

typedef void ring_fn(void *arg, const void *record, size_t len);

struct ring {
    uint8_t *consumer;       /* its page */
    const uint8_t *producer; /* that page, and the data behind it */
    const uint8_t *data;
    size_t size, page;
    uint8_t *copy; /* of a record that goes round the end */
    size_t copy_cap;
    bool is_reading;
    ring_fn *fn;
    void *arg;
};

/* fd: of the map, which the ring does not own; size: its bytes, a power of two. 0 or -errno. */
int ring_open(struct ring *r, int fd, size_t size, ring_fn *fn, void *arg) MUSTCHECK;
void ring_close(struct ring *r);
/*
 * Calls fn for each complete record, at most max of them. Returns how many there were; none when
 * called from within fn.
 */
size_t ring_consume(struct ring *r, size_t max);

#endif
