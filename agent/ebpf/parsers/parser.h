/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a protocol parser is.
 *
 * A parser belongs to one connection and reads both its directions, not as sent or received but as
 * request and response: the connection knows its role and names the flow. Bytes come as segments in
 * stream order, without gaps in position: what was not captured is a segment without bytes, and the
 * parser says whether it can prove what lies in there (a body) or has lost its place.
 *
 *      feed(request bytes) ... feed(response bytes) ─► PARSE_DONE ─► take() ─► exchange
 *
 * Parsers read hostile input as root: no recursion, bounded memory, every parser has a fuzz target,
 * and the same bytes cut in another way give the same exchanges.
 */
#ifndef AGENT_PARSER_H
#define AGENT_PARSER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/list.h"
#include "common/base/str.h"

enum flow { FLOW_REQUEST, FLOW_RESPONSE, FLOW_COUNT };

enum parse_result {
    /* Bytes up to *used are done with. Less than all: the rest waits for the other flow. */
    PARSE_NEED_MORE,
    PARSE_DONE,     /* an exchange is finished: take() it, then feed what is left of the segment */
    PARSE_NOT_MINE, /* another protocol, or no protocol any more (after an upgrade): end of parsing
                     */
    PARSE_BROKEN,   /* makes no sense; the place is lost, the parser looks for it in later calls */
};

enum segment_flag {
    SEGMENT_CALL_START = 1, /* its first byte was the first of one send or receive */
    SEGMENT_CALL_END = 2,   /* its last byte was the last of one */
    SEGMENT_LOST = 4,       /* a hole through loss, not one that we asked for */
    SEGMENT_FORCE = 8,      /* the other flow was waited for long enough: take it or lose it */
};

struct segment {
    const uint8_t *p; /* NULL: not captured */
    uint64_t len;
    uint64_t pos;       /* of its first byte in this flow */
    uint64_t other_pos; /* position of the other flow when this was sent or received */
    uint64_t first_ns;  /* monotonic; sends: when the first byte left, receives: as end_ns */
    uint64_t end_ns;    /* when the call was over */
    uint32_t tgid, tid;
    unsigned flags;
};

enum exchange_flag {
    EXCHANGE_REQUEST_DONE = 1,
    EXCHANGE_RESPONSE_BEGUN = 2, /* the response's head was read */
    EXCHANGE_RESPONSE_DONE = 4,
    EXCHANGE_CUT = 8,            /* the connection ended before the exchange did */
    EXCHANGE_INCOMPLETE = 16,    /* bytes that we did not see could have changed what it says */
    EXCHANGE_REQUEST_SIZE = 32,  /* request_body is known */
    EXCHANGE_RESPONSE_SIZE = 64, /* response_body is known */
};

/* A request with what answered it. A protocol's own struct begins with this one. */
struct exchange {
    struct list link;
    unsigned flags;
    uint32_t tgid, tid; /* of the call that brought the request's first byte */
    /* Monotonic. Of the first byte's call and of the last byte's; 0 = never seen. */
    uint64_t request_first_ns, request_end_ns;
    uint64_t response_first_ns, response_end_ns;
    uint64_t request_body, response_body; /* bytes, without framing */
    uint64_t min_response_pos; /* after a loss: what lies before it answers something else */
};

enum parser_depth {
    DEPTH_HEADS,      /* what holds a message's head */
    DEPTH_ALL,        /* more: heads are long, or do not begin calls (pipelining) */
    DEPTH_BEGINNINGS, /* a connection met in mid-life has shown no message for long: one may come */
};

/* Answers of one server are mostly alike: where the kernel can find what ends their bodies. */
struct answer_layout {
    uint16_t head;      /* its length; 0: not known */
    uint16_t length_at; /* where in it "\nContent-Length:" is */
};

struct parser {
    const char *name; /* network.protocol.name */
    size_t state_size;
    /*
     * Whether a connection's first request bytes are of this protocol. NEED_MORE: too few to tell;
     * DONE: yes; NOT_MINE: no.
     */
    enum parse_result (*detect)(struct str first);
    /* joined: the connection is older than our view of it, its first bytes may be anything. */
    void (*init)(void *state, bool joined);
    void (*fini)(void *state);
    enum parse_result (*feed)(void *state, enum flow flow, const struct segment *s, uint64_t *used);
    /* The oldest finished exchange, the caller's from here on (exchange_free), or NULL. */
    struct exchange *(*take)(void *state);
    /* The connection is over: what is under way becomes finished exchanges. */
    void (*end)(void *state);
    /* From time to time: gives up waiting for what may never come. */
    void (*tick)(void *state, uint64_t now_ns);
    /* How much of each call it needs from here on. */
    enum parser_depth (*depth)(const void *state);
    /* Of the last answer with a body of a length that its head says. */
    struct answer_layout (*layout)(const void *state);
    void (*exchange_free)(struct exchange *x);
};

#define PARSER(id) extern const struct parser parser_##id;
#include "agent/ebpf/parsers/parsers.def"
#undef PARSER

/* All parsers, NULL-ended, in the order in which they are asked. */
extern const struct parser *const parsers[];

#endif
