/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Plaintext of OpenSSL, at a call's end when it has succeeded (a WANT_WRITE that is tried again
 * would count twice at entry, and a mapped file that is not in memory yet would fault there).
 * Which functions are probed is user space's choice (agent/ebpf/tls_sites.c); the probe's cookie
 * says what it sits on.
 *
 * Which socket: a socket call inside an SSL call, the handshake's included, binds {process, SSL
 * object} to that socket's cookie; another cookie, and the object's end, begin a new generation,
 * since programs use the same address for one connection after the other. An object whose calls
 * come without a socket call where one would have to be (a read or handshake that waits, a write
 * that succeeds) has no socket: its bytes go through memory. Until either is known, nothing is
 * told of it.
 */
#ifndef TAILRACE_TLS_H
#define TAILRACE_TLS_H

#include "bpf/process.h"

struct ssl_state {
    u64 cookie; /* 0: it is known to have no socket */
    u64 pos[2];
    struct wire_verdict verdict;
    u32 generation;
    u32 verdicts_seen; /* see new_verdict() */
    u8 lost[2], pad[6];
};
struct ssl_call {
    u64 ssl, buf, num;
    u64 done; /* where the count of bytes is put; 0: it is the result */
    u64 began_ns;
    u32 what;      /* enum wire_ssl */
    u8 is_active;  /* the thread is in it */
    u8 is_touched; /* a socket call was made in it */
    u8 pad[2];
};

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 16384);
    __type(key, struct wire_ssl_key);
    __type(value, struct ssl_state);
} ssl_states SEC(".maps");

/*
 * Calls by thread: the one under way, or the last one. An entry is kept from call to call, since
 * making and freeing it would cost more than all else that is done with it; LRU takes it when the
 * thread is gone.
 */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 8192);
    __type(key, u64);
    __type(value, struct ssl_call);
} ssl_calls SEC(".maps");

/* Some process whose number ends like this has made an SSL call; for good. */
unsigned char ssl_ends[WIRE_ENDS];

/* The SSL call that this thread is in. */
static __always_inline struct ssl_call *ssl_inside(u64 id)
{
    struct ssl_call *call;
    if (!has_tls || !ssl_ends[(u32)(id >> 32) % WIRE_ENDS])
        return NULL;
    call = bpf_map_lookup_elem(&ssl_calls, &id);
    return call && call->is_active ? call : NULL;
}

static __always_inline struct ssl_state *ssl_fresh(const struct wire_ssl_key *k, u64 cookie)
{
    struct ssl_state s;
    __builtin_memset(&s, 0, sizeof(s));
    s.cookie = cookie;
    s.generation = bpf_get_prandom_u32() | 1;
    bpf_map_update_elem(&ssl_states, k, &s, BPF_ANY);
    return bpf_map_lookup_elem(&ssl_states, k);
}

/*
 * For every socket call in an SSL call, also one that would block. A socket that began with
 * something else than TLS is not the object's until it carries TLS: certificate checks and session
 * stores are asked inside of calls, too.
 */
static __always_inline void ssl_bind(struct ssl_call *call, struct sock *sk, struct conn *c)
{
    struct wire_ssl_key k = {.ssl = call->ssl, .tgid = bpf_get_current_pid_tgid() >> 32};
    u64 cookie = c && c->cookie ? c->cookie : cookie_of(sk);
    call->is_touched = 1;
    if (!cookie || (c && !c->opaque && !c->joined && (c->pos[0] | c->pos[1])))
        return;
    struct ssl_state *s = bpf_map_lookup_elem(&ssl_states, &k);
    if (!s || s->cookie != cookie)
        ssl_fresh(&k, cookie);
    if (c && c->joined && !c->opaque) { /* met in mid-life: what is inside says what it is */
        c->opaque = 1;
        if (c->verdict.mode != WIRE_NOTHING)
            c->verdict.mode = WIRE_LENGTHS;
    }
}

/* What was judged before the connection turned to TLS says nothing of what is inside. */
static __always_inline void ssl_verdict(struct ssl_state *s)
{
    struct wire_verdict *v = new_verdict(&s->cookie, &s->verdicts_seen);
    if (v && (v->layer == WIRE_LAYER_TLS || v->mode == WIRE_NOTHING))
        s->verdict = *v;
}

/* How much of a call's bytes is wanted. */
static __always_inline void ssl_wanted(const struct ssl_state *s, u32 dir, u32 *head, u32 *tail)
{
    *head = WIRE_HEAD_MAX;
    *tail = 0;
    if (s->verdict.mode == WIRE_BYTES) {
        *head = s->verdict.head[dir & 1];
        *tail = s->verdict.tail[dir & 1];
    } else if (s->pos[dir & 1] >= WIRE_UNDECIDED_BYTES) {
        *head = WIRE_UNDECIDED_HEAD;
        *tail = WIRE_TAIL_MAX;
    }
}

