/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loops: one thread each, over libuv. What crosses threads goes by loop_post(): sealed
 * batches, acks, accepted sockets; everything else belongs to one loop.
 */
#ifndef IO_LOOP_H
#define IO_LOOP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/mem.h"

struct loop;
struct uv_loop_s;

#define LOOP_READ_BUFFER (128 << 10)

/* Work to be run once on a loop's thread. In the caller's storage until it has run. */
struct task {
    struct task *next;
    void (*run)(struct task *t);
};

/*
 * Starts n loops (0 = one per CPU granted: affinity and cgroup quota) on n threads; they run until
 * loops_stop(). Call once, from the main thread.
 */
int loops_start(unsigned n, struct err *e) MUSTCHECK;
/* Ends all loops once their handles are closed, and joins the threads. Not from a loop. */
void loops_stop(void);
unsigned loops_count(void);
struct loop *loops_get(unsigned index);
/* The calling thread's loop, or NULL when it has none. */
struct loop *loop_current(void);
unsigned loop_index(const struct loop *l);
struct uv_loop_s *loop_uv(struct loop *l);
/* Monotonic time, cached for this turn of the loop. */
uint64_t loop_now_ns(struct loop *l);
/* LOOP_READ_BUFFER bytes shared by all connections of the loop: consumed before read returns. */
uint8_t *loop_read_buffer(struct loop *l);
/* Bytes read lately on this loop, halved each second: accept gives a socket to the idlest loop. */
_Atomic uint64_t *loop_load(struct loop *l);

/* Runs the task on the loop's thread. From any thread; from its own it still runs later, not now.
 */
void loop_post(struct loop *l, struct task *t);
/* Runs fn(arg) on the loop and waits for it. Not from a loop. */
void loop_call(struct loop *l, void (*fn)(void *arg), void *arg);

/* ---- timers: of the loop that starts them ---- */

struct loop_timer;
typedef void loop_timer_fn(void *arg);
/* First after delay_ms, then each repeat_ms (0: once, it may be started again). */
struct loop_timer *loop_timer_new(struct loop *l, loop_timer_fn *fn, void *arg);
void loop_timer_start(struct loop_timer *t, uint64_t delay_ms, uint64_t repeat_ms);
/* Each ms from now on; one that does so already goes on undisturbed. */
void loop_timer_pace(struct loop_timer *t, uint64_t ms);
uint64_t loop_timer_interval_ms(const struct loop_timer *t);
void loop_timer_stop(struct loop_timer *t);
/* Stops it and frees it later; the pointer is cleared. */
void loop_timer_free(struct loop_timer **t);

/* CPUs this process may use: affinity mask, bounded by the cgroup's quota (v1, v2). At least 1. */
unsigned loop_cpu_count(void);

#endif
