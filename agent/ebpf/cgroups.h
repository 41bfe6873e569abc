/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cgroups by the id that the kernel side counts by: in the hierarchy of the CPU controller, which
 * is version 1's where that has it, else the unified one. A cgroup is looked up once, when it is
 * first heard of; its resource stays the same when it is gone.
 */
#ifndef AGENT_CGROUPS_H
#define AGENT_CGROUPS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/hashmap.h"
#include "common/base/str.h"

struct processes;

struct cgroups {
    struct hashmap by_id;
    char *root; /* where the hierarchy is mounted; "" nowhere */
};

/* mountinfo: "/proc/self/mountinfo"; tests have their own. */
void cgroups_init(struct cgroups *cs, const char *mountinfo);
void cgroups_fini(struct cgroups *cs);
/* Its resource envelope: path, id, container, and what holds for everything on this host. */
struct str cgroups_resource(struct cgroups *cs, const struct processes *ps, uint64_t id);
/* Forgets those that are not there, or were never found, after telling fn: ids are not used again,
 * and if one is heard of once more, it is new. */
void cgroups_sweep(struct cgroups *cs, void (*fn)(void *arg, uint64_t id, struct str resource),
                   void *arg);

#endif
