/* SPDX-License-Identifier: Apache-2.0 */
/* The rings, each with its reader. For the files that know libbpf. */
#ifndef AGENT_BPF_RINGS_H
#define AGENT_BPF_RINGS_H

#include "agent/ebpf/bpf_load.h"
#include "agent/ebpf/ring.h"
#include "bpf/wire.h"

struct rings {
    struct ring control, data[WIRE_RINGS];
    unsigned n, first; /* first: who is read first in the next drain */
    ring_fn *fn;
    void *arg;
    int epoll; /* readable when one of them wants to be read */
};

/* control: descriptor of the map. */
int rings_open(struct rings *r, const struct loaded *l, int control, ring_fn *fn,
               void *arg) MUSTCHECK;
void rings_close(struct rings *r);
/* Records of processes; none when called from within one of them. */
size_t rings_consume_control(struct rings *r);
/*
 * Reads the data that is there, ring by ring. True when a ring had more than one drain may take:
 * programs that write faster than we read must not keep us from everything else.
 */
bool rings_consume(struct rings *r);

#endif
