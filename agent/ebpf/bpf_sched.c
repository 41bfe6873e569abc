/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/bpf_sched.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "agent/ebpf/bpf_iter.h"
#include "common/base/mem.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "bpf/tailrace.skel.h"
#pragma GCC diagnostic pop

bool sched_is_one(const char *program)
{
    return strncmp(program, "tr_sched_", 9) == 0;
}

void sched_prepare(struct tailrace *skel, bool is_wanted)
{
    struct bpf_program *p;

    bpf_object__for_each_program(p, skel->obj)
    {
        if (!sched_is_one(bpf_program__name(p)))
            continue;
        bpf_program__set_autoattach(p, false);
        if (!is_wanted)
            bpf_program__set_autoload(p, false);
    }
    bpf_map__set_autocreate(skel->maps.sched_tasks, is_wanted);
    bpf_map__set_autocreate(skel->maps.runqueue_by_cgroup, is_wanted);
}

int sched_attach(struct tailrace *skel, struct tier_links *l)
{
    struct bpf_program *const first[] = {skel->progs.tr_sched_new, skel->progs.tr_sched_exit};
    struct bpf_program *const rest[] = {
        skel->progs.tr_sched_wakeup, skel->progs.tr_sched_wakeup_new, skel->progs.tr_sched_switch};
    int r = 0;

    for (unsigned i = 0; i < ARRAY_LEN(first) && r == 0; i++)
        r = tier_attach_program(skel, first[i], l);
    if (r == 0)
        r = iter_run(skel, skel->progs.tr_sched_seed);
    for (unsigned i = 0; i < ARRAY_LEN(rest) && r == 0; i++)
        r = tier_attach_program(skel, rest[i], l);
    return r;
}
