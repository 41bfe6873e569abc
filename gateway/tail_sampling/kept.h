/* SPDX-License-Identifier: Apache-2.0 */
/* What a tick keeps, of all its shards: a few large batches leave, not one a trace. */
#ifndef TAIL_SAMPLING_KEPT_H
#define TAIL_SAMPLING_KEPT_H

#include "gateway/tail_sampling/store.h"

/* A kept span of the block that is being read; `next` of the same scope, 0 = none. */
struct kept_span {
    const struct stored_span *span;
    uint32_t next;
};

struct kept {
    struct run *runs; /* the traces', in the order of their decisions */
    uint32_t n_runs, cap_runs;
    uint64_t bytes; /* of their spans */
    struct run *by_block;
    struct kept_span *spans; /* number 0 is not used */
    uint32_t cap_spans;
    struct chunk *out; /* while a batch is written */
};

void kept_fini(struct kept *k);
/* Takes the runs of a trace that is kept; its table of runs is freed. */
void kept_add(struct kept *k, struct trace *t);
/*
 * One batch of all spans, grouped by resource and scope within each block: their bytes are copied,
 * once, into the request as it will be sent. The runs stay; *out NULL without spans. -ENOMEM,
 * -EBADMSG as of batch_read.
 */
int kept_batch(struct kept *k, struct batch **out) MUSTCHECK;

#endif
