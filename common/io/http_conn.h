/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the HTTP server: what http_server.c, http1_server.c and h2_server.c share. */
#ifndef IO_HTTP_CONN_H
#define IO_HTTP_CONN_H

#include "common/base/list.h"
#include "common/io/http_server.h"
#include "common/io/stream.h"

#define HTTP_CONN_MAGIC 0x4854434eu
/* What a stream may send before it is let in: with the headroom it fits a chunk of 64 K, or 1 M. */
#define H2_WINDOW_SMALL ((64u << 10) - HTTP_BODY_HEADROOM)
#define H2_WINDOW_STREAM ((1u << 20) - HTTP_BODY_HEADROOM)
#define H2_WINDOW_CONN (4u << 20)

struct http_conn;
struct http_exchange;

/* What a protocol does for the server. */
struct http_proto {
    /* Bytes from the peer. -errno ends the connection. */
    int (*read)(struct http_conn *c, const uint8_t *p, size_t n);
    /* The socket has room again: send what waits. */
    void (*flush)(struct http_conn *c);
    /* Memory was reserved (or refused): the body may come. */
    void (*admitted)(struct http_exchange *x);
    void (*respond)(struct http_exchange *x, const struct http_response *resp);
    /* No new request after those under way. */
    void (*go_away)(struct http_conn *c);
    /* Frees the protocol's state; exchanges with the handler are detached by the server before. */
    void (*free)(struct http_conn *c);
    /* The request's body takes too long: ends what has to end, the exchange at least. */
    void (*stalled)(struct http_exchange *x);
};

enum exchange_state {
    EXCHANGE_HEAD,    /* being received */
    EXCHANGE_WAITING, /* at a door: for the gate or for memory */
    EXCHANGE_BODY,    /* being received, reserved */
    EXCHANGE_WHOLE,   /* received, but the gate has closed meanwhile */
    EXCHANGE_HANDLER, /* message() was called */
    EXCHANGE_REFUSED, /* answered before the body was whole: the rest is thrown away */
    EXCHANGE_DONE,
};

/* One request and its answer. */
struct http_exchange {
    struct http_request r;  /* first: http_respond casts back */
    struct http_conn *conn; /* NULL once the connection is gone */
    enum exchange_state state;
    struct list in_conn, in_waiting;
    const struct http_handler *handler; /* pinned when the head came */
    struct http_loop_state *home;
    uint64_t max_body, expected, reserved; /* bytes; expected 0 = unknown */
    uint64_t assembling, early;            /* bytes of the budgets for those let in, and not yet */
    uint64_t wait_until_ns, touched_ns;
    uint64_t began_ns; /* the head, then the body */
    size_t head_bytes; /* HTTP/2: as SETTINGS_MAX_HEADER_LIST_SIZE counts them */
    size_t text_n;
    char text[512]; /* head fields that r points to */
    int32_t stream_id;
    bool is_prefix_seen;
    /* HTTP/2 bytes not given back yet to the window of the stream, and of the connection. */
    uint64_t stream_owed, conn_owed;
    char *text_more; /* heads that do not fit into text */
    struct str out;  /* HTTP/2: response body, heap */
    size_t out_at;
    struct str trailers; /* HTTP/2: packed name\0value\0 pairs, heap */
    bool has_all;        /* HTTP/2: the peer has sent its last byte */
};

/* A connection; belongs to one loop. */
struct http_conn {
    unsigned magic;
    struct http_server *server;
    struct http_loop_state *home;
    struct stream *stream;
    const struct http_proto *proto; /* NULL until the first bytes are seen */
    void *state;                    /* the protocol's */
    struct list in_home, exchanges;
    uint8_t first[32]; /* bytes before the protocol is known */
    size_t n_first;
    bool is_going, is_closing;
    bool is_lingering; /* answered for good; open only so that the peer can read the answer */
    uint64_t touched_ns;
    uint64_t partial_ns; /* since when a head or a preface is here in part; 0 = none is */
    /* HTTP/2: when a tick last found credit that is owed to the connection; 0 = never */
    uint64_t withheld_ns;
    struct task free_task, flush_task;
    bool is_flush_posted;
};

/* What a loop holds of a server. */
struct http_loop_state {
    struct http_server *server;
    struct loop *loop;
    struct list conns;
    struct list held, waiting; /* exchanges: before a closed gate, for memory */
    struct loop_timer *timer;
    unsigned n_conns;
    bool is_closing, is_closed;
    uint64_t closing_ns; /* since when */
    struct task start_task, close_task, closed_task;
    struct list orphans; /* exchanges of the handler whose connection is gone */
};

extern const struct http_proto http1_proto, h2_proto;
int http1_new(struct http_conn *c);
int h2_server_new(struct http_conn *c);

/* For the protocols. */
struct http_exchange *http_exchange_new(struct http_conn *c, unsigned version);
void http_exchange_free(struct http_exchange **x);
/* A copy of the text that lives with the exchange. */
struct str http_exchange_keep(struct http_exchange *x, struct str s);
/*
 * The head is complete: asks the handler. 0 = go on; else the HTTP status to answer with and
 * forget.
 */
int http_exchange_head(struct http_exchange *x);
/* The body's size is known: reserves or waits. True when the body may come now. */
bool http_exchange_expect(struct http_exchange *x, uint64_t n);
/* Appends body bytes. -E2BIG over max_body, -ENOMEM. */
int http_exchange_append(struct http_exchange *x, const uint8_t *p, size_t n);
void http_exchange_message(struct http_exchange *x);
void http_exchange_refuse(struct http_exchange *x, enum http_refusal why);
/* The peer reset the stream or left. Frees x unless the handler has it. */
void http_exchange_cancel(struct http_exchange *x);
/* What waits for memory is let in or refused; the same for what a closed gate held. */
void http_admission_tick(struct http_loop_state *home);
void http_admission_wake(struct http_loop_state *home);
/* Somebody waits for memory: it is asked for often from now on. */
void http_server_tick_soon(struct http_loop_state *home);
void http_conn_end(struct http_conn *c);
const struct http_handler *http_server_handler(const struct http_server *s);
bool http_server_is_crowded(const struct http_server *s);
uint32_t http_server_max_streams(const struct http_server *s);
bool http_server_is_h2_only(const struct http_server *s);

#endif
