/* SPDX-License-Identifier: Apache-2.0 */
#include "common/io/loop.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "common/base/chunk.h"
#include "common/base/clock.h"

enum { OWN_ROUNDS = 8, ALIGNED_MS = 1000 };
#define LOOP_MAGIC 0x4c4f4f50u
#define TIMER_MAGIC 0x54494d52u

struct loop {
    unsigned magic, index;
    uv_loop_t uv;
    uv_async_t wake;
    uv_timer_t second; /* trims the pool, ages the load */
    pthread_t thread;
    _Atomic(struct task *) posted; /* by other threads: a stack; reversed when it is drained */
    struct task *own, *own_last;   /* by this one: a queue, run before the loop sleeps */
    uv_check_t after_poll;
    uv_prepare_t before_poll;
    uv_idle_t spin; /* active while `own` is not empty: the loop does not sleep */
    _Atomic uint64_t load;
    uint8_t *read_buffer;
};

struct loop_timer {
    unsigned magic;
    uv_timer_t uv;
    uint64_t repeat_ms; /* 0 = once */
    loop_timer_fn *fn;
    void *arg;
};

static struct loop *loops;
static unsigned n_loops;
static _Thread_local struct loop *current;

unsigned loops_count(void)
{
    return n_loops;
}

struct loop *loops_get(unsigned index)
{
    ASSERT(index < n_loops);
    return &loops[index];
}

struct loop *loop_current(void)
{
    return current;
}

unsigned loop_index(const struct loop *l)
{
    return l->index;
}

struct uv_loop_s *loop_uv(struct loop *l)
{
    return &l->uv;
}

uint64_t loop_now_ns(struct loop *l)
{
    return uv_now(&l->uv) * NS_PER_MS;
}

uint8_t *loop_read_buffer(struct loop *l)
{
    return l->read_buffer;
}

_Atomic uint64_t *loop_load(struct loop *l)
{
    return &l->load;
}

/* ---- posted tasks ---- */

static void spin(uv_idle_t *idle)
{
    (void)idle; /* that it is active is all it is for */
}

/*
 * What a loop posts to itself costs no wake-up. Tasks that post tasks are followed for some rounds,
 * then sockets have their turn.
 */
static void run_own(struct loop *l)
{
    for (unsigned round = 0; l->own && round < OWN_ROUNDS; round++) {
        struct task *queue = l->own;
        l->own = l->own_last = NULL;
        while (queue) {
            struct task *next = queue->next;
            queue->run(queue); /* may free it */
            queue = next;
        }
    }
    if (uv_is_closing((uv_handle_t *)&l->spin))
        return;
    if (l->own)
        uv_idle_start(&l->spin, spin);
    else
        uv_idle_stop(&l->spin);
}

static void after_poll(uv_check_t *check)
{
    run_own(CAST_OBJ(struct loop, check->data, LOOP_MAGIC));
}

static void before_poll(uv_prepare_t *prepare)
{
    run_own(CAST_OBJ(struct loop, prepare->data, LOOP_MAGIC));
}

static void post_own(struct loop *l, struct task *t)
{
    t->next = NULL;
    if (l->own)
        l->own_last->next = t;
    else
        l->own = t;
    l->own_last = t;
}

void loop_post(struct loop *l, struct task *t)
{
    if (l == current) {
        post_own(l, t);
        return;
    }
    struct task *head = atomic_load_explicit(&l->posted, memory_order_relaxed);
    do {
        t->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&l->posted, &head, t, memory_order_release,
                                                    memory_order_relaxed));
    if (!head) /* the first one wakes the loop, the others ride along */
        uv_async_send(&l->wake);
}

static void run_posted(uv_async_t *wake)
{
    struct loop *l = CAST_OBJ(struct loop, wake->data, LOOP_MAGIC);
    struct task *stack = atomic_exchange_explicit(&l->posted, NULL, memory_order_acquire);
    struct task *queue = NULL;
    run_own(l);     /* they were first */
    while (stack) { /* oldest first */
        struct task *next = stack->next;
        stack->next = queue;
        queue = stack;
        stack = next;
    }
    while (queue) {
        struct task *next = queue->next;
        queue->run(queue); /* may free it */
        queue = next;
    }
}

