/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trace shards: state of trace affinity is cut into more shards than threads. The receiving thread
 * sorts a batch by shard and delivers each part by locking its shard once; each shard is ticked by
 * one loop. Under a shard's lock nobody calls consume, logs, does I/O or takes another lock.
 */
#ifndef PIPELINE_SHARD_H
#define PIPELINE_SHARD_H

#include <pthread.h>

#include "common/otlp/batch.h"

#define SHARD_COUNT 16

/* Shard of a trace id, under this process's secret. 0..SHARD_COUNT-1. */
unsigned shard_of(const uint8_t trace_id[16]);

/* Record indexes of a batch, grouped by shard, order kept within a shard. */
struct shard_parts {
    uint32_t *idx;                   /* n_records, in the caller's scratch */
    uint32_t begin[SHARD_COUNT + 1]; /* idx[begin[s] .. begin[s+1]) belong to shard s */
    uint64_t *hash;                  /* n_records: 64-bit secret hash of each record's trace id */
};
/* Sorts. Scratch is thread-local and valid until the next call on this thread. -ENOMEM. */
int shard_sort(const struct batch *b, struct shard_parts *out) MUSTCHECK;

#endif
