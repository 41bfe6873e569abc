/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* A connection's state and the records that tell of it. State is reached through here only. */
#ifndef TAILRACE_CONN_H
#define TAILRACE_CONN_H

#include "bpf/cgroup.h"
#include "bpf/maps.h"

static __always_inline void fill_head(struct wire_head *h, u16 type, u32 len, u64 now)
{
    h->type = type;
    h->cpu = (u16)bpf_get_smp_processor_id();
    h->len = len;
    h->time_ns = now;
}

/*
 * A field of a socket, or of what a typed helper gave: a load where the verifier knows the type, a
 * copy where it does not. The knob is a constant when the program is verified, so that only one of
 * both is left of it. It goes for all programs of a tier, since they share the connections' state.
 */
#define SOCK(sk, field) (raw_sockets ? BPF_CORE_READ(sk, field) : (sk)->field)

static __always_inline bool is_inet(struct sock *sk)
{
    u16 family = SOCK(sk, __sk_common.skc_family);
    return family == AF_INET || family == AF_INET6;
}

static __always_inline bool is_tcp(struct sock *sk)
{
    return is_inet(sk) && SOCK(sk, sk_protocol) == IPPROTO_TCP;
}

/* TCP, or MPTCP, by which Go listens: a socket of its own above the TCP sockets of its paths. */
static __always_inline bool is_inet_stream(struct sock *sk)
{
    if (!is_inet(sk))
        return false;
    u16 protocol = SOCK(sk, sk_protocol);
    return protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;
}

/* All that is looked at. */
static __always_inline bool is_stream(struct sock *sk)
{
    if (SOCK(sk, __sk_common.skc_family) == AF_UNIX)
        return SOCK(sk, sk_type) == SOCK_STREAM;
    return raw_sockets ? is_tcp(sk) : is_inet_stream(sk);
}

/* The socket as TCP's, for SOCK(). NULL: it is none, so that it has no sequence numbers. */
static __always_inline struct tcp_sock *tcp_sock_of(struct sock *sk)
{
    if (raw_sockets)
        return is_tcp(sk) ? (struct tcp_sock *)sk : NULL;
    if (bpf_rdonly_cast) /* costs no call */
        return is_tcp(sk) ? bpf_rdonly_cast(sk, bpf_core_type_id_kernel(struct tcp_sock)) : NULL;
    return bpf_skc_to_tcp_sock(sk);
}

/* Identity. 0 only with raw sockets: nobody has asked for this one's cookie yet (conn_mint). */
static __always_inline u64 cookie_of(struct sock *sk)
{
    if (raw_sockets)
        return (u64)BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
    return bpf_get_socket_cookie(sk);
}

/*
 * An MPTCP connection that was accepted is a clone of its listener and keeps its cookie: all of a
 * listener have the same one. They get numbers that no cookie has. (Bare addresses: is_stream()
 * leaves them out.)
 */
static __always_inline u64 identity_of(struct sock *sk)
{
    if (!raw_sockets && is_inet(sk) && SOCK(sk, sk_protocol) == IPPROTO_MPTCP)
        return 1ULL << 63 | __sync_fetch_and_add(&own_cookies, 1);
    return cookie_of(sk);
}

/* In typed programs only: from now on the cookie can be read as a field. */
static __always_inline void conn_mint(struct sock *sk)
{
    if (raw_sockets)
        bpf_get_socket_cookie(sk);
}

static __always_inline struct conn *conn_get(struct sock *sk)
{
    if (raw_sockets) {
        u64 cookie = cookie_of(sk);
        return cookie ? bpf_map_lookup_elem(&conns_by_cookie, &cookie) : NULL;
    }
    return bpf_sk_storage_get(&conns, sk, NULL, 0);
}

static const struct conn conn_zero;

/* A state without cookie is new. */
static __always_inline struct conn *conn_make(struct sock *sk)
{
    if (raw_sockets) {
        u64 cookie = cookie_of(sk);
        if (!cookie) {
            count(WIRE_NO_COOKIE, 1);
            return NULL;
        }
        bpf_map_update_elem(&conns_by_cookie, &cookie, &conn_zero, BPF_NOEXIST);
        return bpf_map_lookup_elem(&conns_by_cookie, &cookie);
    }
    return bpf_sk_storage_get(&conns, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
}

/* Socket storage goes with the socket. */
static __always_inline void conn_drop(struct conn *c)
{
    if (raw_sockets) {
        u64 cookie = c->cookie;
        bpf_map_delete_elem(&conns_by_cookie, &cookie);
        return;
    }
    c->cookie = 0;
    __sync_fetch_and_sub(&conn_states_live, 1);
}

static __always_inline u32 netns_of(struct sock *sk)
{
    return BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum);
}

/*
 * Role, when no state change told it: a socket whose local port has a listener was accepted from
 * it. Of any other one nothing is known here; user space may see who sends a request.
 */
static __always_inline void learn_role(struct conn *c, struct sock *sk)
{
    struct wire_listener key = {.netns = netns_of(sk)};
    if (!is_inet(sk))
        return;
    key.port = SOCK(sk, __sk_common.skc_num);
    if (!bpf_map_lookup_elem(&listeners, &key))
        return;
    c->listener_port = key.port;
    c->role = WIRE_ROLE_SERVER;
    c->learnt = WIRE_LEARNT_LISTENER;
}

