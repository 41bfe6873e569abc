/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Stream bytes of observed connections, at the end of each send and receive.
 *
 * The buffer is read through the registers of the system call that is running, but only if they can
 * be trusted: no kernel, io or user worker; the syscall's body still runs (ax == -ENOSYS: the entry
 * code puts it there and the exit code overwrites it); the syscall is one of this direction; and
 * the file at its first argument is this socket. io_uring's task work runs at the exit of any
 * syscall: without these tests the bytes of a write to a log file would be taken for the socket's.
 */
#ifndef TAILRACE_SOCK_H
#define TAILRACE_SOCK_H

#include "bpf/tls.h"

#define MAX_IOV 1024u /* the kernel's own bound */

struct source {
    u64 buf, len;       /* one buffer ... */
    u64 iov;            /* ... or iovecs, when not 0 */
    u64 rest, rest_len; /* the second of two iovecs, still to be copied */
    u32 n_iov;
    u8 hole;
};

static __always_inline bool fd_is_sock(struct task_struct *task, u32 fd, struct sock *sk)
{
    struct files_struct *files = SOCK(task, files);
    struct fdtable *fdt = SOCK(files, fdt);
    struct file **fds = SOCK(fdt, fd);
    struct socket *s = SOCK(sk, sk_socket);
    if (!s || fd >= SOCK(fdt, max_fds))
        return false;
    void *file = load_pointer(fds + fd);
    return file && SOCK(s, file) == file;
}

static __always_inline void from_msghdr(struct source *s, u64 at)
{
    struct user_msghdr m;
    if (bpf_probe_read_user(&m, sizeof(m), (void *)at)) {
        s->hole = WIRE_HOLE_FAULT;
        return;
    }
    s->iov = m.iov;
    s->n_iov = (u32)m.iovlen;
}

/* x86-64 system call numbers by direction. */
static __always_inline void locate(struct source *s, u64 nr, u8 dir, u64 si, u64 dx)
{
    u64 plain = dir == WIRE_SEND ? 1 : 0, vector = dir == WIRE_SEND ? 20 : 19;
    u64 to = dir == WIRE_SEND ? 44 : 45, msg = dir == WIRE_SEND ? 46 : 47;
    u64 mmsg = dir == WIRE_SEND ? 307 : 299;
    if (nr == plain || nr == to) {
        s->buf = si;
        s->len = dx;
    } else if (nr == vector) {
        s->iov = si;
        s->n_iov = (u32)dx;
    } else if (nr == msg || (nr == mmsg && dx == 1)) {
        from_msghdr(s, si);
    } else {
        s->hole = WIRE_HOLE_NO_BUFFER;
    }
}

static __always_inline void find_source(struct source *s, struct task_struct *task, struct sock *sk,
                                        u8 dir)
{
    s->hole = WIRE_HOLE_NO_BUFFER;
    if (task->flags & (PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER))
        return;
    struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);
    u64 ax = SOCK(regs, ax), nr = SOCK(regs, orig_ax), di = SOCK(regs, di);
    if ((s64)ax != -ENOSYS || !fd_is_sock(task, (u32)di, sk))
        return;
    s->hole = WIRE_HOLE_NONE;
    locate(s, nr, dir, SOCK(regs, si), SOCK(regs, dx));
}

struct iov_walk {
    u8 *dst; /* room for twice the most, so that an offset and a length below it stay inside */
    u64 iov;
    u32 off, want;
};

/* One iovec; 1 ends the loop. */
static long iov_step(u32 i, struct iov_walk *w)
{
    struct user_iovec v;
    u32 off = w->off, want = w->want;
    if (off >= want || off >= WIRE_HEAD_MAX)
        return 1;
    if (bpf_probe_read_user(&v, sizeof(v), (void *)(w->iov + (u64)i * sizeof(v))))
        return 1;
    u32 n = want - off;
    if (v.len < n)
        n = (u32)v.len;
    asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(n) : "i"(WIRE_HEAD_MAX));
    if (n && bpf_probe_read_user(w->dst + off, n, (void *)v.base))
        return 1;
    w->off = off + n;
    return 0;
}

