/* SPDX-License-Identifier: Apache-2.0 */
/*
 * otlp: OTLP over gRPC and over HTTP with protobuf bodies.
 *
 *   request ─► head: path, method, type ─► body ─► decode ─► batch_read (to the leaf) ─► node_emit
 *                                                                                         │
 *   answer ◄──────────────────────── worst verdict of all branches ◄──────────────────────┘
 *
 * The servers belong to the core, which outlives generations: a reload that leaves the endpoints as
 * they are hands the core to the new instance, and no connection notices.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/io/compress.h"
#include "common/io/grpc.h"
#include "common/otlp/encode.h"
#include "common/pipeline/memory.h"
#include "common/pipeline/node.h"
#include "common/pipeline/telemetry.h"

struct server_tls {
    bool on;
    const char *ca_file, *cert_file, *key_file;
};

struct protocol_config {
    bool on;
    int transport;
    const char *endpoint;
    struct server_tls tls;
    uint64_t max_recv_msg_size_mib, max_concurrent_streams; /* grpc */
    uint64_t max_request_body_size;                         /* http */
    const char *paths[SIGNAL_COUNT];                        /* http */
};

struct otlp_config {
    struct protocol_config grpc, http;
};

#define TLS_AT(field) offsetof(struct server_tls, field)
static const struct option tls_options[] = {
    {.key = "cert_file",
     .type = OPT_STRING,
     .offset = TLS_AT(cert_file),
     .help = "Certificate chain, PEM."},
    {.key = "key_file",
     .type = OPT_STRING,
     .offset = TLS_AT(key_file),
     .help = "Private key, PEM."},
    {.key = "ca_file",
     .type = OPT_STRING,
     .offset = TLS_AT(ca_file),
     .help = "Certificates of authorities, PEM."},
    OPTION_UNSUPPORTED("client_ca_file"),
    OPTION_UNSUPPORTED("client_ca_file_reload"),
    OPTION_UNSUPPORTED("ca_pem"),
    OPTION_UNSUPPORTED("cert_pem"),
    OPTION_UNSUPPORTED("key_pem"),
    OPTION_UNSUPPORTED("min_version"),
    OPTION_UNSUPPORTED("max_version"),
    OPTION_UNSUPPORTED("cipher_suites"),
    OPTION_UNSUPPORTED("include_insecure_cipher_suites"),
    OPTION_UNSUPPORTED("curve_preferences"),
    OPTION_UNSUPPORTED("include_system_ca_certs_pool"),
    OPTION_UNSUPPORTED("reload_interval"),
    OPTION_UNSUPPORTED("tpm"),
    OPTION_END,
};

static const char *const transports[] = {"tcp", NULL};

#define AT(field) offsetof(struct protocol_config, field)
static const struct option grpc_options[] = {
    {.key = "endpoint",
     .type = OPT_ENDPOINT,
     .offset = AT(endpoint),
     .def = "localhost:4317",
     .help = "Address to listen on."},
    {.key = "transport",
     .type = OPT_ENUM,
     .offset = AT(transport),
     .names = transports,
     .def = "tcp",
     .help = "Only tcp."},
    {.key = "tls",
     .type = OPT_STRUCT,
     .offset = AT(tls),
     .sub = tls_options,
     .presence = OPT_OFF_NONE,
     .on_offset = AT(tls) + TLS_AT(on),
     .help = "Serve with TLS."},
    {.key = "max_recv_msg_size_mib",
     .type = OPT_UINT,
     .offset = AT(max_recv_msg_size_mib),
     .def = "0",
     .min = 0,
     .max = 1024,
     .help = "Largest message; 0 = 4 MiB."},
    {.key = "max_concurrent_streams",
     .type = OPT_UINT,
     .offset = AT(max_concurrent_streams),
     .def = "0",
     .min = 0,
     .max = 65535,
     .help = "Requests at a time on a connection; 0 = 100."},
    OPTION_NO_EFFECT("read_buffer_size", "Buffers are shared by all connections of a loop."),
    OPTION_NO_EFFECT("write_buffer_size", "Buffers are shared by all connections of a loop."),
    OPTION_NO_EFFECT("include_metadata", "No component reads it."),
    OPTION_UNSUPPORTED("keepalive"),
    OPTION_UNSUPPORTED("auth"),
    OPTION_UNSUPPORTED("middlewares"),
    OPTION_END,
};

