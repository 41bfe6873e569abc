/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load --port P [--shape M] [--spans 500] [--rate 0] [--seconds 3] [--connections 4] [--streams 8]
 *      [--fresh 1] [--rest-ms 0] [--gzip 0]
 *
 * Sends encoded requests by gRPC, each with fresh trace ids, at an offered rate (spans a second; 0
 * = as fast as answers come). Prints a JSON line four times a second and a last one with "end":
 * true. Latency is from the time a request was due, so that a stalled system does not hide its
 * delay.
 *
 * --fresh 0 sends the same bytes again and again: thousands of large requests under way then cost
 * no memory here. --gzip 1 does so, too, with bodies that were compressed at start. --rest-ms is
 * how long a stream rests after a request of it was turned away, as SDKs back off. Spans of
 * requests that were cut off without an answer are told as lost_spans (among failed_spans): they
 * may have arrived.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/io/compress.h"
#include "common/io/grpc.h"
#include "common/io/http_client.h"
#include "common/otlp/signal.h"
#include "test/bench/payload.h"

enum { MAX_LATENCIES = 1 << 20, REPORT_MS = 250, DRAIN_S = 20 };

struct options {
    uint64_t port, spans, rate, connections, streams, fresh, rest_ms, gzip;
    double seconds;
    enum shape shape;
};

struct load {
    struct options o;
    struct payload payload;
    struct http_client **clients;
    unsigned *in_flight;
    struct chunk **same; /* --fresh 0: one body for each request of the payload */
    struct list resting; /* calls that were turned away, the oldest first */
    uint64_t next, sent_spans, acked_spans, failed_spans, lost_spans, started_ns;
    uint32_t *latency_us;
    size_t n_latencies;
    struct loop_timer *pacer, *reporter;
    _Atomic bool done;
};

struct call {
    struct http_call http;
    struct load *l;
    unsigned connection;
    uint64_t due_ns, rests_until_ns;
    struct list in_resting;
};

static void send_more(struct load *l);

static double elapsed_s(const struct load *l)
{
    return (double)(clock_mono_ns() - l->started_ns) / 1e9;
}

