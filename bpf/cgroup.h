/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Which cgroup a task is counted in: that of the CPU controller, in which containers live on every
 * host. Where the controller is version 1's, its hierarchy has ids of its own; where it is version
 * 2's, the task's cgroup there (one controller may be off in it, which does not matter).
 */
#ifndef TAILRACE_CGROUP_H
#define TAILRACE_CGROUP_H

#include "bpf/kernel.h"

/* A task that the verifier knows: of a typed tracepoint, or the current one. */
static __always_inline u64 cgroup_of(struct task_struct *task)
{
    struct css_set *set = task->cgroups;
    struct cgroup *own = set->dfl_cgrp, *cpu;
    if (!bpf_core_enum_value_exists(enum cgroup_subsys_id, cpu_cgrp_id))
        return own->kn->id;
    /* The index is this kernel's, not the build's: no array access of C's would be relocated. */
    struct cgroup_subsys_state **state =
        (void *)set + bpf_core_field_offset(struct css_set, subsys) +
        sizeof(void *) * bpf_core_enum_value(enum cgroup_subsys_id, cpu_cgrp_id);
    cpu = (*state)->cgroup;
    return cpu->root == own->root ? own->kn->id : cpu->kn->id;
}

static __always_inline u64 cgroup_of_current(void)
{
    return cgroup_of(bpf_get_current_task_btf());
}

#endif
