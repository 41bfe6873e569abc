/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The life of TCP sockets: who listens, who connects, who is gone. */
#ifndef TAILRACE_LIFE_H
#define TAILRACE_LIFE_H

#include "bpf/process.h"
#include "bpf/tcp.h"

static __always_inline void note_listener(struct sock *sk, bool begins)
{
    struct wire_listener key = {.netns = netns_of(sk), .port = SOCK(sk, __sk_common.skc_num)};
    struct wire_listener *known;
    u64 cookie = cookie_of(sk);
    u32 one = 1, *n;
    if (begins) {
        if (bpf_map_update_elem(&listening, &cookie, &key, BPF_NOEXIST))
            return;
        n = bpf_map_lookup_elem(&listeners, &key);
        if (n)
            __sync_fetch_and_add(n, 1);
        else
            bpf_map_update_elem(&listeners, &key, &one, BPF_ANY);
        return;
    }
    /* By now the socket may have lost its port. */
    known = bpf_map_lookup_elem(&listening, &cookie);
    if (!known)
        return;
    key = *known;
    bpf_map_delete_elem(&listening, &cookie);
    n = bpf_map_lookup_elem(&listeners, &key);
    if (n && __sync_sub_and_fetch(n, 1) == 0)
        bpf_map_delete_elem(&listeners, &key);
}

/* Who holds a listener on a selected port is observed, and its children are. */
static __always_inline bool select_holder(struct sock *sk, u32 tgid)
{
    u16 port = SOCK(sk, __sk_common.skc_num);
    if (tgid == self_tgid || !bpf_map_lookup_elem(&ports, &port))
        return false;
    select(tgid, WIRE_SELECTED_FOR_GOOD);
    return true;
}

static __always_inline void tell_end(struct conn *c)
{
    void *ring = ring_of(c->cookie);
    struct wire_close *r = ring ? bpf_ringbuf_reserve(ring, sizeof(*r), 0) : NULL;
    if (!r) {
        count(WIRE_LOST_RECORDS, 1); /* the sweep finds it */
        return;
    }
    fill_head(&r->h, WIRE_CLOSE, sizeof(*r), bpf_ktime_get_ns());
    r->cookie = c->cookie;
    r->pos[0] = c->pos[0];
    r->pos[1] = c->pos[1];
    bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
}

/* Once: an end may be told twice. */
static __always_inline void conn_end(struct conn *c)
{
    if (!c->cookie)
        return;
    bpf_map_delete_elem(&verdicts, &c->cookie);
    if (c->announced)
        tell_end(c);
    c->announced = 0;
    conn_drop(c);
}

/* The socket above: its paths tell of connects and round trips, and no destroy hook of its end. */
static __always_inline void mptcp_state(struct sock *sk, int new)
{
    struct conn *c;
    if (new == TCP_SYN_SENT && is_selected(bpf_get_current_pid_tgid() >> 32))
        conn_new(sk, WIRE_ROLE_CLIENT, false);
    else if (new == TCP_CLOSE && (c = conn_get(sk)))
        conn_end(c);
}

/*
 * Since 4.16. Why here: SYN_SENT is set inside connect() of the process itself, so role and process
 * are certain; LISTEN likewise. The raw tracepoint has the typed socket, which may have its cookie
 * minted.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tr_set_state, struct sock *sk, int old, int new)
{
    if (!is_inet_stream(sk))
        return 0;
    conn_mint(sk);
    if (new == TCP_LISTEN) {
        note_listener(sk, true);
        u32 tgid = bpf_get_current_pid_tgid() >> 32;
        if (select_holder(sk, tgid))
            tell(WIRE_LISTENS, tgid, SOCK(sk, __sk_common.skc_num));
    } else if (old == TCP_LISTEN && new == TCP_CLOSE) { /* a child is cloned in LISTEN, too */
        note_listener(sk, false);
    } else if (!is_tcp(sk)) {
        mptcp_state(sk, new);
    } else if (new == TCP_SYN_SENT && is_selected(bpf_get_current_pid_tgid() >> 32)) {
        connect_began(conn_new(sk, WIRE_ROLE_CLIENT, false));
    } else if (old == TCP_SYN_SENT || old == TCP_SYN_RECV) {
        connect_moved(sk, new);
    } else if (old == TCP_ESTABLISHED) {
        note_rtt(sk);
    }
    return 0;
}

/* Since 4.16. The last thing that is told of a socket; its storage goes with it. */
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(tr_destroy_sock, struct sock *sk)
{
    struct conn *c = conn_get(sk);
    if (!c)
        return 0;
    conn_end(c);
    return 0;
}

/*
 * Since 5.11, read once at start, after the hooks above are in place: the sockets that are there,
 * of all network namespaces, since it goes by open files. Mints their cookies and tells who holds
 * listeners on selected ports.
 */
SEC("iter/task_file")
int tr_files(struct bpf_iter__task_file *ctx)
{
    struct file *file = ctx->file;
    struct task_struct *task = ctx->task;
    struct socket *sock = file ? bpf_sock_from_file(file) : NULL;
    struct sock *sk = sock ? sock->sk : NULL;
    struct wire_holder holder = {0};
    if (!sk || !task || !is_stream(sk))
        return 0;
    bpf_get_socket_cookie(sk);
    if (!is_tcp(sk) && sk->__sk_common.skc_state != TCP_LISTEN)
        bpf_sk_storage_get(&older, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
    if (!is_inet_stream(sk) || sk->__sk_common.skc_state != TCP_LISTEN)
        return 0;
    note_listener(sk, true);
    holder.tgid = task->tgid;
    holder.port = sk->__sk_common.skc_num;
    if (select_holder(sk, holder.tgid))
        bpf_seq_write(ctx->meta->seq, &holder, sizeof(holder));
    return 0;
}

/*
 * Since 5.9. Which connections are still there: a record of an end may be lost, and there is none
 * of a UNIX socket's. 0 for a state that user space has not heard of.
 */
SEC("iter/bpf_sk_storage_map")
int tr_alive(struct bpf_iter__bpf_sk_storage_map *ctx)
{
    struct conn *c = ctx->value;
    u64 cookie = 0;
    if (!c)
        return 0;
    if (c->announced)
        cookie = c->cookie;
    bpf_seq_write(ctx->meta->seq, &cookie, sizeof(cookie));
    return 0;
}

#endif
