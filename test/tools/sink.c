/* SPDX-License-Identifier: Apache-2.0 */
/* sink --port P: takes OTLP over gRPC, counts requests of all signals and spans, forgets. GET
 * /stats answers with the counts as JSON.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/compress.h"
#include "common/io/grpc.h"
#include "common/otlp/batch.h"

static _Atomic uint64_t requests, spans, bytes;

static int on_head(void *arg, struct http_request *r, uint64_t *max_body)
{
    *max_body = 64 << 20;
    return 0;
}

static void answer_stats(struct http_request *r)
{
    char text[160];
    int n = snprintf(text, sizeof(text),
                     "{\"requests\": %" PRIu64 ", \"spans\": %" PRIu64 ", \"bytes\": %" PRIu64 "}",
                     requests, spans, bytes);
    struct http_header type = {"content-type", STR("application/json")};
    struct http_response resp = {
        .status = 200, .headers = &type, .n_headers = 1, .body = str_make(text, (size_t)n)};
    http_respond(r, &resp);
}

static void on_message(void *arg, struct http_request *r)
{
    struct str message;
    struct chunk *plain = NULL;
    struct batch *b = NULL;
    struct err e;
    bool is_compressed;
    if (!r->is_grpc) {
        answer_stats(r);
        return;
    }
    if (grpc_message(r, &message, &is_compressed)) {
        grpc_respond_status(r, GRPC_INTERNAL, "framing", STR(""));
        return;
    }
    bytes += message.n;
    if (is_compressed && coding_decode(&plain, coding_parse(r->grpc_encoding), message, 0,
                                       &(struct coding_limits){.max_out = 64 << 20})) {
        grpc_respond_status(r, GRPC_INTERNAL, "compression", STR(""));
        return;
    }
    struct chunk *c = plain ? plain : r->body;
    size_t off = plain ? 0 : (size_t)((const uint8_t *)message.p - r->body->data);
    size_t n = plain ? plain->len : message.n;
    enum signal signal = SIGNAL_TRACES;
    for (int s = 0; s < SIGNAL_COUNT; s++)
        if (str_is(r->path, signal_info[s].grpc_path))
            signal = (enum signal)s;
    if (batch_read(&b, signal, c, off, n, 0, &e) == 0) {
        requests++;
        spans += signal == SIGNAL_TRACES ? b->items : 0;
        batch_unref(&b);
        grpc_respond(r, (struct str){NULL, 0});
    } else {
        grpc_respond_status(r, GRPC_INVALID_ARGUMENT, e.text, STR(""));
    }
    chunk_unref(&plain);
}

static void on_refuse(void *arg, struct http_request *r, enum http_refusal why)
{
    grpc_respond_status(r, GRPC_UNAVAILABLE, "refused", STR(""));
}

static const struct http_handler handler = {
    .head = on_head, .message = on_message, .refuse = on_refuse};

struct opening {
    struct http_server *server;
    char endpoint[32];
    struct err e;
    int r;
};

static void do_open(void *arg)
{
    struct opening *o = arg;
    struct http_server_config c = {.endpoint = o->endpoint, .max_streams = 1000};
    o->r = http_server_open(&o->server, &c, &handler, &o->e);
}

int main(int argc, char **argv)
{
    struct opening o = {0};
    sigset_t set;
    int sig;
    if (argc != 3 || strcmp(argv[1], "--port") != 0) {
        fprintf(stderr, "usage: sink --port PORT\n");
        return 2;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    snprintf(o.endpoint, sizeof(o.endpoint), "127.0.0.1:%s", argv[2]);
    if (loops_start(1, &o.e) == 0)
        loop_call(loops_get(0), do_open, &o);
    if (o.r) {
        fprintf(stderr, "sink: %s\n", o.e.text);
        return 1;
    }
    sigwait(&set, &sig);
    return 0;
}
