/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/requests.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>

#include "agent/ebpf/url.h"

enum { TRACE_STATE_MAX = 512 };

/* As inet_ntop writes it. */
static struct str ipv4_text(const uint8_t *a, char *out)
{
    char *p = out;

    for (unsigned i = 0; i < 4; i++) {
        if (i)
            *p++ = '.';
        if (a[i] >= 100)
            *p++ = (char)('0' + a[i] / 100);
        if (a[i] >= 10)
            *p++ = (char)('0' + a[i] / 10 % 10);
        *p++ = (char)('0' + a[i] % 10);
    }
    return str_make(out, (size_t)(p - out));
}

static struct str endpoint_text(uint8_t family, const struct endpoint *e, char *out)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    const uint8_t *a = e->address;

    if (family == AF_INET6 && memcmp(a, mapped, 12) == 0) {
        family = AF_INET;
        a += 12;
    }
    if (family == AF_INET)
        return ipv4_text(a, out);
    if (family != AF_INET6 || !inet_ntop(family, a, out, ADDRESS_TEXT))
        return (struct str){NULL, 0};
    return str_of(out);
}

void request_init(struct request *r)
{
    memset(r, 0, sizeof(*r));
    buf_init(&r->text);
}

void request_fini(struct request *r)
{
    buf_fini(&r->text);
}

static void read_parent(struct request *r, const struct http1_exchange *x)
{
    struct str state = x->fields[HTTP1_TRACESTATE];

    r->has_parent = x->fields[HTTP1_TRACEPARENT].p &&
                    traceparent_parse(x->fields[HTTP1_TRACEPARENT], &r->parent);
    if (r->has_parent && state.n <= TRACE_STATE_MAX)
        r->trace_state = state;
}

static void read_peer(struct request *r, const struct conn *c)
{
    if (!c->opened) {
        r->unbound = true;
        return;
    }
    r->is_unix = c->open.family == AF_UNIX;
    r->peer_address = endpoint_text(c->open.family, &c->open.peer, r->peer_text);
    if (r->peer_address.n)
        r->peer_port = c->open.peer.port;
}

/* Where the request was sent: Host or the absolute target; else the socket itself. */
static void read_server(struct request *r, const struct conn *c, const struct http1_exchange *x,
                        const struct target *t)
{
    struct str authority = t->authority.n ? t->authority : x->fields[HTTP1_HOST];
    const struct endpoint *socket = r->role == ROLE_CLIENT ? &c->open.peer : &c->open.local;

    r->server_address = authority_host(authority, &r->server_port);
    if (!c->opened)
        return;
    if (!r->server_address.n)
        r->server_address = endpoint_text(c->open.family, socket, r->local_text);
    if (!r->server_port && (c->open.family == AF_INET || c->open.family == AF_INET6))
        r->server_port = socket->port;
}

static void read_scheme(struct request *r, const struct http1_exchange *x, const struct target *t)
{
    struct str told = {NULL, 0};

    if (r->role == ROLE_SERVER && x->fields[HTTP1_FORWARDED].n)
        told = forwarded_param(x->fields[HTTP1_FORWARDED], STR("proto"));
    if (r->role == ROLE_SERVER && !told.n)
        told = forwarded_first(x->fields[HTTP1_X_FORWARDED_PROTO]);
    if (r->role == ROLE_CLIENT && t->scheme.n)
        told = t->scheme; /* through a proxy */
    if (str_ieq(told, STR("http")))
        r->scheme = STR("http");
    else if (str_ieq(told, STR("https")) || r->tls)
        r->scheme = STR("https");
    else
        r->scheme = STR("http");
}

static void read_client(struct request *r, const struct http1_exchange *x)
{
    uint16_t port;

    if (r->role != ROLE_SERVER)
        return;
    if (x->fields[HTTP1_FORWARDED].n)
        r->client_address =
            authority_host(forwarded_param(x->fields[HTTP1_FORWARDED], STR("for")), &port);
    if (!r->client_address.n)
        r->client_address = forwarded_first(x->fields[HTTP1_X_FORWARDED_FOR]);
    if (!r->client_address.n)
        r->client_address = r->peer_address;
}

