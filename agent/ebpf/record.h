/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel tells, as user space wants it: the records of bpf/wire.h with pointers set and
 * times in one unit. wire_read.c is the only place that knows both. Strings and bytes point into
 * the ring and live until the callback returns.
 */
#ifndef AGENT_RECORD_H
#define AGENT_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/str.h"

enum role { ROLE_UNKNOWN, ROLE_CLIENT, ROLE_SERVER };
/* What a connection's role was learnt from. */
enum learnt {
    LEARNT_NOT,      /* unknown, until somebody is seen to send a request */
    LEARNT_STATE,    /* it was seen to connect */
    LEARNT_LISTENER, /* there is a listener on its local port */
};
enum direction { DIR_SEND, DIR_RECEIVE, DIR_COUNT };
enum layer { LAYER_SOCKET, LAYER_TLS, LAYER_COUNT };

/* Why stream bytes have no content here. The first is none: the verdict did not ask for them. */
enum hole {
    HOLE_NONE,
    HOLE_RING_FULL, /* the ring had no room */
    HOLE_NO_BUFFER, /* sendfile, splice, io_uring, kernel threads: no user buffer to read */
    HOLE_FAULT,     /* the buffer could not be read */
    HOLE_TRUNCATED, /* MSG_TRUNC */
    HOLE_UNSEEN,    /* the socket's own counters moved without an event */
    HOLE_LIMIT,     /* undecided for too long, or the ring was nearly full */
    HOLE_NO_OPEN,   /* data of a connection that was never announced */
    HOLE_NO_MEMORY, /* here */
    HOLE_COUNT,
};
extern const char *const hole_names[HOLE_COUNT];

/* An address and port; IPv4 in the first four bytes. */
struct endpoint {
    uint8_t address[16];
    uint16_t port; /* host order */
};

struct open_record {
    uint64_t cookie, time_ns, cgroup;
    uint8_t family; /* AF_INET, AF_INET6, AF_UNIX */
    uint8_t learnt; /* enum learnt: what the role was */
    enum role role;
    struct endpoint local, peer;
    uint32_t netns, tgid;
    uint16_t listener_port;        /* servers: what the role was learnt from; 0 unknown */
    bool joined;                   /* it was there before us: its first bytes are no beginning */
    uint64_t first_pos[DIR_COUNT]; /* where our counting began */
};

struct data_record {
    uint64_t cookie; /* 0: TLS plaintext of a connection that could not be told */
    uint64_t ssl;    /* TLS: the library's object, identity while the cookie is 0 */
    uint64_t first_ns, end_ns;
    uint64_t pos, other_pos;
    uint32_t len, head, tail; /* bytes of the stream; captured from its beginning, from its end */
    const uint8_t *bytes;     /* head, then tail */
    uint32_t tgid, tid;
    uint32_t generation; /* TLS: a new one begins a new pair of streams */
    enum layer layer;
    enum direction dir;
    enum hole hole;   /* of what is neither head nor tail */
    bool lost_before; /* records of this direction were lost before this one: pos tells how much */
};

struct close_record {
    uint64_t cookie, time_ns;
    uint64_t pos[DIR_COUNT]; /* final positions of the socket layer */
    bool has_pos;
};

struct exec_record {
    uint32_t tgid, parent;
    uint64_t time_ns, start_ns; /* start_ns: of the process, monotonic */
    uint64_t cgroup;
    uint64_t inode;
    struct str path; /* as exec was asked */
    struct str argv; /* NUL-separated, cut at 256 bytes */
};

struct fork_record {
    uint32_t tgid, parent;
    uint64_t time_ns, cgroup;
};

struct exit_record {
    uint32_t tgid;
    uint64_t time_ns;
};

/* What the kernel is to do with a connection's bytes. */
enum capture_mode { CAPTURE_UNDECIDED, CAPTURE_BYTES, CAPTURE_LENGTHS, CAPTURE_NOTHING };
struct capture_verdict {
    uint64_t cookie;
    enum capture_mode mode;
    enum layer layer;                          /* that was judged */
    uint32_t head[DIR_COUNT], tail[DIR_COUNT]; /* bytes of each call */
    /* struct answer_layout; a head of UINT16_MAX is none, of 0: as it is */
    uint16_t answer_head, answer_length;
    /* Whose further connections should begin with this verdict; ROLE_UNKNOWN: nobody's. */
    enum role role;
    uint8_t family;
    uint32_t netns;
    struct endpoint server; /* what listens: local for servers, the peer for clients */
};

#endif
