/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler's programs, which work together or not at all. For the files that know libbpf. */
#ifndef AGENT_BPF_SCHED_H
#define AGENT_BPF_SCHED_H

#include "agent/ebpf/bpf_tiers.h"

bool sched_is_one(const char *program);
/* Before loading. Not wanted: neither programs nor maps are made. */
void sched_prepare(struct tailrace *skel, bool is_wanted);
/* After loading: attaches them in the order in which nothing is missed. 0 or -errno. */
int sched_attach(struct tailrace *skel, struct tier_links *l);

#endif
