/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/ebpf/parsers/http1.h"

/* ---- a connection under test: exchanges come out as one line of text each ---- */

struct rig {
    void *state;
    uint64_t pos[2], now;
    char out[65536];
    size_t n;
    bool broken, not_mine;
};

static void rig_init(struct rig *r, bool joined)
{
    memset(r, 0, sizeof(*r));
    r->state = malloc(parser_http1.state_size);
    parser_http1.init(r->state, joined);
    r->now = 1000;
}

static void rig_fini(struct rig *r)
{
    parser_http1.fini(r->state);
    free(r->state);
}

static void collect(struct rig *r)
{
    struct exchange *x;

    while ((x = parser_http1.take(r->state))) {
        struct http1_exchange *h = CONTAINER_OF(x, struct http1_exchange, base);

        r->n += (size_t)snprintf(r->out + r->n, sizeof(r->out) - r->n, "%.*s %.*s %u",
                                 STR_ARG(h->method), (int)MIN(h->target.n, 40u), h->target.p,
                                 h->status);
        if (x->flags & EXCHANGE_REQUEST_SIZE && x->request_body)
            r->n += (size_t)snprintf(r->out + r->n, 64, " in=%lu", (unsigned long)x->request_body);
        if (x->flags & EXCHANGE_RESPONSE_SIZE && x->response_body)
            r->n +=
                (size_t)snprintf(r->out + r->n, 64, " out=%lu", (unsigned long)x->response_body);
        if (x->flags & EXCHANGE_CUT)
            r->n += (size_t)snprintf(r->out + r->n, 64, " cut");
        if (x->flags & EXCHANGE_INCOMPLETE)
            r->n += (size_t)snprintf(r->out + r->n, 64, " incomplete");
        r->n += (size_t)snprintf(r->out + r->n, 64, "\n");
        parser_http1.exchange_free(x);
    }
}

/* One segment; returns what was used. */
static uint64_t feed(struct rig *r, enum flow flow, const void *p, uint64_t len, unsigned flags)
{
    struct segment s = {.p = p,
                        .len = len,
                        .pos = r->pos[flow],
                        .other_pos = r->pos[!flow],
                        .first_ns = r->now,
                        .end_ns = r->now + 1,
                        .flags = flags};
    uint64_t used = 0;

    r->now += 10;
    for (;;) {
        enum parse_result res = parser_http1.feed(r->state, flow, &s, &used);

        r->broken |= res == PARSE_BROKEN;
        r->not_mine |= res == PARSE_NOT_MINE;
        collect(r);
        if (used == len || res == PARSE_NEED_MORE || res == PARSE_NOT_MINE)
            break;
    }
    r->pos[flow] += used;
    return used;
}

static void call(struct rig *r, enum flow flow, const char *text)
{
    assert_int_equal(feed(r, flow, text, strlen(text), SEGMENT_CALL_START | SEGMENT_CALL_END),
                     strlen(text));
}

static void forced(struct rig *r, enum flow flow, const char *text)
{
    unsigned flags = SEGMENT_CALL_START | SEGMENT_CALL_END;

    assert_int_equal(feed(r, flow, text, strlen(text), flags), 0); /* nobody asked: it waits */
    assert_int_equal(feed(r, flow, text, strlen(text), flags | SEGMENT_FORCE), strlen(text));
}
#define REQ(text) call(&r, FLOW_REQUEST, text)
#define RESP(text) call(&r, FLOW_RESPONSE, text)

static void pieces(struct rig *r, enum flow flow, const char *text, size_t size)
{
    for (size_t n = strlen(text), i = 0; i < n; i += size)
        feed(r, flow, text + i, MIN(size, n - i), SEGMENT_CALL_START | SEGMENT_CALL_END);
}

static void hole(struct rig *r, enum flow flow, uint64_t n, unsigned flags)
{
    feed(r, flow, NULL, n, flags);
}