static const struct option http_options[] = {
    {.key = "endpoint",
     .type = OPT_ENDPOINT,
     .offset = AT(endpoint),
     .def = "localhost:4318",
     .help = "Address to listen on."},
    {.key = "tls",
     .type = OPT_STRUCT,
     .offset = AT(tls),
     .sub = tls_options,
     .presence = OPT_OFF_NONE,
     .on_offset = AT(tls) + TLS_AT(on),
     .help = "Serve with TLS."},
    {.key = "max_request_body_size",
     .type = OPT_UINT,
     .offset = AT(max_request_body_size),
     .def = "20971520",
     .min = 0,
     .max = 1 << 30,
     .help = "Largest body in bytes, as received and after decompression; 0 = 20 MiB."},
    {.key = "traces_url_path",
     .type = OPT_STRING,
     .offset = AT(paths[SIGNAL_TRACES]),
     .def = "/v1/traces",
     .help = "Path for traces."},
    {.key = "metrics_url_path",
     .type = OPT_STRING,
     .offset = AT(paths[SIGNAL_METRICS]),
     .def = "/v1/metrics",
     .help = "Path for metrics."},
    {.key = "logs_url_path",
     .type = OPT_STRING,
     .offset = AT(paths[SIGNAL_LOGS]),
     .def = "/v1/logs",
     .help = "Path for logs."},
    OPTION_NO_EFFECT("include_metadata", "No component reads it."),
    OPTION_UNSUPPORTED("cors"),
    OPTION_UNSUPPORTED("auth"),
    OPTION_UNSUPPORTED("response_headers"),
    OPTION_UNSUPPORTED("compression_algorithms"),
    OPTION_UNSUPPORTED("read_timeout"),
    OPTION_UNSUPPORTED("read_header_timeout"),
    OPTION_UNSUPPORTED("write_timeout"),
    OPTION_UNSUPPORTED("idle_timeout"),
    OPTION_UNSUPPORTED("keep_alives_enabled"),
    OPTION_UNSUPPORTED("middlewares"),
    OPTION_END,
};

static const struct option protocols_options[] = {
    {.key = "grpc",
     .type = OPT_STRUCT,
     .offset = offsetof(struct otlp_config, grpc),
     .sub = grpc_options,
     .presence = OPT_OFF_DEFAULT,
     .on_offset = offsetof(struct otlp_config, grpc) + AT(on),
     .help = "OTLP over gRPC."},
    {.key = "http",
     .type = OPT_STRUCT,
     .offset = offsetof(struct otlp_config, http),
     .sub = http_options,
     .presence = OPT_OFF_DEFAULT,
     .on_offset = offsetof(struct otlp_config, http) + AT(on),
     .help = "OTLP over HTTP."},
    OPTION_END,
};

static const struct option otlp_options[] = {
    {.key = "protocols",
     .type = OPT_STRUCT,
     .offset = 0,
     .sub = protocols_options,
     .flags = OPT_REQUIRED,
     .help = "Which of grpc and http are served; at least one."},
    OPTION_END,
};

#define CORE_MAGIC 0x4f54434fu

/* How a request ended: REFUSED may come again. */
enum request_outcome { SUCCESS, FAILURE, REFUSED, OUTCOMES };

struct counters {
    struct series *requests[OUTCOMES];
    struct series *accepted[SIGNAL_COUNT], *refused[SIGNAL_COUNT];
};

/* One listener: which protocol it speaks tells is_grpc. */
struct side {
    struct core *core;
    struct http_server *_Atomic server; /* gates on other loops look at it */
    struct http_handler handler;
    struct counters counters;
    bool is_grpc;
};

struct core {
    unsigned magic;
    _Atomic unsigned refs;
    struct instance *_Atomic in; /* of the newest generation */
    _Atomic uint64_t ceiling;
    struct side grpc, http;
    struct otlp_config identity; /* what it was opened with; texts are copies */
    unsigned servers_open;
    _Atomic uint64_t under_way;
    bool is_stopped;
};

