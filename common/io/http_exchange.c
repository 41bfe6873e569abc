/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request on the server: from its head to the handler, past two doors.
 *
 *   head ─► expect: is the gate open? ─ no ─► held, until http_admission_wake
 *                 │ yes
 *                 ▼
 *           is there memory? ─ no ─► waiting, in order, for a second at most ─► refused
 *                 │ yes: reserved, and from here on it always gets the credit to finish
 *                 ▼
 *           body ─► whole ─ gate closed meanwhile ─► held ─► message
 *
 * Memory. What is being assembled has a budget of its own, a quarter of the limit: half messages
 * alone must never fill memory, or nothing could be finished to free it. What has come of messages
 * that still wait has another quarter; beyond it a newcomer is refused without waiting.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/io/http_conn.h"

enum { WAIT_FOR_MEMORY_MS = 1000, UNKNOWN_STEP = 64 << 10, ASSEMBLY_PART = 4 };

static _Atomic uint64_t assembling; /* bytes of all requests between reservation and message */
static _Atomic uint64_t early;      /* bytes of all requests that are here before a reservation */

static void early_end(struct http_exchange *x)
{
    atomic_fetch_sub_explicit(&early, x->early, memory_order_relaxed);
    x->early = 0;
}

static void assembly_end(struct http_exchange *x)
{
    early_end(x);
    mem_unreserve(x->reserved);
    x->reserved = 0;
    atomic_fetch_sub_explicit(&assembling, x->assembling, memory_order_relaxed);
    x->assembling = 0;
}

struct http_exchange *http_exchange_new(struct http_conn *c, unsigned version)
{
    struct http_exchange *x = xalloc(sizeof(*x));
    memset(x, 0, offsetof(struct http_exchange, text));
    memset(&x->stream_id, 0, sizeof(*x) - offsetof(struct http_exchange, stream_id));
    x->r.magic = HTTP_REQUEST_MAGIC;
    x->r.version = version;
    x->r.loop = c->home->loop;
    x->r.peer = stream_peer(c->stream);
    x->conn = c;
    x->home = c->home;
    x->touched_ns = x->began_ns = loop_now_ns(c->home->loop);
    list_init(&x->in_waiting);
    list_push(&c->exchanges, &x->in_conn);
    return x;
}

struct str http_exchange_keep(struct http_exchange *x, struct str s)
{
    if (s.n > sizeof(x->text) - x->text_n)
        return (struct str){NULL, 0}; /* no field we look at is that long */
    char *p = x->text + x->text_n;
    if (s.n)
        memcpy(p, s.p, s.n);
    x->text_n += s.n;
    return str_make(p, s.n);
}

void http_exchange_free(struct http_exchange **xp)
{
    struct http_exchange *x = *xp;
    if (!x)
        return;
    list_remove(&x->in_conn);
    list_remove(&x->in_waiting);
    assembly_end(x);
    chunk_unref(&x->r.body);
    free(x->text_more);
    free((void *)(uintptr_t)x->out.p);
    free((void *)(uintptr_t)x->trailers.p);
    CLEAR_MAGIC(&x->r);
    free(x);
    *xp = NULL;
}

int http_exchange_head(struct http_exchange *x)
{
    x->handler = http_server_handler(x->conn->server);
    x->r.is_grpc = str_has_prefix(x->r.content_type, STR("application/grpc"));
    x->max_body = UINT64_MAX;
    return x->handler->head(x->handler->arg, &x->r, &x->max_body);
}

/* ---- the two doors ---- */

static uint64_t ceiling_of(const struct http_exchange *x)
{
    return x->handler->ceiling ? x->handler->ceiling(x->handler->arg) : 0;
}

/* While the server closes everything that is here goes through: the pipeline answers for it. */
static bool is_open(const struct http_exchange *x)
{
    return !x->handler->is_open || x->home->is_closing ||
           x->handler->is_open(x->handler->arg, &x->r);
}

static uint64_t assembly_budget(const struct http_exchange *x)
{
    struct mem_usage u;
    uint64_t ceiling = ceiling_of(x);
    mem_usage_get(&u);
    if (ceiling && (u.limit == 0 || ceiling < u.limit))
        u.limit = ceiling;
    return u.limit / ASSEMBLY_PART;
}

/*
 * n more bytes for one that has `own` of `all`, or false when that passes the budget. One alone may
 * always go on, or a message larger than the budget could never pass.
 */
static bool take_share(_Atomic uint64_t *all, uint64_t *own, uint64_t n, uint64_t budget)
{
    uint64_t now = atomic_load_explicit(all, memory_order_relaxed);
    do {
        if (budget && now != *own && now + n > budget)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(all, &now, now + n, memory_order_relaxed,
                                                    memory_order_relaxed));
    *own += n;
    return true;
}

static bool assembly_take(struct http_exchange *x, uint64_t n)
{
    return take_share(&assembling, &x->assembling, n, assembly_budget(x));
}

/* The bytes that wait for their reservation are in the chunk already; only what is to come counts.
 */
static bool reserve(struct http_exchange *x)
{
    uint64_t have = x->r.body ? x->r.body->cap : 0;
    uint64_t all = chunk_room(x->expected + HTTP_BODY_HEADROOM), need = all > have ? all - have : 0;
    if (!assembly_take(x, all))
        return false;
    if (mem_reserve(need, ceiling_of(x)) != 0) {
        assembly_end(x);
        return false;
    }
    early_end(x);
    x->reserved = need;
    x->began_ns = loop_now_ns(x->home->loop);
    x->state = EXCHANGE_BODY;
    list_remove(&x->in_waiting);
    return true;
}

