/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_load --port P [--rate 10000] [--seconds 3] [--connections 16]
 *
 * Small HTTP/1.1 requests at an offered rate (requests a second), over kept connections. A request
 * is sent when it is due, whether or not the ones before are answered, and its latency counts from
 * then. Prints one JSON line at the end, when all are answered.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/io/http_client.h"

enum { MAX_LATENCIES = 1 << 20 };

struct load {
    uint64_t port, rate, connections;
    double seconds;
    struct http_client *client;
    struct chunk *body;
    struct loop_timer *pacer;
    uint64_t started_ns, sent, answered, failed;
    uint32_t *latency_us;
    _Atomic bool done;
};

struct call {
    struct http_call http;
    struct load *l;
    uint64_t due_ns;
};

static int by_value(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void report(struct load *l)
{
    uint64_t n = MIN(l->answered + l->failed, (uint64_t)MAX_LATENCIES);
    qsort(l->latency_us, n, sizeof(*l->latency_us), by_value);
    printf("{\"requests\": %" PRIu64 ", \"failed\": %" PRIu64
           ", \"elapsed_s\": %.3f, \"p50_ms\": %.3f, \"p99_ms\": %.3f}\n",
           l->answered, l->failed, (double)(clock_mono_ns() - l->started_ns) / 1e9,
           n ? l->latency_us[n / 2] / 1000.0 : 0, n ? l->latency_us[n * 99 / 100] / 1000.0 : 0);
    fflush(stdout);
}

static void on_answer(struct http_call *http, const struct http_result *r)
{
    struct call *c = CONTAINER_OF(http, struct call, http);
    struct load *l = c->l;
    uint64_t n = l->answered + l->failed;
    if (n < MAX_LATENCIES)
        l->latency_us[n] = (uint32_t)((clock_mono_ns() - c->due_ns) / 1000);
    if (r->error || r->status != 200)
        l->failed++;
    else
        l->answered++;
    free(c);
}

static void on_pace(void *arg)
{
    struct load *l = arg;
    double elapsed = (double)(clock_mono_ns() - l->started_ns) / 1e9;
    uint64_t due = (uint64_t)(MIN(elapsed, l->seconds) * (double)l->rate);
    for (; l->sent < due; l->sent++) {
        struct call *c = xcalloc(1, sizeof(*c));
        c->l = l;
        c->due_ns = l->started_ns + (uint64_t)((double)l->sent / (double)l->rate * 1e9);
        c->http.path = "/load";
        c->http.body = chunk_ref(l->body);
        c->http.body_len = l->body->len;
        c->http.done = on_answer;
        http_call_send(l->client, &c->http);
    }
    if (elapsed < l->seconds || l->answered + l->failed < l->sent)
        return;
    loop_timer_free(&l->pacer);
    report(l);
    l->done = true;
}

static void start(void *arg)
{
    struct load *l = arg;
    char endpoint[32];
    snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", (unsigned)l->port);
    struct http_client_config c = {.endpoint = endpoint, .max_conns = (unsigned)l->connections};
    ASSERT(http_client_new(&l->client, loops_get(0), &c) == 0);
    l->body = chunk_new(16);
    ASSERT(l->body);
    memcpy(l->body->data, "{\"load\": \"test\"}", 16);
    l->body->len = 16;
    l->started_ns = clock_mono_ns();
    l->pacer = loop_timer_new(loops_get(0), on_pace, l);
    loop_timer_start(l->pacer, 1, 1);
}

static int parse(struct load *l, int argc, char **argv)
{
    *l = (struct load){.rate = 10000, .connections = 16, .seconds = 3};
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *k = argv[i], *v = argv[i + 1];
        if (strcmp(k, "--port") == 0)
            l->port = strtoull(v, NULL, 10);
        else if (strcmp(k, "--rate") == 0)
            l->rate = strtoull(v, NULL, 10);
        else if (strcmp(k, "--connections") == 0)
            l->connections = strtoull(v, NULL, 10);
        else if (strcmp(k, "--seconds") == 0)
            l->seconds = strtod(v, NULL);
        else
            return -1;
    }
    return argc % 2 == 1 && l->port && l->rate && l->connections ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct load l;
    struct err e;
    if (parse(&l, argc, argv)) {
        fprintf(stderr,
                "usage: http_load --port PORT [--rate N] [--seconds N] [--connections N]\n");
        return 2;
    }
    l.latency_us = xcalloc(MAX_LATENCIES, sizeof(*l.latency_us));
    if (loops_start(1, &e)) {
        fprintf(stderr, "http_load: %s\n", e.text);
        return 1;
    }
    loop_call(loops_get(0), start, &l);
    while (!l.done)
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    return 0;
}