/* A request between message() and its answer. */
struct call {
    struct ack ack;
    struct side *side;
    struct http_request *request;
    enum signal signal;
    uint64_t items;
};

/* ---- answers ---- */

static int http_status_of(int code)
{
    switch (code) {
    case GRPC_OK:
        return 200;
    case GRPC_CANCELLED:
    case GRPC_DEADLINE_EXCEEDED:
    case GRPC_ABORTED:
    case GRPC_OUT_OF_RANGE:
    case GRPC_UNAVAILABLE:
    case GRPC_DATA_LOSS:
        return 503;
    case GRPC_RESOURCE_EXHAUSTED:
        return 429;
    case GRPC_INVALID_ARGUMENT:
        return 400;
    case GRPC_UNAUTHENTICATED:
        return 401;
    case GRPC_PERMISSION_DENIED:
        return 403;
    case GRPC_UNIMPLEMENTED:
        return 404;
    default:
        return 500;
    }
}

static void answer_text(struct side *side, struct http_request *r, int status, const char *text)
{
    series_add(side->counters.requests[FAILURE], 1);
    struct http_header type = {"content-type", STR("text/plain")};
    struct http_response resp = {
        .status = status, .headers = &type, .n_headers = 1, .body = str_of(text)};
    http_respond(r, &resp);
}

static void answer_error(struct side *side, struct http_request *r, int code, const char *message,
                         uint32_t retry_after_ms)
{
    struct buf status;
    bool is_refused = code == GRPC_UNAVAILABLE || retry_after_ms;
    series_add(side->counters.requests[is_refused ? REFUSED : FAILURE], 1);
    buf_init(&status);
    encode_rpc_status(&status, code, message, retry_after_ms);
    if (side->is_grpc) {
        grpc_respond_status(r, code, message, retry_after_ms ? buf_str(&status) : STR(""));
    } else {
        char seconds[16];
        int http = http_status_of(code);
        snprintf(seconds, sizeof(seconds), "%u", (retry_after_ms + 999) / 1000);
        struct http_header headers[] = {{"content-type", STR("application/x-protobuf")},
                                        {"retry-after", str_of(seconds)}};
        bool has_hint = retry_after_ms && (http == 429 || http == 503);
        struct http_response resp = {.status = http,
                                     .headers = headers,
                                     .n_headers = has_hint ? 2 : 1,
                                     .body = buf_str(&status)};
        http_respond(r, &resp);
    }
    buf_fini(&status);
}

static void answer_ok(struct side *side, struct http_request *r)
{
    series_add(side->counters.requests[SUCCESS], 1);
    if (side->is_grpc) {
        grpc_respond(r, (struct str){NULL, 0});
        return;
    }
    struct http_header type = {"content-type", STR("application/x-protobuf")};
    struct http_response resp = {.status = 200, .headers = &type, .n_headers = 1};
    http_respond(r, &resp);
}

/* ---- requests ---- */

static void check_stopped(struct core *c);

static int signal_of(const struct side *side, struct str path, enum signal *out)
{
    const struct instance *in = side->core->in;
    const struct otlp_config *config = in->config;
    for (int s = 0; s < SIGNAL_COUNT; s++) {
        const char *want = side->is_grpc ? signal_info[s].grpc_path : config->http.paths[s];
        if (str_is(path, want) && node_has_output(in, (enum signal)s)) {
            *out = (enum signal)s;
            return 0;
        }
    }
    return -ENOENT;
}

/* Without parameters: "application/x-protobuf; charset=utf-8" is the type before the semicolon. */
static struct str media_type(struct str v)
{
    const char *semicolon = v.n ? memchr(v.p, ';', v.n) : NULL;
    return str_trim(semicolon ? str_make(v.p, (size_t)(semicolon - v.p)) : v);
}

static uint64_t max_message(const struct side *side)
{
    const struct otlp_config *c = side->core->in->config;
    uint64_t mib = c->grpc.max_recv_msg_size_mib;
    if (side->is_grpc)
        return (mib ? mib : 4) << 20;
    return c->http.max_request_body_size ? c->http.max_request_body_size : 20 << 20;
}