/* The record's bytes; its length. */
static __always_inline u32 copy_plain(struct scratch *r, const struct ssl_call *call,
                                      const struct wire_verdict *v, u32 head, u32 tail)
{
    u32 h = head < r->d.bytes ? head : r->d.bytes, t = tail, body;
    if (r->d.hole)
        h = t = 0; /* nothing is in memory */
    asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(h) : "i"(WIRE_HEAD_MAX));
    if (h && bpf_probe_read_user(r->bytes, h, (void *)call->buf)) {
        h = t = 0;
        r->d.hole = WIRE_HOLE_FAULT;
    }
    body = h && v->tail[r->d.dir & 1] ? body_begins(r, h, r->d.bytes, layout_of(v)) : 0;
    if (body) {
        h = body;
        t = 0;
    }
    if (t > r->d.bytes - h)
        t = r->d.bytes - h;
    asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(h) : "i"(WIRE_HEAD_MAX));
    asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(t) : "i"(WIRE_TAIL_MAX));
    if (t && bpf_probe_read_user(r->bytes + h, t, (void *)(call->buf + r->d.bytes - t))) {
        h = t = 0;
        r->d.hole = WIRE_HOLE_FAULT;
    }
    r->d.head = h;
    r->d.tail = t;
    return r->d.h.len = sizeof(r->d) + h + t;
}

static __always_inline void send_plain(const struct ssl_call *call, struct ssl_state *s,
                                       const struct wire_data *d)
{
    u32 head, tail, n;
    void *ring = ring_of(s->cookie);
    struct scratch *r;
    if (!ring || s->verdict.mode == WIRE_LENGTHS || s->verdict.mode == WIRE_NOTHING)
        return;
    ssl_wanted(s, d->dir, &head, &tail);
    u64 waiting = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);
    bool sheds = head > WIRE_SHED_HEAD && is_nearly_full(waiting);
    if (sheds) {
        head = WIRE_SHED_HEAD;
        tail = WIRE_TAIL_MAX;
    }
    r = scratch_take();
    s->lost[d->dir & 1] = 1;
    if (r) {
        r->d = *d;
        n = copy_plain(r, call, &s->verdict, head, tail);
        if (sheds && r->d.hole == WIRE_HOLE_NONE && r->d.tail && r->d.head + r->d.tail < r->d.bytes)
            r->d.hole = WIRE_HOLE_LIMIT;
        asm volatile("if %0 < %1 goto +1; %0 = %1;"
                     : "+r"(n)
                     : "i"(sizeof(*d) + WIRE_HEAD_MAX + WIRE_TAIL_MAX));
        if (bpf_ringbuf_output(ring, &r->d, n, wake_if_much(waiting, d->h.time_ns)) == 0)
            s->lost[d->dir & 1] = 0;
        scratch_give(r);
    }
    if (s->lost[d->dir & 1]) {
        count(WIRE_LOST_RECORDS, 1);
        count(WIRE_LOST_BYTES, d->bytes);
    }
}

/* ---- calls ---- */

static __always_inline bool ssl_begin(struct ssl_call *call, struct pt_regs *ctx, u32 tgid,
                                      u64 what)
{
    u32 kind = what & WIRE_SSL_CALL;
    u64 arg4 = ctx->cx, arg5 = ctx->r8;
    struct wire_ssl_key k = {.ssl = ctx->di, .tgid = tgid};
    asm volatile("" : "+r"(arg4), "+r"(arg5)); /* loads at an address of choice are refused */
    if (kind != WIRE_SSL_TEST && !is_selected(tgid))
        return false;
    if (kind == WIRE_SSL_FREE) {
        bpf_map_delete_elem(&ssl_states, &k);
        return false;
    }
    __builtin_memset(call, 0, sizeof(*call));
    call->ssl = ctx->di;
    call->what = (u32)what;
    call->is_active = 1;
    call->began_ns = bpf_ktime_get_ns();
    if (kind == WIRE_SSL_SENDFILE) {
        call->num = arg4; /* descriptor and offset stand where buffer and size are else */
        return true;
    }
    call->buf = ctx->si;
    call->num = ctx->dx;
    if (what & WIRE_SSL_EX)
        call->done = arg4;
    else if (what & WIRE_SSL_EX2)
        call->done = arg5;
    return true;
}

