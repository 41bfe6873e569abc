/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel side counts by cgroup, as series of metrics. For the files that know libbpf. */
#ifndef AGENT_BPF_COUNTS_H
#define AGENT_BPF_COUNTS_H

#include "agent/ebpf/capture.h"
#include "agent/ebpf/cgroups.h"

struct tailrace;

struct counts {
    struct cgroups cgroups;
    uint64_t read_wall_ns; /* of the last reading */
    uint64_t sweep_ns;     /* of the last look for cgroups that are gone */
};

void counts_init(struct counts *k);
void counts_fini(struct counts *k);
/* Each second. Cgroups that are gone leave the kernel's tables and, once exported, the series. */
void counts_read(struct counts *k, struct tailrace *skel, struct capture *c, uint64_t now_ns);

#endif