/* Of what the end of the connection tells, nobody knows when it was. */
static void hole_at_close(struct rig *r, enum flow flow, uint64_t n)
{
    struct segment s = {.len = n, .pos = r->pos[flow], .flags = SEGMENT_LOST | SEGMENT_FORCE};
    uint64_t used = 0;

    while (used < n)
        parser_http1.feed(r->state, flow, &s, &used);
    collect(r);
}

#define SIMPLE "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
#define OK5 "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

#define CASE(name) static void name(void **ctx)
#define BEGIN                                                                                      \
    struct rig r;                                                                                  \
    rig_init(&r, false)
#define END(want)                                                                                  \
    parser_http1.end(r.state);                                                                     \
    collect(&r);                                                                                   \
    assert_string_equal(r.out, want);                                                              \
    rig_fini(&r)

CASE(keep_alive)
{
    BEGIN;
    REQ(SIMPLE);
    RESP(OK5);
    assert_string_equal(r.out, "GET /a 200 out=5\n");
    REQ("POST /b HTTP/1.1\r\nHost: x\r\ncontent-length:  3 \r\n\r\nabc");
    RESP("HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n");
    assert_false(r.broken);
    END("GET /a 200 out=5\nPOST /b 404 in=3\n");
}

CASE(heads_in_pieces)
{
    for (size_t size = 1; size < 40; size++) {
        BEGIN;
        pieces(&r, FLOW_REQUEST,
               "POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody" SIMPLE, size);
        pieces(&r, FLOW_RESPONSE, OK5 OK5, size);
        assert_false(r.broken);
        END("POST /p 200 in=4 out=5\nGET /a 200 out=5\n");
    }
}

CASE(long_head)
{
    char head[13000];
    size_t n = (size_t)sprintf(head, "GET /long HTTP/1.1\r\nHost: x\r\nX-Long: ");
    BEGIN;

    memset(head + n, 'q', 12000);
    strcpy(head + n + 12000, "\r\n\r\n");
    REQ(head);
    pieces(&r, FLOW_REQUEST, head, 777);
    RESP(OK5 OK5);
    END("GET /long 200 out=5\nGET /long 200 out=5\n");
}

CASE(head_too_long)
{
    char *head = malloc(HTTP1_HEAD_MAX + 100);
    BEGIN;

    strcpy(head, "GET /long HTTP/1.1\r\nX: ");
    memset(head + 23, 'q', HTTP1_HEAD_MAX);
    head[23 + HTTP1_HEAD_MAX] = 0;
    REQ(SIMPLE);
    RESP(OK5);
    pieces(&r, FLOW_REQUEST, head, 1000);
    assert_true(r.broken);
    REQ("\r\n\r\n");
    forced(&r, FLOW_RESPONSE, "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n");
    REQ(SIMPLE);
    RESP(OK5);
    END("GET /a 200 out=5\nGET /a 200 out=5\n");
    free(head);
}

CASE(pipelining)
{
    char req[50 * sizeof(SIMPLE)] = "", resp[50 * sizeof(OK5)] = "", want[50 * 20] = "";
    BEGIN;

    for (int i = 0; i < 50; i++) {
        sprintf(req + strlen(req), "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", i);
        strcat(resp, OK5);
        sprintf(want + strlen(want), "GET /%d 200 out=5\n", i);
    }
    REQ(req);
    RESP(resp);
    assert_int_equal(parser_http1.depth(r.state), DEPTH_ALL);
    END(want);
}

CASE(no_bodies)
{
    BEGIN;
    REQ("HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n" SIMPLE SIMPLE SIMPLE);
    RESP("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
         "HTTP/1.1 204 No Content\r\n\r\n"
         "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n" OK5);
    END("HEAD /h 200\nGET /a 204\nGET /a 304\nGET /a 200 out=5\n");
}