static int on_head(void *arg, struct http_request *r, uint64_t *max_body)
{
    struct side *side = arg;
    (void)r;
    *max_body = max_message(side) + (side->is_grpc ? GRPC_PREFIX : 0);
    return 0; /* errors carry a body: message() answers them */
}

/* Errors that are about the request line and head. True when it was answered. */
static bool refuse_head(struct side *side, struct http_request *r, enum signal *signal)
{
    if (side->is_grpc) {
        if (!r->is_grpc) {
            answer_text(side, r, 415, "415 unsupported media type, supported: [application/grpc]");
            return true;
        }
        if (signal_of(side, r->path, signal)) {
            grpc_respond_status(r, GRPC_UNIMPLEMENTED, "unknown service or method", STR(""));
            return true;
        }
        return false;
    }
    if (signal_of(side, r->path, signal)) {
        answer_text(side, r, 404, "404 page not found");
        return true;
    }
    if (!str_is(r->method, "POST")) {
        answer_text(side, r, 405, "405 method not allowed, supported: [POST]");
        return true;
    }
    if (!str_ieq(media_type(r->content_type), STR("application/x-protobuf"))) {
        answer_text(side, r, 415,
                    "415 unsupported media type, supported: [application/x-protobuf]");
        return true;
    }
    return false;
}

struct message {
    struct chunk *chunk; /* one reference */
    size_t off, len;
};

/* The message's bytes, decompressed. On failure *code and the text say what to answer. */
static int take_message(struct side *side, struct http_request *r, struct message *m, int *code,
                        struct err *e)
{
    struct str raw = {NULL, 0};
    bool is_compressed = false;
    enum coding coding = CODING_IDENTITY;
    *code = GRPC_INVALID_ARGUMENT;
    if (side->is_grpc) {
        if (grpc_message(r, &raw, &is_compressed)) {
            *code = GRPC_INTERNAL;
            return err_set(e, -EBADMSG, "malformed gRPC message");
        }
        coding = is_compressed ? coding_parse(r->grpc_encoding) : CODING_IDENTITY;
        if (coding == CODING_UNKNOWN || (is_compressed && coding == CODING_IDENTITY)) {
            *code = GRPC_UNIMPLEMENTED;
            return err_set(e, -EINVAL, "unsupported grpc-encoding");
        }
    } else {
        if (r->body)
            raw = str_make(r->body->data + HTTP_BODY_HEADROOM, r->body->len - HTTP_BODY_HEADROOM);
        coding = coding_parse(r->content_encoding);
        if (coding == CODING_UNKNOWN)
            return err_set(e, -EINVAL, "unsupported Content-Encoding: " STR_FMT,
                           STR_ARG(r->content_encoding));
    }
    if (coding == CODING_IDENTITY) {
        if (!r->body)
            return 0;
        m->chunk = chunk_ref(r->body);
        m->off = (size_t)((const uint8_t *)raw.p - r->body->data);
        m->len = raw.n;
        return 0;
    }
    struct coding_limits limits = {max_message(side), side->core->ceiling};
    int d = coding_decode(&m->chunk, coding, raw, HTTP_BODY_HEADROOM, &limits);
    if (d == 0) {
        m->off = HTTP_BODY_HEADROOM;
        m->len = m->chunk->len - HTTP_BODY_HEADROOM;
        return 0;
    }
    if (d == -E2BIG && side->is_grpc)
        *code = GRPC_RESOURCE_EXHAUSTED;
    if (d == -ENOMEM)
        *code = GRPC_UNAVAILABLE;
    return err_set(e, d,
                   d == -E2BIG    ? "decompressed message is larger than max"
                   : d == -ENOMEM ? "data refused due to high memory usage"
                                  : "malformed compressed body");
}

static void on_verdict(void *arg, const struct verdict *v)
{
    struct call *c = arg;
    struct side *side = c->side;
    struct core *core = side->core;
    struct http_request *request = c->request;
    bool ok = v->status == ACK_OK;
    series_add((ok ? side->counters.accepted : side->counters.refused)[c->signal], c->items);
    free(c);
    /* Before the answer: with the last one the server may be gone, and the core with it. */
    atomic_fetch_sub(&core->under_way, 1);
    if (ok) {
        answer_ok(side, request);
        return;
    }
    int code = v->grpc_code                 ? v->grpc_code
               : v->status == ACK_PERMANENT ? GRPC_INTERNAL
                                            : GRPC_UNAVAILABLE;
    answer_error(side, request, code, v->reason ? v->reason : "", v->retry_after_ms);
}

