/* SPDX-License-Identifier: Apache-2.0 */
/* User space of the receiver from synthetic records to spans, every case in both roles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/ebpf/capture.h"
#include "agent/ebpf/recording.h"
#include "agent/ebpf/replay.h"
#include "agent/ebpf/url.h"
#include "common/base/clock.h"
#include "common/otlp/view.h"

/* ---- a host with one connection, told by records ---- */

struct rig {
    struct capture c;
    enum role role;
    uint64_t pos[DIR_COUNT], now;
    struct buf spans;
    size_t piece; /* bytes of a record; 0 = whole */
    bool mute;    /* no open record yet */
    struct recording rec;
};

static const uint16_t server_port = 8080;

static void rig_init_at(struct rig *r, enum role role, bool joined, bool client_spans)
{
    struct capture_options o = {.selection = {.all = true, .self = 1},
                                .resource = {"", "", "test"},
                                .request = {query_sensitive_keys, client_spans},
                                .max_series = 100};
    struct open_record open = {.cookie = 7,
                               .family = AF_INET,
                               .role = role,
                               .tgid = 4000000,
                               .joined = joined,
                               .netns = 1};
    struct endpoint client = {.address = {10, 0, 0, 1}, .port = 40000};
    struct endpoint server = {.address = {10, 0, 0, 2}, .port = server_port};

    memset(r, 0, sizeof(*r));
    clock_freeze(1000000000, 1700000000000000000);
    capture_init(&r->c, &o);
    buf_init(&r->spans);
    r->role = role;
    r->now = 1000000000;
    open.local = role == ROLE_SERVER ? server : client;
    open.peer = role == ROLE_SERVER ? client : server;
    capture_open(&r->c, &open);
}

static void rig_init(struct rig *r, enum role role)
{
    rig_init_at(r, role, false, false);
}

static enum direction dir_for(const struct rig *r, enum flow flow)
{
    return (flow == FLOW_REQUEST) == (r->role == ROLE_CLIENT) ? DIR_SEND : DIR_RECEIVE;
}

static void print_spans(void *arg)
{
    struct rig *r = arg;
    uint64_t lost = 0;
    struct batch *b = capture_spans(&r->c, &lost);

    assert_int_equal(lost, 0);
    if (!b)
        return;
    for (uint32_t i = 0; i < b->n_records; i++) {
        struct str body = record_body(&b->records[i]);
        struct any v;

        buf_addf(&r->spans, "%.*s", STR_ARG(span_name(&b->records[i])));
        if (attr_find(body, SPAN_ATTRIBUTES, STR("url.path"), &v))
            buf_addf(&r->spans, " %.*s", STR_ARG(v.s));
        if (attr_find(body, SPAN_ATTRIBUTES, STR("http.response.status_code"), &v))
            buf_addf(&r->spans, " %d", (int)v.i);
        if (attr_find(body, SPAN_ATTRIBUTES, STR("http.request.body.size"), &v) && v.i)
            buf_addf(&r->spans, " in=%d", (int)v.i);
        if (attr_find(body, SPAN_ATTRIBUTES, STR("http.response.body.size"), &v) && v.i)
            buf_addf(&r->spans, " out=%d", (int)v.i);
        if (attr_find(body, SPAN_ATTRIBUTES, STR("error.type"), &v))
            buf_addf(&r->spans, " error=%.*s", STR_ARG(v.s));
        if (attr_find(body, SPAN_ATTRIBUTES, STR("tailrace.incomplete"), &v))
            buf_addf(&r->spans, " incomplete");
        buf_addf(&r->spans, "\n");
        assert_int_equal(b->keys[i].kind, r->role == ROLE_CLIENT ? 3 : 2);
        assert_true(b->keys[i].start_ns <= b->keys[i].end_ns);
    }
    batch_unref(&b);
}

static void drain(struct rig *r)
{
    recording_end(&r->rec, r->now);
    capture_end(&r->c, r->now);
    print_spans(r);
    connections_verdicts_taken(&r->c.connections);
    recording_begin(&r->rec, r->now, r->c.wall_offset_ns);
}

