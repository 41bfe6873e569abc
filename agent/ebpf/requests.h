/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an exchange on a connection to what a span and a metric say of it, in the words of the
 * OpenTelemetry semantic conventions for HTTP (stable). Nothing here encodes.
 */
#ifndef AGENT_REQUESTS_H
#define AGENT_REQUESTS_H

#include "agent/ebpf/connections.h"
#include "agent/ebpf/parsers/http1.h"
#include "agent/ebpf/traceparent.h"
#include "common/base/buf.h"

enum { ADDRESS_TEXT = 46 };

struct request_options {
    const char *const *redacted_keys; /* NULL-ended */
    bool client_spans_with_traceparent;
};

struct request {
    enum role role;
    bool tls, incomplete, unbound, is_unix;
    struct str method;          /* a known one, or "_OTHER" */
    struct str method_original; /* empty unless it is not known */
    struct str path, scheme;
    struct str query;      /* redacted; {NULL, 0} when there is none */
    struct str full;       /* clients: url.full */
    unsigned status;       /* 0: no response was seen */
    struct str error_type; /* empty: no error */
    struct str server_address, client_address, peer_address, user_agent;
    uint16_t server_port, peer_port;
    const char *version; /* "1.1" */
    bool has_request_size, has_response_size;
    uint64_t request_size, response_size;
    uint64_t start_ns, end_ns; /* monotonic */
    bool has_parent;
    struct trace_context parent;
    struct str trace_state;
    /* storage for texts made here */
    struct buf text;
    char peer_text[ADDRESS_TEXT], local_text[ADDRESS_TEXT], status_text[12];
};

void request_init(struct request *r);
void request_fini(struct request *r);
/*
 * Fills r from the exchange; texts are borrowed from it, from the connection and from r. False: it
 * makes no span (role unknown, or a client request of somebody who traces it already).
 */
bool request_read(struct request *r, const struct request_options *o, const struct conn *c,
                  enum layer layer, const struct http1_exchange *x);

#endif