/* Behind those who wait for memory already. */
static void wait_for_memory(struct http_exchange *x)
{
    uint64_t now = loop_now_ns(x->home->loop), wait = WAIT_FOR_MEMORY_MS * NS_PER_MS;
    if (x->r.deadline_ns)
        wait = MIN(wait, x->r.deadline_ns > now ? (x->r.deadline_ns - now) / 4 : 0);
    x->wait_until_ns = now + wait;
    list_remove(&x->in_waiting);
    list_push(&x->home->waiting, &x->in_waiting);
    http_server_tick_soon(x->home);
}

bool http_exchange_expect(struct http_exchange *x, uint64_t n)
{
    x->expected = n;
    if (!is_open(x)) {
        x->state = EXCHANGE_WAITING;
        list_push(&x->home->held, &x->in_waiting);
        return false;
    }
    if (list_is_empty(&x->home->waiting) && reserve(x))
        return true;
    x->state = EXCHANGE_WAITING;
    wait_for_memory(x);
    return false;
}

/* The first of those who wait for memory: let in, refused, or still waiting (false). */
static bool admit_first(struct http_loop_state *home, uint64_t now)
{
    struct http_exchange *x = LIST_ENTRY(home->waiting.next, struct http_exchange, in_waiting);
    if (reserve(x)) {
        x->touched_ns = now;
        x->conn->proto->admitted(x);
        return true;
    }
    if (now < x->wait_until_ns)
        return false;
    http_exchange_refuse(x, HTTP_OVERLOADED);
    return true;
}

void http_admission_tick(struct http_loop_state *home)
{
    static const unsigned at_once = 256;
    uint64_t now = loop_now_ns(home->loop);
    for (unsigned i = 0; i < at_once && !list_is_empty(&home->waiting); i++)
        if (!admit_first(home, now))
            return;
}

void http_admission_wake(struct http_loop_state *home)
{
    struct list held; /* whoever finds the gate closed again goes back behind the others */
    list_init(&held);
    list_splice(&held, &home->held);
    for (struct list *it; (it = list_pop(&held));) {
        struct http_exchange *x = LIST_ENTRY(it, struct http_exchange, in_waiting);
        list_init(&x->in_waiting);
        if (!is_open(x))
            list_push(&home->held, &x->in_waiting);
        else if (x->state == EXCHANGE_WHOLE)
            http_exchange_message(x);
        else
            wait_for_memory(x);
    }
    http_admission_tick(home);
}

/* ---- body ---- */

static int grow_body(struct http_exchange *x, size_t need)
{
    if (x->r.body)
        return chunk_grow(&x->r.body, need);
    x->r.body = chunk_new(need);
    if (!x->r.body)
        return -ENOMEM;
    x->r.body->len = HTTP_BODY_HEADROOM;
    return 0;
}

/* The reservation turns into memory when the chunk is made in its full size. */
static int make_room(struct http_exchange *x, size_t n)
{
    size_t have = x->r.body ? x->r.body->len : HTTP_BODY_HEADROOM;
    size_t need = have + n;
    if (x->state == EXCHANGE_BODY && x->expected)
        need = MAX(need, x->expected + HTTP_BODY_HEADROOM);
    if (x->r.body && need <= x->r.body->cap)
        return 0;
    /* Before a gRPC message's prefix is there its size cannot be asked for. */
    bool is_asked = x->state == EXCHANGE_BODY && (!x->r.is_grpc || x->is_prefix_seen);
    if (is_asked && x->r.body && !x->expected)
        need = MAX(need, MAX(x->r.body->cap * 2, (size_t)UNKNOWN_STEP));
    need = chunk_room(need);
    if (!is_asked && need > x->early &&
        !take_share(&early, &x->early, need - x->early, assembly_budget(x)))
        return -ENOMEM;
    if (is_asked && need > x->assembling) {
        /* Of unknown size: it asks again for what it grows by. */
        mem_unreserve(x->reserved);
        x->reserved = 0;
        if (!assembly_take(x, need - x->assembling) || mem_reserve(need, ceiling_of(x)) != 0)
            return -ENOMEM;
        x->reserved = need;
    }
    mem_unreserve(x->reserved); /* it becomes memory now */
    x->reserved = 0;
    return grow_body(x, need);
}

int http_exchange_append(struct http_exchange *x, const uint8_t *p, size_t n)
{
    uint64_t have = x->r.body ? x->r.body->len - HTTP_BODY_HEADROOM : 0;
    if (have + n > x->max_body)
        return -E2BIG;
    int r = make_room(x, n);
    if (r)
        return r;
    memcpy(x->r.body->data + x->r.body->len, p, n);
    x->r.body->len += n;
    x->touched_ns = loop_now_ns(x->home->loop);
    return 0;
}

void http_exchange_message(struct http_exchange *x)
{
    assembly_end(x);
    list_remove(&x->in_waiting);
    if (!is_open(x)) {
        x->state = EXCHANGE_WHOLE;
        list_push(&x->home->held, &x->in_waiting);
        return;
    }
    x->state = EXCHANGE_HANDLER;
    x->handler->message(x->handler->arg, &x->r);
}

void http_exchange_refuse(struct http_exchange *x, enum http_refusal why)
{
    assembly_end(x);
    list_remove(&x->in_waiting);
    chunk_unref(&x->r.body);
    x->state = EXCHANGE_HANDLER;
    x->handler->refuse(x->handler->arg, &x->r, why);
}

void http_exchange_cancel(struct http_exchange *x)
{
    if (x->state != EXCHANGE_HANDLER) {
        http_exchange_free(&x);
        return;
    }
    x->conn = NULL;
    x->r.is_cancelled = true;
    x->r.peer = "";
    list_remove(&x->in_conn);
    list_push(&x->home->orphans, &x->in_conn);
    if (x->handler->cancelled)
        x->handler->cancelled(x->handler->arg, &x->r);
}