static struct data_record record_of(struct rig *r, enum flow flow, const char *text, size_t n)
{
    enum direction d = dir_for(r, flow);
    struct data_record x = {.cookie = 7,
                            .first_ns = r->now,
                            .end_ns = r->now + 1000,
                            .pos = r->pos[d],
                            .other_pos = r->pos[!d],
                            .len = (uint32_t)n,
                            .head = text ? (uint32_t)n : 0,
                            .bytes = (const uint8_t *)text,
                            .tgid = 4000000,
                            .tid = 4000000,
                            .dir = d};

    r->now += 10000;
    r->pos[d] += n;
    return x;
}

static void give(struct rig *r, const struct data_record *x)
{
    recording_data(&r->rec, x);
    capture_data(&r->c, x);
}

static void say(struct rig *r, enum flow flow, const char *text)
{
    size_t n = strlen(text), piece = r->piece ? r->piece : n;

    for (size_t i = 0; i < n; i += piece) {
        struct data_record x = record_of(r, flow, text + i, MIN(piece, n - i));

        give(r, &x);
    }
}

static void say_hole(struct rig *r, enum flow flow, size_t n, enum hole why)
{
    struct data_record x = record_of(r, flow, NULL, n);

    x.hole = why;
    give(r, &x);
}

static void finish(struct rig *r, const char *want)
{
    struct close_record close = {.cookie = 7, .has_pos = true, .pos = {r->pos[0], r->pos[1]}};

    drain(r);
    drain(r);
    recording_close_record(&r->rec, &close);
    capture_close(&r->c, &close);
    drain(r);
    assert_string_equal(buf_cstr(&r->spans), want);
    assert_int_equal(r->c.connections.n, 0);
    assert_int_equal(r->c.connections.held_bytes, 0);
    for (unsigned l = 0; l < LAYER_COUNT; l++) {
        for (unsigned d = 0; d < DIR_COUNT; d++) {
            const struct capture_account *a = &r->c.connections.ledger.layers[l][d];
            uint64_t sum = a->parsed + a->skipped;

            for (unsigned h = 0; h < HOLE_COUNT; h++)
                sum += a->holes[h];
            assert_int_equal(a->passed, sum);
            if (l == LAYER_SOCKET)
                assert_int_equal(a->passed, r->pos[d]);
        }
    }
    recording_close(&r->rec);
    capture_fini(&r->c);
    buf_fini(&r->spans);
    clock_thaw();
}

#define OK5 "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
#define GET(path) "GET " path " HTTP/1.1\r\nHost: shop:8080\r\n\r\n"

/* A test body run as server and as client, with whole records and with some of two bytes. */
#define BOTH(r, piece_)                                                                            \
    for (int i_ = 0; i_ < 4; i_++)                                                                 \
        if (rig_init(&r, i_ % 2 ? ROLE_SERVER : ROLE_CLIENT), r.piece = i_ / 2 ? (piece_) : 0, true)

static void keep_alive(void **ctx)
{
    struct rig r;

    BOTH(r, 2)
    {
        for (int i = 0; i < 3; i++) {
            say(&r, FLOW_REQUEST, GET("/k"));
            say(&r, FLOW_RESPONSE, OK5);
        }
        finish(&r, "GET /k 200 out=5\nGET /k 200 out=5\nGET /k 200 out=5\n");
    }
}

static void pipelined(void **ctx)
{
    struct rig r;
    char req[4096], resp[4096], want[2048];

    BOTH(r, 100)
    {
        req[0] = resp[0] = want[0] = 0;
        for (int i = 0; i < 50; i++) {
            sprintf(req + strlen(req), "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", i);
            strcat(resp, OK5);
            sprintf(want + strlen(want), "GET /%d 200 out=5\n", i);
        }
        say(&r, FLOW_REQUEST, req);
        say(&r, FLOW_RESPONSE, resp);
        finish(&r, want);
    }
}

