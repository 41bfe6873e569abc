/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reference --port P --target Q: receives OTLP over gRPC, walks each request, copies it and sends
 * it on, compressed if it came so. No configuration, no queue, no retry, no books: what a gateway's
 * work costs at least with these parts.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/io/compress.h"
#include "common/io/grpc.h"
#include "common/io/http_client.h"
#include "common/otlp/batch.h"

static struct http_client *client;
static char target[32];

static int on_head(void *arg, struct http_request *r, uint64_t *max_body)
{
    *max_body = 64 << 20;
    return 0;
}

static void on_answer(struct http_call *call, const struct http_result *r)
{
    struct http_request *request = call->arg;
    if (r->error || r->grpc_status != GRPC_OK)
        grpc_respond_status(request, GRPC_UNAVAILABLE, "not sent", STR(""));
    else
        grpc_respond(request, (struct str){NULL, 0});
    free(call);
}

/* The request as it is to be sent, with room for its prefix; NULL when it is malformed. */
static struct chunk *work(const struct http_request *r, bool *is_compressed)
{
    struct str message;
    struct batch *b = NULL;
    struct chunk *plain = NULL, *out = NULL, *in = r->body;
    struct coding_limits limits = {.max_out = 64 << 20};
    struct err e;
    if (grpc_message(r, &message, is_compressed))
        return NULL;
    if (*is_compressed) {
        if (coding_decode(&plain, CODING_GZIP, message, 0, &limits))
            return NULL;
        in = plain;
        message = str_make(plain->data, plain->len);
    }
    size_t off = (size_t)((const uint8_t *)message.p - in->data);
    int bad = batch_read(&b, SIGNAL_TRACES, in, off, message.n, 0, &e);
    if (!bad && *is_compressed)
        bad = coding_encode(&out, CODING_GZIP, b->raw, GRPC_PREFIX);
    else if (!bad)
        bad = batch_frame(&out, b, GRPC_PREFIX);
    batch_unref(&b);
    chunk_unref(&plain);
    return bad ? NULL : out;
}

static void on_message(void *arg, struct http_request *r)
{
    static const struct http_call_header headers[] = {
        {"content-type", "application/grpc"}, {"te", "trailers"}, {"grpc-encoding", "gzip"}};
    bool is_compressed;
    struct chunk *out = work(r, &is_compressed);
    if (!out) {
        grpc_respond_status(r, GRPC_INVALID_ARGUMENT, "malformed", STR(""));
        return;
    }
    grpc_prefix(out->data, is_compressed, out->len - GRPC_PREFIX);
    struct http_call *call = xcalloc(1, sizeof(*call));
    call->path = signal_info[SIGNAL_TRACES].grpc_path;
    call->headers = headers;
    call->n_headers = is_compressed ? ARRAY_LEN(headers) : ARRAY_LEN(headers) - 1;
    call->body = out;
    call->body_len = out->len;
    call->done = on_answer;
    call->arg = r;
    http_call_send(client, call);
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
    struct http_server_config c = {.endpoint = o->endpoint};
    struct http_client_config cc = {.endpoint = target, .is_h2 = true};
    o->r = http_client_new(&client, loops_get(0), &cc);
    if (o->r == 0)
        o->r = http_server_open(&o->server, &c, &handler, &o->e);
}

int main(int argc, char **argv)
{
    struct opening o = {0};
    sigset_t set;
    int sig;
    if (argc != 5 || strcmp(argv[1], "--port") != 0 || strcmp(argv[3], "--target") != 0) {
        fprintf(stderr, "usage: reference --port PORT --target PORT\n");
        return 2;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    snprintf(o.endpoint, sizeof(o.endpoint), "127.0.0.1:%s", argv[2]);
    snprintf(target, sizeof(target), "127.0.0.1:%s", argv[4]);
    if (loops_start(1, &o.e) == 0)
        loop_call(loops_get(0), do_open, &o);
    if (o.r) {
        fprintf(stderr, "reference: %s\n", o.e.text);
        return 1;
    }
    sigwait(&set, &sig);
    return 0;
}
