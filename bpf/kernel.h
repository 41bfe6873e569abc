/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The few kernel types and fields that are used, relocated at load (CO-RE): a build needs no
 * running kernel's BTF. Order and missing fields do not matter.
 */
#ifndef TAILRACE_KERNEL_H
#define TAILRACE_KERNEL_H

#define __VMLINUX_H__ /* bpf_tracing.h: pt_regs with the kernel's names */

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u64 __be64;
typedef __u16 __sum16;
typedef __u32 __wsum;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

enum bpf_map_type {
    BPF_MAP_TYPE_HASH = 1,
    BPF_MAP_TYPE_ARRAY = 2,
    BPF_MAP_TYPE_PERCPU_ARRAY = 6,
    BPF_MAP_TYPE_LRU_HASH = 9,
    BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
    BPF_MAP_TYPE_SK_STORAGE = 24,
    BPF_MAP_TYPE_RINGBUF = 27,
    BPF_MAP_TYPE_TASK_STORAGE = 29,
};
enum { BPF_ANY = 0, BPF_NOEXIST = 1, BPF_EXIST = 2 };
enum { BPF_F_NO_PREALLOC = 1, BPF_F_CLONE = 512 };
enum { BPF_SK_STORAGE_GET_F_CREATE = 1, BPF_LOCAL_STORAGE_GET_F_CREATE = 1 };
enum cgroup_subsys_id { cpu_cgrp_id = 1 }; /* relocated */
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2, BPF_RB_AVAIL_DATA = 0 };

enum { AF_UNIX = 1, AF_INET = 2, AF_INET6 = 10 };
enum { SOCK_STREAM = 1, IPPROTO_TCP = 6, IPPROTO_MPTCP = 262, RCV_SHUTDOWN = 1 };
enum { TCP_ESTABLISHED = 1, TCP_SYN_SENT = 2, TCP_SYN_RECV = 3, TCP_CLOSE = 7, TCP_LISTEN = 10 };
enum { MSG_OOB = 1, MSG_PEEK = 2, MSG_TRUNC = 0x20, MSG_ERRQUEUE = 0x2000 };
enum { PF_IO_WORKER = 0x10, PF_KTHREAD = 0x00200000, PF_USER_WORKER = 0x00004000 };
enum { MAP_ANONYMOUS = 0x20 };
#define ENOSYS 38

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct in6_addr {
    union {
        u8 u6_addr8[16];
    } in6_u;
};

struct ns_common {
    unsigned int inum;
};
struct net {
    struct ns_common ns;
};
typedef struct {
    struct net *net;
} possible_net_t;
typedef struct {
    s64 counter;
} atomic64_t;

struct sock_common {
    __be32 skc_daddr, skc_rcv_saddr;
    __be16 skc_dport;
    __u16 skc_num;
    unsigned short skc_family;
    volatile unsigned char skc_state;
    possible_net_t skc_net;
    struct in6_addr skc_v6_daddr, skc_v6_rcv_saddr;
    atomic64_t skc_cookie;
};
struct sock {
    struct sock_common __sk_common;
    u16 sk_protocol, sk_type;
    int sk_err;
    struct socket *sk_socket;
    u8 sk_shutdown;
};
struct inet_connection_sock {
    const void *icsk_ulp_ops;
};
struct tcp_sock {
    struct inet_connection_sock inet_conn;
    u32 copied_seq, write_seq, rcv_nxt, snd_una, snd_nxt;
    u64 bytes_received, bytes_acked, first_tx_mstamp, tcp_clock_cache;
    u32 srtt_us;
};
struct list_head {
    struct list_head *next;
};
struct socket {
    struct file *file;
    struct sock *sk;
};
struct sk_buff {
    char cb[48];
};
struct tcp_skb_cb {
    u16 tcp_gso_segs;
};

struct super_block {
    u32 s_dev;
};
struct inode {
    u64 i_ino;
    u16 i_mode;
    struct super_block *i_sb;
};
struct file {
    struct inode *f_inode;
    void *private_data;
};
struct fdtable {
    unsigned int max_fds;
    struct file **fd;
};
struct files_struct {
    struct fdtable *fdt;
};
struct mm_struct {
    unsigned long arg_start, arg_end;
    struct file *exe_file;
};
struct kernfs_node {
    u64 id;
};
struct cgroup_root;
struct cgroup {
    struct kernfs_node *kn;
    struct cgroup_root *root;
};
struct cgroup_subsys_state {
    struct cgroup *cgroup;
};
struct css_set {
    struct cgroup_subsys_state *subsys[1];
    struct cgroup *dfl_cgrp;
};
struct sched_entity {
    unsigned char sched_delayed;
};
struct task_struct {
    unsigned int flags;
    int pid, tgid, on_rq;
    struct sched_entity se;
    struct css_set *cgroups;
    struct task_struct *real_parent;
    struct mm_struct *mm;
    struct files_struct *files;
    u64 start_time;
};
struct linux_binprm {
    const char *filename;
};
struct bpf_iter__task {
    struct task_struct *task;
};
struct seq_file;
struct bpf_iter_meta {
    struct seq_file *seq;
};
struct bpf_iter__task_file {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
    struct file *file;
};
struct bpf_iter__bpf_sk_storage_map {
    struct bpf_iter_meta *meta;
    void *value;
};

struct pt_regs {
    unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs,
        flags, sp, ss;
};

#pragma clang attribute pop

/* User space, not relocated. */
struct user_iovec {
    u64 base, len;
};
struct user_msghdr {
    u64 name;
    u32 namelen, pad;
    u64 iov, iovlen;
};
struct user_mmsghdr {
    struct user_msghdr hdr;
    u64 control, controllen;
    u32 flags, pad;
    u32 len, pad2;
};

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

/* Since 6.2, else NULL. */
void *bpf_rdonly_cast(const void *at, u32 btf_id) __ksym __weak;

/* A pointer in the kernel's memory; read as a type's first member it costs no call. */
static __always_inline void *load_pointer(const void *at)
{
    void *p = NULL;
    if (bpf_rdonly_cast) {
        struct list_head *l = bpf_rdonly_cast(at, bpf_core_type_id_kernel(struct list_head));
        return l->next;
    }
    bpf_probe_read_kernel(&p, sizeof(p), at);
    return p;
}

#endif