/* Query and url.full are written into r->text, then borrowed from it. */
static void read_url(struct request *r, const struct request_options *o, const struct target *t)
{
    size_t query_end, standard = str_is(r->scheme, "https") ? 443 : 80;
    bool v6 = r->server_address.n && memchr(r->server_address.p, ':', r->server_address.n);

    r->path = t->path;
    buf_reset(&r->text);
    if (t->has_query)
        query_redact(&r->text, t->query, o->redacted_keys);
    query_end = r->text.n;
    if (r->role == ROLE_CLIENT && r->server_address.n) {
        buf_addf(&r->text, "%.*s://%s%.*s%s", STR_ARG(r->scheme), v6 ? "[" : "",
                 STR_ARG(r->server_address), v6 ? "]" : "");
        if (r->server_port && r->server_port != standard)
            buf_addf(&r->text, ":%u", r->server_port);
        buf_add_str(&r->text, t->path);
        if (t->has_query) {
            buf_add_byte(&r->text, '?');
            query_redact(&r->text, t->query, o->redacted_keys);
        }
    }
    if (buf_error(&r->text))
        return;
    if (t->has_query)
        r->query = str_make(query_end ? r->text.p : "", query_end);
    if (r->text.n > query_end)
        r->full = str_make(r->text.p + query_end, r->text.n - query_end);
}

/* Status and error.type: a server's own fault from 500 on, a client's failure from 400 on. */
static void read_outcome(struct request *r, const struct http1_exchange *x)
{
    r->status = x->status;
    if (x->base.flags & EXCHANGE_CUT)
        r->error_type = STR("connection_closed");
    if (r->status >= (r->role == ROLE_CLIENT ? 400u : 500u)) {
        int n = snprintf(r->status_text, sizeof(r->status_text), "%u", r->status);

        r->error_type = str_make(r->status_text, (size_t)n);
    }
}

static void read_times(struct request *r, const struct conn *c, const struct exchange *x)
{
    r->start_ns = x->request_first_ns;
    r->end_ns = x->response_end_ns;
    if (!r->end_ns)
        r->end_ns =
            x->flags & EXCHANGE_CUT ? MAX(c->last_ns, x->request_end_ns) : x->request_end_ns;
    r->end_ns = MAX(r->end_ns, r->start_ns);
}

bool request_read(struct request *r, const struct request_options *o, const struct conn *c,
                  enum layer layer, const struct http1_exchange *x)
{
    struct target t;

    memset(r, 0, offsetof(struct request, text));
    r->role = c->role;
    if (r->role == ROLE_UNKNOWN)
        return false;
    read_parent(r, x);
    if (r->role == ROLE_CLIENT && r->has_parent && !o->client_spans_with_traceparent)
        return false;
    r->tls = layer == LAYER_TLS;
    r->incomplete = x->base.flags & EXCHANGE_INCOMPLETE;
    r->method = x->method;
    if (!http1_is_known_method(x->method)) {
        r->method = STR("_OTHER");
        r->method_original = x->method;
    }
    r->version = x->request_minor ? "1.1" : "1.0";
    r->user_agent = x->fields[HTTP1_USER_AGENT];
    target_split(x->target, str_is(x->method, "CONNECT"), &t);
    read_peer(r, c);
    read_scheme(r, x, &t);
    read_server(r, c, x, &t);
    read_client(r, x);
    read_url(r, o, &t);
    read_outcome(r, x);
    read_times(r, c, &x->base);
    r->has_request_size = x->base.flags & EXCHANGE_REQUEST_SIZE;
    r->has_response_size = x->base.flags & EXCHANGE_RESPONSE_SIZE;
    r->request_size = x->base.request_body;
    r->response_size = x->base.response_body;
    return true;
}
