/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/* All maps and knobs. */
#ifndef TAILRACE_MAPS_H
#define TAILRACE_MAPS_H

#include "bpf/kernel.h"
#include "bpf/wire.h"

/* Set before loading. */
const volatile unsigned int self_tgid = 0;       /* never observed */
const volatile unsigned char select_all = 0;     /* every process */
const volatile unsigned char select_unknown = 0; /* executables nobody has judged yet: captured */
const volatile unsigned long long wake_bytes = 2 << 20; /* ring fill that wakes the reader */
const volatile unsigned char has_tls = 0;               /* plaintext of TLS libraries is observed */
const volatile unsigned int n_rings = 1;
const volatile unsigned long long ring_bytes = 8 << 20;
const volatile unsigned char raw_sockets = 0; /* tier kprobe: a socket is a bare address there */

/* State of a connection, charged to the socket. */
struct conn {
    u64 cookie;
    u64 pos[2];      /* stream position behind the last event, by direction */
    u64 end_ns[2];   /* time of the last event */
    u64 connect_ns;  /* when connect() began, until it has ended */
    u64 cgroup;      /* 0 unknown */
    u32 seq[2];      /* TCP sequence that pos stands for */
    u32 captured[2]; /* while undecided */
    struct wire_verdict verdict;
    u8 role, announced, joined, opaque; /* opaque: TLS, ciphertext stays here */
    u8 has_seq[2], lost[2]; /* lost: a record of this direction did not fit into the ring */
    u16 listener_port;
    u8 learnt, pad;    /* what the role was learnt from */
    u32 verdicts_seen; /* see new_verdict() */
};
_Static_assert(sizeof(struct conn) <= 128, "socket storage");

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct conn);
} conns SEC(".maps");

unsigned long long own_cookies = 0;      /* given to sockets whose own are not theirs alone */
unsigned long long conn_states_live = 0; /* storage is no map memory that anybody else counts */

/* The same for programs that may not use socket storage; in other tiers it has one entry. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 32768);
    __type(key, u64);
    __type(value, struct conn);
} conns_by_cookie SEC(".maps");

/* Processes that are observed: enum wire_selected. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, u32);
    __type(value, u8);
} selected SEC(".maps");

/* Processes that have mapped memory since user space looked at what they have mapped. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 8192);
    __type(key, u32);
    __type(value, u8);
} mapping SEC(".maps");

/* Ports whose listeners make their process selected. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1024);
    __type(key, u16);
    __type(value, u8);
} ports SEC(".maps");

/* Executables: 1 = observe, 0 = do not. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 4096);
    __type(key, struct wire_executable);
    __type(value, u8);
} executables SEC(".maps");

/* Who listens where: number of sockets. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 16384);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct wire_listener);
    __type(value, u32);
} listeners SEC(".maps");

/* Listening sockets by cookie, so that each is counted once, whoever tells of it. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 16384);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, u64);
    __type(value, struct wire_listener);
} listening SEC(".maps");

/* Stream sockets older than the programs whose own counters cannot tell that: MPTCP and UNIX. By
 * socket: children of an MPTCP listener share its cookie. */
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, u8);
} older SEC(".maps");

/* With what a new connection begins. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, 4096);
    __type(key, struct wire_endpoint);
    __type(value, struct wire_verdict);
} endpoints SEC(".maps");

/* What user space has decided; an entry is moved into the connection at its next event. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __type(key, u64);
    __type(value, struct wire_verdict);
} verdicts SEC(".maps");

/* All records of a connection go to one ring. Made at load, n_rings of them. */
struct data_ring {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 16);
};
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, WIRE_RINGS);
    __type(key, u32);
    __array(values, struct data_ring);
} data_rings SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 20);
} control_ring SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, WIRE_COUNTERS);
    __type(key, u32);
    __type(value, u64);
} counters SEC(".maps");

/*
 * Where a record is put together. WIRE_SCRATCHES for each CPU, set before loading; one is taken and
 * given back, since a program may be preempted by another one.
 */
struct scratch {
    u32 is_taken, pad;
    struct wire_data d;
    u8 bytes[2 * WIRE_HEAD_MAX + WIRE_TAIL_MAX]; /* twice: see iov_step() */
};
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, WIRE_SCRATCHES);
    __type(key, u32);
    __type(value, struct scratch);
} scratches SEC(".maps");

static __always_inline struct scratch *scratch_take(void)
{
    u32 first = bpf_get_smp_processor_id() * WIRE_SCRATCHES;
    for (u32 i = 0; i < WIRE_SCRATCHES; i++) {
        u32 key = first + i;
        struct scratch *s = bpf_map_lookup_elem(&scratches, &key);
        if (s && !__sync_lock_test_and_set(&s->is_taken, 1))
            return s;
    }
    return NULL;
}

/* On the same CPU, so that a store will do. */
static __always_inline void scratch_give(struct scratch *s)
{
    barrier();
    *(volatile u32 *)&s->is_taken = 0;
}

#define LETTERS 0x2020202020202020ULL /* what makes them small ones, and leaves '-' and ':' */
#define BODY_WORTH 128u               /* less costs no more than to find out */

static __always_inline u64 load8(const u8 *p)
{
    return *(const u64 *)p;
}

static __always_inline u32 load4(const u8 *p)
{
    return *(const u32 *)p;
}