/* The last bytes of a call, wherever its iovecs are cut. */
struct tail_walk {
    u8 *dst;     /* room for twice the tail */
    u64 iov, at; /* of the stream bytes before the present iovec */
    u64 from;    /* where the tail begins */
    u32 done;
};

static long tail_step(u32 i, struct tail_walk *w)
{
    struct user_iovec v;
    u64 skip, n, off = w->done;
    if (off >= WIRE_TAIL_MAX ||
        bpf_probe_read_user(&v, sizeof(v), (void *)(w->iov + (u64)i * sizeof(v))))
        return 1;
    skip = w->at < w->from ? w->from - w->at : 0;
    w->at += v.len;
    if (skip >= v.len)
        return 0;
    n = v.len - skip;
    if (n > WIRE_TAIL_MAX - off)
        n = WIRE_TAIL_MAX - off;
    asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(n) : "i"(WIRE_TAIL_MAX));
    if (bpf_probe_read_user(w->dst + off, n, (void *)(v.base + skip)))
        return 1;
    w->done = (u32)(off + n);
    return 0;
}

struct event {
    struct conn *c;
    void *ring;
    u32 tgid, tid;
    u64 now, first, pos, other_pos;
    u64 waiting; /* bytes in the ring */
    u32 len, head, tail;
    u8 dir, hole, fresh; /* fresh: the reader should hear of it at once */
};

static __always_inline void fill_data(struct wire_data *r, const struct event *e)
{
    struct conn *c = e->c;
    fill_head(&r->h, WIRE_DATA, sizeof(*r), e->now);
    r->cookie = c->cookie;
    r->ssl = 0;
    r->first_ns = e->first;
    r->pos = e->pos;
    r->other_pos = e->other_pos;
    r->bytes = e->len;
    r->tgid = e->tgid;
    r->tid = e->tid;
    r->generation = 0;
    r->layer = WIRE_LAYER_SOCKET;
    r->dir = e->dir;
    r->hole = e->hole;
    r->lost_before = c->lost[e->dir & 1];
    r->head = r->tail = 0;
    r->opaque = c->opaque;
    r->pad[0] = r->pad[1] = r->pad[2] = 0;
}

static __always_inline u64 wake_flags(const struct event *e)
{
    return e->fresh ? wake_soon(e->now) : wake_if_much(e->waiting, e->now);
}

static __always_inline void told(const struct event *e, bool yes)
{
    e->c->lost[e->dir & 1] = !yes;
    if (yes)
        return;
    count(WIRE_LOST_RECORDS, 1);
    count(WIRE_LOST_BYTES, e->len);
}

static __always_inline void send_length(struct event *e)
{
    struct wire_data r;
    fill_data(&r, e);
    told(e, bpf_ringbuf_output(e->ring, &r, sizeof(r), wake_flags(e)) == 0);
}

/* What is wanted behind the first iovec's n bytes; how many there are then. */
static __always_inline u32 copy_rest(u8 *to, u32 n, const struct event *e, const struct source *s)
{
    u32 m = e->head - n;
    if (s->rest_len < m)
        m = (u32)s->rest_len;
    asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(n) : "i"(WIRE_HEAD_MAX));
    asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(m) : "i"(WIRE_HEAD_MAX));
    return m && bpf_probe_read_user(to + n, m, (void *)s->rest) ? n : n + m;
}

/*
 * The first one of head and body, as most servers send them; the rest follows if it is wanted. A
 * loop's calls would cost as much again.
 */
static __always_inline u32 copy_two(u8 *to, const struct event *e, struct source *s)
{
    struct user_iovec v[2];
    u32 n = e->head;
    if (bpf_probe_read_user(v, sizeof(v), (void *)s->iov))
        return 0;
    if (v[0].len < n)
        n = (u32)v[0].len;
    asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(n) : "i"(WIRE_HEAD_MAX));
    if (n && bpf_probe_read_user(to, n, (void *)v[0].base))
        return 0;
    s->rest = v[1].base;
    s->rest_len = n < e->head ? v[1].len : 0;
    return n;
}