struct call {
    struct task task;
    void (*fn)(void *arg);
    void *arg;
    pthread_mutex_t lock;
    pthread_cond_t done_cond;
    bool done;
};

static void run_call(struct task *t)
{
    struct call *c = CONTAINER_OF(t, struct call, task);
    c->fn(c->arg);
    pthread_mutex_lock(&c->lock);
    c->done = true;
    pthread_cond_signal(&c->done_cond);
    pthread_mutex_unlock(&c->lock);
}

void loop_call(struct loop *l, void (*fn)(void *arg), void *arg)
{
    struct call c = {.task.run = run_call, .fn = fn, .arg = arg};
    ASSERT(!current);
    pthread_mutex_init(&c.lock, NULL);
    pthread_cond_init(&c.done_cond, NULL);
    loop_post(l, &c.task);
    pthread_mutex_lock(&c.lock);
    while (!c.done)
        pthread_cond_wait(&c.done_cond, &c.lock);
    pthread_mutex_unlock(&c.lock);
    pthread_cond_destroy(&c.done_cond);
    pthread_mutex_destroy(&c.lock);
}

/* ---- life ---- */

static void each_second(uv_timer_t *timer)
{
    struct loop *l = CAST_OBJ(struct loop, timer->data, LOOP_MAGIC);
    uint64_t load = atomic_load_explicit(&l->load, memory_order_relaxed);
    atomic_fetch_sub_explicit(&l->load, load / 2, memory_order_relaxed);
    pool_trim();
}

static void *loop_main(void *arg)
{
    struct loop *l = CAST_OBJ(struct loop, arg, LOOP_MAGIC);
    char name[16];
    current = l;
    snprintf(name, sizeof(name), "loop-%u", l->index);
    pthread_setname_np(pthread_self(), name);
    uv_run(&l->uv, UV_RUN_DEFAULT);
    pool_detach();
    return NULL;
}

static int loop_open(struct loop *l, unsigned index)
{
    *l = (struct loop){.magic = LOOP_MAGIC, .index = index};
    int r = uv_loop_init(&l->uv);
    if (r)
        return r;
    r = uv_async_init(&l->uv, &l->wake, run_posted);
    if (r) {
        uv_loop_close(&l->uv);
        return r;
    }
    l->wake.data = l;
    uv_check_init(&l->uv, &l->after_poll);
    uv_prepare_init(&l->uv, &l->before_poll);
    uv_idle_init(&l->uv, &l->spin);
    l->after_poll.data = l->before_poll.data = l;
    uv_check_start(&l->after_poll, after_poll);
    uv_prepare_start(&l->before_poll, before_poll);
    uv_timer_init(&l->uv, &l->second);
    l->second.data = l;
    uv_timer_start(&l->second, each_second, 1000, 1000);
    l->read_buffer = xalloc(LOOP_READ_BUFFER);
    mem_account(LOOP_READ_BUFFER);
    return 0;
}

/* Threads are started with all signals blocked: signals belong to who asked for them (signal.h). */
static int start_thread(struct loop *l)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&l->thread, NULL, loop_main, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -r;
}

int loops_start(unsigned n, struct err *e)
{
    ASSERT(n_loops == 0);
    if (n == 0)
        n = loop_cpu_count();
    signal(SIGPIPE, SIG_IGN);
    loops = xcalloc(n, sizeof(*loops));
    for (unsigned i = 0; i < n; i++) {
        int r = loop_open(&loops[i], i);
        if (r)
            return err_set(e, r, "event loop: %s", uv_strerror(r));
        r = start_thread(&loops[i]);
        if (r)
            return err_set(e, r, "thread of event loop: %s", strerror(-r));
        n_loops = i + 1;
    }
    return 0;
}

static void close_own_handles(struct task *t)
{
    struct loop *l = current;
    free(t);
    uv_close((uv_handle_t *)&l->wake, NULL);
    uv_close((uv_handle_t *)&l->second, NULL);
    uv_close((uv_handle_t *)&l->after_poll, NULL);
    uv_close((uv_handle_t *)&l->before_poll, NULL);
    uv_close((uv_handle_t *)&l->spin, NULL);
}

