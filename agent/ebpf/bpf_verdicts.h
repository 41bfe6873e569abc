/* SPDX-License-Identifier: Apache-2.0 */
/* Verdicts on their way to the kernel. For the files that know libbpf. */
#ifndef AGENT_BPF_VERDICTS_H
#define AGENT_BPF_VERDICTS_H

#include "agent/ebpf/record.h"

struct tailrace;

struct verdicts {
    struct tailrace *skel;
    void *keys, *values, *endpoint_keys, *endpoint_values; /* one batch's */
    size_t cap;
};

void verdicts_init(struct verdicts *w, struct tailrace *skel);
void verdicts_fini(struct verdicts *w);
/* Of sockets, and of endpoints whose further connections should begin with them; a call for each.
 */
void verdicts_write(struct verdicts *w, const struct capture_verdict *v, size_t n);

#endif