/* The call's first bytes; how many could be read. */
static __always_inline u32 copy_head(u8 *to, const struct event *e, struct source *s)
{
    u32 n = e->head;
    if (s->iov && s->n_iov == 2)
        return copy_two(to, e, s);
    if (s->iov) {
        struct iov_walk w = {.dst = to, .iov = s->iov, .want = n};
        bpf_loop(s->n_iov < MAX_IOV ? s->n_iov : MAX_IOV, iov_step, &w, 0);
        return w.off;
    }
    asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(n) : "i"(WIRE_HEAD_MAX));
    return bpf_probe_read_user(to, n, (void *)s->buf) ? 0 : n;
}

/* Its last bytes, all or none. */
static __always_inline u32 copy_tail(u8 *to, const struct event *e, const struct source *s)
{
    if (s->iov) {
        struct tail_walk t = {.dst = to, .iov = s->iov, .from = e->len - WIRE_TAIL_MAX};
        bpf_loop(s->n_iov < MAX_IOV ? s->n_iov : MAX_IOV, tail_step, &t, 0);
        return t.done == WIRE_TAIL_MAX ? WIRE_TAIL_MAX : 0;
    }
    return bpf_probe_read_user(to, WIRE_TAIL_MAX, (void *)(s->buf + e->len - WIRE_TAIL_MAX))
               ? 0
               : WIRE_TAIL_MAX;
}

/* A record takes what it needs of the ring and no more, so it is put together outside of it. */
static __always_inline void send_bytes(struct event *e, struct source *s)
{
    struct scratch *r = scratch_take();
    const struct wire_verdict *v = &e->c->verdict;
    u32 n, tail = 0, body = 0;
    if (!r) {
        e->hole = WIRE_HOLE_LIMIT;
        send_length(e);
        return;
    }
    fill_data(&r->d, e);
    n = copy_head(r->bytes, e, s);
    if (v->tail[e->dir & 1] && v->mode == WIRE_BYTES)
        body = body_begins(r, n, e->len, layout_of(v));
    if (body) {
        n = e->head = body;
        e->tail = 0;
        if (r->d.hole == WIRE_HOLE_LIMIT)
            r->d.hole = WIRE_HOLE_NONE;
    } else if (s->rest_len) {
        n = copy_rest(r->bytes, n, e, s);
    }
    asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(n) : "i"(WIRE_HEAD_MAX));
    if (n < e->head)
        r->d.hole = n ? WIRE_HOLE_NO_BUFFER : WIRE_HOLE_FAULT;
    else if (e->tail && n + WIRE_TAIL_MAX <= e->len)
        tail = copy_tail(r->bytes + n, e, s);
    r->d.head = n;
    r->d.tail = tail;
    n += sizeof(r->d) + tail;
    r->d.h.len = n;
    told(e, bpf_ringbuf_output(e->ring, &r->d, n, wake_flags(e)) == 0);
    scratch_give(r);
}

/* How many bytes of this call are wanted. */
static __always_inline void set_wanted(struct event *e)
{
    struct conn *c = e->c;
    u32 d = e->dir & 1;
    take_verdict(c); /* later ones, too: a connection may turn out to need more */
    if (c->verdict.mode == WIRE_UNDECIDED) {
        u32 left =
            c->captured[d] < WIRE_UNDECIDED_BYTES ? WIRE_UNDECIDED_BYTES - c->captured[d] : 0;
        if (left < WIRE_UNDECIDED_HEAD)
            left = WIRE_UNDECIDED_HEAD;
        e->fresh = !c->captured[0] && !c->captured[1];
        e->head = e->len < left ? e->len : left;
        if (e->head < e->len) {
            e->hole = WIRE_HOLE_LIMIT;
            e->tail = WIRE_TAIL_MAX;
        }
        if (c->captured[d] < WIRE_UNDECIDED_BYTES)
            c->captured[d] += e->head;
    } else if (c->verdict.mode == WIRE_BYTES) {
        e->head = e->len < c->verdict.head[d] ? e->len : c->verdict.head[d];
        if (e->head < e->len)
            e->tail = c->verdict.tail[d];
    }
    if (e->head > WIRE_HEAD_MAX)
        e->head = WIRE_HEAD_MAX;
    if (e->head > WIRE_SHED_HEAD && is_nearly_full(e->waiting)) {
        e->head = WIRE_SHED_HEAD;
        e->tail = WIRE_TAIL_MAX;
        e->hole = WIRE_HOLE_LIMIT;
    }
}