void loops_stop(void)
{
    for (unsigned i = 0; i < n_loops; i++) {
        struct task *t = xcalloc(1, sizeof(*t));
        t->run = close_own_handles;
        loop_post(&loops[i], t);
    }
    for (unsigned i = 0; i < n_loops; i++) {
        struct loop *l = &loops[i];
        pthread_join(l->thread, NULL);
        int r = uv_loop_close(&l->uv);
        ASSERT(r == 0); /* the thread ended because no handle was left */
        free(l->read_buffer);
        mem_account(-LOOP_READ_BUFFER);
        CLEAR_MAGIC(l);
    }
    free(loops);
    loops = NULL;
    n_loops = 0;
}

/* ---- timers ---- */

struct loop_timer *loop_timer_new(struct loop *l, loop_timer_fn *fn, void *arg)
{
    struct loop_timer *t = xcalloc(1, sizeof(*t));
    ASSERT(current == l);
    SET_MAGIC(t, TIMER_MAGIC);
    uv_timer_init(&l->uv, &t->uv);
    t->uv.data = t;
    t->fn = fn;
    t->arg = arg;
    return t;
}

/*
 * Short intervals end at multiples of themselves: the ticks of a loop come together, or an idle
 * program is woken for each of them.
 */
static void fire(uv_timer_t *uv)
{
    struct loop_timer *t = CAST_OBJ(struct loop_timer, uv->data, TIMER_MAGIC);
    uint64_t ms = t->repeat_ms;
    if (ms)
        uv_timer_start(uv, fire, ms > ALIGNED_MS ? ms : ms - uv_now(uv->loop) % ms, 0);
    t->fn(t->arg);
}

void loop_timer_start(struct loop_timer *t, uint64_t delay_ms, uint64_t repeat_ms)
{
    t->repeat_ms = repeat_ms;
    uv_timer_start(&t->uv, fire, delay_ms, 0);
}

void loop_timer_pace(struct loop_timer *t, uint64_t ms)
{
    if (t->repeat_ms != ms)
        loop_timer_start(t, ms, ms);
}

uint64_t loop_timer_interval_ms(const struct loop_timer *t)
{
    return t->repeat_ms;
}

void loop_timer_stop(struct loop_timer *t)
{
    t->repeat_ms = 0;
    uv_timer_stop(&t->uv);
}

static void timer_closed(uv_handle_t *uv)
{
    struct loop_timer *t = CAST_OBJ(struct loop_timer, uv->data, TIMER_MAGIC);
    CLEAR_MAGIC(t);
    free(t);
}

void loop_timer_free(struct loop_timer **tp)
{
    if (!*tp)
        return;
    CHECK_OBJ(*tp, TIMER_MAGIC);
    uv_close((uv_handle_t *)&(*tp)->uv, timer_closed);
    *tp = NULL;
}

/* ---- CPUs ---- */

/* First line's numbers; how many were read ("max" reads as none). */
static int read_longs(const char *path, long v[2])
{
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    int n = fscanf(f, "%ld %ld", &v[0], &v[1]);
    fclose(f);
    return n;
}

/* CPUs by the quota of cgroup v2 or v1, rounded up; 0 when there is no quota. */
static unsigned quota_cpus(void)
{
    long v2[2], quota[2], period[2];
    if (read_longs("/sys/fs/cgroup/cpu.max", v2) == 2 && v2[0] > 0 && v2[1] > 0)
        return (unsigned)((v2[0] + v2[1] - 1) / v2[1]);
    if (read_longs("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota) < 1 || quota[0] <= 0 ||
        read_longs("/sys/fs/cgroup/cpu/cpu.cfs_period_us", period) < 1 || period[0] <= 0)
        return 0;
    return (unsigned)((quota[0] + period[0] - 1) / period[0]);
}

unsigned loop_cpu_count(void)
{
    cpu_set_t set;
    unsigned n = 1;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        n = (unsigned)CPU_COUNT(&set);
    unsigned quota = quota_cpus();
    if (quota && quota < n)
        n = quota;
    return MAX(n, 1u);
}
