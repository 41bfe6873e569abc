/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * TCP of observed connections, counted in the kernel by cgroup: no record is sent for any of it.
 *
 * Histograms are OTLP's exponential ones, of seconds: bucketing nanoseconds and dividing later
 * would move counts, since log2(1e-9) is no whole number of buckets. So nanoseconds become seconds
 * first, as 32.32 fixed point.
 */
#ifndef TAILRACE_TCP_H
#define TAILRACE_TCP_H

#include "bpf/conn.h"

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
    return bpf_map_lookup_elem(&tcp_by_cgroup, &cgroup);
}

/* Bucket of scale 2, upper bounds inclusive: four to an octave. */
static __always_inline u32 bucket_of(u64 ns)
{
    /* (2^(k/4) - 1) * 2^64, k = 1..3 */
    const u64 t1 = 0x306fe0a31b7152deULL, t2 = 0x6a09e667f3bcc908ULL, t3 = 0xae89f995ad3ad5e8ULL;
    u64 u, m;
    s32 e = 0, i;
    if (ns > 14000000000ULL)
        ns = 14000000000ULL;                      /* what the multiplication below holds */
    u = (ns << 2) + ((ns * 1266874890ULL) >> 32); /* ns * 2^32 / 1e9 */
    if (u == 0)
        return 0;
    if (u >> 32)
        e += 32;
    if (u >> (e + 16))
        e += 16;
    if (u >> (e + 8))
        e += 8;
    if (u >> (e + 4))
        e += 4;
    if (u >> (e + 2))
        e += 2;
    if (u >> (e + 1))
        e += 1;
    m = e ? u << (64 - e) : 0; /* the fraction of [1, 2) */
    i = (e - 32) * 4 + (m > t1) + (m > t2) + (m > t3) - (m == 0) - WIRE_OFFSET;
    return i < 0 ? 0 : i >= WIRE_BUCKETS ? WIRE_BUCKETS - 1 : (u32)i;
}

static __always_inline void observe(u64 cgroup, u32 which, u64 ns)
{
    struct wire_tcp *t = tcp_of(cgroup);
    u32 b = bucket_of(ns) & (WIRE_BUCKETS - 1);
    if (!t || which >= WIRE_HISTOGRAMS)
        return;
    __sync_fetch_and_add(&t->histograms[which].buckets[b], 1);
    __sync_fetch_and_add(&t->histograms[which].sum_ns, ns);
}

static __always_inline void connect_began(struct conn *c)
{
    if (!c)
        return;
    c->connect_ns = bpf_ktime_get_ns();
    c->cgroup = bpf_get_current_cgroup_id();
}

static __always_inline void connect_failed(struct conn *c, int error)
{
    struct wire_tcp *t = tcp_of(c->cgroup);
    u32 why = WIRE_FAILED_OTHER;
    if (error == ECONNREFUSED)
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

/* In softirq, where the current process is anybody: what is needed was noted in connect(). */
static __always_inline void connect_ended(struct sock *sk, int state)
{
    struct conn *c = conn_get(sk);
    if (!c || !c->connect_ns)
        return;
    if (state == TCP_ESTABLISHED)
        observe(c->cgroup, WIRE_CONNECT, bpf_ktime_get_ns() - c->connect_ns);
    else if (state == TCP_CLOSE)
        connect_failed(c, BPF_CORE_READ(sk, sk_err));
    c->connect_ns = 0;
}

/* The kernel's estimate at the end of the connection; srtt_us is in eighths. */
static __always_inline void note_rtt(struct sock *sk, struct conn *c)
{
    struct tcp_sock *tp = tcp_sock_of(sk);
    u32 srtt_us = tp ? SOCK(tp, srtt_us) : 0;
    if (srtt_us && c->cgroup)
        observe(c->cgroup, WIRE_RTT, (u64)(srtt_us >> 3) * 1000);
}

/* Since 4.15. Every segment that is sent again, SYNs included. */
SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(tr_retransmit, struct sock *sk, void *skb)
{
    struct conn *c = conn_get(sk);
    struct wire_tcp *t = c && c->cgroup ? tcp_of(c->cgroup) : NULL;
    if (t)
        __sync_fetch_and_add(&t->retransmits, 1);
    return 0;
}

#endif
