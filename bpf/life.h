/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* The life of TCP sockets: who listens, who connects, who is gone. */
#ifndef TAILRACE_LIFE_H
#define TAILRACE_LIFE_H

#include "bpf/process.h"
#include "bpf/tcp.h"

static __always_inline void note_listener(struct sock *sk, bool begins)
{
    struct wire_listener key = {.netns = netns_of(sk), .port = SOCK(sk, __sk_common.skc_num)};
    u32 one = 1, tgid = bpf_get_current_pid_tgid() >> 32;
    u32 *n = bpf_map_lookup_elem(&listeners, &key);
    if (!begins) {
        if (n && __sync_sub_and_fetch(n, 1) == 0)
            bpf_map_delete_elem(&listeners, &key);
        return;
    }
    if (n)
        __sync_fetch_and_add(n, 1);
    else
        bpf_map_update_elem(&listeners, &key, &one, BPF_ANY);
    u16 port = key.port;
    u8 yes = 1;
    if (tgid == self_tgid || !bpf_map_lookup_elem(&ports, &port))
        return;
    bpf_map_update_elem(&selected, &tgid, &yes, BPF_ANY);
    tell(WIRE_LISTENS, tgid, port);
}

/*
 * Since 4.16. Why here: SYN_SENT is set inside connect() of the process itself, so role and process
 * are certain; LISTEN likewise. The raw tracepoint has the typed socket, which may have its cookie
 * minted.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tr_set_state, struct sock *sk, int old, int new)
{
    if (!is_tcp(sk))
        return 0;
    conn_mint(sk);
    if (new == TCP_LISTEN)
        note_listener(sk, true);
    else if (old == TCP_LISTEN && new == TCP_CLOSE) /* a child is cloned in LISTEN, too */
        note_listener(sk, false);
    else if (new == TCP_SYN_SENT && is_selected(bpf_get_current_pid_tgid() >> 32))
        connect_began(conn_new(sk, WIRE_ROLE_CLIENT, false));
    else if (old == TCP_SYN_SENT || old == TCP_SYN_RECV)
        connect_moved(sk, new);
    else if (old == TCP_ESTABLISHED)
        note_rtt(sk);
    return 0;
}

static __always_inline void tell_end(struct conn *c)
{
    struct wire_close *r = bpf_ringbuf_reserve(&data_ring, sizeof(*r), 0);
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

/* Since 4.16. The last thing that is told of a socket; its storage goes with it. */
SEC("tp_btf/tcp_destroy_sock")
int BPF_PROG(tr_destroy_sock, struct sock *sk)
{
    struct conn *c = conn_get(sk);
    if (!c)
        return 0;
    bpf_map_delete_elem(&verdicts, &c->cookie);
    if (c->announced)
        tell_end(c);
    conn_drop(c);
    return 0;
}

#endif
