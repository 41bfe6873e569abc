/* SPDX-License-Identifier: Apache-2.0 */
/*
 * otlp_grpc: OTLP over gRPC to a back end. One queue and retry state for all loops, one connection
 * per loop, opened by the first request that runs there.
 *
 *   queue ─► push (on a loop) ─► frame, compress ─► http_call ─► answer ─► outcome ─► queue_done
 */
#include "common/components/exporters/otlp_grpc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/components/exporters/client_pool.h"
#include "common/io/grpc.h"
#include "common/otlp/encode.h"
#include "common/pipeline/version.h"

#define AT(field) offsetof(struct otlp_grpc_config, field)
const struct option otlp_grpc_options[] = {
    {.key = "endpoint",
     .type = OPT_STRING,
     .offset = AT(endpoint),
     .flags = OPT_REQUIRED,
     .help = "host:port of the back end; http:// in front means plain text, https:// TLS."},
    {.key = "tls",
     .type = OPT_STRUCT,
     .offset = AT(tls),
     .sub = client_tls_options,
     .help = "TLS is spoken unless insecure is true."},
    {.key = "compression",
     .type = OPT_ENUM,
     .offset = AT(compression),
     .names = client_compressions,
     .def = "gzip",
     .help = "Compression of requests."},
    {.key = "headers",
     .type = OPT_HEADERS,
     .offset = AT(headers),
     .help = "Metadata sent with each request."},
    {.key = "authority",
     .type = OPT_STRING,
     .offset = AT(authority),
     .help = "Value of :authority instead of the endpoint."},
    {.key = "user_agent",
     .type = OPT_STRING,
     .offset = AT(user_agent),
     .help = "Value of user-agent."},
    {.key = "wait_for_ready",
     .type = OPT_TREE,
     .flags = OPT_NO_EFFECT,
     .help = "Connections are always tried again."},
    {.key = "balancer_name",
     .type = OPT_TREE,
     .flags = OPT_NO_EFFECT,
     .help = "There is one connection per loop."},
    {.key = "read_buffer_size",
     .type = OPT_TREE,
     .flags = OPT_NO_EFFECT,
     .help = "Buffers are shared by all connections of a loop."},
    {.key = "write_buffer_size",
     .type = OPT_TREE,
     .flags = OPT_NO_EFFECT,
     .help = "Requests are written in place."},
    QUEUE_OPTIONS(struct otlp_grpc_config, queue, "5s"),
    OPTION_UNSUPPORTED("keepalive"),
    OPTION_UNSUPPORTED("auth"),
    OPTION_UNSUPPORTED("middlewares"),
    OPTION_END,
};

#define OTLP_GRPC_MAGIC 0x4f475243u

/* Shared by the instances of a reload that changes nothing of the target. */
struct otlp_grpc {
    unsigned magic;
    _Atomic unsigned refs;
    struct queue *queue;
    struct client_pool pool;
    struct client_headers headers;
    enum client_compression compression;
};

struct attempt {
    struct http_call call;
    struct otlp_grpc *self;
    struct queue_request *request;
    char timeout[24];
    struct http_call_header headers[]; /* those of all attempts and its own */
};

enum { LONGEST_TIMEOUT_MS = 99999999 }; /* eight digits are allowed */

/* The first header is left out of requests that are not compressed. */
static void make_headers(struct otlp_grpc *self, const struct otlp_grpc_config *c)
{
    client_headers_add(&self->headers, "grpc-encoding", client_compression_name(self->compression));
    client_headers_add(&self->headers, "content-type", "application/grpc");
    client_headers_add(&self->headers, "te", "trailers");
    client_headers_add(&self->headers, "grpc-accept-encoding", "identity");
    client_headers_add(&self->headers, "user-agent",
                       c->user_agent[0] ? c->user_agent : tailrace_user_agent());
    client_headers_add_all(&self->headers, &c->headers);
}

/* ---- one attempt ---- */

static bool is_retryable(int code, bool has_retry_info)
{
    switch (code) {
    case GRPC_CANCELLED:
    case GRPC_DEADLINE_EXCEEDED:
    case GRPC_ABORTED:
    case GRPC_OUT_OF_RANGE:
    case GRPC_UNAVAILABLE:
    case GRPC_DATA_LOSS:
        return true;
    case GRPC_RESOURCE_EXHAUSTED:
        return has_retry_info;
    default:
        return false;
    }
}

