/* SPDX-License-Identifier: Apache-2.0 */
/*
 * otlp_http: OTLP over HTTP/1.1 with protobuf bodies. One queue and retry state for all loops, a
 * few kept connections per loop.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/components/exporters/client_pool.h"
#include "common/otlp/encode.h"
#include "common/pipeline/queue.h"
#include "common/pipeline/version.h"

static const char *const encodings[] = {"proto", NULL};

struct otlp_http_config {
    const char *endpoint, *endpoints[SIGNAL_COUNT];
    struct client_tls_config tls;
    int compression, encoding;
    struct option_list headers; /* struct option_pair */
    struct queue_config queue;
};

#define AT(field) offsetof(struct otlp_http_config, field)
static const struct option otlp_http_options[] = {
    {.key = "endpoint",
     .type = OPT_STRING,
     .offset = AT(endpoint),
     .help = "URL of the back end; /v1/traces and so on is added."},
    {.key = "traces_endpoint",
     .type = OPT_STRING,
     .offset = AT(endpoints[SIGNAL_TRACES]),
     .help = "Whole URL for traces."},
    {.key = "metrics_endpoint",
     .type = OPT_STRING,
     .offset = AT(endpoints[SIGNAL_METRICS]),
     .help = "Whole URL for metrics."},
    {.key = "logs_endpoint",
     .type = OPT_STRING,
     .offset = AT(endpoints[SIGNAL_LOGS]),
     .help = "Whole URL for logs."},
    {.key = "encoding",
     .type = OPT_ENUM,
     .offset = AT(encoding),
     .names = encodings,
     .def = "proto",
     .help = "Encoding of bodies."},
    {.key = "tls",
     .type = OPT_STRUCT,
     .offset = AT(tls),
     .sub = client_tls_options,
     .help = "For https."},
    {.key = "compression",
     .type = OPT_ENUM,
     .offset = AT(compression),
     .names = client_compressions,
     .def = "gzip",
     .help = "Compression of bodies."},
    {.key = "headers",
     .type = OPT_HEADERS,
     .offset = AT(headers),
     .help = "Header fields sent with each request."},
    OPTION_NO_EFFECT("read_buffer_size", "Buffers are shared by all connections of a loop."),
    OPTION_NO_EFFECT("write_buffer_size", "Requests are written in place."),
    OPTION_NO_EFFECT("max_idle_conns", "A few connections are kept for each loop."),
    OPTION_NO_EFFECT("max_idle_conns_per_host", "A few connections are kept for each loop."),
    OPTION_NO_EFFECT("idle_conn_timeout", "A few connections are kept for each loop."),
    OPTION_UNSUPPORTED("profiles_endpoint"),
    OPTION_UNSUPPORTED("compression_params"),
    OPTION_UNSUPPORTED("max_conns_per_host"),
    OPTION_UNSUPPORTED("disable_keep_alives"),
    OPTION_UNSUPPORTED("force_attempt_http2"),
    OPTION_UNSUPPORTED("http2_read_idle_timeout"),
    OPTION_UNSUPPORTED("http2_ping_timeout"),
    OPTION_UNSUPPORTED("auth"),
    OPTION_UNSUPPORTED("proxy_url"),
    OPTION_UNSUPPORTED("cookies"),
    OPTION_UNSUPPORTED("middlewares"),
    QUEUE_OPTIONS(struct otlp_http_config, queue, "30s"),
    OPTION_END,
};

#define OTLP_HTTP_MAGIC 0x4f485454u

struct otlp_http {
    unsigned magic;
    _Atomic unsigned refs;
    struct queue *queue;
    struct client_pool pool;
    struct client_headers headers;
    enum client_compression compression;
    char *path;
};

struct attempt {
    struct http_call call;
    struct otlp_http *self;
    struct queue_request *request;
};

/* ---- one attempt ---- */

enum { MAX_RETRY_AFTER_S = 40 * 86400 }; /* fits 32 bits of milliseconds */

/* Delta seconds or an HTTP date (RFC 9110 §10.2.3); 0 when it is neither. */
static uint64_t retry_after_ms(struct str v)
{
    char text[64];
    uint64_t s;
    struct tm tm = {0};
    if (str_to_u64(v, &s) == 0)
        return MIN(s, (uint64_t)MAX_RETRY_AFTER_S) * 1000;
    if (v.n == 0 || v.n >= sizeof(text))
        return 0;
    snprintf(text, sizeof(text), STR_FMT, STR_ARG(v));
    if (!strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm))
        return 0;
    time_t at = timegm(&tm), now = (time_t)(clock_wall_ns() / NS_PER_S);
    return at > now ? MIN((uint64_t)(at - now), (uint64_t)MAX_RETRY_AFTER_S) * 1000 : 0;
}

