/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* Processes: a curl lives 10 ms and is gone from /proc before any drain, so its records say all. */
#ifndef TAILRACE_PROCESS_H
#define TAILRACE_PROCESS_H

#include "bpf/conn.h"

#define NAME_WORDS 16

/* Inode, device and a hash of the name's beginning: one file may have names that differ in
 * selection. */
static __always_inline void identify(struct wire_executable *exe, struct task_struct *task,
                                     struct linux_binprm *bprm)
{
    u64 name[NAME_WORDS] = {0}, hash = 0;
    exe->inode = BPF_CORE_READ(task, mm, exe_file, f_inode, i_ino);
    exe->dev = BPF_CORE_READ(task, mm, exe_file, f_inode, i_sb, s_dev);
    bpf_probe_read_kernel_str(name, sizeof(name), BPF_CORE_READ(bprm, filename));
    for (u32 i = 0; i < NAME_WORDS; i++)
        hash = (hash ^ name[i]) * 0x9e3779b97f4a7c15ULL;
    exe->name_hash = (u32)(hash >> 32);
}

/*
 * Judges the executable: observed, not observed, or captured until user space has judged it. Who
 * is observed for good is so whatever it executes.
 */
static __always_inline void judge(u32 tgid, const struct wire_executable *exe)
{
    if (!select_unknown || tgid == self_tgid)
        return;
    u8 *now = bpf_map_lookup_elem(&selected, &tgid);
    if (now && *now == WIRE_SELECTED_FOR_GOOD)
        return;
    u8 *known = bpf_map_lookup_elem(&executables, exe);
    if (!known)
        select(tgid, WIRE_SELECTED_UNJUDGED);
    else if (*known)
        select(tgid, WIRE_SELECTED);
    else
        deselect(tgid);
}

/* Since 4.7. After the new image is in place: its mm has the arguments. */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(tr_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
    u32 tgid = task->tgid;
    struct wire_executable exe;
    identify(&exe, task, bprm);
    judge(tgid, &exe);
    if (!is_selected(tgid))
        return 0;
    struct wire_exec *r = bpf_ringbuf_reserve(&control_ring, sizeof(*r), 0);
    if (!r) {
        count(WIRE_LOST_CONTROL, 1);
        return 0;
    }
    fill_head(&r->h, WIRE_EXEC, sizeof(*r), bpf_ktime_get_ns());
    r->start_ns = task->start_time;
    r->cgroup = cgroup_of_current();
    r->exe = exe;
    r->tgid = tgid;
    r->parent = BPF_CORE_READ(task, real_parent, tgid);
    long n = bpf_probe_read_kernel_str(r->path, sizeof(r->path), BPF_CORE_READ(bprm, filename));
    r->path_len = n > 0 ? (u32)n - 1 : 0;
    u64 from = BPF_CORE_READ(task, mm, arg_start), to = BPF_CORE_READ(task, mm, arg_end);
    u64 len = to > from ? to - from : 0;
    asm volatile("if %0 < 256 goto +1; %0 = 256;" : "+r"(len));
    r->argv_len = bpf_probe_read_user(r->argv, len, (void *)from) == 0 ? (u32)len : 0;
    bpf_ringbuf_submit(r, probes_follow ? wake_soon(r->h.time_ns) : BPF_RB_NO_WAKEUP);
    return 0;
}

/* What can lead to probes in the process does not wait; its end does. */
static __always_inline void tell(u16 type, u32 tgid, u32 parent)
{
    u64 now = bpf_ktime_get_ns();
    bool wakes = probes_follow && type != WIRE_EXIT;
    struct wire_process *r = bpf_ringbuf_reserve(&control_ring, sizeof(*r), 0);
    if (!r) {
        count(WIRE_LOST_CONTROL, 1);
        return;
    }
    fill_head(&r->h, type, sizeof(*r), now);
    r->cgroup = cgroup_of_current();
    r->tgid = tgid;
    r->parent = parent;
    bpf_ringbuf_submit(r, wakes ? wake_soon(now) : BPF_RB_NO_WAKEUP);
}

/* Since 2.6.35. Children are observed as their parents are. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(tr_fork, struct task_struct *parent, struct task_struct *child)
{
    u32 from = parent->tgid, to = child->tgid;
    if (from == to || (u32)child->pid != to)
        return 0;
    u8 *v = bpf_map_lookup_elem(&selected, &from);
    if (v)
        select(to, *v);
    if (is_selected(from))
        tell(WIRE_FORK, to, from);
    return 0;
}

/* Since 2.6.35. Of the thread that gave the process its number: the last we hear in nearly all
 * cases. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(tr_exit, struct task_struct *task)
{
    u32 tgid = task->tgid;
    if ((u32)task->pid != tgid || !is_selected(tgid))
        return 0;
    deselect(tgid);
    bpf_map_delete_elem(&mapping, &tgid);
    tell(WIRE_EXIT, tgid, 0);
    return 0;
}

#endif
