/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Plaintext of OpenSSL: SSL_read, SSL_write and their _ex forms, at the call's return, when it has
 * succeeded (a WANT_WRITE that is tried again would count twice at entry, and a mapped file that is
 * not in memory yet would fault there).
 *
 * Which socket: a socket call inside an SSL call binds {process, SSL object} to that socket's
 * cookie; another cookie begins a new generation, since programs use the same object for one
 * connection after the other.
 */
#ifndef TAILRACE_TLS_H
#define TAILRACE_TLS_H

#include "bpf/conn.h"

const volatile unsigned char has_tls = 0;

struct ssl_key {
    u64 ssl;
    u32 tgid, pad;
};
struct ssl_state {
    u64 cookie;
    u64 pos[2];
    u32 head[2], tail[2];
    u32 generation;
    u8 mode, lost[2], pad;
};
struct ssl_call {
    u64 ssl, buf, num;
    u64 done; /* where an _ex call stores its count */
    u64 began_ns;
    u32 dir, pad;
};

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 16384);
    __type(key, struct ssl_key);
    __type(value, struct ssl_state);
} ssl_states SEC(".maps");

/* Calls under way, by thread. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, u64);
    __type(value, struct ssl_call);
} ssl_calls SEC(".maps");

/* Called for every socket call of a selected process: the state of the SSL object it is inside of.
 */
static __always_inline struct ssl_state *ssl_bind(struct sock *sk)
{
    u64 id = bpf_get_current_pid_tgid();
    struct ssl_call *call = bpf_map_lookup_elem(&ssl_calls, &id);
    struct ssl_key k = {.tgid = (u32)(id >> 32)};
    struct ssl_state *s, fresh;
    if (!call)
        return NULL;
    k.ssl = call->ssl;
    u64 cookie = cookie_of(sk);
    if (!cookie)
        return NULL;
    s = bpf_map_lookup_elem(&ssl_states, &k);
    if (s && s->cookie == cookie)
        return s;
    __builtin_memset(&fresh, 0, sizeof(fresh));
    fresh.cookie = cookie;
    fresh.generation = bpf_get_prandom_u32() | 1;
    bpf_map_update_elem(&ssl_states, &k, &fresh, BPF_ANY);
    return bpf_map_lookup_elem(&ssl_states, &k);
}

/* A verdict on an opaque connection is about its plaintext. */
static __always_inline void ssl_verdict(struct ssl_state *s)
{
    struct wire_verdict *v = bpf_map_lookup_elem(&verdicts, &s->cookie);
    if (!v)
        return;
    s->mode = (u8)v->mode;
    s->head[0] = v->head[0];
    s->head[1] = v->head[1];
    s->tail[0] = v->tail[0];
    s->tail[1] = v->tail[1];
}

/* ---- records: uprobes may be preempted, so there is no scratch of the CPU's ---- */

#define SEND_PLAIN(SIZE)                                                                           \
    do {                                                                                           \
        struct {                                                                                   \
            struct wire_data d;                                                                    \
            u8 bytes[(SIZE) + WIRE_TAIL_MAX];                                                      \
        } *r = bpf_ringbuf_reserve(&data_ring, sizeof(*r), 0);                                     \
        u32 h = head, t = tail;                                                                    \
        if (!r)                                                                                    \
            goto is_lost;                                                                          \
        __builtin_memcpy(&r->d, d, sizeof(*d));                                                    \
        asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(h) : "i"(SIZE));                        \
        asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(t) : "i"(WIRE_TAIL_MAX));               \
        if (bpf_probe_read_user(r->bytes, h, (void *)call->buf) ||                                 \
            bpf_probe_read_user(r->bytes + h, t, (void *)(call->buf + d->bytes - t))) {            \
            h = t = 0;                                                                             \
            r->d.hole = WIRE_HOLE_FAULT;                                                           \
        }                                                                                          \
        r->d.head = h;                                                                             \
        r->d.tail = t;                                                                             \
        r->d.h.len = sizeof(*r);                                                                   \
        bpf_ringbuf_submit(r, bpf_ringbuf_query(&data_ring, BPF_RB_AVAIL_DATA) >= wake_bytes       \
                                  ? BPF_RB_FORCE_WAKEUP                                            \
                                  : BPF_RB_NO_WAKEUP);                                             \
    } while (0)

