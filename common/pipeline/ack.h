/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verdict of a delivery. A batch goes down the graph with an ack: a counted object of the
 * receiver's loop. Fan-out, split and shuffle take one count per part; whoever takes responsibility
 * for a part settles its count once. At zero the receiver learns the worst verdict, on its own
 * loop.
 *
 *   ack_init (count 1) ─ ack_take(n) per extra part ─ ack_settle() by each ─► 0 ─► done(arg,
 * verdict)
 */
#ifndef PIPELINE_ACK_H
#define PIPELINE_ACK_H

#include <stdatomic.h>
#include <stdint.h>

#include "common/io/loop.h"

#define ACK_MAGIC 0x41434b21u

/* Worse is larger. */
enum ack_status {
    ACK_OK,
    ACK_RETRYABLE, /* the sender may send the same again: gRPC UNAVAILABLE, HTTP 503 */
    ACK_PERMANENT, /* sending it again cannot help: INTERNAL / 500, unless grpc_code says other */
};

struct verdict {
    enum ack_status status;
    int grpc_code;           /* passed through to the sender; 0 = derive from status */
    uint32_t retry_after_ms; /* hint, 0 = none */
    const char *reason;      /* static text: "sending queue is full" */
};

#define VERDICT_OK ((struct verdict){0})
#define VERDICT_RETRY(why) ((struct verdict){.status = ACK_RETRYABLE, .reason = (why)})
#define VERDICT_PERMANENT(why) ((struct verdict){.status = ACK_PERMANENT, .reason = (why)})

typedef void ack_done_fn(void *arg, const struct verdict *v);

struct ack {
    unsigned magic;
    _Atomic uint32_t count;
    struct verdict worst;
    _Atomic uint32_t lock;
    struct loop *home; /* done runs here; NULL: on the thread that settles last */
    struct task task;
    ack_done_fn *done;
    void *arg;
};

/* In the caller's storage, which must live until done was called. */
void ack_init(struct ack *a, struct loop *home, ack_done_fn *done, void *arg);
void ack_take(struct ack *a, uint32_t n);
void ack_settle(struct ack *a, const struct verdict *v);
static inline void ack_ok(struct ack *a)
{
    ack_settle(a, &VERDICT_OK);
}
/* An ack that nobody waits for (data made by ticks): heap-owned, frees itself at zero. */
struct ack *ack_detached(void);

#endif
