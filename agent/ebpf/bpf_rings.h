/* SPDX-License-Identifier: Apache-2.0 */
/* The rings of data records, each with its reader. For the files that know libbpf. */
#ifndef AGENT_BPF_RINGS_H
#define AGENT_BPF_RINGS_H

#include "agent/ebpf/bpf_load.h"
#include "bpf/wire.h"

struct ring_buffer;

struct rings {
    struct ring_buffer *reader[WIRE_RINGS];
    unsigned n, first; /* first: who is read first in the next drain */
    unsigned left;     /* records that this drain may still take of the present ring */
    int (*fn)(void *arg, void *data, size_t size);
    void *arg;
    int epoll; /* readable when one of them wants to be read */
};

int rings_open(struct rings *r, const struct loaded *l,
               int (*fn)(void *arg, void *data, size_t size), void *arg) MUSTCHECK;
/* Another descriptor of which epoll is to tell. 0 or -errno. */
int rings_watch(struct rings *r, int fd) MUSTCHECK;
void rings_close(struct rings *r);
/*
 * Reads what is there, ring by ring. True when a ring had more than one drain may take: programs
 * that write faster than we read must not keep us from everything else.
 */
bool rings_consume(struct rings *r);

#endif