static __always_inline void send_plain(const struct ssl_call *call, struct ssl_state *s,
                                       struct wire_data *d)
{
    u32 dir = call->dir & 1, head = WIRE_HEAD_MAX, tail = 0;
    if (s->mode == WIRE_LENGTHS || s->mode == WIRE_NOTHING)
        return;
    if (s->mode == WIRE_BYTES) {
        head = s->head[dir];
        tail = s->tail[dir];
    } else if (s->pos[dir] >= WIRE_UNDECIDED_BYTES) {
        head = WIRE_UNDECIDED_HEAD;
        tail = WIRE_TAIL_MAX;
    }
    if (head > d->bytes)
        head = d->bytes;
    if (tail > d->bytes - head)
        tail = d->bytes - head;
    if (head <= 256)
        SEND_PLAIN(256);
    else if (head <= 1024)
        SEND_PLAIN(1024);
    else if (head <= 4096)
        SEND_PLAIN(4096);
    else
        SEND_PLAIN(16384);
    s->lost[dir] = 0;
    return;
is_lost:
    s->lost[dir] = 1;
    count(WIRE_LOST_RECORDS, 1);
    count(WIRE_LOST_BYTES, d->bytes);
}

/* ---- calls ---- */

static __always_inline int ssl_enter(struct pt_regs *ctx, u32 dir, bool ex)
{
    u64 id = bpf_get_current_pid_tgid();
    struct ssl_call call = {.ssl = ctx->di, .buf = ctx->si, .num = ctx->dx, .dir = dir};
    if (!is_selected((u32)(id >> 32)))
        return 0;
    call.began_ns = bpf_ktime_get_ns();
    call.done = ex ? ctx->cx : 0;
    bpf_map_update_elem(&ssl_calls, &id, &call, BPF_ANY);
    return 0;
}

/* The object's state; a new one, bound to no socket, when no socket call was seen in it. */
static __always_inline struct ssl_state *ssl_state_of(u64 ssl, u32 tgid)
{
    struct ssl_key k = {.ssl = ssl, .tgid = tgid};
    struct ssl_state *s = bpf_map_lookup_elem(&ssl_states, &k), fresh;
    if (s)
        return s;
    __builtin_memset(&fresh, 0, sizeof(fresh));
    bpf_map_update_elem(&ssl_states, &k, &fresh, BPF_NOEXIST);
    return bpf_map_lookup_elem(&ssl_states, &k);
}

static __always_inline int ssl_leave(struct pt_regs *ctx)
{
    u64 id = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns();
    struct ssl_call *found = bpf_map_lookup_elem(&ssl_calls, &id), call;
    struct wire_data d;
    s32 ret = (s32)ctx->ax;
    u64 n = (u32)ret;
    if (!found)
        return 0;
    call = *found;
    bpf_map_delete_elem(&ssl_calls, &id);
    if (ret <= 0)
        return 0;
    if (call.done && bpf_probe_read_user(&n, sizeof(n), (void *)call.done))
        return 0;
    /* num is an int in the plain functions: its upper half says nothing */
    if (n == 0 || n > (call.done ? call.num : (u32)call.num))
        return 0;
    struct ssl_state *s = ssl_state_of(call.ssl, (u32)(id >> 32));
    if (!s)
        return 0;
    if (s->cookie)
        ssl_verdict(s);
    __builtin_memset(&d, 0, sizeof(d));
    fill_head(&d.h, WIRE_DATA, sizeof(d), now);
    d.cookie = s->cookie;
    d.ssl = call.ssl;
    d.first_ns = call.dir == WIRE_SEND ? call.began_ns : now;
    d.pos = s->pos[call.dir & 1];
    d.other_pos = s->pos[!call.dir];
    d.bytes = (u32)n;
    d.tgid = (u32)(id >> 32);
    d.tid = (u32)id;
    d.generation = s->generation;
    d.layer = WIRE_LAYER_TLS;
    d.dir = (u8)call.dir;
    d.lost_before = s->lost[call.dir & 1];
    send_plain(&call, s, &d);
    s->pos[call.dir & 1] += n;
    return 0;
}

SEC("uprobe")
int BPF_KPROBE(tr_ssl_read)
{
    return ssl_enter(ctx, WIRE_RECV, false);
}

SEC("uprobe")
int BPF_KPROBE(tr_ssl_write)
{
    return ssl_enter(ctx, WIRE_SEND, false);
}

SEC("uprobe")
int BPF_KPROBE(tr_ssl_read_ex)
{
    return ssl_enter(ctx, WIRE_RECV, true);
}

SEC("uprobe")
int BPF_KPROBE(tr_ssl_write_ex)
{
    return ssl_enter(ctx, WIRE_SEND, true);
}

SEC("uretprobe")
int BPF_KPROBE(tr_ssl_return)
{
    return ssl_leave(ctx);
}

#endif
