/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the HTTP client: what http_client.c, h2_client.c and http1_client.c share. */
#ifndef IO_CLIENT_CONN_H
#define IO_CLIENT_CONN_H

#include "common/io/http_client.h"
#include "common/io/stream.h"

#define CLIENT_CONN_MAGIC 0x48434c43u

struct client_proto {
    int (*open)(struct client_conn *c);                             /* connected: makes the state */
    int (*read)(struct client_conn *c, const uint8_t *p, size_t n); /* -errno ends it */
    int (*submit)(struct client_conn *c, struct http_call *call);
    void (*cancel)(struct client_conn *c, struct http_call *call); /* timed out */
    void (*flush)(struct client_conn *c);
    bool (*has_room)(const struct client_conn *c);
    void (*free)(struct client_conn *c);
};

struct client_conn {
    unsigned magic;
    struct http_client *client;
    struct stream *stream;
    void *state;
    struct list in_client, calls; /* calls on the wire */
    unsigned n_calls;
    bool is_ready, is_going, is_closing, wants_flush;
    struct task free_task;
};

struct http_client {
    unsigned magic;
    struct loop *loop;
    struct http_client_config config;
    char *endpoint, *authority;
    const struct client_proto *proto;
    struct list conns, waiting; /* calls without a connection */
    unsigned n_conns;
    struct loop_timer *timer;
    bool is_closing;
    struct task pump_task;
    bool is_pumping;
};

extern const struct client_proto h2_client_proto, http1_client_proto;

/* For the protocols. The call is answered: result is filled, done is called, the call forgotten. */
void client_call_done(struct http_call *call, int error, const char *why);
/* Appends bytes to the call's text; offset of them, or SIZE_MAX when it is over the limit. */
size_t client_call_keep(struct http_call *call, const void *p, size_t n);
void client_conn_end(struct client_conn *c, int error, const char *why);
/* There may be room for waiting calls, or a connection is of no more use. */
void client_pump(struct http_client *c);
/* Notes a response field that callers look at. */
void client_call_field(struct http_call *call, struct str name, struct str value);

#endif
