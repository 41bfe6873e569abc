/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel side takes of memory, as metrics. For the files that know libbpf. */
#ifndef AGENT_BPF_MEMORY_H
#define AGENT_BPF_MEMORY_H

#include <stdint.h>

struct tailrace;

#define MAP_BUDGET_BYTES (32u << 20)

/*
 * Bytes of all maps of this process, by the kernel's account, and of the storage of sockets and
 * tasks, which it charges to nobody that could be asked: by their number. Each is exposed by name.
 */
uint64_t memory_expose(const struct tailrace *skel);

#endif