/*
 * Where the body begins, if the first n bytes of r are an answer that is laid out as the one
 * before, says 200, and has a Content-Length that reaches at least to the end of its call of len
 * bytes: then all behind the head is body and of no use. Else 0. layout: a verdict's answer_head,
 * and its answer_length 16 bits up. A function of its own is verified once, and not on each way to
 * it.
 */
__attribute__((noinline)) u32 body_begins(const struct scratch *r, u32 n, u32 len, u32 layout)
{
    u32 head = layout & 0xffff, at = layout >> 16;
    u64 length = 0;
    if (!r || head > n || at + 21 > head || len - head < BODY_WORTH)
        return 0;
    const u8 *p = r->bytes;
    asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(head) : "i"(WIRE_HEAD_MAX));
    asm volatile("if %0 < %1 goto +1; %0 = %1;" : "+r"(at) : "i"(WIRE_HEAD_MAX));
    if (load8(p) != load8((const u8 *)"HTTP/1.1") || load4(p + 8) != load4((const u8 *)" 200") ||
        load4(p + head - 4) != load4((const u8 *)"\r\n\r\n") ||
        (load8(p + at) | (LETTERS & ~0xffULL)) != load8((const u8 *)"\ncontent") ||
        (load8(p + at + 8) | LETTERS) != load8((const u8 *)"-length:"))
        return 0;
    at += 16 + (p[at + 16] == ' ');
    for (u32 i = 0; i < 12; i++) {
        u32 digit = p[at + i] - '0';
        if (digit > 9)
            break;
        length = length * 10 + digit;
        asm volatile("" : "+r"(length)); /* any number, so that paths join */
    }
    return length >= len - head ? head : 0;
}

static __always_inline u32 layout_of(const struct wire_verdict *v)
{
    return v->answer_head | (u32)v->answer_length << 16;
}

/* By cookie and never by CPU: the order of a connection's records is the ring's. */
static __always_inline void *ring_of(u64 cookie)
{
    u32 i = (u32)(((cookie * 0x9e3779b97f4a7c15ULL) >> 32) * n_rings >> 32);
    return bpf_map_lookup_elem(&data_rings, &i);
}

static __always_inline void count(u32 which, u64 n)
{
    u64 *v = bpf_map_lookup_elem(&counters, &which);
    if (v)
        *v += n;
}

/* How often user space has written to the map of verdicts. */
unsigned int verdicts_written = 0;

/* What was decided of that cookie; NULL where nothing was written since *seen, as at most events.
 */
static __always_inline struct wire_verdict *new_verdict(const u64 *cookie, u32 *seen)
{
    u32 written = *(volatile unsigned int *)&verdicts_written;
    if (written == *seen)
        return NULL;
    *seen = written;
    return bpf_map_lookup_elem(&verdicts, cookie);
}

/* Probes have to come into processes: what can lead to it does not wait. Written by user space. */
unsigned char probes_follow = 0;
/* When the reader was last woken, for a record that has no time to wait or since the ring fills. */
unsigned long long woken_ns = 0;

/*
 * Flags for a record that should not wait for the next drain; at most 1,000 of them a second, since
 * each is an interrupt, and the reader takes whatever came meanwhile.
 */
static __always_inline u64 wake_soon(u64 now)
{
    if ((s64)(now - woken_ns) < 1000000) /* stamps of several CPUs: it may be before */
        return BPF_RB_NO_WAKEUP;
    woken_ns = now;
    return BPF_RB_FORCE_WAKEUP;
}

static __always_inline u64 wake_if_much(u64 waiting, u64 now)
{
    return waiting >= wake_bytes ? wake_soon(now) : BPF_RB_NO_WAKEUP;
}

/* Heads become shorter before whole records are lost. */
static __always_inline bool is_nearly_full(u64 waiting)
{
    return waiting >= ring_bytes / 4 * 3;
}

/* What `selected` has by the numbers' ends, so that most events need no lookup. */
unsigned int selected_ends[WIRE_ENDS]; /* how many, at least: they are counted before */
unsigned int selected_last[WIRE_ENDS]; /* which one was selected last, or 0 */

static __always_inline bool is_selected(u32 tgid)
{
    if (tgid == self_tgid || (!select_all && !selected_ends[tgid % WIRE_ENDS]))
        return false;
    if (tgid && selected_last[tgid % WIRE_ENDS] == tgid)
        return true;
    return select_all || bpf_map_lookup_elem(&selected, &tgid);
}

static __always_inline void select(u32 tgid, u8 how)
{
    u32 *n = &selected_ends[tgid % WIRE_ENDS], *last = &selected_last[tgid % WIRE_ENDS];
    __sync_fetch_and_add(n, 1);
    if (bpf_map_update_elem(&selected, &tgid, &how, BPF_NOEXIST) &&
        /* It was there; unless it has gone meanwhile. */
        (bpf_map_update_elem(&selected, &tgid, &how, BPF_EXIST) == 0 ||
         bpf_map_update_elem(&selected, &tgid, &how, BPF_NOEXIST)))
        __sync_fetch_and_sub(n, 1);
    *(volatile u32 *)last = tgid;
    if (!bpf_map_lookup_elem(&selected, &tgid)) /* deselected meanwhile, which did not see it */
        __sync_val_compare_and_swap(last, tgid, 0);
}

static __always_inline void deselect(u32 tgid)
{
    if (bpf_map_delete_elem(&selected, &tgid) == 0)
        __sync_fetch_and_sub(&selected_ends[tgid % WIRE_ENDS], 1);
    __sync_val_compare_and_swap(&selected_last[tgid % WIRE_ENDS], tgid, 0);
}

#endif
