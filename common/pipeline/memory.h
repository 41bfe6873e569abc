/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory limit as receivers meet it. Two marks on the process-wide counters of base/chunk.h:
 * soft (stop reading new messages) and hard (no reservation beyond). A memory_limiter in a pipeline
 * sets its own marks for the receivers above it; with none the limit is 80 % of the cgroup's
 * memory.
 */
#ifndef PIPELINE_MEMORY_H
#define PIPELINE_MEMORY_H

#include "common/pipeline/node.h"

struct memory_marks {
    uint64_t soft, hard; /* bytes of in_use + reserved */
};

/* The tightest marks among the memory_limiters below this receiver, or the process's. */
struct memory_marks memory_marks_of(const struct instance *receiver);
/* Called by memory_limiter at create; processors register their marks on their own instance. */
void memory_marks_set(struct instance *processor, struct memory_marks m);
/* Memory of the cgroup (v1, v2) or host, in bytes. */
uint64_t memory_total(void);

#endif
