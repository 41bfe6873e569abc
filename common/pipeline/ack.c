/* SPDX-License-Identifier: Apache-2.0 */
#include "common/pipeline/ack.h"

#include <sched.h>
#include <stdlib.h>

void ack_init(struct ack *a, struct loop *home, ack_done_fn *done, void *arg)
{
    *a = (struct ack){.magic = ACK_MAGIC, .home = home, .done = done, .arg = arg};
    atomic_store_explicit(&a->count, 1, memory_order_relaxed);
}

void ack_take(struct ack *a, uint32_t n)
{
    CHECK_OBJ(a, ACK_MAGIC);
    atomic_fetch_add_explicit(&a->count, n, memory_order_relaxed);
}

/* Settlements that are not plain OK are rare: a spin lock of a few stores is enough. */
static void worsen(struct ack *a, const struct verdict *v)
{
    while (atomic_exchange_explicit(&a->lock, 1, memory_order_acquire))
        sched_yield();
    if (v->status > a->worst.status)
        a->worst = *v;
    atomic_store_explicit(&a->lock, 0, memory_order_release);
}

static void finish(struct ack *a)
{
    struct verdict v = a->worst;
    CLEAR_MAGIC(a);
    a->done(a->arg, &v); /* may free a */
}

static void finish_at_home(struct task *t)
{
    finish(CONTAINER_OF(t, struct ack, task));
}

void ack_settle(struct ack *a, const struct verdict *v)
{
    CHECK_OBJ(a, ACK_MAGIC);
    if (v->status != ACK_OK)
        worsen(a, v);
    uint32_t before = atomic_fetch_sub_explicit(&a->count, 1, memory_order_acq_rel);
    ASSERT(before > 0);
    if (before > 1)
        return;
    if (!a->home || a->home == loop_current()) {
        finish(a);
        return;
    }
    a->task.run = finish_at_home;
    loop_post(a->home, &a->task);
}

static void free_detached(void *arg, const struct verdict *v)
{
    (void)v;
    free(arg);
}

struct ack *ack_detached(void)
{
    struct ack *a = xalloc(sizeof(*a));
    ack_init(a, NULL, free_detached, a);
    return a;
}