/* HTTP statuses of proxies that know no gRPC (gRPC http-grpc-status-mapping). */
static int code_of_http(int status)
{
    switch (status) {
    case 400:
        return GRPC_INTERNAL;
    case 401:
        return GRPC_UNAUTHENTICATED;
    case 403:
        return GRPC_PERMISSION_DENIED;
    case 404:
        return GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return GRPC_UNAVAILABLE;
    default:
        return GRPC_UNKNOWN;
    }
}

static void read_success(struct instance *in, const struct http_result *r, struct outcome *o,
                         char *text, size_t n)
{
    int64_t rejected = 0;
    *o = (struct outcome){.kind = OUTCOME_SENT, .reason = "sent"};
    if (r->body.n <= GRPC_PREFIX || r->body.p[0] != 0)
        return;
    struct str message = str_make(r->body.p + GRPC_PREFIX, r->body.n - GRPC_PREFIX);
    if (decode_export_response(message, &rejected, text, n) || (rejected <= 0 && !text[0]))
        return;
    o->rejected = rejected > 0 ? (uint64_t)rejected : 0;
    log_warn(&in->log, "Partial success response: %s (%lld items rejected)", text,
             (long long)rejected);
}

static void read_failure(const struct http_result *r, struct outcome *o, char *text, size_t n)
{
    int code = r->has_grpc_status ? r->grpc_status : code_of_http(r->status), unused;
    struct retry_hint hint = {0};
    char message[256];
    if (r->grpc_details.n &&
        decode_rpc_status(r->grpc_details, &unused, message, sizeof(message), &hint))
        hint = (struct retry_hint){0};
    snprintf(text, n, "code %d: " STR_FMT, code, STR_ARG(r->grpc_message));
    bool again = is_retryable(code, hint.is_there);
    *o = (struct outcome){.kind = again ? OUTCOME_RETRYABLE : OUTCOME_PERMANENT,
                          .retry_after_ms = hint.delay_ms,
                          .grpc_code = code,
                          .reason = "the back end refused",
                          .detail = text};
}

static void on_answer(struct http_call *call, const struct http_result *r)
{
    struct attempt *t = CONTAINER_OF(call, struct attempt, call);
    struct otlp_grpc *self = t->self;
    struct queue_request *request = t->request;
    char text[512] = "";
    struct outcome o;
    if (r->error)
        o = (struct outcome){.kind = OUTCOME_RETRYABLE,
                             .uncertain = r->is_uncertain,
                             .reason = "no answer",
                             .detail = r->why};
    else if (r->has_grpc_status && r->grpc_status == GRPC_OK)
        read_success(queue_instance(self->queue), r, &o, text, sizeof(text));
    else
        read_failure(r, &o, text, sizeof(text));
    free(t);
    queue_done(self->queue, request, &o);
}

/* The back end is told how long the answer is waited for, as gRPC does. */
static void set_headers(struct attempt *t, bool is_compressed)
{
    const struct client_headers *all = &t->self->headers;
    unsigned skip = !is_compressed, n = all->n - skip;
    memcpy(t->headers, all->v + skip, n * sizeof(*t->headers));
    if (t->call.timeout_ms) {
        uint64_t ms = MIN((uint64_t)t->call.timeout_ms, (uint64_t)LONGEST_TIMEOUT_MS);
        snprintf(t->timeout, sizeof(t->timeout), "%llum", (unsigned long long)ms);
        t->headers[n++] = (struct http_call_header){"grpc-timeout", t->timeout};
    }
    t->call.headers = t->headers;
    t->call.n_headers = n;
}

static void push(struct instance *in, struct queue_request *request)
{
    struct otlp_grpc *self = CAST_OBJ(struct otlp_grpc, in->self, OTLP_GRPC_MAGIC);
    struct http_client *client = client_pool_get(&self->pool, request->loop);
    uint64_t now = clock_mono_ns();
    struct attempt *t =
        xcalloc(1, sizeof(*t) + (self->headers.n + 1) * sizeof(struct http_call_header));
    bool is_compressed;
    int r =
        client ? client_body(&t->call, request->batch, self->compression, &is_compressed) : -ENOMEM;
    if (r) {
        struct outcome o = {.kind = OUTCOME_RETRYABLE, .reason = "out of memory"};
        free(t);
        queue_done(self->queue, request, &o);
        return;
    }
    t->self = self;
    t->request = request;
    grpc_prefix(t->call.prefix, is_compressed, t->call.body_len);
    t->call.n_prefix = GRPC_PREFIX;
    t->call.path = signal_info[request->batch->signal].grpc_path;
    if (request->deadline_ns)
        t->call.timeout_ms =
            request->deadline_ns > now ? MAX((request->deadline_ns - now) / NS_PER_MS, 1u) : 1;
    set_headers(t, is_compressed);
    t->call.done = on_answer;
    http_call_send(client, &t->call);
}