CASE(hundred_continue)
{
    BEGIN;
    REQ("PUT /u HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n");
    RESP("HTTP/1.1 100 Continue\r\n\r\n");
    assert_string_equal(r.out, "");
    REQ("abcdef");
    RESP(
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    END("PUT /u 201 in=6\n");
}

CASE(chunked)
{
    BEGIN;
    REQ("POST /c HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\nT: v\r\n\r\n");
    RESP("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    RESP("5\r\nhello\r\n");
    assert_string_equal(r.out, ""); /* the end is the last chunk, whatever the pause */
    RESP("A\r\n01234567");
    RESP("89\r\n0\r\n");
    assert_string_equal(r.out, "");
    RESP("\r\n");
    END("POST /c 200 in=3 out=15\n");
}

CASE(chunked_with_holes)
{
    BEGIN;
    REQ(SIMPLE);
    /* A chunk's data in a hole is proven. */
    RESP("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\nabcd");
    hole(&r, FLOW_RESPONSE, 0x1000 - 4, 0);
    RESP("\r\n0\r\n\r\n");
    assert_string_equal(r.out, "GET /a 200 out=4096\n");
    /* Sizes in a hole: the end shows in the tail of the call. */
    REQ(SIMPLE);
    feed(&r, FLOW_RESPONSE, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", 51,
         SEGMENT_CALL_START);
    hole(&r, FLOW_RESPONSE, 100000, 0);
    feed(&r, FLOW_RESPONSE, "xxxxxxxxxxx\r\n0\r\n", 16, SEGMENT_CALL_END);
    assert_string_equal(r.out, "GET /a 200 out=4096\n");
    feed(&r, FLOW_RESPONSE, "2\r\nab\r\n", 7, SEGMENT_CALL_START);
    hole(&r, FLOW_RESPONSE, 100000, 0);
    feed(&r, FLOW_RESPONSE, "xxxxxxxxx\r\n0\r\n\r\n", 16, SEGMENT_CALL_END);
    assert_false(r.broken);
    END("GET /a 200 out=4096\nGET /a 200\n");
}

CASE(sendfile_body)
{
    BEGIN;
    REQ(SIMPLE);
    RESP("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
    hole(&r, FLOW_RESPONSE, 999999, SEGMENT_CALL_START | SEGMENT_CALL_END);
    assert_string_equal(r.out, "");
    hole(&r, FLOW_RESPONSE, 1, SEGMENT_CALL_START | SEGMENT_CALL_END);
    assert_string_equal(r.out, "GET /a 200 out=1000000\n");
    REQ(SIMPLE);
    RESP(OK5);
    END("GET /a 200 out=1000000\nGET /a 200 out=5\n");
}

CASE(body_ended_by_close)
{
    BEGIN;
    REQ("GET /old HTTP/1.0\r\n\r\n");
    RESP("HTTP/1.0 200 OK\r\nServer: x\r\n\r\nsome");
    RESP("thing");
    assert_string_equal(r.out, "");
    END("GET /old 200 out=9\n");
}

CASE(early_response)
{
    BEGIN;
    REQ("POST /big HTTP/1.1\r\nContent-Length: 100000\r\n\r\nbeginning");
    RESP("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_string_equal(r.out, "");
    parser_http1.tick(r.state, r.now);
    collect(&r);
    assert_string_equal(r.out, "");
    parser_http1.tick(r.state, r.now + 2000000000ull);
    collect(&r);
    assert_string_equal(r.out, "POST /big 413\n");
    END("POST /big 413\n");
}

CASE(early_response_then_next_request)
{
    BEGIN;
    REQ("POST /big HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n");
    RESP("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
    REQ(SIMPLE);
    RESP(OK5);
    END("POST /big 417\nGET /a 200 out=5\n");
}

CASE(aborts)
{
    BEGIN;
    REQ(SIMPLE);
    END("GET /a 0 cut\n");
    rig_init(&r, false);
    REQ(SIMPLE);
    RESP("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello");
    END("GET /a 200 cut\n");
    rig_init(&r, false);
    REQ("GET /a HTT");
    END("");
}

CASE(upgrade)
{
    BEGIN;
    REQ("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
    RESP("HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\x81\x05hello");
    assert_true(feed(&r, FLOW_RESPONSE, "x", 1, 0) == 1 && r.not_mine);
    END("GET /ws 101\n");
    rig_init(&r, false);
    REQ("CONNECT h:443 HTTP/1.1\r\n\r\n");
    RESP("HTTP/1.1 200 Established\r\n\r\n\x16\x03");
    END("CONNECT h:443 200\n");
}

CASE(not_http)
{
    static const char *const others[] = {"\x16\x03\x01\x02",     "PRI * HTTP/2.0\r\n\r\nSM",
                                         "*1\r\n$4\r\nPING\r\n", "GET / SOMETHING/1.1\r\n",
                                         "SSH-2.0-OpenSSH\r\n",  "GET\t/"};

    for (unsigned i = 0; i < ARRAY_LEN(others); i++) {
        BEGIN;
        REQ(others[i]);
        assert_true(r.not_mine);
        assert_int_equal(parser_http1.detect(str_of(others[i])), PARSE_NOT_MINE);
        END("");
    }
    assert_int_equal(parser_http1.detect(STR("GE")), PARSE_NEED_MORE);
    assert_int_equal(parser_http1.detect(STR("BREW /pot HTTP/1.0\r")), PARSE_DONE);
}

CASE(joined_in_body)
{
    struct rig r;

    rig_init(&r, true);
    RESP("...rest of a response that we know nothing of");
    REQ("more of an upload, 2\r\n\r\n");
    /* answers the upload */
    forced(&r, FLOW_RESPONSE, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    REQ("GET /first HTTP/1.1\r\n\r\n");
    RESP(OK5);
    END("GET /first 200 out=5\n");
}

CASE(joined_before_response)
{
    struct rig r;

    /* The request before was sent before we came; its response must not go to the next one. */
    rig_init(&r, true);
    r.pos[FLOW_RESPONSE] = 1000;
    REQ("GET /second HTTP/1.1\r\n\r\n");
    r.pos[FLOW_RESPONSE] = 900; /* delivered late */
    RESP(
        "HTTP/1.1 500 Old\r\nContent-Length: 62\r\n\r\n01234567890123456789012345678901234567890123456789012345678901");
    r.pos[FLOW_RESPONSE] = 1000;
    forced(&r, FLOW_RESPONSE, OK5); /* nor this one: what came between is not known */
    REQ("GET /third HTTP/1.1\r\n\r\n");
    RESP(OK5);
    END("GET /second 0 incomplete\nGET /third 200 out=5\n");
}

CASE(loss_in_responses)
{
    BEGIN;
    REQ(SIMPLE);
    hole(&r, FLOW_RESPONSE, 500, SEGMENT_LOST);
    assert_string_equal(r.out, "GET /a 0 incomplete\n");
    REQ("GET /b HTTP/1.1\r\n\r\n");
    RESP(OK5);
    END("GET /a 0 incomplete\nGET /b 200 out=5\n");
}

/* A call whose first part and last 16 bytes are shown. */
static void shown(struct rig *r, const char *head, uint64_t unseen, const char *tail)
{
    uint64_t now = r->now;

    feed(r, FLOW_RESPONSE, head, strlen(head), SEGMENT_CALL_START);
    r->now = now;
    hole(r, FLOW_RESPONSE, unseen, 0);
    r->now = now;
    feed(r, FLOW_RESPONSE, tail, strlen(tail), SEGMENT_CALL_END);
}

CASE(cut_head)
{
    BEGIN;
    /* The length is in what was seen, and the next request proves that all came. */
    REQ(SIMPLE);
    shown(&r, "HTTP/1.1 404 No\r\nContent-Length: 5\r\nX: qqq", 8000, "qqqqqqq\r\n\r\nhello");
    assert_int_equal(parser_http1.depth(r.state), DEPTH_ALL);
    assert_string_equal(r.out, "");
    REQ("GET /b HTTP/1.1\r\n\r\n");
    /* The length's line is cut: unknown; the body goes on in further calls. */
    shown(&r, "HTTP/1.1 200 OK\r\nContent-Length: 5", 8000, "qqqqqqqqqqqqqqqq");
    RESP("some body");
    assert_string_equal(r.out, "GET /a 404 out=5\n");
    REQ("GET /c HTTP/1.1\r\n\r\n");
    RESP(OK5);
    assert_false(r.broken);
    END("GET /a 404 out=5\nGET /b 200\nGET /c 200 out=5\n");
}

CASE(cut_head_then_close)
{
    BEGIN;
    REQ(SIMPLE);
    shown(&r, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: qqq", 8000, "qqqqqqq\r\n\r\nhel");
    END("GET /a 200\n"); /* no "out": perhaps less came */
}

CASE(cut_head_of_chunks)
{
    BEGIN;
    REQ(SIMPLE);
    shown(&r, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: q", 8000,
          "qqqqqqqqqqqq\r\n\r\n");
    assert_string_equal(r.out, "");
    RESP("2\r\nab\r\n0\r\n\r\n");
    assert_string_equal(r.out, "GET /a 200\n"); /* its end shows */
    REQ(SIMPLE);
    RESP(OK5);
    END("GET /a 200\nGET /a 200 out=5\n");
}

CASE(cut_head_waits_for_the_next_request)
{
    BEGIN;
    REQ(SIMPLE);
    shown(&r, "HTTP/1.1 200 OK\r\nX: qqq", 8000, "qqqqqqq\r\n\r\nhello");
    assert_int_equal(feed(&r, FLOW_RESPONSE, OK5, sizeof(OK5) - 1, SEGMENT_CALL_START), 0);
    assert_string_equal(r.out, "");
    REQ("GET /b HTTP/1.1\r\n\r\n");
    pieces(&r, FLOW_RESPONSE, OK5, 5); /* the first of them is no whole status line */
    END("GET /a 200\nGET /b 200 out=5\n");
}

CASE(cut_head_of_pipelined)
{
    BEGIN;
    REQ(SIMPLE "GET /b HTTP/1.1\r\n\r\n");
    shown(&r, "HTTP/1.1 200 OK\r\nX: qqq", 8000, "qqqqqqq\r\n\r\nhello");
    REQ("GET /c HTTP/1.1\r\n\r\n"); /* /b may have its answer already, or get it now */
    RESP(OK5);
    END("GET /a 200 incomplete\nGET /b 0 incomplete\nGET /c 0 incomplete\n");
}

CASE(cut_head_of_a_request)
{
    BEGIN;
    feed(&r, FLOW_REQUEST, "POST /a HTTP/1.1\r\nHost: x\r\nX: qqq", 33, SEGMENT_CALL_START);
    hole(&r, FLOW_REQUEST, 20000, SEGMENT_CALL_END);
    assert_false(r.broken);
    for (int i = 0; i < 100; i++)
        REQ("its body, in many calls");
    RESP(OK5);
    assert_string_equal(r.out, "POST /a 200 out=5 incomplete\n");
    REQ(SIMPLE);
    RESP(OK5);
    END("POST /a 200 out=5 incomplete\nGET /a 200 out=5\n");
}

CASE(cut_head_by_loss)
{
    BEGIN;
    REQ(SIMPLE);
    feed(&r, FLOW_RESPONSE, "HTTP/1.1 503 No\r\nX: q", 21, SEGMENT_CALL_START | SEGMENT_CALL_END);
    hole(&r, FLOW_RESPONSE, 500, SEGMENT_LOST);
    assert_true(r.broken);
    assert_string_equal(r.out, "GET /a 503 incomplete\n");
    REQ(SIMPLE);
    RESP(OK5);
    END("GET /a 503 incomplete\nGET /a 200 out=5\n");
}

/* The record of the loss comes late: what was sent after it is not touched by it. */
CASE(loss_before_a_request_was_sent)
{
    uint64_t at;
    BEGIN;

    REQ(SIMPLE);
    at = r.now;
    r.now = 5000;
    REQ("GET /b HTTP/1.1\r\n\r\n");
    r.now = at;
    hole(&r, FLOW_RESPONSE, 500, SEGMENT_LOST);
    assert_string_equal(r.out, "GET /a 0 incomplete\n");
    r.now = 6000;
    RESP(OK5);
    assert_string_equal(r.out, "GET /a 0 incomplete\nGET /b 200 out=5\n");
    REQ("GET /c HTTP/1.1\r\n\r\n");
    hole(&r, FLOW_RESPONSE, 500, SEGMENT_LOST); /* sent before it */
    END("GET /a 0 incomplete\nGET /b 200 out=5\nGET /c 0 incomplete\n");
}

CASE(loss_in_requests)
{
    BEGIN;
    REQ("GET /1 HTTP/1.1\r\n\r\n");
    hole(&r, FLOW_REQUEST, 300, SEGMENT_LOST); /* request 2, perhaps 3 */
    RESP(OK5);                                 /* to 1: order tells */
    forced(&r, FLOW_RESPONSE, "HTTP/1.1 500 Lost\r\nContent-Length: 0\r\n\r\n"); /* to 2: unknown */
    REQ("GET /4 HTTP/1.1\r\n\r\n");
    RESP(OK5);
    END("GET /1 200 out=5\nGET /4 200 out=5\n");
}

CASE(loss_in_body_is_proven)
{
    BEGIN;
    REQ(SIMPLE);
    RESP("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    hole(&r, FLOW_RESPONSE, 1000, SEGMENT_LOST);
    assert_false(r.broken);
    END("GET /a 200 out=1000\n");
}

CASE(loss_over_the_end_of_a_body)
{
    BEGIN;
    REQ(SIMPLE SIMPLE);
    RESP("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
    hole(&r, FLOW_RESPONSE, 1200, SEGMENT_LOST);
    END("GET /a 200 out=1000\nGET /a 0 incomplete\n");
}

CASE(response_before_its_request)
{
    BEGIN;
    /* Reader and writer are two threads: the response's record comes first and waits. */
    assert_int_equal(feed(&r, FLOW_RESPONSE, OK5, sizeof(OK5) - 1, SEGMENT_CALL_START), 0);
    REQ(SIMPLE);
    RESP(OK5);
    assert_int_equal(
        feed(&r, FLOW_RESPONSE, OK5, sizeof(OK5) - 1, SEGMENT_CALL_START | SEGMENT_FORCE),
        sizeof(OK5) - 1);
    END("GET /a 200 out=5\n");
}

CASE(end_in_doubt)
{
    BEGIN; /* who pipelines has no proven place after a loss: that there was no answer is not known
            */
    REQ(SIMPLE);
    REQ(SIMPLE);
    RESP(OK5);
    RESP(OK5);
    hole(&r, FLOW_RESPONSE, 100, SEGMENT_LOST);
    REQ("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
    END("GET /a 200 out=5\nGET /a 200 out=5\nGET /late 0 incomplete\n");
}

CASE(end_behind_a_hole)
{
    struct rig r;

    rig_init(&r, true); /* met in mid-life, so in doubt; its answer's place is proven */
    REQ("GET /asked HTTP/1.1\r\n\r\n");
    END("GET /asked 0 cut\n");

    rig_init(&r, true); /* the end tells of bytes that no call told of: the answer, perhaps */
    REQ("GET /asked HTTP/1.1\r\n\r\n");
    hole_at_close(&r, FLOW_RESPONSE, 100);
    END("GET /asked 0 incomplete\n");
}

CASE(bad_framing)
{
    BEGIN;
    REQ(SIMPLE);
    RESP("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n");
    assert_true(r.broken);
    assert_string_equal(r.out, "GET /a 200 incomplete\n");
    REQ("POST /b HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n");
    REQ("GET /c HTTP/1.1\r\n\r\n");
    RESP(OK5);
    END("GET /a 200 incomplete\nGET /c 200 out=5\n");
}

CASE(times)
{
    struct exchange *x;
    struct segment s = {.p = (const uint8_t *)SIMPLE,
                        .len = sizeof(SIMPLE) - 1,
                        .first_ns = 10,
                        .end_ns = 20,
                        .tgid = 7};
    struct segment a = {.p = (const uint8_t *)OK5, .len = 40, .first_ns = 30, .end_ns = 40};
    struct segment b = {
        .p = (const uint8_t *)OK5 + 40, .len = sizeof(OK5) - 1 - 40, .first_ns = 50, .end_ns = 60};
    uint64_t used = 0;
    BEGIN;

    parser_http1.feed(r.state, FLOW_REQUEST, &s, &used);
    used = 0;
    parser_http1.feed(r.state, FLOW_RESPONSE, &a, &used);
    used = 0;
    assert_int_equal(parser_http1.feed(r.state, FLOW_RESPONSE, &b, &used), PARSE_DONE);
    x = parser_http1.take(r.state);
    assert_non_null(x);
    assert_int_equal(x->request_first_ns, 10);
    assert_int_equal(x->request_end_ns, 20);
    assert_int_equal(x->response_first_ns, 40);
    assert_int_equal(x->response_end_ns, 60);
    assert_int_equal(x->tgid, 7);
    parser_http1.exchange_free(x);
    END("");
}

CASE(fields)
{
    struct http1_exchange *x;
    struct segment s = {
        .p = (const uint8_t *)"GET / HTTP/1.1\nHOST:  example.org:81\nuser-agent:u/1 (x)\n"
                              "traceparent: a\nTraceparent: b\nX-Forwarded-For: 1.2.3.4\n\n"};
    uint64_t used = 0;
    BEGIN;

    s.len = strlen((const char *)s.p);
    parser_http1.feed(r.state, FLOW_REQUEST, &s, &used);
    parser_http1.end(r.state);
    x = CONTAINER_OF(parser_http1.take(r.state), struct http1_exchange, base);
    assert_true(str_is(x->fields[HTTP1_HOST], "example.org:81"));
    assert_true(str_is(x->fields[HTTP1_USER_AGENT], "u/1 (x)"));
    assert_null(x->fields[HTTP1_TRACEPARENT].p); /* twice: none */
    assert_true(str_is(x->fields[HTTP1_X_FORWARDED_FOR], "1.2.3.4"));
    parser_http1.exchange_free(&x->base);
    END("");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keep_alive),
        cmocka_unit_test(heads_in_pieces),
        cmocka_unit_test(long_head),
        cmocka_unit_test(head_too_long),
        cmocka_unit_test(pipelining),
        cmocka_unit_test(no_bodies),
        cmocka_unit_test(hundred_continue),
        cmocka_unit_test(chunked),
        cmocka_unit_test(chunked_with_holes),
        cmocka_unit_test(sendfile_body),
        cmocka_unit_test(body_ended_by_close),
        cmocka_unit_test(early_response),
        cmocka_unit_test(early_response_then_next_request),
        cmocka_unit_test(aborts),
        cmocka_unit_test(upgrade),
        cmocka_unit_test(not_http),
        cmocka_unit_test(joined_in_body),
        cmocka_unit_test(joined_before_response),
        cmocka_unit_test(loss_in_responses),
        cmocka_unit_test(cut_head),
        cmocka_unit_test(cut_head_then_close),
        cmocka_unit_test(cut_head_of_chunks),
        cmocka_unit_test(cut_head_waits_for_the_next_request),
        cmocka_unit_test(cut_head_of_pipelined),
        cmocka_unit_test(cut_head_of_a_request),
        cmocka_unit_test(cut_head_by_loss),
        cmocka_unit_test(loss_before_a_request_was_sent),
        cmocka_unit_test(loss_in_requests),
        cmocka_unit_test(loss_in_body_is_proven),
        cmocka_unit_test(loss_over_the_end_of_a_body),
        cmocka_unit_test(response_before_its_request),
        cmocka_unit_test(end_in_doubt),
        cmocka_unit_test(end_behind_a_hole),
        cmocka_unit_test(bad_framing),
        cmocka_unit_test(times),
        cmocka_unit_test(fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