static void deliver(struct side *side, struct http_request *r, enum signal signal, struct batch *b)
{
    struct call *c = xcalloc(1, sizeof(*c));
    struct instance *in = side->core->in;
    c->side = side;
    c->request = r;
    c->signal = signal;
    c->items = b->items;
    atomic_fetch_add(&side->core->under_way, 1);
    ack_init(&c->ack, r->loop, on_verdict, c);
    ledger_made(in, signal, b->items);
    node_emit(in, b, &c->ack);
}

static void on_message(void *arg, struct http_request *r)
{
    struct side *side = arg;
    struct message m = {0};
    struct batch *b = NULL;
    struct err e;
    enum signal signal;
    int code;
    if (refuse_head(side, r, &signal))
        return;
    if (r->deadline_ns && clock_mono_ns() > r->deadline_ns) {
        answer_error(side, r, GRPC_DEADLINE_EXCEEDED,
                     "deadline exceeded before the request was taken", 0);
        return;
    }
    if (take_message(side, r, &m, &code, &e)) {
        answer_error(side, r, code, e.text, code == GRPC_UNAVAILABLE ? 1000 : 0);
        return;
    }
    if (m.len == 0) { /* nothing in it: a success that reaches nobody */
        chunk_unref(&m.chunk);
        answer_ok(side, r);
        return;
    }
    int failed = batch_read(&b, signal, m.chunk, m.off, m.len, BATCH_VALIDATE, &e);
    chunk_unref(&m.chunk);
    if (failed) {
        answer_error(side, r, failed == -ENOMEM ? GRPC_UNAVAILABLE : GRPC_INVALID_ARGUMENT, e.text,
                     failed == -ENOMEM ? 1000 : 0);
        return;
    }
    if (b->items == 0) {
        batch_unref(&b);
        answer_ok(side, r);
        return;
    }
    /* The batch holds the bytes from here on. */
    chunk_unref(&r->body);
    deliver(side, r, signal, b);
}

static void on_refuse(void *arg, struct http_request *r, enum http_refusal why)
{
    struct side *side = arg;
    enum signal signal;
    if (refuse_head(side, r, &signal))
        return;
    if (why == HTTP_OVERLOADED)
        answer_error(side, r, GRPC_UNAVAILABLE, "data refused due to high memory usage", 1000);
    else if (why == HTTP_BAD_BODY)
        answer_error(side, r, GRPC_INTERNAL, "malformed gRPC message", 0);
    else
        answer_error(side, r, side->is_grpc ? GRPC_RESOURCE_EXHAUSTED : GRPC_INVALID_ARGUMENT,
                     "message is larger than max", 0);
}

static uint64_t on_ceiling(void *arg)
{
    struct side *side = arg;
    return side->core->ceiling;
}

/* A full queue of one signal holds nobody else back. Nonsense goes through: it is answered. */
static bool on_is_open(void *arg, const struct http_request *r)
{
    struct side *side = arg;
    enum signal signal;
    return signal_of(side, r->path, &signal) != 0 || node_outputs_open_for(side->core->in, signal);
}

/* ---- life ---- */

static int otlp_validate(const void *config, struct err *e)
{
    const struct otlp_config *c = config;
    if (!c->grpc.on && !c->http.on)
        return err_set(e, -EINVAL, "protocols: at least one of grpc and http is needed");
    return 0;
}

static void copy_text(const char **to)
{
    *to = xstrdup(*to ? *to : "");
}

static void keep_identity(struct protocol_config *p)
{
    copy_text(&p->endpoint);
    copy_text(&p->tls.ca_file);
    copy_text(&p->tls.cert_file);
    copy_text(&p->tls.key_file);
}

static void free_identity(struct protocol_config *p)
{
    free((void *)(uintptr_t)p->endpoint);
    free((void *)(uintptr_t)p->tls.ca_file);
    free((void *)(uintptr_t)p->tls.cert_file);
    free((void *)(uintptr_t)p->tls.key_file);
}

