/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel is asked to list. For the files that know libbpf. */
#ifndef AGENT_BPF_ITER_H
#define AGENT_BPF_ITER_H

#include "agent/ebpf/source.h"

struct bpf_link;
struct bpf_program;
struct tailrace;

/* An iterator's link, whose descriptor each reader opens; NULL with errno. */
struct bpf_link *iter_attach(struct tailrace *skel, const struct bpf_program *p);
/* One that writes nothing, to its end. 0 or -errno. */
int iter_run(struct tailrace *skel, const struct bpf_program *p);
/*
 * All open files: cookies are minted, listeners of all network namespaces are told to the kernel
 * side, and fn is told who holds one on a selected port.
 */
void iter_files(struct tailrace *skel, void (*fn)(void *arg, uint32_t tgid, uint16_t port),
                void *arg);
/* The cookies of all connections that the kernel side has. 0 or -errno: then some are missing. */
int iter_alive(struct tailrace *skel, enum capture_tier t, void (*fn)(void *arg, uint64_t cookie),
               void *arg);

#endif
