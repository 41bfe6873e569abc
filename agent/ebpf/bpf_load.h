/* SPDX-License-Identifier: Apache-2.0 */
/* Loading and attaching the BPF object by a tier of capturing. For the files that know libbpf. */
#ifndef AGENT_BPF_LOAD_H
#define AGENT_BPF_LOAD_H

#include "agent/ebpf/bpf_tiers.h"
#include "bpf/wire.h"

struct loaded {
    unsigned n_rings;
    int ring_fds[WIRE_RINGS]; /* while loaded */
    struct tailrace *skel;
    enum capture_tier tier;
    struct tier_links links, sched; /* sched.n 0: no run-queue latency */
    char left_out[16][32];          /* optional programs that this kernel refuses */
    unsigned n_left_out;
};

/*
 * The tier that is asked for, or the first that works. -errno: the error names each tier that was
 * tried, the program that was refused, and why.
 */
int bpf_load(struct loaded *l, const struct source_config *c, struct err *e) MUSTCHECK;
void bpf_unload(struct loaded *l);

#endif
