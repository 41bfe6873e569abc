/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The contract between kernel and user space: records in the rings, keys and values of maps. Every
 * struct has explicit padding and a size that both sides assert. Times are CLOCK_MONOTONIC in ns.
 */
#ifndef TAILRACE_WIRE_H
#define TAILRACE_WIRE_H

#ifndef __bpf__
#include <stdint.h>
typedef uint8_t wire_u8;
typedef uint16_t wire_u16;
typedef uint32_t wire_u32;
typedef uint64_t wire_u64;
#else
typedef unsigned char wire_u8;
typedef unsigned short wire_u16;
typedef unsigned int wire_u32;
typedef unsigned long long wire_u64;
#endif

#define WIRE_ASSERT(type, n) _Static_assert(sizeof(struct type) == (n), #type)

enum wire_record {
    WIRE_OPEN = 1,
    WIRE_DATA,
    WIRE_CLOSE,
    WIRE_EXEC,
    WIRE_FORK,
    WIRE_EXIT,
    WIRE_LISTENS, /* the process listens on a selected port */
    WIRE_MAPPED,  /* the process maps memory; once until it is taken off the map `mapping` */
};

enum wire_role { WIRE_ROLE_UNKNOWN, WIRE_ROLE_CLIENT, WIRE_ROLE_SERVER };
/* What a role was learnt from. */
enum wire_learnt { WIRE_LEARNT_NOT, WIRE_LEARNT_STATE, WIRE_LEARNT_LISTENER };
enum wire_dir { WIRE_SEND, WIRE_RECV };
enum wire_layer { WIRE_LAYER_SOCKET, WIRE_LAYER_TLS };

/* Cookies of probes in TLS libraries: which call it is, and where its count of bytes is put. */
enum wire_ssl {
    WIRE_SSL_SEND,
    WIRE_SSL_RECV,
    WIRE_SSL_HANDSHAKE,
    WIRE_SSL_SENDFILE,
    WIRE_SSL_FREE,
    WIRE_SSL_TEST, /* of ourselves, whether probes work: its argument becomes a key of ssl_states */
    WIRE_SSL_CALL = 0xff,
    WIRE_SSL_EX = 0x100,  /* behind the 4th argument; else the result is the count */
    WIRE_SSL_EX2 = 0x200, /* behind the 5th */
};

/* Key of what is known of an SSL object. */
struct wire_ssl_key {
    wire_u64 ssl;
    wire_u32 tgid, pad;
};
WIRE_ASSERT(wire_ssl_key, 16);

/* Why bytes of a record have no content. */
enum wire_hole {
    WIRE_HOLE_NONE,      /* not asked for */
    WIRE_HOLE_NO_BUFFER, /* no user buffer could be told: sendfile, io_uring, kernel threads */
    WIRE_HOLE_FAULT,     /* the buffer could not be read */
    WIRE_HOLE_TRUNCATED, /* MSG_TRUNC */
    WIRE_HOLE_LIMIT,     /* undecided for too long, the ring nearly full, or no scratch free */
};

/* What is captured of a connection's bytes. */
enum wire_mode { WIRE_UNDECIDED, WIRE_BYTES, WIRE_LENGTHS, WIRE_NOTHING };

#define WIRE_UNDECIDED_BYTES (64u << 10) /* of a direction, while nobody has decided */
#define WIRE_UNDECIDED_HEAD                                                                        \
    4096u /* after that: of each call, so that no message is missed meanwhile */
#define WIRE_TLS_RECORD_MAX (5u + 16384 + 2048) /* RFC 5246 6.2.3 */
#define WIRE_RINGS 8                            /* at most */
#define WIRE_SCRATCHES 2u                       /* for each CPU */
#define WIRE_HEAD_MAX 16384u
#define WIRE_TAIL_MAX 16u
#define WIRE_SHED_HEAD 1024u /* of each call, while a ring is nearly full */
#define WIRE_ARGV 256
#define WIRE_PATH 256

/* In front of every record. */
struct wire_head {
    wire_u16 type, cpu;
    wire_u32 len; /* of the record with this head */
    wire_u64 time_ns;
};
WIRE_ASSERT(wire_head, 16);

/* A connection, before its first data record that was delivered. */
struct wire_open {
    struct wire_head h;
    wire_u64 cookie, cgroup;
    wire_u64 first_pos[2];
    wire_u8 local[16], peer[16];
    wire_u16 local_port, peer_port, listener_port;
    wire_u8 family, role;
    wire_u32 netns, tgid;
    wire_u8 joined, learnt, pad[6];
};
WIRE_ASSERT(wire_open, 104);

struct wire_data {
    struct wire_head h; /* time: when the call was over */
    wire_u64 cookie, ssl;
    wire_u64 first_ns;
    wire_u64 pos, other_pos; /* of the first byte; of the other direction now */
    wire_u32 bytes;          /* of the stream */
    wire_u32 head, tail;     /* that follow */
    wire_u32 tgid, tid, generation;
    wire_u8 layer, dir, hole, lost_before;
    wire_u8 opaque, pad[3]; /* opaque: ciphertext, of which the beginning at most is there */
};
WIRE_ASSERT(wire_data, 88);