static __always_inline void copy_address(u8 *out, struct sock *sk, u8 family, bool peer)
{
    if (family == AF_INET) {
        u32 a = peer ? SOCK(sk, __sk_common.skc_daddr) : SOCK(sk, __sk_common.skc_rcv_saddr);
        __builtin_memcpy(out, &a, 4);
    } else if (family == AF_INET6 && peer) {
        bpf_probe_read_kernel(out, 16, &sk->__sk_common.skc_v6_daddr);
    } else if (family == AF_INET6) {
        bpf_probe_read_kernel(out, 16, &sk->__sk_common.skc_v6_rcv_saddr);
    }
}

/* The mode of the endpoint's earlier connections, if user space has told it. */
static __always_inline void begin_as_others(struct conn *c, struct sock *sk)
{
    struct wire_endpoint key = {.role = c->role};
    struct wire_verdict *v;
    if (c->role == WIRE_ROLE_UNKNOWN || !is_inet(sk))
        return;
    key.netns = netns_of(sk);
    key.family = (u8)SOCK(sk, __sk_common.skc_family);
    if (c->role == WIRE_ROLE_SERVER) {
        key.port = SOCK(sk, __sk_common.skc_num);
    } else {
        key.port = bpf_ntohs(SOCK(sk, __sk_common.skc_dport));
        copy_address(key.peer, sk, key.family, true);
    }
    v = bpf_map_lookup_elem(&endpoints, &key);
    if (v)
        c->verdict = *v;
}

/*
 * Bytes of a direction that passed before this call's `moved`, by the socket's own counters. The
 * client's SYN is in its bytes_acked, a FIN in both: one byte more or less says nothing.
 */
static __always_inline bool had_bytes(struct tcp_sock *tp, u8 dir, u32 moved)
{
    u32 first, now;
    if (dir == WIRE_RECV) {
        first = SOCK(tp, rcv_nxt) - (u32)SOCK(tp, bytes_received);
        now = SOCK(tp, copied_seq);
    } else {
        first = SOCK(tp, snd_una) - (u32)SOCK(tp, bytes_acked);
        now = SOCK(tp, write_seq);
    }
    now -= first + moved;
    return now > 1 && now < 0xf0000000u;
}

/* NULL when memory is out. A socket met in mid-life is `joined`. */
static __always_inline struct conn *conn_new(struct sock *sk, u8 role, bool joined)
{
    struct conn *c = conn_make(sk);
    if (!c) {
        count(WIRE_NO_STATE, 1);
        return NULL;
    }
    if (c->cookie)
        return c;
    c->cookie = identity_of(sk);
    if (!raw_sockets)
        __sync_fetch_and_add(&conn_states_live, 1);
    c->role = role;
    c->joined = joined;
    if (role == WIRE_ROLE_UNKNOWN)
        learn_role(c, sk);
    else
        c->learnt = WIRE_LEARNT_STATE;
    begin_as_others(c, sk);
    return c;
}

/* Repeated at every event until one was delivered. */
static __always_inline bool announce(struct conn *c, struct sock *sk, u64 now)
{
    if (c->announced)
        return true;
    void *ring = ring_of(c->cookie);
    struct wire_open *r = ring ? bpf_ringbuf_reserve(ring, sizeof(*r), 0) : NULL;
    if (!r) {
        count(WIRE_LOST_RECORDS, 1);
        return false;
    }
    __builtin_memset(r, 0, sizeof(*r));
    fill_head(&r->h, WIRE_OPEN, sizeof(*r), now);
    r->cookie = c->cookie;
    r->cgroup = c->cgroup = cgroup_of_current();
    r->family = (u8)SOCK(sk, __sk_common.skc_family);
    r->role = c->role;
    r->joined = c->joined;
    r->learnt = c->learnt;
    /* Counting began at 0 with the state: what was lost before this record is a gap in positions.
     */
    if (r->family != AF_UNIX) {
        r->local_port = SOCK(sk, __sk_common.skc_num);
        r->peer_port = bpf_ntohs(SOCK(sk, __sk_common.skc_dport));
        copy_address(r->local, sk, r->family, false);
        copy_address(r->peer, sk, r->family, true);
    }
    r->listener_port = c->listener_port;
    r->netns = netns_of(sk);
    r->tgid = bpf_get_current_pid_tgid() >> 32;
    bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
    c->announced = 1;
    return true;
}

/* User space's decision, if it has come. */
static __always_inline void take_verdict(struct conn *c)
{
    struct wire_verdict *v = new_verdict(&c->cookie, &c->verdicts_seen);
    if (!v)
        return;
    if (c->opaque) { /* it is about the plaintext: SSL calls look there, the end of the socket
                        clears it */
        if (v->mode == WIRE_NOTHING)
            c->verdict.mode = WIRE_NOTHING;
        return;
    }
    struct wire_verdict *mine = &c->verdict;
    u16 head = mine->answer_head, length = mine->answer_length;
    *mine = *v;
    if (!mine->answer_head) { /* not known yet: as the endpoint's others */
        mine->answer_head = head;
        mine->answer_length = length;
    }
    bpf_map_delete_elem(&verdicts, &c->cookie);
}

#endif