static int by_value(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double percentile_ms(struct load *l, double p)
{
    if (l->n_latencies == 0)
        return 0;
    return l->latency_us[(size_t)(p * (double)(l->n_latencies - 1))] / 1000.0;
}

static void report(struct load *l, bool end)
{
    if (end)
        qsort(l->latency_us, l->n_latencies, sizeof(*l->latency_us), by_value);
    printf("{\"elapsed_s\": %.3f, \"sent_spans\": %" PRIu64 ", \"acked_spans\": %" PRIu64
           ", \"failed_spans\": %" PRIu64 ", \"lost_spans\": %" PRIu64
           ", \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"end\": %s}\n",
           elapsed_s(l), l->sent_spans, l->acked_spans, l->failed_spans, l->lost_spans,
           end ? percentile_ms(l, 0.5) : 0, end ? percentile_ms(l, 0.99) : 0,
           end ? "true" : "false");
    fflush(stdout);
}

/* The stream of a request that was turned away is free for another one after a while. */
static void rest(struct load *l, struct call *c)
{
    c->rests_until_ns = clock_mono_ns() + l->o.rest_ms * NS_PER_MS;
    list_push(&l->resting, &c->in_resting);
}

static void wake_rested(struct load *l)
{
    uint64_t now = clock_mono_ns();
    while (!list_is_empty(&l->resting)) {
        struct call *c = LIST_ENTRY(l->resting.next, struct call, in_resting);
        if (c->rests_until_ns > now)
            return;
        list_remove(&c->in_resting);
        l->in_flight[c->connection]--;
        free(c);
    }
}

static void on_answer(struct http_call *http, const struct http_result *r)
{
    struct call *c = CONTAINER_OF(http, struct call, http);
    struct load *l = c->l;
    bool is_refused = false;
    if (r->error || !r->has_grpc_status || r->grpc_status != GRPC_OK) {
        bool is_lost = r->error && r->is_uncertain;
        if (l->failed_spans == 0 || (is_lost && l->lost_spans == 0))
            fprintf(stderr, "load: first failure%s at %.3f s: %s, status %d: " STR_FMT "\n",
                    is_lost ? " without an answer" : "", elapsed_s(l), r->why ? r->why : "answered",
                    r->grpc_status, STR_ARG(r->grpc_message));
        l->failed_spans += l->o.spans;
        l->lost_spans += is_lost ? l->o.spans : 0;
        is_refused = true;
    } else {
        l->acked_spans += l->o.spans;
    }
    if (l->n_latencies < MAX_LATENCIES)
        l->latency_us[l->n_latencies++] = (uint32_t)((clock_mono_ns() - c->due_ns) / 1000);
    if (is_refused && l->o.rest_ms) {
        rest(l, c);
        return;
    }
    l->in_flight[c->connection]--;
    free(c);
    send_more(l);
}

static void compress(struct chunk **body)
{
    struct chunk *plain = *body;
    struct str text = str_make(plain->data + GRPC_PREFIX, plain->len - GRPC_PREFIX);
    ASSERT(coding_encode(body, CODING_GZIP, text, GRPC_PREFIX) == 0);
    chunk_unref(&plain);
}

/* Request i of the payload with its gRPC prefix; one reference. */
static struct chunk *make_body(struct load *l, uint32_t i)
{
    const struct payload_request *q = &l->payload.requests[i];
    if (l->same && l->same[i])
        return chunk_ref(l->same[i]);
    struct chunk *body = chunk_new(q->len + GRPC_PREFIX);
    ASSERT(body);
    payload_copy(&l->payload, i, l->next / l->payload.n_requests, body->data + GRPC_PREFIX);
    body->len = q->len + GRPC_PREFIX;
    if (l->o.gzip)
        compress(&body);
    grpc_prefix(body->data, l->o.gzip, body->len - GRPC_PREFIX);
    if (l->same)
        l->same[i] = chunk_ref(body);
    return body;
}

static void send_one(struct load *l, unsigned connection, uint64_t due_ns)
{
    static const struct http_call_header headers[] = {
        {"content-type", "application/grpc"}, {"te", "trailers"}, {"grpc-encoding", "gzip"}};
    struct call *c = xcalloc(1, sizeof(*c));
    struct chunk *body = make_body(l, (uint32_t)(l->next % l->payload.n_requests));
    l->next++;
    c->l = l;
    c->connection = connection;
    c->due_ns = due_ns;
    c->http.path = signal_info[SIGNAL_TRACES].grpc_path;
    c->http.headers = headers;
    c->http.n_headers = l->o.gzip ? ARRAY_LEN(headers) : ARRAY_LEN(headers) - 1;
    c->http.body = body;
    c->http.body_len = body->len;
    c->http.done = on_answer;
    l->in_flight[connection]++;
    l->sent_spans += l->o.spans;
    http_call_send(l->clients[connection], &c->http);
}

/* The connection with the fewest requests under way, or -1 when all are full. */
static int find_connection(const struct load *l)
{
    int best = -1;
    for (unsigned i = 0; i < l->o.connections; i++)
        if (l->in_flight[i] < l->o.streams && (best < 0 || l->in_flight[i] < l->in_flight[best]))
            best = (int)i;
    return best;
}

static void send_more(struct load *l)
{
    double now = elapsed_s(l);
    if (now >= l->o.seconds)
        return;
    for (;;) {
        int c = find_connection(l);
        uint64_t due_ns = clock_mono_ns();
        if (c < 0)
            return;
        if (l->o.rate) {
            double due_s = (double)l->sent_spans / (double)l->o.rate;
            if (due_s > now)
                return;
            due_ns = l->started_ns + (uint64_t)(due_s * 1e9);
        }
        send_one(l, (unsigned)c, due_ns);
    }
}

static void on_pace(void *arg)
{
    wake_rested(arg);
    send_more(arg);
}

static void on_report(void *arg)
{
    struct load *l = arg;
    uint64_t under_way = l->sent_spans - l->acked_spans - l->failed_spans;
    bool over = elapsed_s(l) >= l->o.seconds;
    if (!over || (under_way && elapsed_s(l) < l->o.seconds + DRAIN_S)) {
        report(l, false);
        return;
    }
    loop_timer_free(&l->pacer);
    loop_timer_free(&l->reporter);
    report(l, true);
    l->done = true;
}

static void start(void *arg)
{
    struct load *l = arg;
    char endpoint[32];
    snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", (unsigned)l->o.port);
    struct http_client_config c = {.endpoint = endpoint, .is_h2 = true};
    for (unsigned i = 0; i < l->o.connections; i++)
        ASSERT(http_client_new(&l->clients[i], loops_get(0), &c) == 0);
    l->started_ns = clock_mono_ns();
    l->pacer = loop_timer_new(loops_get(0), on_pace, l);
    loop_timer_start(l->pacer, 0, 1);
    l->reporter = loop_timer_new(loops_get(0), on_report, l);
    loop_timer_start(l->reporter, REPORT_MS, REPORT_MS);
}

static int parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){
        .spans = 500, .connections = 4, .streams = 8, .seconds = 3, .fresh = 1, .shape = SHAPE_M};
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *k = argv[i], *v = argv[i + 1];
        if (strcmp(k, "--port") == 0)
            o->port = strtoull(v, NULL, 10);
        else if (strcmp(k, "--spans") == 0)
            o->spans = strtoull(v, NULL, 10);
        else if (strcmp(k, "--rate") == 0)
            o->rate = strtoull(v, NULL, 10);
        else if (strcmp(k, "--connections") == 0)
            o->connections = strtoull(v, NULL, 10);
        else if (strcmp(k, "--streams") == 0)
            o->streams = strtoull(v, NULL, 10);
        else if (strcmp(k, "--fresh") == 0)
            o->fresh = strtoull(v, NULL, 10);
        else if (strcmp(k, "--gzip") == 0)
            o->gzip = strtoull(v, NULL, 10);
        else if (strcmp(k, "--rest-ms") == 0)
            o->rest_ms = strtoull(v, NULL, 10);
        else if (strcmp(k, "--seconds") == 0)
            o->seconds = strtod(v, NULL);
        else if (strcmp(k, "--shape") == 0)
            o->shape = v[0] == 'S' ? SHAPE_S : v[0] == 'L' ? SHAPE_L : SHAPE_M;
        else
            return -1;
    }
    return o->port && o->spans && o->connections && o->streams ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct load l = {0};
    struct err e;
    if (parse(&l.o, argc, argv)) {
        fprintf(stderr,
                "usage: load --port PORT [--shape S|M|L] [--spans N] [--rate N] [--seconds N]"
                " [--connections N] [--streams N] [--fresh 0|1] [--rest-ms N] [--gzip 0|1]\n");
        return 2;
    }
    uint64_t n = l.o.spans < 100 ? 3000 : MAX(3, MIN(60, 60000 / l.o.spans));
    payload_init(&l.payload, l.o.shape, (uint32_t)n, (uint32_t)l.o.spans, 42);
    list_init(&l.resting);
    if (!l.o.fresh || l.o.gzip)
        l.same = xcalloc(l.payload.n_requests, sizeof(struct chunk *));
    l.clients = xcalloc(l.o.connections, sizeof(struct http_client *));
    l.in_flight = xcalloc(l.o.connections, sizeof(*l.in_flight));
    l.latency_us = xcalloc(MAX_LATENCIES, sizeof(*l.latency_us));
    if (loops_start(1, &e)) {
        fprintf(stderr, "load: %s\n", e.text);
        return 1;
    }
    loop_call(loops_get(0), start, &l);
    while (!l.done)
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    return 0;
}
