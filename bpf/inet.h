/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Stream bytes where sock_send_length and sock_recv_length are missing (before 6.3): the functions
 * that all socket calls of IPv4 and IPv6 pass through, at their end. Why these: the functions of
 * TCP below them see neither kTLS nor MPTCP; the ones above are inlined.
 *
 * Tier fexit has the typed socket. Tier kprobe has addresses, notes the arguments at entry and
 * takes them up at the return. The body is that of the tracepoints (sock.h), once for both.
 */
#ifndef TAILRACE_INET_H
#define TAILRACE_INET_H

#include "bpf/sock.h"

/* Not inlined: twelve programs use it, and the object has it once. */
static __noinline int inet_bytes(struct sock *sk, int ret, int flags, u8 dir)
{
    return on_bytes(sk, ret, flags, dir);
}

/* ---- tier fexit: since 5.5 ---- */

SEC("fexit/inet_sendmsg")
int BPF_PROG(tr_fexit_send, struct socket *sock, void *msg, u64 size, int ret)
{
    return inet_bytes(sock->sk, ret, 0, WIRE_SEND);
}

SEC("fexit/inet6_sendmsg")
int BPF_PROG(tr_fexit_send6, struct socket *sock, void *msg, u64 size, int ret)
{
    return inet_bytes(sock->sk, ret, 0, WIRE_SEND);
}

SEC("fexit/inet_recvmsg")
int BPF_PROG(tr_fexit_recv, struct socket *sock, void *msg, u64 size, int flags, int ret)
{
    return inet_bytes(sock->sk, ret, flags, WIRE_RECV);
}

SEC("fexit/inet6_recvmsg")
int BPF_PROG(tr_fexit_recv6, struct socket *sock, void *msg, u64 size, int flags, int ret)
{
    return inet_bytes(sock->sk, ret, flags, WIRE_RECV);
}

/* sendfile until 6.4, both families; after that it is inet_sendmsg. There is no buffer: a hole. */
SEC("fexit/inet_sendpage")
int BPF_PROG(tr_fexit_page, struct socket *sock, void *page, int offset, u64 size, int flags,
             s64 ret)
{
    return inet_bytes(sock->sk, (int)ret, 0, WIRE_SEND);
}

/* ---- tier kprobe ---- */

struct inet_call {
    u64 sk;
    u32 flags, pad;
};

/* Calls under way, by thread. LRU: a return that was missed leaves its entry behind. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 16384);
    __type(key, u64);
    __type(value, struct inet_call);
} inet_calls SEC(".maps");

static __always_inline int inet_enter(struct pt_regs *ctx, u32 flags)
{
    u64 id = bpf_get_current_pid_tgid();
    struct inet_call call = {.flags = flags};
    if (!is_selected((u32)(id >> 32)))
        return 0;
    struct socket *sock = (struct socket *)ctx->di;
    call.sk = (u64)BPF_CORE_READ(sock, sk);
    if (bpf_map_update_elem(&inet_calls, &id, &call, BPF_ANY))
        count(WIRE_NO_STATE, 1); /* the next event's position tells how much this one moved */
    return 0;
}

static __always_inline int inet_leave(struct pt_regs *ctx, u8 dir)
{
    u64 id = bpf_get_current_pid_tgid();
    struct inet_call *found = bpf_map_lookup_elem(&inet_calls, &id), call;
    if (!found)
        return 0;
    call = *found;
    bpf_map_delete_elem(&inet_calls, &id);
    return inet_bytes((struct sock *)call.sk, (int)ctx->ax, (int)call.flags, dir);
}

SEC("kprobe/inet_sendmsg")
int BPF_KPROBE(tr_kprobe_send)
{
    return inet_enter(ctx, 0);
}

SEC("kprobe/inet6_sendmsg")
int BPF_KPROBE(tr_kprobe_send6)
{
    return inet_enter(ctx, 0);
}

SEC("kprobe/inet_recvmsg")
int BPF_KPROBE(tr_kprobe_recv)
{
    return inet_enter(ctx, (u32)ctx->cx);
}

SEC("kprobe/inet6_recvmsg")
int BPF_KPROBE(tr_kprobe_recv6)
{
    return inet_enter(ctx, (u32)ctx->cx);
}

SEC("kprobe/inet_sendpage")
int BPF_KPROBE(tr_kprobe_page)
{
    return inet_enter(ctx, 0);
}

SEC("kretprobe/inet_sendmsg")
int BPF_KPROBE(tr_kreturn_send)
{
    return inet_leave(ctx, WIRE_SEND);
}

SEC("kretprobe/inet6_sendmsg")
int BPF_KPROBE(tr_kreturn_send6)
{
    return inet_leave(ctx, WIRE_SEND);
}

SEC("kretprobe/inet_recvmsg")
int BPF_KPROBE(tr_kreturn_recv)
{
    return inet_leave(ctx, WIRE_RECV);
}

SEC("kretprobe/inet6_recvmsg")
int BPF_KPROBE(tr_kreturn_recv6)
{
    return inet_leave(ctx, WIRE_RECV);
}

SEC("kretprobe/inet_sendpage")
int BPF_KPROBE(tr_kreturn_page)
{
    return inet_leave(ctx, WIRE_SEND);
}

#endif