static bool is_protobuf(const struct http_result *r)
{
    return str_has_prefix(r->content_type, STR("application/x-protobuf"));
}

static void read_success(struct instance *in, const struct http_result *r, struct outcome *o)
{
    int64_t rejected = 0;
    char text[256] = "";
    *o = (struct outcome){.kind = OUTCOME_SENT, .reason = "sent"};
    if (r->body.n == 0 || !is_protobuf(r))
        return;
    if (decode_export_response(r->body, &rejected, text, sizeof(text))) {
        *o = (struct outcome){.kind = OUTCOME_PERMANENT, .reason = "the answer cannot be read"};
        return;
    }
    if (rejected <= 0 && !text[0])
        return;
    o->rejected = rejected > 0 ? (uint64_t)rejected : 0;
    log_warn(&in->log, "Partial success response: %s (%lld items rejected)", text,
             (long long)rejected);
}

static void read_failure(const struct http_result *r, struct outcome *o, char *text, size_t n)
{
    bool retryable = r->status == 429 || r->status == 502 || r->status == 503 || r->status == 504;
    char message[256] = "";
    struct retry_hint unused;
    int code;
    if (is_protobuf(r))
        (void)decode_rpc_status(r->body, &code, message, sizeof(message), &unused);
    snprintf(text, n, "HTTP status %d%s%s", r->status, message[0] ? ": " : "", message);
    *o = (struct outcome){.kind = retryable ? OUTCOME_RETRYABLE : OUTCOME_PERMANENT,
                          .reason = "the back end refused",
                          .detail = text};
    if (r->status == 429 || r->status == 503)
        o->retry_after_ms = retry_after_ms(r->retry_after);
}

static void on_answer(struct http_call *call, const struct http_result *r)
{
    struct attempt *t = CONTAINER_OF(call, struct attempt, call);
    struct otlp_http *self = t->self;
    struct queue_request *request = t->request;
    char text[512] = "";
    struct outcome o;
    if (r->error)
        o = (struct outcome){.kind = OUTCOME_RETRYABLE,
                             .uncertain = r->is_uncertain,
                             .reason = "no answer",
                             .detail = r->why};
    else if (r->status >= 200 && r->status < 300)
        read_success(queue_instance(self->queue), r, &o);
    else
        read_failure(r, &o, text, sizeof(text));
    free(t);
    queue_done(self->queue, request, &o);
}

static void push(struct instance *in, struct queue_request *request)
{
    struct otlp_http *self = CAST_OBJ(struct otlp_http, in->self, OTLP_HTTP_MAGIC);
    struct http_client *client = client_pool_get(&self->pool, request->loop);
    uint64_t now = clock_mono_ns();
    struct attempt *t = xcalloc(1, sizeof(*t));
    bool is_compressed;
    if (!client || client_body(&t->call, request->batch, self->compression, &is_compressed)) {
        struct outcome o = {.kind = OUTCOME_RETRYABLE, .reason = "out of memory"};
        free(t);
        queue_done(self->queue, request, &o);
        return;
    }
    t->self = self;
    t->request = request;
    t->call.path = self->path;
    t->call.headers = self->headers.v + !is_compressed;
    t->call.n_headers = self->headers.n - !is_compressed;
    if (request->deadline_ns)
        t->call.timeout_ms =
            request->deadline_ns > now ? MAX((request->deadline_ns - now) / NS_PER_MS, 1u) : 1;
    t->call.done = on_answer;
    http_call_send(client, &t->call);
}

/* ---- life ---- */

static int otlp_http_validate(const void *config, struct err *e)
{
    const struct otlp_http_config *c = config;
    if (!c->endpoint[0] && !c->endpoints[0][0] && !c->endpoints[1][0] && !c->endpoints[2][0])
        return err_set(e, -EINVAL,
                       "endpoint or one of traces_endpoint, metrics_endpoint and "
                       "logs_endpoint is needed");
    return queue_config_validate(&c->queue, e);
}