/*
 * How many stream bytes the socket counted since the last event, without this call's. A FIN that
 * was read counts as one; two threads may end their calls in the other order, so that it may be
 * less than nothing.
 */
static __always_inline u32 unseen(struct sock *sk, u8 dir, u32 moved, u32 len)
{
    u32 n = moved - len;
    if (moved < len || n >= 1u << 30)
        return 0;
    if (n && dir == WIRE_RECV && (SOCK(sk, sk_shutdown) & RCV_SHUTDOWN))
        n--;
    return n;
}

static __always_inline u32 seq_of(struct tcp_sock *tp, u8 dir)
{
    return dir == WIRE_SEND ? SOCK(tp, write_seq) : SOCK(tp, copied_seq);
}

/* Whether bytes of this send have left: they may be queued only, corked or without a window. */
static __always_inline bool has_left(struct tcp_sock *tp, u32 len)
{
    return (s32)(SOCK(tp, write_seq) - SOCK(tp, snd_nxt)) < (s32)len;
}

/*
 * When the call was over. Since 4.20 TCP keeps its last look at the same clock, and looks with each
 * transmission and behind bytes that were received (tcp_write_xmit, tcp_rcv_space_adjust): within
 * this call, so that it need not be asked again, which is dear in virtual machines. Only where
 * TCP's own counter has moved by the call's bytes: those of kTLS and of sockmaps pass it by, and
 * its stamp may be old then.
 */
static __always_inline u64 time_of_end(const struct conn *c, struct tcp_sock *tp, u8 dir, u32 len)
{
    u32 d = dir & 1;
    if (!raw_sockets && tp && bpf_core_field_exists(tp->tcp_clock_cache) && c->has_seq[d] &&
        (s32)(seq_of(tp, dir) - c->seq[d]) >= (s32)len && (dir == WIRE_RECV || has_left(tp, len)))
        return tp->tcp_clock_cache;
    return bpf_ktime_get_ns();
}

/* When the first byte left: the call tells of it after its effect. */
static __always_inline u64 first_sent(const struct event *e, struct tcp_sock *tp)
{
    u64 first = SOCK(tp, first_tx_mstamp) * 1000, before = e->c->end_ns[e->dir & 1];
    if (!has_left(tp, e->len) || first > e->now)
        return e->now;
    return first < before ? before : first;
}

/*
 * Stream positions, from the socket's own counters: before this call, where what they jumped over
 * is a hole, and the other direction's now, which may have moved where no event told it.
 */
static __always_inline void set_position(struct event *e, struct sock *sk, struct tcp_sock *tp)
{
    struct conn *c = e->c;
    u32 d = e->dir & 1, o = !d, seq = 0, jumped = 0;
    if (tp && SOCK(tp, inet_conn.icsk_ulp_ops))
        tp = NULL; /* kTLS: its sequence numbers count ciphertext */
    if (tp)
        seq = seq_of(tp, e->dir);
    if (tp && c->has_seq[d])
        jumped = unseen(sk, e->dir, seq - c->seq[d], e->len);
    c->seq[d] = seq;
    c->has_seq[d] = tp != NULL;
    /* At once: two threads' calls may overcount each other's bytes, but never share positions. */
    e->pos = __sync_fetch_and_add(&c->pos[d], jumped + (u64)e->len) + jumped;
    e->other_pos = c->pos[o];
    if (tp && c->has_seq[o])
        e->other_pos += unseen(sk, (u8)o, seq_of(tp, (u8)o) - c->seq[o], 0);
    e->first = e->now;
    if (e->dir == WIRE_SEND && tp)
        e->first = first_sent(e, tp);
    c->end_ns[d] = e->now;
}

/*
 * A TLS record as a direction's first bytes, or, of a connection that was met in mid-life or is
 * used by a TLS library, as those of a call: the first record goes up if it is of the handshake,
 * ciphertext stays.
 */
