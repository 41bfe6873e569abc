/* SPDX-License-Identifier: Apache-2.0 */
#include "test/bench/payload.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/otlp/wire.h"

const char *const shape_names[] = {"S", "M", "L", NULL};

enum { REQUESTS_PER_TRACE = 3, SERVICES = 5, SCOPES = 4 };

struct rng {
    uint64_t s;
};

/* SplitMix64: good enough for payloads, and the same everywhere. */
static uint64_t rng_next(struct rng *r)
{
    uint64_t z = (r->s += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static void put_attr_str(struct buf *b, uint32_t number, const char *key, const char *value)
{
    size_t kv = wire_begin(b, number);
    wire_put_bytes(b, 1, str_of(key));
    size_t any = wire_begin(b, 2);
    wire_put_bytes(b, 1, str_of(value));
    wire_end(b, any);
    wire_end(b, kv);
}

static void put_attr_int(struct buf *b, uint32_t number, const char *key, uint64_t value)
{
    size_t kv = wire_begin(b, number);
    wire_put_bytes(b, 1, str_of(key));
    size_t any = wire_begin(b, 2);
    wire_put_u64(b, 3, value);
    wire_end(b, any);
    wire_end(b, kv);
}

static void put_resource(struct buf *b, enum shape shape, unsigned service)
{
    static const char *const more[][2] = {
        {"service.namespace", "shop"},
        {"service.version", "2.14.3"},
        {"deployment.environment.name", "production"},
        {"k8s.namespace.name", "storefront"},
        {"k8s.node.name", "ip-10-1-44-17.eu-central-1.compute.internal"},
        {"k8s.cluster.name", "prod-eu-1"},
        {"cloud.provider", "aws"},
        {"cloud.region", "eu-central-1"},
        {"telemetry.sdk.name", "opentelemetry"},
        {"telemetry.sdk.language", "go"},
        {"telemetry.sdk.version", "1.32.0"},
        {"os.type", "linux"},
        {"host.arch", "amd64"},
    };
    char name[32];
    snprintf(name, sizeof(name), "service-%u", service);
    size_t res = wire_begin(b, 1);
    put_attr_str(b, 1, "service.name", name);
    for (size_t i = 0; shape != SHAPE_S && i < ARRAY_LEN(more); i++)
        put_attr_str(b, 1, more[i][0], more[i][1]);
    wire_end(b, res);
}

static void put_attributes(struct buf *b, enum shape shape, struct rng *r)
{
    char text[96];
    uint64_t v = rng_next(r);
    put_attr_int(b, 9, "http.response.status_code", 200);
    if (shape == SHAPE_S)
        return;
    static const char *const methods[] = {"GET", "POST", "PUT"};
    put_attr_str(b, 9, "http.request.method", methods[v % 3]);
    snprintf(text, sizeof(text), "/api/v1/orders/%u", (unsigned)(v >> 8) % 100000);
    put_attr_str(b, 9, "url.path", text);
    put_attr_str(b, 9, "server.address", "orders.storefront.svc");
    put_attr_int(b, 9, "server.port", 8080);
    put_attr_str(b, 9, "http.route", "/api/v1/orders/{id}");
    put_attr_str(b, 9, "tenant", (v >> 32) % 10 ? "standard" : "premium");
    if (shape == SHAPE_M)
        return;
    put_attr_str(b, 9, "url.scheme", "https");
    put_attr_str(b, 9, "url.full", "https://orders.storefront.svc:8080/api/v1/orders?limit=20");
    put_attr_str(b, 9, "network.protocol.name", "http");
    put_attr_str(b, 9, "network.protocol.version", "1.1");
    put_attr_str(b, 9, "network.peer.address", "10.1.44.17");
    put_attr_int(b, 9, "network.peer.port", 40000 + v % 20000);
    put_attr_str(b, 9, "client.address", "10.1.12.200");
    put_attr_str(b, 9, "user_agent.original", "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101");
    put_attr_int(b, 9, "http.request.body.size", v % 4096);
    put_attr_int(b, 9, "http.response.body.size", v % 65536);
    put_attr_str(b, 9, "thread.name", "grpc-default-executor-7");
}

static void put_event(struct buf *b, enum shape shape, uint64_t time_ns)
{
    if (shape == SHAPE_M)
        return;
    size_t ev = wire_begin(b, 11);
    wire_put_i64(b, 1, time_ns);
    if (shape == SHAPE_L) {
        wire_put_bytes(b, 2, STR("message"));
        put_attr_str(b, 3, "message.type", "RECEIVED");
        put_attr_int(b, 3, "message.id", 1);
    }
    wire_end(b, ev);
}

struct span_spec {
    uint64_t trace;
    unsigned position; /* within its trace */
    bool error, slow;
};

/* Returns the offset of the trace id in b. */
static uint32_t put_span(struct buf *b, enum shape shape, const struct span_spec *spec,
                         struct rng *r)
{
    char name[32];
    uint64_t start = 1700000000000000000ULL + spec->trace * 1000000 + spec->position * 1000;
    uint64_t took = spec->position == 0 ? (spec->slow ? 1500000000ULL : 20000000ULL) : 1000000ULL;
    uint64_t id[2] = {spec->trace, 0x5441494c52414345ULL};
    uint64_t root = spec->trace * 2654435761ULL + 1, span = root + spec->position;

    size_t s = wire_begin(b, 2);
    wire_put_bytes(b, 1, str_make(id, sizeof(id)));
    size_t id_from_end = b->n; /* the id is the 16 bytes before this */
    wire_put_bytes(b, 2, str_make(&span, sizeof(span)));
    if (shape == SHAPE_S)
        wire_put_bytes(b, 3, STR("ot=th:0"));
    if (spec->position > 0)
        wire_put_bytes(b, 4, str_make(&root, sizeof(root)));
    snprintf(name, sizeof(name), "operation-%u", spec->position);
    wire_put_bytes(b, 5, str_of(name));
    wire_put_u64(b, 6, spec->position == 0 ? 2 : 3);
    wire_put_i64(b, 7, start);
    wire_put_i64(b, 8, start + took);
    put_attributes(b, shape, r);
    put_event(b, shape, start + took / 2);
    if (spec->error) {
        size_t st = wire_begin(b, 15);
        wire_put_u64(b, 3, 2);
        wire_end(b, st);
    }
    size_t before = b->n;
    wire_end(b, s); /* the length prefix may move the bytes */
    return (uint32_t)(id_from_end - 16 + (b->n - before));
}

static void build_request(struct payload *p, uint32_t i, const struct span_spec *specs,
                          struct rng *r)
{
    struct payload_request *q = &p->requests[i];
    unsigned n = p->spans_per_request;
    unsigned services = n >= 100 ? SERVICES : 1, scopes = n >= 100 ? SCOPES : 1;
    uint32_t at = 0;
    struct buf out, res, scope;
    buf_init(&out);
    buf_init(&res);
    buf_init(&scope);
    q->n_spans = n;
    q->trace_at = xcalloc(n, sizeof(*q->trace_at));
    for (unsigned g = 0; g < services * scopes; g++) {
        uint32_t first = at, end = (uint32_t)((uint64_t)n * (g + 1) / (services * scopes));
        if (g % scopes == 0) {
            buf_reset(&res);
            put_resource(&res, p->shape, (i + g / scopes) % SERVICES);
        }
        buf_reset(&scope);
        size_t sc = wire_begin(&scope, 1);
        wire_put_bytes(&scope, 1, STR("io.opentelemetry.instrumentation.http"));
        wire_put_bytes(&scope, 2, STR("0.57.0"));
        wire_end(&scope, sc);
        for (; at < end; at++)
            q->trace_at[at] = put_span(&scope, p->shape, &specs[at], r);
        /* Positions so far are within `scope`: shift them to where it lands. */
        size_t scope_at = res.n;
        wire_put_bytes(&res, 2, buf_str(&scope));
        size_t shift = res.n - scope.n;
        for (uint32_t k = first; k < end; k++)
            q->trace_at[k] += (uint32_t)shift;
        ASSERT(shift >= scope_at);
        if (g % scopes == scopes - 1) {
            wire_put_bytes(&out, 1, buf_str(&res));
            uint32_t base = (uint32_t)(out.n - res.n);
            uint32_t group_first = (uint32_t)((uint64_t)n * (g + 1 - scopes) / (services * scopes));
            for (uint32_t k = group_first; k < end; k++)
                q->trace_at[k] += base;
        }
    }
    ASSERT(buf_error(&out) == 0 && at == n);
    q->bytes = (uint8_t *)out.p;
    q->len = out.n;
    buf_fini(&res);
    buf_fini(&scope);
}

void payload_init(struct payload *p, enum shape shape, uint32_t n_requests,
                  uint32_t spans_per_request, uint64_t seed)
{
    struct rng r = {seed};
    uint32_t step = PAYLOAD_TRACE_SPANS * REQUESTS_PER_TRACE;
    n_requests = (n_requests + step - 1) / step * step;
    *p = (struct payload){
        .shape = shape, .n_requests = n_requests, .spans_per_request = spans_per_request};
    p->requests = xcalloc(n_requests, sizeof(*p->requests));
    /*
     * Three neighbouring requests share their traces: slot k of the three is dealt to them in turn,
     * so that every trace lies in three requests and each request has just its number of spans.
     */
    uint32_t window = REQUESTS_PER_TRACE * spans_per_request;
    struct span_spec *specs = xcalloc(window, sizeof(*specs));
    struct span_spec *dealt = xcalloc(window, sizeof(*dealt));
    uint64_t total = 0, trace = 0, spans = 0;
    for (uint32_t w = 0; w < n_requests; w += REQUESTS_PER_TRACE) {
        struct span_spec t = {0};
        for (uint32_t k = 0; k < window; k++) {
            if (spans++ % PAYLOAD_TRACE_SPANS == 0) {
                uint64_t dice = rng_next(&r) % 100;
                t = (struct span_spec){.trace = ++trace, .error = dice < 2, .slow = dice >= 97};
            }
            t.position = (unsigned)((spans - 1) % PAYLOAD_TRACE_SPANS);
            specs[k] = t;
            specs[k].error = t.error && t.position == PAYLOAD_TRACE_SPANS - 1;
        }
        for (uint32_t k = 0; k < window; k++)
            dealt[(k % REQUESTS_PER_TRACE) * spans_per_request + k / REQUESTS_PER_TRACE] = specs[k];
        for (uint32_t j = 0; j < REQUESTS_PER_TRACE; j++) {
            build_request(p, w + j, dealt + j * spans_per_request, &r);
            total += p->requests[w + j].len;
        }
    }
    p->span_bytes = (size_t)(total / ((uint64_t)n_requests * spans_per_request));
    free(specs);
    free(dealt);
}

void payload_fini(struct payload *p)
{
    for (uint32_t i = 0; i < p->n_requests; i++) {
        free(p->requests[i].bytes);
        free(p->requests[i].trace_at);
    }
    free(p->requests);
    p->requests = NULL;
}

void payload_copy(const struct payload *p, uint32_t i, uint64_t pass, uint8_t *dst)
{
    const struct payload_request *q = &p->requests[i];
    memcpy(dst, q->bytes, q->len);
    for (uint32_t k = 0; k < q->n_spans; k++) {
        uint64_t id[2];
        memcpy(id, dst + q->trace_at[k], sizeof(id));
        /* The first half names the trace within the payload, the second the pass. */
        id[1] ^= pass * 0x9e3779b97f4a7c15ULL;
        memcpy(dst + q->trace_at[k], id, sizeof(id));
    }
}