/* ---- life ---- */

static int otlp_grpc_validate(const void *config, struct err *e)
{
    const struct otlp_grpc_config *c = config;
    return queue_config_validate(&c->queue, e);
}

static void otlp_grpc_free(struct instance *in);

static int otlp_grpc_create(struct instance *in, struct err *e)
{
    const struct otlp_grpc_config *c = in->config;
    struct otlp_grpc *self = xcalloc(1, sizeof(*self));
    SET_MAGIC(self, OTLP_GRPC_MAGIC);
    self->refs = 1;
    in->self = self;
    int r = client_pool_init(&self->pool, c->endpoint, &c->tls, NULL, true, e);
    if (r == 0)
        r = queue_new(&self->queue, in, &c->queue, push);
    self->compression = (enum client_compression)c->compression;
    self->pool.authority = c->authority[0] ? xstrdup(c->authority) : NULL;
    make_headers(self, c);
    if (r)
        otlp_grpc_free(in);
    return r;
}

static bool otlp_grpc_adopt(struct instance *in, struct instance *old)
{
    struct otlp_grpc *mine = CAST_OBJ(struct otlp_grpc, in->self, OTLP_GRPC_MAGIC);
    struct otlp_grpc *running = CAST_OBJ(struct otlp_grpc, old->self, OTLP_GRPC_MAGIC);
    const struct otlp_grpc_config *a = in->config, *b = old->config;
    if (mine == running ||
        strcmp(mine->pool.endpoint.address, running->pool.endpoint.address) != 0 ||
        mine->pool.endpoint.use_tls != running->pool.endpoint.use_tls ||
        !client_tls_eq(&a->tls, &b->tls) || mine->compression != running->compression ||
        !client_headers_eq(&mine->headers, &running->headers))
        return false;
    otlp_grpc_free(in);
    running->refs++;
    in->self = running;
    queue_share(running->queue, in, &a->queue);
    return true;
}

static int otlp_grpc_start(struct instance *in, struct err *e)
{
    struct otlp_grpc *self = in->self;
    (void)e;
    queue_start(self->queue);
    return 0;
}

static void otlp_grpc_consume(struct instance *in, struct batch *b, struct ack *a)
{
    struct otlp_grpc *self = CAST_OBJ(struct otlp_grpc, in->self, OTLP_GRPC_MAGIC);
    queue_consume(self->queue, b, a);
}

static void otlp_grpc_stop(struct instance *in)
{
    struct otlp_grpc *self = in->self;
    queue_stop(self->queue);
}

static void otlp_grpc_abandon(struct instance *in)
{
    struct otlp_grpc *self = in->self;
    queue_abandon(self->queue);
    client_pool_cut(&self->pool);
}

static uint64_t otlp_grpc_held(struct instance *in)
{
    struct otlp_grpc *self = in->self;
    return queue_held(self->queue);
}

static void otlp_grpc_free(struct instance *in)
{
    struct otlp_grpc *self = CAST_OBJ(struct otlp_grpc, in->self, OTLP_GRPC_MAGIC);
    in->self = NULL;
    struct queue *queue = self->queue; /* others that share this still need their pointer */
    queue_free(&queue);
    if (atomic_fetch_sub(&self->refs, 1) > 1)
        return;
    client_pool_fini(&self->pool);
    client_headers_fini(&self->headers);
    CLEAR_MAGIC(self);
    free(self);
}

void otlp_grpc_divert(struct instance *in, queue_divert_fn *fn, void *arg)
{
    struct otlp_grpc *self = CAST_OBJ(struct otlp_grpc, in->self, OTLP_GRPC_MAGIC);
    queue_divert(self->queue, fn, arg);
}

static const char *const old_names[] = {"otlp", NULL};

const struct component otlp_grpc_component = {
    .kind = KIND_EXPORTER,
    .name = "otlp_grpc",
    .aliases = old_names,
    .help = "Sends OTLP over gRPC.",
    .signals = SIGNAL_ALL,
    .stability = STABILITY_STABLE,
    .affinity = AFFINITY_PROCESS,
    .options = otlp_grpc_options,
    .config_size = sizeof(struct otlp_grpc_config),
    .validate = otlp_grpc_validate,
    .create = otlp_grpc_create,
    .adopt = otlp_grpc_adopt,
    .start = otlp_grpc_start,
    .consume = otlp_grpc_consume,
    .stop = otlp_grpc_stop,
    .abandon = otlp_grpc_abandon,
    .held = otlp_grpc_held,
    .free = otlp_grpc_free,
};
