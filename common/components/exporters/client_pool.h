/* SPDX-License-Identifier: Apache-2.0 */
/* One HTTP client per loop to one target, each made by the first request that runs on its loop. */
#ifndef COMPONENTS_CLIENT_POOL_H
#define COMPONENTS_CLIENT_POOL_H

#include "common/components/exporters/client_options.h"

struct client_pool {
    struct client_endpoint endpoint;
    char *authority; /* owned; NULL = the endpoint */
    struct tls_context *tls;
    bool is_h2;
    struct http_client **clients; /* by loop, used there only */
    _Atomic bool is_cut;
};

/* -EINVAL with text for an endpoint or certificates that are none. */
int client_pool_init(struct client_pool *p, const char *endpoint,
                     const struct client_tls_config *tls, const char *default_port, bool is_h2,
                     struct err *e) MUSTCHECK;
/* On the loop. NULL when memory is out, or the pool is cut. */
struct http_client *client_pool_get(struct client_pool *p, struct loop *l);
/*
 * Ends what is under way and lets nothing new begin: each call is done with an error, on its loop.
 * The pool must live until every loop has turned once.
 */
void client_pool_cut(struct client_pool *p);
/* Closes all clients, each on its loop; the pool's memory may go at once. */
void client_pool_fini(struct client_pool *p);

/* Headers of requests: names in lower case, owned. */
struct client_headers {
    struct http_call_header *v;
    unsigned n;
};
void client_headers_add(struct client_headers *h, const char *name, const char *value);
void client_headers_add_all(struct client_headers *h, const struct option_list *pairs);
void client_headers_fini(struct client_headers *h);
bool client_headers_eq(const struct client_headers *a, const struct client_headers *b);
bool client_tls_eq(const struct client_tls_config *a, const struct client_tls_config *b);

#endif