static __always_inline void look_for_tls(struct event *e, const struct source *s)
{
    struct conn *c = e->c;
    u8 start[5] = {0};
    u64 at = s->buf;
    if (s->iov && bpf_probe_read_user(&at, sizeof(at), (void *)s->iov))
        return;
    if (e->len < sizeof(start) || bpf_probe_read_user(start, sizeof(start), (void *)at))
        return;
    u32 record = sizeof(start) + ((u32)start[3] << 8 | start[4]);
    if (start[0] < 0x14 || start[0] > 0x17 || start[1] != 3 || start[2] > 4 ||
        record > WIRE_TLS_RECORD_MAX)
        return;
    c->opaque = 1;
    c->verdict.mode = WIRE_LENGTHS;
    e->tail = 0;
    e->hole = WIRE_HOLE_NONE;
    if (start[0] != 0x16)
        e->head = 0;
    else if (e->head > record)
        e->head = record;
}

/* In mid-life of the socket: its own counters tell, or it was there at start. */
static __always_inline bool is_joined(struct sock *sk, u8 dir, u32 moved)
{
    struct tcp_sock *tp = tcp_sock_of(sk);
    if (tp)
        return had_bytes(tp, dir, moved) || had_bytes(tp, dir == WIRE_SEND, 0);
    return !raw_sockets && bpf_sk_storage_get(&older, sk, NULL, 0);
}

static __always_inline int on_bytes(struct sock *sk, int ret, int flags, u8 dir)
{
    struct task_struct *task = bpf_get_current_task_btf();
    u32 tgid = (u32)task->tgid, tid = (u32)task->pid;
    if (!is_selected(tgid) || !is_stream(sk))
        return 0;
    struct ssl_call *call = ssl_inside((u64)tgid << 32 | tid);
    if (ret <= 0) { /* what would block binds, too */
        if (call)
            ssl_bind(call, sk, conn_get(sk));
        return 0;
    }
    if (dir == WIRE_RECV && (flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB)))
        return 0; /* not bytes of the stream */
    struct conn *c = conn_get(sk);
    if (!c)
        c = conn_new(sk, WIRE_ROLE_UNKNOWN, is_joined(sk, dir, (u32)ret));
    if (call)
        ssl_bind(call, sk, c);
    if (!c)
        return 0;
    struct event e = {.c = c, .tgid = tgid, .tid = tid, .len = (u32)ret, .dir = dir};
    struct tcp_sock *tp = tcp_sock_of(sk);
    e.now = time_of_end(c, tp, dir, e.len);
    struct source s = {0};
    e.ring = ring_of(c->cookie);
    if (!e.ring)
        return 0;
    set_position(&e, sk, tp);
    count(dir == WIRE_SEND ? WIRE_PASSED_SEND : WIRE_PASSED_RECV, e.len);
    if (c->verdict.mode == WIRE_NOTHING)
        return 0;
    announce(c, sk, e.now);
    e.waiting = bpf_ringbuf_query(e.ring, BPF_RB_AVAIL_DATA);
    set_wanted(&e);
    if (c->verdict.mode == WIRE_NOTHING)
        return 0;
    bool turns = call && !c->opaque; /* may become TLS in mid-life: CONNECT, STARTTLS */
    if (e.head || turns) {
        if (dir == WIRE_RECV && (flags & MSG_TRUNC))
            s.hole = WIRE_HOLE_TRUNCATED;
        else
            find_source(&s, task, sk, dir);
        if (s.hole)
            e.hole = e.head ? s.hole : e.hole;
        else if (turns ||
                 (!c->opaque && (c->joined ? c->verdict.mode == WIRE_UNDECIDED : e.pos == 0)))
            look_for_tls(&e, &s);
    }
    if (turns && c->opaque)
        ssl_bind(call, sk, c);
    if (e.head && !s.hole)
        send_bytes(&e, &s);
    else
        send_length(&e);
    return 0;
}

/*
 * Since 6.3 (sendfile: 6.5). Why these: the typed socket and the real return value, for every way a
 * program can send and receive, kTLS and MPTCP included, and nothing on calls that are no sockets.
 */
SEC("tp_btf/sock_send_length")
int BPF_PROG(tr_send_length, struct sock *sk, int ret, int flags)
{
    return on_bytes(sk, ret, flags, WIRE_SEND);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(tr_recv_length, struct sock *sk, int ret, int flags)
{
    return on_bytes(sk, ret, flags, WIRE_RECV);
}

#endif