/* Bytes of the stream that the call has moved. */
static __always_inline u64 ssl_moved(const struct ssl_call *call, s64 ret)
{
    u32 kind = call->what & WIRE_SSL_CALL;
    u64 n = (u64)ret, most = call->num;
    if (kind == WIRE_SSL_HANDSHAKE || (kind != WIRE_SSL_SENDFILE && (s32)ret <= 0) || ret == 0)
        return 0;
    if (kind != WIRE_SSL_SENDFILE && !call->done) {
        n = (u32)ret;
        most = (u32)most; /* an int: the upper half says nothing */
    }
    if (call->done && bpf_probe_read_user(&n, sizeof(n), (void *)call->done))
        return 0;
    return n <= most ? n : 0; /* a negative sendfile is more, too */
}

/* The object's state; NULL while it is not known whose bytes these are. */
static __always_inline struct ssl_state *ssl_state_of(const struct ssl_call *call, u32 tgid,
                                                      s32 ret)
{
    struct wire_ssl_key k = {.ssl = call->ssl, .tgid = tgid};
    struct ssl_state *s = bpf_map_lookup_elem(&ssl_states, &k);
    u32 kind = call->what & WIRE_SSL_CALL;
    if (s || call->is_touched || kind == WIRE_SSL_SENDFILE)
        return s;
    if (kind == WIRE_SSL_SEND ? ret > 0 : ret <= 0)
        return ssl_fresh(&k, 0);
    return NULL;
}

static __always_inline void ssl_tell(const struct ssl_call *call, struct ssl_state *s, u64 id,
                                     u64 n)
{
    u64 now = bpf_ktime_get_ns();
    u32 dir = (call->what & WIRE_SSL_CALL) == WIRE_SSL_RECV ? WIRE_RECV : WIRE_SEND;
    struct wire_data d;
    if (s->cookie)
        ssl_verdict(s);
    __builtin_memset(&d, 0, sizeof(d));
    fill_head(&d.h, WIRE_DATA, sizeof(d), now);
    d.cookie = s->cookie;
    d.ssl = call->ssl;
    d.first_ns = dir == WIRE_SEND ? call->began_ns : now;
    d.pos = s->pos[dir & 1];
    d.other_pos = s->pos[!dir];
    d.bytes = (u32)n;
    d.tgid = (u32)(id >> 32);
    d.tid = (u32)id;
    d.generation = s->generation;
    d.layer = WIRE_LAYER_TLS;
    d.dir = (u8)dir;
    d.lost_before = s->lost[dir & 1];
    if (!call->buf)
        d.hole = WIRE_HOLE_NO_BUFFER;
    send_plain(call, s, &d);
    s->pos[dir & 1] += n;
}

SEC("uprobe")
int BPF_KPROBE(tr_ssl_enter)
{
    u64 id = bpf_get_current_pid_tgid();
    struct ssl_call call, *kept;
    if (!ssl_begin(&call, ctx, (u32)(id >> 32), bpf_get_attach_cookie(ctx)))
        return 0;
    ssl_ends[(u32)(id >> 32) % WIRE_ENDS] = 1;
    kept = bpf_map_lookup_elem(&ssl_calls, &id);
    if (kept)
        *kept = call;
    else
        bpf_map_update_elem(&ssl_calls, &id, &call, BPF_ANY);
    return 0;
}

/* The call's end: a return probe, or a probe on an instruction behind the call. */
SEC("uretprobe")
int BPF_KPROBE(tr_ssl_leave)
{
    u64 id = bpf_get_current_pid_tgid();
    struct ssl_call *found = ssl_inside(id), call;
    if (!found)
        return 0;
    found->is_active = 0;
    call = *found; /* which LRU may give to another thread */
    struct ssl_state *s = ssl_state_of(&call, (u32)(id >> 32), (s32)ctx->ax);
    u64 n = ssl_moved(&call, (s64)ctx->ax);
    if (n && s)
        ssl_tell(&call, s, id, n);
    else if (n)
        count(WIRE_UNTOLD_BYTES, n);
    return 0;
}

/* A file, and where the kernel likes: so is a library's first mapping, memory of programs is not.
 */
static __always_inline bool maps_file(void)
{
    struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
    return BPF_CORE_READ(regs, orig_ax) == 9 && !(BPF_CORE_READ(regs, r10) & MAP_ANONYMOUS);
}

/*
 * Since 5.8. Why here: the one hook on the way of every mapping that the program does not place
 * itself. User space looks which libraries the process has.
 */
SEC("tp_btf/vm_unmapped_area")
int tr_mapping(u64 *ctx)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    u8 yes = 1;
    if (!has_tls || !is_selected(tgid) || !maps_file() || bpf_map_lookup_elem(&mapping, &tgid))
        return 0;
    if (bpf_map_update_elem(&mapping, &tgid, &yes, BPF_ANY) == 0)
        tell(WIRE_MAPPED, tgid, 0);
    return 0;
}

#endif
