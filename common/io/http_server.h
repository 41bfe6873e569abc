/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP server: HTTP/1.1 and HTTP/2 on one port, with or without TLS. A request comes to the
 * handler once, whole, its body in one chunk; the answer is given once, at any later time on the
 * same loop.
 *
 *   listener (loop 0) ─ accept ─► the idlest loop ─► connection: first bytes tell http1 or h2
 *     ─► head() ─ reserve memory ─ body ─► message() ... http_respond() ─► bytes out
 *
 * Memory. A request whose size is known (content-length, gRPC prefix) reserves it before its body
 * is let in; a reserved one always gets the window to finish. One that gets no reservation within a
 * second (or a quarter of its grpc-timeout) is refused as overloaded.
 *
 * Back-pressure. While the handler's gate is closed for a request it is neither let in nor refused:
 * its window is withheld and the sender slows down. What is whole by then waits.
 */
#ifndef IO_HTTP_SERVER_H
#define IO_HTTP_SERVER_H

#include "common/base/chunk.h"
#include "common/base/str.h"
#include "common/io/loop.h"
#include "common/io/tls.h"

/* Spare bytes in front of the body in its chunk. */
#define HTTP_BODY_HEADROOM 16
#define HTTP_REQUEST_MAGIC 0x48545251u

enum http_refusal {
    HTTP_TOO_LARGE,  /* over the handler's max_body */
    HTTP_OVERLOADED, /* no memory within its time */
    HTTP_BAD_BODY,   /* cut or malformed gRPC framing */
};

struct http_request {
    unsigned magic;
    unsigned version; /* 1 or 2 */
    struct loop *loop;
    struct str method, path, content_type, content_encoding, grpc_encoding;
    const char *peer;
    uint64_t deadline_ns; /* monotonic, from grpc-timeout; 0 = none */
    struct chunk *body;   /* NULL when empty; bytes from HTTP_BODY_HEADROOM to len */
    bool is_grpc;         /* content-type application/grpc... */
    bool is_cancelled;    /* the peer has gone: the answer goes nowhere */
    void *user;           /* the handler's */
};

struct http_header {
    const char *name; /* lower case */
    struct str value;
};

struct http_response {
    int status;
    const struct http_header *headers;
    unsigned n_headers;
    struct str body;                    /* borrowed: copied or sent before http_respond returns */
    const struct http_header *trailers; /* HTTP/2 only */
    unsigned n_trailers;
};

/* Called on the request's loop. */
struct http_handler {
    void *arg;
    /* Head is there. 0: go on; *max_body is the largest body (after which refuse(TOO_LARGE)). An
     * HTTP status refuses at once with an empty body. */
    int (*head)(void *arg, struct http_request *r, uint64_t *max_body);
    /* Whole. Must lead to exactly one http_respond, now or later. */
    void (*message)(void *arg, struct http_request *r);
    /* Will not become whole: must answer with http_respond before it returns. */
    void (*refuse)(void *arg, struct http_request *r, enum http_refusal why);
    /* The peer went away while the handler had the request; http_respond is still owed. May be
     * NULL. */
    void (*cancelled)(void *arg, struct http_request *r);
    uint64_t (*ceiling)(void *arg); /* for mem_reserve; may be NULL */
    /* Back-pressure: whether such a request is taken now. NULL = always. */
    bool (*is_open)(void *arg, const struct http_request *r);
};

struct http_server_config {
    const char *endpoint;         /* "127.0.0.1:4317", ":4317"; port 0 = any free */
    const struct tls_config *tls; /* NULL or !on: plain */
    uint32_t max_streams;         /* of one connection; 0 = 100 */
    bool is_h2_only;              /* gRPC port: HTTP/1.x is answered 505 and closed */
    uint64_t idle_timeout_ms;     /* of a connection without request; 0 = never */
};

struct http_server;

/* Binds and listens. On loop 0. -EADDRINUSE and others with text that names the endpoint. */
int http_server_open(struct http_server **out, const struct http_server_config *c,
                     const struct http_handler *h, struct err *e) MUSTCHECK;
/* Another handler for messages from now on; the old one's stay its own. On loop 0. */
void http_server_set_handler(struct http_server *s, const struct http_handler *h);
uint16_t http_server_port(const struct http_server *s);
/* A gate may have opened: those held before it are looked at again. On the loop given. */
void http_server_wake(struct http_server *s, struct loop *l);
/*
 * Stops accepting, tells peers to go (GOAWAY, connection: close), lets requests under way finish
 * (those that are not whole have 5 s), then closes everything and calls closed(arg) on loop 0. The
 * memory goes after that.
 */
void http_server_close(struct http_server **s, void (*closed)(void *arg), void *arg);

/* Answers. The request is gone after this. */
void http_respond(struct http_request *r, const struct http_response *resp);

#endif