static void otlp_http_free(struct instance *in)
{
    struct otlp_http *self = CAST_OBJ(struct otlp_http, in->self, OTLP_HTTP_MAGIC);
    in->self = NULL;
    struct queue *queue = self->queue; /* others that share this still need their pointer */
    queue_free(&queue);
    if (atomic_fetch_sub(&self->refs, 1) > 1)
        return;
    client_pool_fini(&self->pool);
    client_headers_fini(&self->headers);
    free(self->path);
    CLEAR_MAGIC(self);
    free(self);
}

/* The URL for this signal: its own one as it is, or the common one with the signal's path. */
static int set_target(struct otlp_http *self, const struct instance *in, struct err *e)
{
    const struct otlp_http_config *c = in->config;
    const char *own = c->endpoints[in->signal], *url = own[0] ? own : c->endpoint;
    if (!url[0])
        return err_set(e, -EINVAL, "no endpoint for %s", signal_info[in->signal].name);
    int r = client_pool_init(&self->pool, url, &c->tls, "80", false, e);
    if (r)
        return r;
    const char *path = self->pool.endpoint.path;
    size_t n = strlen(path);
    while (n && path[n - 1] == '/')
        n--;
    if (own[0])
        self->path = xstrdup(path[0] ? path : "/");
    else
        self->path = xasprintf("%.*s%s", (int)n, path, signal_info[in->signal].http_path);
    return 0;
}

static int otlp_http_create(struct instance *in, struct err *e)
{
    const struct otlp_http_config *c = in->config;
    struct otlp_http *self = xcalloc(1, sizeof(*self));
    SET_MAGIC(self, OTLP_HTTP_MAGIC);
    self->refs = 1;
    self->compression = (enum client_compression)c->compression;
    in->self = self;
    int r = set_target(self, in, e);
    if (r == 0)
        r = queue_new(&self->queue, in, &c->queue, push);
    /* The first header is left out of requests that are not compressed. */
    client_headers_add(&self->headers, "content-encoding",
                       client_compression_name(self->compression));
    client_headers_add(&self->headers, "content-type", "application/x-protobuf");
    client_headers_add(&self->headers, "user-agent", tailrace_user_agent());
    client_headers_add_all(&self->headers, &c->headers);
    if (r)
        otlp_http_free(in);
    return r;
}

static bool otlp_http_adopt(struct instance *in, struct instance *old)
{
    struct otlp_http *mine = in->self, *running = old->self;
    const struct otlp_http_config *a = in->config, *b = old->config;
    if (mine == running ||
        strcmp(mine->pool.endpoint.address, running->pool.endpoint.address) != 0 ||
        mine->pool.endpoint.use_tls != running->pool.endpoint.use_tls ||
        strcmp(mine->path, running->path) != 0 || !client_tls_eq(&a->tls, &b->tls) ||
        mine->compression != running->compression ||
        !client_headers_eq(&mine->headers, &running->headers))
        return false;
    otlp_http_free(in);
    running->refs++;
    in->self = running;
    queue_share(running->queue, in, &a->queue);
    return true;
}

static int otlp_http_start(struct instance *in, struct err *e)
{
    struct otlp_http *self = in->self;
    (void)e;
    queue_start(self->queue);
    return 0;
}

static void otlp_http_consume(struct instance *in, struct batch *b, struct ack *a)
{
    struct otlp_http *self = CAST_OBJ(struct otlp_http, in->self, OTLP_HTTP_MAGIC);
    queue_consume(self->queue, b, a);
}

static void otlp_http_stop(struct instance *in)
{
    struct otlp_http *self = in->self;
    queue_stop(self->queue);
}

static void otlp_http_abandon(struct instance *in)
{
    struct otlp_http *self = in->self;
    queue_abandon(self->queue);
    client_pool_cut(&self->pool);
}

static uint64_t otlp_http_held(struct instance *in)
{
    struct otlp_http *self = in->self;
    return queue_held(self->queue);
}

static const char *const old_names[] = {"otlphttp", NULL};

const struct component otlp_http_component = {
    .kind = KIND_EXPORTER,
    .name = "otlp_http",
    .aliases = old_names,
    .help = "Sends OTLP over HTTP.",
    .signals = SIGNAL_ALL,
    .stability = STABILITY_STABLE,
    .affinity = AFFINITY_PROCESS,
    .options = otlp_http_options,
    .config_size = sizeof(struct otlp_http_config),
    .validate = otlp_http_validate,
    .create = otlp_http_create,
    .adopt = otlp_http_adopt,
    .start = otlp_http_start,
    .consume = otlp_http_consume,
    .stop = otlp_http_stop,
    .abandon = otlp_http_abandon,
    .held = otlp_http_held,
    .free = otlp_http_free,
};