static bool same_listener(const struct protocol_config *a, const struct protocol_config *b)
{
    return a->on == b->on && strcmp(a->endpoint, b->endpoint) == 0 && a->tls.on == b->tls.on &&
           strcmp(a->tls.cert_file, b->tls.cert_file) == 0 &&
           strcmp(a->tls.key_file, b->tls.key_file) == 0 &&
           strcmp(a->tls.ca_file, b->tls.ca_file) == 0 &&
           a->max_concurrent_streams == b->max_concurrent_streams;
}

static const struct metric_desc *item_desc(bool accepted, enum signal s)
{
    static const struct metric_desc descs[2][SIGNAL_COUNT] = {
#define DESC(n, h, u) {n, h, u, METRIC_KIND_COUNTER, LEVEL_BASIC, NULL, 0}
        {DESC("receiver_refused_spans",
              "Number of spans that could not be pushed into the pipeline.", "{spans}"),
         DESC("receiver_refused_metric_points",
              "Number of metric points that could not be pushed into the pipeline.",
              "{datapoints}"),
         DESC("receiver_refused_log_records",
              "Number of log records that could not be pushed into the pipeline.", "{records}")},
        {DESC("receiver_accepted_spans", "Number of spans successfully pushed into the pipeline.",
              "{spans}"),
         DESC("receiver_accepted_metric_points",
              "Number of metric points successfully pushed into the pipeline.", "{datapoints}"),
         DESC("receiver_accepted_log_records",
              "Number of log records successfully pushed into the pipeline.", "{records}")},
#undef DESC
    };
    return &descs[accepted][s];
}

static const struct metric_desc requests_desc = {
    "receiver_requests",
    "Number of requests, by how they ended: refused ones may come again.",
    "{requests}",
    METRIC_KIND_COUNTER,
    LEVEL_BASIC,
    NULL,
    0};

static void make_counters(struct side *side, const char *id)
{
    static const char *const outcomes[OUTCOMES] = {"success", "failure", "refused"};
    struct label labels[] = {
        {"receiver", id}, {"transport", side->is_grpc ? "grpc" : "http"}, {"outcome", ""}};
    for (int i = 0; i < OUTCOMES; i++) {
        labels[2].value = outcomes[i];
        side->counters.requests[i] = telemetry_series(&requests_desc, labels, 3);
    }
    for (int s = 0; s < SIGNAL_COUNT; s++) {
        side->counters.accepted[s] = telemetry_series(item_desc(true, (enum signal)s), labels, 2);
        side->counters.refused[s] = telemetry_series(item_desc(false, (enum signal)s), labels, 2);
    }
}

static void side_init(struct side *side, struct core *core, bool is_grpc)
{
    side->core = core;
    side->is_grpc = is_grpc;
    side->handler = (struct http_handler){.arg = side,
                                          .head = on_head,
                                          .message = on_message,
                                          .refuse = on_refuse,
                                          .ceiling = on_ceiling,
                                          .is_open = on_is_open};
}

static int otlp_create(struct instance *in, struct err *e)
{
    struct core *c = xcalloc(1, sizeof(*c));
    (void)e;
    SET_MAGIC(c, CORE_MAGIC);
    c->refs = 1;
    c->in = in;
    c->identity = *(const struct otlp_config *)in->config;
    keep_identity(&c->identity.grpc);
    keep_identity(&c->identity.http);
    side_init(&c->grpc, c, true);
    side_init(&c->http, c, false);
    in->self = c;
    return 0;
}

static void core_unref(struct core *c)
{
    if (atomic_fetch_sub(&c->refs, 1) > 1)
        return;
    free_identity(&c->identity.grpc);
    free_identity(&c->identity.http);
    CLEAR_MAGIC(c);
    free(c);
}

static void otlp_free(struct instance *in)
{
    core_unref(CAST_OBJ(struct core, in->self, CORE_MAGIC));
    in->self = NULL;
}