struct wire_close {
    struct wire_head h;
    wire_u64 cookie;
    wire_u64 pos[2];
};
WIRE_ASSERT(wire_close, 40);

/* An executable, as far as it can be told at exec: another name may be selected where this is not.
 */
struct wire_executable {
    wire_u64 inode;
    wire_u32 dev, name_hash;
};
WIRE_ASSERT(wire_executable, 16);

struct wire_exec {
    struct wire_head h;
    wire_u64 start_ns, cgroup;
    struct wire_executable exe;
    wire_u32 tgid, parent, argv_len, path_len;
    char path[WIRE_PATH];
    char argv[WIRE_ARGV];
};
WIRE_ASSERT(wire_exec, 64 + WIRE_PATH + WIRE_ARGV);

/*
 * What is known of all processes whose numbers end alike, so that most events of others are told
 * without a lookup.
 */
#define WIRE_ENDS 4096u

/* Values of the map of observed processes. */
enum wire_selected {
    WIRE_SELECTED = 1,
    WIRE_SELECTED_UNJUDGED, /* by an executable that nobody has judged */
    WIRE_SELECTED_FOR_GOOD, /* by port or number: whatever it executes */
};

struct wire_process { /* fork, exit, listens, mapped */
    struct wire_head h;
    wire_u64 cgroup;
    wire_u32 tgid, parent; /* listens: the port in place of the parent */
};
WIRE_ASSERT(wire_process, 32);

/* Value of the verdict map, by cookie. */
struct wire_verdict {
    wire_u32 mode; /* enum wire_mode */
    wire_u32 head[2], tail[2];
    wire_u32 layer; /* what was judged */
    /*
     * Answers, where they have a tail: how long the head is (0: as it is, 0xffff: anything), and
     * where "\nContent-Length:" is in it.
     */
    wire_u16 answer_head, answer_length;
};
WIRE_ASSERT(wire_verdict, 28);

/* New connections of the same endpoint begin with this verdict: key of the second map. */
struct wire_endpoint {
    wire_u8 peer[16]; /* clients: whom they connect to; servers: zeroes */
    wire_u32 netns;
    wire_u16 port; /* the peer's; servers: the one they listen on */
    wire_u8 role, family;
};
WIRE_ASSERT(wire_endpoint, 24);

struct wire_listener { /* key: who listens where */
    wire_u32 netns;
    wire_u16 port, pad;
};
WIRE_ASSERT(wire_listener, 8);

/* What the iterator over open files tells: a process that holds a listener on a selected port. */
struct wire_holder {
    wire_u32 tgid;
    wire_u16 port, pad;
};
WIRE_ASSERT(wire_holder, 8);

/* What is counted of TCP by cgroup. */
enum wire_failure {
    WIRE_FAILED_REFUSED,
    WIRE_FAILED_TIMED_OUT,
    WIRE_FAILED_UNREACHABLE,
    WIRE_FAILED_RESET,
    WIRE_FAILED_CANCELED, /* the program gave up: its own time limit, or another address was faster
                           */
    WIRE_FAILED_OTHER,
    WIRE_FAILURES,
};
enum wire_observed { WIRE_CONNECT, WIRE_RTT, WIRE_HISTOGRAMS };
/* Bucket i holds (2^((i + OFFSET) / 4), 2^((i + OFFSET + 1) / 4)] seconds: 0.24 us to 17 minutes.
 */
enum wire_histogram_shape { WIRE_SCALE = 2, WIRE_OFFSET = -88, WIRE_BUCKETS = 128 };

struct wire_histogram {
    wire_u64 sum_ns;
    wire_u64 zeros; /* less than bucket 0 holds */
    wire_u64 buckets[WIRE_BUCKETS];
};
WIRE_ASSERT(wire_histogram, 16 + 8 * 128);

struct wire_tcp {
    wire_u64 failures[WIRE_FAILURES];
    wire_u64 retransmits;
    struct wire_histogram histograms[WIRE_HISTOGRAMS];
};
WIRE_ASSERT(wire_tcp, 56 + 2 * (16 + 8 * 128));

/* Counters of the kernel side, one array entry each, per CPU. */
enum wire_counter {
    WIRE_LOST_RECORDS,
    WIRE_LOST_BYTES,   /* stream bytes of records that the ring had no room for */
    WIRE_LOST_CONTROL, /* process records */
    WIRE_NO_COOKIE,    /* events of sockets without identity */
    WIRE_NO_STATE,     /* connection state could not be made */
    WIRE_PASSED_SEND,
    WIRE_PASSED_RECV,  /* stream bytes of observed connections */
    WIRE_CGROUPS_FULL, /* what was not counted by cgroup: the table has no room for another one */
    WIRE_SCHED_UNSEEN, /* a task began to run, and since when it had waited was not known */
    WIRE_UNTOLD_BYTES, /* plaintext met in mid-life, before it was known whose it is */
    WIRE_COUNTERS,
};

#endif
