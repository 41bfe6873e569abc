/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* TCP of observed connections, counted in the kernel by cgroup: no record is sent for any of it. */
#ifndef TAILRACE_TCP_H
#define TAILRACE_TCP_H

#include "bpf/conn.h"
#include "bpf/histogram.h"

enum {
    ENETUNREACH = 101,
    ECONNRESET = 104,
    ETIMEDOUT = 110,
    ECONNREFUSED = 111,
    EHOSTUNREACH = 113
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 512);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, u64);
    __type(value, struct wire_tcp);
} tcp_by_cgroup SEC(".maps");

static const struct wire_tcp tcp_zero;

static __always_inline struct wire_tcp *tcp_of(u64 cgroup)
{
    struct wire_tcp *t = bpf_map_lookup_elem(&tcp_by_cgroup, &cgroup);
    if (t)
        return t;
    bpf_map_update_elem(&tcp_by_cgroup, &cgroup, &tcp_zero, BPF_NOEXIST);
    t = bpf_map_lookup_elem(&tcp_by_cgroup, &cgroup);
    if (!t)
        count(WIRE_CGROUPS_FULL, 1);
    return t;
}

static __always_inline void observe(u64 cgroup, u32 which, u64 ns)
{
    struct wire_tcp *t = tcp_of(cgroup);
    if (t && which < WIRE_HISTOGRAMS)
        histogram_add(&t->histograms[which], ns);
}

static __always_inline void connect_began(struct conn *c)
{
    if (!c)
        return;
    c->connect_ns = bpf_ktime_get_ns();
    c->cgroup = cgroup_of_current();
}

static __always_inline void connect_failed(struct conn *c, int error)
{
    struct wire_tcp *t = tcp_of(c->cgroup);
    u32 why = WIRE_FAILED_OTHER;
    if (!error)
        why = WIRE_FAILED_CANCELED;
    else if (error == ECONNREFUSED)
        why = WIRE_FAILED_REFUSED;
    else if (error == ETIMEDOUT)
        why = WIRE_FAILED_TIMED_OUT;
    else if (error == EHOSTUNREACH || error == ENETUNREACH)
        why = WIRE_FAILED_UNREACHABLE;
    else if (error == ECONNRESET)
        why = WIRE_FAILED_RESET;
    if (t)
        __sync_fetch_and_add(&t->failures[why], 1);
}

/*
 * In softirq, where the current process is anybody: what is needed was noted in connect(). Two
 * connects that cross go on by way of SYN_RECV. A socket that is closed before has no error.
 */
static __always_inline void connect_moved(struct sock *sk, int state)
{
    struct conn *c = conn_get(sk);
    if (!c || !c->connect_ns || state == TCP_SYN_RECV)
        return;
    if (state == TCP_ESTABLISHED)
        observe(c->cgroup, WIRE_CONNECT, bpf_ktime_get_ns() - c->connect_ns);
    else if (state == TCP_CLOSE)
        connect_failed(c, BPF_CORE_READ(sk, sk_err));
    c->connect_ns = 0;
}

/*
 * The kernel's estimate; srtt_us is in eighths. Taken once, when the first FIN passes: that one is
 * often acknowledged late, since there is nothing to be sent with the acknowledgement.
 */
static __always_inline void note_rtt(struct sock *sk)
{
    struct conn *c = conn_get(sk);
    struct tcp_sock *tp = c && c->cgroup ? tcp_sock_of(sk) : NULL;
    u32 srtt_us = tp ? SOCK(tp, srtt_us) : 0;
    if (srtt_us)
        observe(c->cgroup, WIRE_RTT, (u64)(srtt_us >> 3) * 1000);
}

/* Since 4.15. Every segment that is sent again, SYNs included; one buffer may hold several. */
SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(tr_retransmit, struct sock *sk, struct sk_buff *skb)
{
    struct conn *c = conn_get(sk);
    struct wire_tcp *t = c && c->cgroup ? tcp_of(c->cgroup) : NULL;
    u16 segments = BPF_CORE_READ((struct tcp_skb_cb *)&skb->cb, tcp_gso_segs);
    if (t)
        __sync_fetch_and_add(&t->retransmits, segments);
    return 0;
}

#endif
