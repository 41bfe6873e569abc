/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * How long tasks that could run waited for a CPU, as histograms by cgroup: of all tasks of the
 * host, since a cgroup's figure that left some out would say nothing.
 *
 * A wait begins when a task is woken, or when it is switched out though it could go on; it ends
 * when it is switched in. Its beginning is kept in task storage. The programs under the run-queue
 * lock only look that up: making it there can deadlock below 6.4. It is made where tasks are made,
 * and at start by an iterator. The table of cgroups is preallocated for the same reason.
 */
#ifndef TAILRACE_SCHED_H
#define TAILRACE_SCHED_H

#include "bpf/cgroup.h"
#include "bpf/histogram.h"
#include "bpf/maps.h"

enum { SCHED_TASKS_MAX = 65536 }; /* with storage; waits of others are counted as unseen */

struct sched_task {
    u64 since_ns; /* could run since then, but does not; 0: runs, or sleeps */
    u32 counted;  /* in sched_tasks_live */
    u32 pad;
};

struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct sched_task);
} sched_tasks SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 512);
    __type(key, u64);
    __type(value, struct wire_histogram);
} runqueue_by_cgroup SEC(".maps");

unsigned long long sched_tasks_live = 0;

static const struct wire_histogram runqueue_zero;

static __always_inline void sched_know(struct task_struct *task)
{
    struct sched_task *t;
    if (sched_tasks_live >= SCHED_TASKS_MAX)
        return;
    t = bpf_task_storage_get(&sched_tasks, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
    /* The iterator may meet a task that is just being made. */
    if (t && !__sync_lock_test_and_set(&t->counted, 1))
        __sync_fetch_and_add(&sched_tasks_live, 1);
}

/* Since 3.4, of every new task, those of io_uring, too, which sched_process_fork does not tell. */
SEC("tp_btf/task_newtask")
int BPF_PROG(tr_sched_new, struct task_struct *task)
{
    sched_know(task);
    return 0;
}

/* Since 5.8: tasks that are there at start. Read once. */
SEC("iter/task")
int tr_sched_seed(struct bpf_iter__task *ctx)
{
    struct task_struct *task = ctx->task;
    if (task)
        sched_know(task);
    return 0;
}

/* Since 2.6.35. The storage goes with the task; this is for the count. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(tr_sched_exit, struct task_struct *task)
{
    struct sched_task *t = bpf_task_storage_get(&sched_tasks, task, NULL, 0);
    if (t && __sync_lock_test_and_set(&t->counted, 0))
        __sync_fetch_and_sub(&sched_tasks_live, 1);
    return 0;
}

/*
 * A task that is woken while it runs gets a beginning that its switch out overwrites, or its next
 * wake-up; one that was preempted on its way to sleep begins to wait anew. Asking which of them it
 * is would cost each wake-up a lookup more.
 */
static __always_inline void sched_woken(struct task_struct *task)
{
    struct sched_task *t = bpf_task_storage_get(&sched_tasks, task, NULL, 0);
    if (t)
        t->since_ns = bpf_ktime_get_ns();
}

/* Since 2.6.23. After the task was put on the queue: sched_waking is before, where it may sleep. */
SEC("tp_btf/sched_wakeup")
int BPF_PROG(tr_sched_wakeup, struct task_struct *task)
{
    sched_woken(task);
    return 0;
}

/* Since 2.6.23. Its first time on a queue. */
SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(tr_sched_wakeup_new, struct task_struct *task)
{
    sched_woken(task);
    return 0;
}

/*
 * Whether a task that is switched out stays on the queue. Not by its state: that of before 5.18
 * is read too late, later ones are told although a signal has made the task runnable again. Since
 * 6.12 a sleeping task may stay on the queue for a while.
 */
static __always_inline bool sched_queued(struct task_struct *task)
{
    if (!task->on_rq)
        return false;
    return !bpf_core_field_exists(task->se.sched_delayed) || !task->se.sched_delayed;
}

static __always_inline void sched_waited(struct task_struct *task, u64 ns)
{
    u64 cgroup = cgroup_of(task);
    struct wire_histogram *h = bpf_map_lookup_elem(&runqueue_by_cgroup, &cgroup);
    if (!h) {
        bpf_map_update_elem(&runqueue_by_cgroup, &cgroup, &runqueue_zero, BPF_NOEXIST);
        h = bpf_map_lookup_elem(&runqueue_by_cgroup, &cgroup);
    }
    if (h)
        histogram_add(h, ns);
    else
        count(WIRE_CGROUPS_FULL, 1);
}

/* Since 2.6.23. Arguments behind next moved in 5.18. The idle tasks have number 0 and never wait.
 */
SEC("tp_btf/sched_switch")
int BPF_PROG(tr_sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
    u64 now = bpf_ktime_get_ns();
    struct sched_task *t;
    if (prev->pid && sched_queued(prev)) {
        t = bpf_task_storage_get(&sched_tasks, prev, NULL, 0);
        if (t)
            t->since_ns = now;
    }
    if (!next->pid)
        return 0;
    t = bpf_task_storage_get(&sched_tasks, next, NULL, 0);
    if (!t) {
        count(WIRE_SCHED_UNSEEN, 1);
    } else if (t->since_ns) {
        sched_waited(next, now - t->since_ns);
        t->since_ns = 0;
    }
    return 0;
}

#endif
