/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP client: POSTs to one target from one loop, by HTTP/2 over one connection (gRPC) or by
 * HTTP/1.1 over a few kept ones. It dials when there is something to send and does not repeat
 * anything: retrying is the caller's.
 *
 *   http_client_new ─► http_call_send* ─► done(call, result) each ─► http_client_close
 */
#ifndef IO_HTTP_CLIENT_H
#define IO_HTTP_CLIENT_H

#include "common/base/chunk.h"
#include "common/base/list.h"
#include "common/base/str.h"
#include "common/io/loop.h"
#include "common/io/tls.h"

#define HTTP_MAX_RESPONSE (64 << 10)

struct http_client;

struct http_client_config {
    const char *endpoint;    /* host:port */
    const char *authority;   /* for :authority and host; NULL = endpoint */
    struct tls_context *tls; /* NULL = plain; borrowed */
    bool is_h2;
    unsigned max_conns; /* HTTP/1.1; 0 = 8 */
};

struct http_call_header {
    const char *name; /* lower case */
    const char *value;
};

struct http_result {
    int error;         /* 0, or -errno: no answer came */
    bool is_uncertain; /* with error: bytes of the request had gone out */
    const char *why;   /* text of the error */
    int status;        /* of HTTP */
    struct str body;
    struct str content_type, retry_after;
    bool has_grpc_status;
    int grpc_status;
    struct str grpc_message; /* percent-decoded */
    struct str grpc_details; /* google.rpc.Status, base64-decoded */
};

struct http_call;
typedef void http_call_done_fn(struct http_call *c, const struct http_result *r);

/* A request in the caller's storage, which lives until done was called. */
struct http_call {
    const char *path;
    const struct http_call_header *headers;
    unsigned n_headers;
    uint8_t prefix[8], n_prefix; /* goes before the body, which may belong to others too */
    struct chunk *body;          /* one reference taken over; bytes from body_off */
    size_t body_off, body_len;
    uint64_t timeout_ms; /* 0 = none */
    http_call_done_fn *done;
    void *arg;

    /* The client's own. */
    struct list in_client;
    struct http_client *client;
    struct client_conn *conn;
    uint64_t deadline_ns;
    int32_t stream_id;
    size_t sent;
    bool is_on_wire, is_answered;
    char *text; /* response head fields and body, heap */
    size_t text_n, text_cap;
    struct http_result result;
    size_t body_at, body_n;
};

int http_client_new(struct http_client **out, struct loop *l, const struct http_client_config *c);
/* On the client's loop. done is never called from inside. */
void http_call_send(struct http_client *c, struct http_call *call);
/* Calls under way end with -ECANCELED, then the memory goes. */
void http_client_close(struct http_client **c);
/* Connections that are open now. */
unsigned http_client_conns(const struct http_client *c);

#endif