static void methods_and_statuses(void **ctx)
{
    struct rig r;

    BOTH(r, 7)
    {
        say(&r, FLOW_REQUEST, "HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n");
        say(&r, FLOW_RESPONSE, "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n");
        say(&r, FLOW_REQUEST, "BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n");
        say(&r, FLOW_RESPONSE, "HTTP/1.1 204 No Content\r\n\r\n");
        say(&r, FLOW_REQUEST, GET("/c"));
        say(&r, FLOW_RESPONSE, "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n");
        say(&r, FLOW_REQUEST,
            "PUT /u HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
        say(&r, FLOW_RESPONSE, "HTTP/1.1 100 Continue\r\n\r\n");
        say(&r, FLOW_REQUEST, "abc");
        say(&r, FLOW_RESPONSE, "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
        say(&r, FLOW_REQUEST, GET("/n"));
        say(&r, FLOW_RESPONSE, "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
        finish(
            &r,
            r.role == ROLE_SERVER
                ? "HEAD /h 200\nHTTP /pot 204\nGET /c 304\nPUT /u 503 in=3 error=503\nGET /n 404\n"
                : "HEAD /h 200\nHTTP /pot 204\nGET /c 304\nPUT /u 503 in=3 error=503\n"
                  "GET /n 404 error=404\n");
    }
}

static void chunked_with_pauses(void **ctx)
{
    struct rig r;

    BOTH(r, 3)
    {
        say(&r, FLOW_REQUEST, GET("/s"));
        say(&r, FLOW_RESPONSE, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        for (int i = 0; i < 20; i++) {
            r.now += 50000000; /* a second of drains */
            drain(&r);
        }
        assert_int_equal(r.spans.n, 0);
        say(&r, FLOW_RESPONSE, "0\r\n\r\n");
        drain(&r);
        assert_string_equal(buf_cstr(&r.spans), "GET /s 200 out=3\n"); /* at the last chunk */
        finish(&r, "GET /s 200 out=3\n");
    }
}

static void bodies_unseen(void **ctx)
{
    struct rig r;

    BOTH(r, 0)
    {
        struct data_record x;

        say(&r, FLOW_REQUEST, GET("/file"));
        say(&r, FLOW_RESPONSE, "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
        say_hole(&r, FLOW_RESPONSE, 5000, HOLE_NO_BUFFER); /* sendfile */
        say(&r, FLOW_REQUEST, GET("/big"));
        x = record_of(&r, FLOW_RESPONSE,
                      "HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n0123456789012345", 9041);
        x.head = 41;
        x.tail = 16;
        give(&r, &x);
        say(&r, FLOW_REQUEST, GET("/next"));
        say(&r, FLOW_RESPONSE, OK5);
        finish(&r, "GET /file 200 out=5000\nGET /big 200 out=9000\nGET /next 200 out=5\n");
    }
}

static void ended_by_close(void **ctx)
{
    struct rig r;

    BOTH(r, 2)
    {
        say(&r, FLOW_REQUEST, GET("/1"));
        say(&r, FLOW_RESPONSE, "HTTP/1.0 200 OK\r\n\r\nabcd");
        finish(&r, "GET /1 200 out=4\n");
    }
    BOTH(r, 2)
    {
        say(&r, FLOW_REQUEST, GET("/abort"));
        finish(&r, "GET /abort error=connection_closed\n");
    }
    BOTH(r, 2)
    {
        say(&r, FLOW_REQUEST, GET("/half"));
        say(&r, FLOW_RESPONSE, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab");
        finish(&r, "GET /half 200 error=connection_closed\n");
    }
    BOTH(r, 2)
    {
        say(&r, FLOW_REQUEST, "POST /early HTTP/1.1\r\nContent-Length: 100000\r\n\r\nabc");
        say(&r, FLOW_RESPONSE, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
        finish(&r, r.role == ROLE_SERVER ? "POST /early 413\n" : "POST /early 413 error=413\n");
    }
}

static void swapped_records(void **ctx)
{
    struct rig r;

    BOTH(r, 0)
    {
        struct data_record a = record_of(&r, FLOW_REQUEST, "GET /swap HTT", 13);
        struct data_record b = record_of(&r, FLOW_REQUEST, "P/1.1\r\n\r\n", 9);
        struct data_record c = record_of(&r, FLOW_RESPONSE, OK5, sizeof(OK5) - 1);

        give(&r, &c); /* the response's record first: reader and writer are two threads */
        give(&r, &b);
        drain(&r); /* over a drain's end */
        give(&r, &a);
        finish(&r, "GET /swap 200 out=5\n");
    }
}

static void data_before_open(void **ctx)
{
    struct rig r;
    struct open_record open = {
        .cookie = 8, .family = AF_INET, .role = ROLE_SERVER, .tgid = 4000000};
    struct close_record close = {.cookie = 8};

    rig_init(&r, ROLE_SERVER);
    struct data_record x = record_of(&r, FLOW_REQUEST, GET("/o"), sizeof(GET("/o")) - 1);
    struct data_record y = record_of(&r, FLOW_RESPONSE, OK5, sizeof(OK5) - 1);
    x.cookie = y.cookie = 8;
    capture_data(&r.c, &x);
    capture_data(&r.c, &y);
    capture_open(&r.c, &open);
    capture_close(&r.c, &close);
    memset(r.pos, 0, sizeof(r.pos));
    drain(&r);
    assert_string_equal(buf_cstr(&r.spans), "GET /o 200 out=5\n");
    capture_fini(&r.c);
    buf_fini(&r.spans);
    clock_thaw();
}

static void joined(void **ctx)
{
    for (int i = 0; i < 2; i++) {
        struct rig r;

        rig_init_at(&r, i ? ROLE_SERVER : ROLE_CLIENT, true, false);
        say(&r, FLOW_RESPONSE, "rest of a body HTTP/1.1 200 OK\r\n\r\n");
        say(&r, FLOW_REQUEST, GET("/first"));
        say(&r, FLOW_RESPONSE, OK5);
        say(&r, FLOW_REQUEST, GET("/second"));
        say(&r, FLOW_RESPONSE, OK5);
        finish(&r, "GET /first 200 out=5\nGET /second 200 out=5\n");
    }
}

/* The last verdict of this drain; its mode is UNDECIDED when there was none. */
static struct capture_verdict last_verdict(const struct rig *r)
{
    const struct connections *cs = &r->c.connections;

    return cs->n_verdicts ? cs->verdicts[cs->n_verdicts - 1]
                          : (struct capture_verdict){.mode = CAPTURE_UNDECIDED};
}

/* However long it takes until a message begins, less is captured meanwhile, and it is found. */
static void joined_in_a_long_body(void **ctx)
{
    for (int i = 0; i < 3; i++) {
        struct rig r;
        struct capture_verdict v;

        rig_init_at(&r, (enum role[]){ROLE_CLIENT, ROLE_SERVER, ROLE_UNKNOWN}[i], true, false);
        for (int call = 0; call < 500; call++)
            say(&r, FLOW_REQUEST, "sixteen bytes of");
        v = last_verdict(&r);
        assert_int_equal(v.mode, CAPTURE_BYTES);
        assert_int_equal(v.head[0], v.head[1]);
        assert_in_range(v.head[0], 1, 512);
        assert_int_equal(v.role, ROLE_UNKNOWN); /* it is not for others of the endpoint */
        drain(&r);
        say(&r, FLOW_RESPONSE, OK5); /* its answer */
        say(&r, FLOW_REQUEST, GET("/first"));
        v = last_verdict(&r);
        assert_int_equal(v.mode, CAPTURE_BYTES);
        assert_in_range(v.head[dir_for(&r, FLOW_REQUEST)], 4096, 16384);
        say(&r, FLOW_RESPONSE, OK5);
        say(&r, FLOW_REQUEST, GET("/second"));
        say(&r, FLOW_RESPONSE, OK5);
        finish(&r, "GET /first 200 out=5\nGET /second 200 out=5\n");
    }
}

static void losses(void **ctx)
{
    struct rig r;

    BOTH(r, 0)
    {
        struct data_record x;

        say(&r, FLOW_REQUEST, GET("/a"));
        r.pos[dir_for(&r, FLOW_RESPONSE)] += 300; /* its response never came */
        say(&r, FLOW_REQUEST, GET("/b"));
        x = record_of(&r, FLOW_RESPONSE, OK5, sizeof(OK5) - 1);
        x.lost_before = true;
        give(&r, &x);
        say(&r, FLOW_REQUEST, GET("/c"));
        say(&r, FLOW_RESPONSE, OK5);
        finish(&r, "GET /a incomplete\nGET /b incomplete\nGET /c 200 out=5\n");
    }
}

/* Neither a state nor a listener told the role: who receives a request is the server. */
static void unknown_role_until_a_request_is_seen(void **ctx)
{
    for (int joined = 0; joined < 2; joined++) {
        struct rig r;

        rig_init_at(&r, ROLE_UNKNOWN, joined, false);
        if (joined) {
            say(&r, FLOW_RESPONSE, OK5); /* of a request before us */
            say(&r, FLOW_REQUEST, "the end of some body");
        }
        say(&r, FLOW_REQUEST, GET("/a"));
        say(&r, FLOW_RESPONSE, OK5);
        finish(&r, "GET /a 200 out=5\n");
    }
}

static void unknown_role_without_a_request_makes_no_span(void **ctx)
{
    struct rig r;

    rig_init_at(&r, ROLE_UNKNOWN, false, false);
    say(&r, FLOW_RESPONSE, OK5);
    drain(&r);
    r.now += 50 * NS_PER_MS;
    drain(&r);
    say(&r, FLOW_REQUEST, GET("/late"));
    say(&r, FLOW_RESPONSE, OK5);
    finish(&r, "");
}

static void other_protocols_are_skipped(void **ctx)
{
    struct rig r;

    BOTH(r, 0)
    {
        say(&r, FLOW_REQUEST, "*1\r\n$4\r\nPING\r\n");
        capture_end(&r.c, r.now);
        assert_int_equal(r.c.connections.n_verdicts, 1);
        assert_int_equal(r.c.connections.verdicts[0].mode, CAPTURE_LENGTHS);
        say(&r, FLOW_RESPONSE, "+PONG\r\n");
        finish(&r, "");
    }
}

/* Not without a word: no span comes of what is sent there later. */
static void nonsense_is_given_up(void **ctx)
{
    struct rig r;

    BOTH(r, 0)
    {
        say(&r, FLOW_REQUEST, GET("/good"));
        say(&r, FLOW_RESPONSE, OK5);
        for (int i = 0; i < 15; i++)
            say(&r, FLOW_REQUEST, "GET /bad HTTP/1.1\r\nno field\r\n\r\n");
        assert_int_equal(r.c.connections.ledger.given_up, 0);
        say(&r, FLOW_REQUEST, "GET /bad HTTP/1.1\r\nno field\r\n\r\n");
        assert_int_equal(r.c.connections.ledger.given_up, 1);
        say(&r, FLOW_REQUEST, GET("/late"));
        say(&r, FLOW_RESPONSE, OK5);
        finish(&r, "GET /good 200 out=5\n");
    }
}

static void verdict_for_http(void **ctx)
{
    struct rig r;

    BOTH(r, 0)
    {
        const struct capture_verdict *v;

        say(&r, FLOW_REQUEST, GET("/"));
        say(&r, FLOW_RESPONSE, OK5);
        capture_end(&r.c, r.now);
        assert_int_equal(r.c.connections.n_verdicts, 1);
        v = r.c.connections.verdicts;
        assert_int_equal(v->mode, CAPTURE_BYTES);
        assert_int_equal(v->cookie, 7);
        assert_int_equal(v->head[dir_for(&r, FLOW_REQUEST)], 16384);
        assert_int_equal(v->head[dir_for(&r, FLOW_RESPONSE)], 4096);
        assert_int_equal(v->tail[dir_for(&r, FLOW_RESPONSE)], 16);
        finish(&r, "GET / 200 out=5\n");
    }
}

/* One exchange; whether the kernel is told of another layout. */
static bool layout_is_told(struct rig *r, const char *answer, struct capture_verdict *v)
{
    say(r, FLOW_REQUEST, GET("/"));
    say(r, FLOW_RESPONSE, answer);
    capture_end(&r->c, r->now);
    bool told = r->c.connections.n_verdicts > 0;
    *v = last_verdict(r);
    connections_verdicts_taken(&r->c.connections);
    return told;
}

static void layout_of_answers(void **ctx)
{
#define FIVE "GET / 200 out=5\n"
    static const char *const longer[] = {
        "HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nA: 12\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nA: 123\r\nContent-Length: 5\r\n\r\nhello"};
    struct rig r;

    BOTH(r, 0)
    {
        struct capture_verdict v;

        assert_true(layout_is_told(&r, OK5, &v)); /* the mode; most connections end here */
        assert_int_equal(v.answer_head, 0);
        assert_true(layout_is_told(&r, OK5, &v));
        assert_int_equal(v.answer_head, sizeof(OK5) - 1 - 5);
        assert_memory_equal(OK5 + v.answer_length, "\nContent-Length:", 16);
        assert_false(layout_is_told(&r, OK5, &v));
        /* Of another status, or in chunks: no reason to change. */
        assert_false(
            layout_is_told(&r, "HTTP/1.1 201 C\r\nB: 1\r\nContent-Length: 1\r\n\r\nx", &v));
        assert_false(layout_is_told(
            &r, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &v));
        for (unsigned i = 0; i < 3; i++)
            assert_true(layout_is_told(&r, longer[i], &v));
        assert_false(layout_is_told(&r, OK5, &v)); /* answers differ: let it be */
        finish(&r, FIVE FIVE FIVE "GET / 201 out=1\nGET / 200\n" FIVE FIVE FIVE FIVE);
    }
}

static void tls_plaintext(void **ctx)
{
    struct rig r;

    BOTH(r, 0)
    {
        struct data_record hello = record_of(&r, FLOW_REQUEST, "\x16\x03\x01\x02\x00", 5);
        struct data_record x = {.cookie = 7,
                                .layer = LAYER_TLS,
                                .generation = 1,
                                .first_ns = r.now,
                                .end_ns = r.now,
                                .len = sizeof(GET("/t")) - 1,
                                .head = sizeof(GET("/t")) - 1,
                                .bytes = (const uint8_t *)GET("/t"),
                                .tgid = 4000000};
        struct data_record y = x;

        give(&r, &hello);
        x.dir = dir_for(&r, FLOW_REQUEST);
        y.dir = dir_for(&r, FLOW_RESPONSE);
        y.len = y.head = sizeof(OK5) - 1;
        y.bytes = (const uint8_t *)OK5;
        give(&r, &x);
        give(&r, &y);
        x.generation = y.generation = 2; /* another SSL object: positions begin again */
        give(&r, &x);
        give(&r, &y);
        capture_close(&r.c, &(struct close_record){.cookie = 7});
        assert_int_equal(r.c.connections.ledger.tls_without_plaintext, 0);
        finish(&r, "GET /t 200 out=5\nGET /t 200 out=5\n");
    }
}

static void tls_without_plaintext(void **ctx)
{
    struct rig r;

    BOTH(r, 0)
    {
        struct data_record hello = record_of(&r, FLOW_REQUEST, "\x16\x03\x01\x02\x00", 5);
        struct close_record close = {.cookie = 7};

        give(&r, &hello);
        assert_int_equal(r.c.connections.ledger.tls_without_plaintext, 0);
        capture_close(&r.c, &close);
        assert_int_equal(r.c.connections.ledger.tls_without_plaintext, 1);
        finish(&r, "");
    }
}

static void unbound_tls(void **ctx)
{
    struct rig r;

    BOTH(r, 0)
    {
        struct data_record x = record_of(&r, FLOW_REQUEST, GET("/t"), sizeof(GET("/t")) - 1);
        struct data_record y = record_of(&r, FLOW_RESPONSE, OK5, sizeof(OK5) - 1);

        memset(r.pos, 0, sizeof(r.pos));
        x.cookie = y.cookie = 0;
        x.ssl = y.ssl = 0x5555;
        x.layer = y.layer = LAYER_TLS;
        give(&r, &x);
        give(&r, &y);
        drain(&r);
        assert_string_equal(buf_cstr(&r.spans), "GET /t 200 out=5\n");
        r.now += 120000000000ull;
        finish(&r, "GET /t 200 out=5\n");
    }
}

#define PARENT                                                                                     \
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\ntracestate: a=b\r\n"

static void trace_context(void **ctx)
{
    struct rig r;
    uint64_t lost = 0;
    struct batch *b;

    rig_init(&r, ROLE_SERVER);
    say(&r, FLOW_REQUEST, "GET /p HTTP/1.1\r\n" PARENT "\r\n");
    say(&r, FLOW_RESPONSE, OK5);
    b = capture_spans(&r.c, &lost);
    assert_non_null(b);
    assert_memory_equal(b->keys[0].trace_id,
                        "\x0a\xf7\x65\x19\x16\xcd\x43\xdd\x84\x48\xeb\x21\x1c\x80\x31\x9c", 16);
    assert_memory_equal(b->keys[0].parent_span_id, "\xb7\xad\x6b\x71\x69\x20\x33\x31", 8);
    assert_int_equal(b->keys[0].flags & 0xff, 0);
    assert_true(str_is(span_trace_state(&b->records[0]), "a=b"));
    batch_unref(&b);
    finish(&r, "");
    /* Somebody traces that client already. */
    rig_init(&r, ROLE_CLIENT);
    say(&r, FLOW_REQUEST, "GET /p HTTP/1.1\r\n" PARENT "\r\n");
    say(&r, FLOW_RESPONSE, OK5);
    finish(&r, "");
    rig_init_at(&r, ROLE_CLIENT, false, true);
    say(&r, FLOW_REQUEST, "GET /p HTTP/1.1\r\n" PARENT "\r\n");
    say(&r, FLOW_RESPONSE, OK5);
    finish(&r, "GET /p 200 out=5\n");
}

static void attributes(void **ctx)
{
    struct rig r;

    rig_init(&r, ROLE_CLIENT);
    say(&r, FLOW_REQUEST,
        "GET /p?a=1&sig=secret HTTP/1.1\r\nHost: shop:8080\r\nUser-Agent: u/1\r\n\r\n");
    r.now += 1000000;
    say(&r, FLOW_RESPONSE, OK5);
    {
        uint64_t lost = 0;
        struct batch *b = capture_spans(&r.c, &lost);
        struct buf out;

        buf_init(&out);
        replay_print(&out, b);
        assert_string_equal(
            buf_cstr(&out),
            "client GET http.request.method=GET url.path=/p url.query=a=1&sig=REDACTED "
            "url.full=http://shop:8080/p?a=1&sig=REDACTED url.scheme=http "
            "http.response.status_code=200 server.address=shop server.port=8080 "
            "network.peer.address=10.0.0.2 network.peer.port=8080 network.protocol.name=http "
            "network.protocol.version=1.1 user_agent.original=u/1 http.request.body.size=0 "
            "http.response.body.size=5 status=0 parent=0 duration_us=1011\n");
        buf_fini(&out);
        batch_unref(&b);
    }
    finish(&r, "");
    rig_init(&r, ROLE_SERVER);
    say(&r, FLOW_REQUEST,
        "GET /\xff HTTP/1.1\r\nHost: shop\r\nX-Forwarded-For: 9.9.9.9, 1.1.1.1\r\n"
        "X-Forwarded-Proto: https\r\n\r\n");
    say(&r, FLOW_RESPONSE, "HTTP/1.1 500 Bad\r\nContent-Length: 0\r\n\r\n");
    {
        uint64_t lost = 0;
        struct batch *b = capture_spans(&r.c, &lost);
        struct buf out;

        buf_init(&out);
        replay_print(&out, b);
        assert_string_equal(
            buf_cstr(&out),
            "server GET http.request.method=GET url.path=/? url.scheme=https "
            "http.response.status_code=500 error.type=500 server.address=shop server.port=8080 "
            "client.address=9.9.9.9 network.peer.address=10.0.0.1 network.peer.port=40000 "
            "network.protocol.name=http network.protocol.version=1.1 http.request.body.size=0 "
            "http.response.body.size=0 status=2 parent=0 duration_us=11\n");
        buf_fini(&out);
        batch_unref(&b);
    }
    finish(&r, "");
}

static void own_endpoints_are_not_observed(void **ctx)
{
    struct rig r;
    struct endpoint collector = {.address = {[10] = 0xff, 0xff, 10, 0, 0, 2}, .port = server_port};
    struct open_record open = {.cookie = 7,
                               .family = AF_INET,
                               .role = ROLE_CLIENT,
                               .tgid = 4000000,
                               .peer = {.address = {10, 0, 0, 2}, .port = server_port}};

    rig_init(&r, ROLE_CLIENT);
    capture_fini(&r.c);
    struct capture_options o = {.selection = {.all = true, .excluded = &collector, .n_excluded = 1},
                                .resource = {"", "", "test"},
                                .request = {query_sensitive_keys, false},
                                .max_series = 100};
    capture_init(&r.c, &o);
    capture_open(&r.c, &open);
    assert_int_equal(r.c.connections.n_verdicts, 1);
    assert_int_equal(r.c.connections.verdicts[0].mode, CAPTURE_NOTHING);
    say(&r, FLOW_REQUEST, GET("/v1/traces"));
    say(&r, FLOW_RESPONSE, OK5);
    finish(&r, "");
}

static void lost_closes(void **ctx)
{
    struct rig r;

    rig_init(&r, ROLE_SERVER);
    say(&r, FLOW_REQUEST, GET("/x"));
    connections_sweep_begin(&r.c.connections);
    connections_sweep_alive(&r.c.connections, 7);
    connections_sweep_end(&r.c.connections, UINT64_MAX);
    assert_int_equal(r.c.connections.n, 1);
    connections_sweep_begin(&r.c.connections);
    connections_sweep_end(&r.c.connections, UINT64_MAX);
    assert_int_equal(r.c.connections.n, 0);
    assert_int_equal(r.c.connections.ledger.lost_closes, 1);
    finish(&r, "GET /x error=connection_closed\n");
}

static void metrics(void **ctx)
{
    struct rig r;
    struct batch *b;

    rig_init(&r, ROLE_SERVER);
    say(&r, FLOW_REQUEST, GET("/x") GET("/y"));
    say(&r, FLOW_RESPONSE, OK5 OK5);
    r.c.metrics_at_ns = 0;
    b = capture_metrics(&r.c, r.now);
    assert_non_null(b);
    assert_int_equal(b->items, 1); /* one series: both are GET 200 */
    batch_unref(&b);
    r.c.metrics_at_ns = 0;
    assert_null(capture_metrics(&r.c, r.now)); /* nothing new, nothing sent */
    finish(&r, "GET /x 200 out=5\nGET /y 200 out=5\n");
}

static void recorded_and_replayed(void **ctx)
{
    char path[] = "/tmp/tailrace-recording-XXXXXX";
    struct rig r;
    struct err e;
    int fd = mkstemp(path);
    static const char want[] =
        "GET /r 200 out=5\nGET /s 200 out=5\nGET /t error=connection_closed\n";
    struct open_record open = {
        .cookie = 7, .family = AF_INET, .role = ROLE_SERVER, .tgid = 4000000};
    struct exec_record x = {.tgid = 4000000, .path = STR("/usr/bin/x"), .argv = STR("x\0y")};

    close(fd);
    rig_init(&r, ROLE_SERVER);
    assert_int_equal(recording_open(&r.rec, path, &e), 0);
    recording_begin(&r.rec, r.now, r.c.wall_offset_ns);
    recording_exec(&r.rec, &x);
    recording_open_record(&r.rec, &open);
    r.piece = 5;
    say(&r, FLOW_REQUEST, GET("/r"));
    drain(&r);
    say(&r, FLOW_RESPONSE, OK5);
    r.piece = 0;
    say(&r, FLOW_REQUEST, GET("/s") GET("/t"));
    say(&r, FLOW_RESPONSE, OK5);
    finish(&r, want);
    rig_init(&r, ROLE_SERVER);
    capture_fini(&r.c);
    capture_init(&r.c, &(struct capture_options){.selection = {.all = true},
                                                 .resource = {"", "", "test"},
                                                 .request = {query_sensitive_keys, false},
                                                 .max_series = 100});
    assert_int_equal(recording_replay(path, &r.c, print_spans, &r, &e), 0);
    assert_string_equal(buf_cstr(&r.spans), want);
    assert_true(str_is(str_of(processes_get(&r.c.processes, 4000000)->service_name), "x"));
    capture_fini(&r.c);
    buf_fini(&r.spans);
    clock_thaw();
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keep_alive),
        cmocka_unit_test(pipelined),
        cmocka_unit_test(methods_and_statuses),
        cmocka_unit_test(chunked_with_pauses),
        cmocka_unit_test(bodies_unseen),
        cmocka_unit_test(ended_by_close),
        cmocka_unit_test(swapped_records),
        cmocka_unit_test(data_before_open),
        cmocka_unit_test(joined),
        cmocka_unit_test(joined_in_a_long_body),
        cmocka_unit_test(losses),
        cmocka_unit_test(unknown_role_until_a_request_is_seen),
        cmocka_unit_test(unknown_role_without_a_request_makes_no_span),
        cmocka_unit_test(other_protocols_are_skipped),
        cmocka_unit_test(nonsense_is_given_up),
        cmocka_unit_test(verdict_for_http),
        cmocka_unit_test(layout_of_answers),
        cmocka_unit_test(tls_plaintext),
        cmocka_unit_test(tls_without_plaintext),
        cmocka_unit_test(unbound_tls),
        cmocka_unit_test(trace_context),
        cmocka_unit_test(attributes),
        cmocka_unit_test(own_endpoints_are_not_observed),
        cmocka_unit_test(lost_closes),
        cmocka_unit_test(metrics),
        cmocka_unit_test(recorded_and_replayed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