static bool otlp_adopt(struct instance *in, struct instance *old)
{
    struct core *running = CAST_OBJ(struct core, old->self, CORE_MAGIC);
    struct core *mine = CAST_OBJ(struct core, in->self, CORE_MAGIC);
    const struct otlp_config *now = in->config;
    if (running == mine || !same_listener(&running->identity.grpc, &now->grpc) ||
        !same_listener(&running->identity.http, &now->http))
        return false;
    core_unref(mine);
    running->refs++;
    in->self = running;
    return true;
}

static int open_side(struct side *side, const struct protocol_config *c, const char *what,
                     struct err *e)
{
    struct tls_config tls = {.on = c->tls.on,
                             .ca_file = c->tls.ca_file,
                             .cert_file = c->tls.cert_file,
                             .key_file = c->tls.key_file};
    struct http_server_config sc = {.endpoint = c->endpoint,
                                    .tls = &tls,
                                    .max_streams = (uint32_t)c->max_concurrent_streams,
                                    .is_h2_only = side->is_grpc};
    struct http_server *server = NULL;
    int r = http_server_open(&server, &sc, &side->handler, e);
    side->server = server;
    if (r) {
        err_prefix(e, "protocols::%s: ", what);
        return r;
    }
    side->core->servers_open++;
    return 0;
}

static int otlp_start(struct instance *in, struct err *e)
{
    struct core *c = CAST_OBJ(struct core, in->self, CORE_MAGIC);
    const struct otlp_config *config = in->config;
    int r = 0;
    c->ceiling = memory_marks_of(in).soft;
    c->in = in;
    if (!c->grpc.counters.accepted[0]) { /* not after an adoption: requests are counted meanwhile */
        make_counters(&c->grpc, in->id);
        make_counters(&c->http, in->id);
    }
    if (config->grpc.on && !c->grpc.server)
        r = open_side(&c->grpc, &config->grpc, "grpc", e);
    if (r == 0 && config->http.on && !c->http.server)
        r = open_side(&c->http, &config->http, "http", e);
    if (r)
        return r;
    if (c->grpc.server)
        log_info(&in->log, "Starting GRPC server on %s (port %u)", config->grpc.endpoint,
                 http_server_port(c->grpc.server));
    if (c->http.server)
        log_info(&in->log, "Starting HTTP server on %s (port %u)", config->http.endpoint,
                 http_server_port(c->http.server));
    return 0;
}

static void check_stopped(struct core *c)
{
    if (c->is_stopped || c->servers_open > 0 || c->under_way > 0)
        return;
    c->is_stopped = true;
    instance_stopped(c->in);
}

static void on_closed(void *arg)
{
    struct core *c = CAST_OBJ(struct core, arg, CORE_MAGIC);
    c->servers_open--;
    check_stopped(c); /* a server closes only when its last request is answered */
}

static void otlp_stop(struct instance *in)
{
    struct core *c = CAST_OBJ(struct core, in->self, CORE_MAGIC);
    struct http_server *servers[] = {atomic_exchange(&c->grpc.server, NULL),
                                     atomic_exchange(&c->http.server, NULL)};
    for (size_t i = 0; i < ARRAY_LEN(servers); i++)
        if (servers[i])
            http_server_close(&servers[i], on_closed, c);
    check_stopped(c);
}

static void otlp_gate(struct instance *in, struct loop *l, bool open)
{
    struct core *c = in->self;
    struct http_server *servers[] = {c->grpc.server, c->http.server};
    (void)open; /* of all signals; each request asks for its own */
    for (size_t i = 0; i < ARRAY_LEN(servers); i++)
        if (servers[i])
            http_server_wake(servers[i], l);
}

const struct component otlp_receiver_component = {
    .kind = KIND_RECEIVER,
    .name = "otlp",
    .help = "Receives OTLP over gRPC and HTTP.",
    .signals = SIGNAL_ALL,
    .makes = SIGNAL_ALL,
    .stability = STABILITY_STABLE,
    .affinity = AFFINITY_NONE,
    .options = otlp_options,
    .config_size = sizeof(struct otlp_config),
    .validate = otlp_validate,
    .create = otlp_create,
    .adopt = otlp_adopt,
    .start = otlp_start,
    .stop = otlp_stop,
    .gate = otlp_gate,
    .free = otlp_free,
};
