/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.x connections of the server. One request at a time: while the handler has it, reading is
 * paused and what the peer has sent ahead stays in `in`.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/clock.h"
#include "common/io/http1.h"
#include "common/io/http_conn.h"

enum { MAX_DISCARDED = 64 << 20, KEPT_BUFFER = 16 << 10, SMALL_HEAD = 4 << 10 };

struct http1 {
    struct buf in; /* received and not used yet */
    size_t used;
    size_t counted; /* bytes of `in` that the process's memory knows of */
    size_t seen;    /* bytes of a head that is not whole: no end of it was found in them */
    bool is_full;   /* the peer does not read its answers: nothing more is taken from it */
    struct http_exchange *x;
    struct http1_chunked chunked;
    bool is_chunked, keep_alive, is_reading_body, is_working;
    bool expects_continue;
    bool discards; /* answered early: what still comes is thrown away */
    uint64_t discarded;
    uint64_t left; /* of a body with content-length */
};

static int work(struct http_conn *c);

int http1_new(struct http_conn *c)
{
    struct http1 *h = xcalloc(1, sizeof(*h));
    buf_init(&h->in);
    h->in.max = HTTP1_MAX_HEAD + 2 * LOOP_READ_BUFFER;
    c->state = h;
    return 0;
}

/* What lies here is memory too: it is counted, and goes when it is empty and large. */
static void settle_buffer(struct http1 *h)
{
    if (h->in.n == h->used && h->in.cap > KEPT_BUFFER) {
        size_t max = h->in.max;
        buf_fini(&h->in);
        buf_init(&h->in);
        h->in.max = max;
        h->used = 0;
    }
    if (h->in.cap != h->counted)
        mem_account((int64_t)h->in.cap - (int64_t)h->counted);
    h->counted = h->in.cap;
}

static void http1_free(struct http_conn *c)
{
    struct http1 *h = c->state;
    h->used = h->in.n = 0;
    buf_fini(&h->in);
    settle_buffer(h);
    free(h);
    c->state = NULL;
}

static const char *reason_phrase(int status)
{
    switch (status) {
    case 200:
        return "OK";
    case 400:
        return "Bad Request";
    case 404:
        return "Not Found";
    case 405:
        return "Method Not Allowed";
    case 413:
        return "Content Too Large";
    case 415:
        return "Unsupported Media Type";
    case 429:
        return "Too Many Requests";
    case 500:
        return "Internal Server Error";
    case 503:
        return "Service Unavailable";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Status";
    }
}

static int write_text(struct http_conn *c, struct buf *b, struct str body)
{
    struct iovec v[2] = {{b->p, b->n}, {(void *)(uintptr_t)body.p, body.n}};
    int r = buf_error(b) ? -ENOMEM : stream_write(c->stream, v, body.n ? 2 : 1);
    buf_fini(b);
    return r;
}

static int answer(struct http_conn *c, const struct http_response *resp, bool keep, bool is_head)
{
    struct buf b;
    buf_init(&b);
    buf_addf(&b, "HTTP/1.1 %d %s\r\n", resp->status, reason_phrase(resp->status));
    for (unsigned i = 0; i < resp->n_headers; i++)
        buf_addf(&b, "%s: " STR_FMT "\r\n", resp->headers[i].name, STR_ARG(resp->headers[i].value));
    buf_addf(&b, "content-length: %zu\r\n%s\r\n", resp->body.n,
             keep ? "" : "connection: close\r\n");
    return write_text(c, &b, is_head ? (struct str){NULL, 0} : resp->body);
}

/* For requests that no handler has seen: answer and end. */
static int fail(struct http_conn *c, int status)
{
    struct http_response resp = {.status = status};
    answer(c, &resp, false, false);
    return -EBADMSG;
}

/* The next request. */
static void go_on(struct http_conn *c)
{
    struct http1 *h = c->state;
    stream_resume(c->stream);
    if (h->in.n > h->used && work(c) < 0)
        http_conn_end(c);
}

static void http1_respond(struct http_exchange *x, const struct http_response *resp)
{
    struct http_conn *c = x->conn;
    struct http1 *h = c->state;
    /* A body that is not read to its end makes the rest of the stream unreadable. */
    bool keep = h->keep_alive && !c->is_going && !h->is_reading_body;
    int r = answer(c, resp, keep, str_is(x->r.method, "HEAD"));
    http_exchange_free(&x);
    h->x = NULL;
    if (r == 0 && h->is_reading_body && !c->is_going) {
        /* Closing now would reset the connection before the peer has read the answer (RFC 9112
         * §9.6). */
        h->discards = true;
        c->is_lingering = true;
        stream_resume(c->stream);
        return;
    }
    if (r || !keep) {
        http_conn_end(c);
        return;
    }
    if (c->home->is_closing) {
        http_conn_end(c);
        return;
    }
    h->is_full = stream_is_blocked(c->stream);
    if (!h->is_full)
        go_on(c);
}

/* The body may come: a client that waits for that word gets it (RFC 9110 §10.1.1). */
static void let_in(struct http_conn *c)
{
    struct http1 *h = c->state;
    struct iovec v = {(void *)(uintptr_t) "HTTP/1.1 100 Continue\r\n\r\n", 25};
    if (h->expects_continue)
        stream_write(c->stream, &v, 1);
    h->expects_continue = false;
}

/* A large head that comes byte by byte is not parsed with each of them. */
static bool may_be_whole(struct http1 *h)
{
    const char *p = h->in.p + h->used;
    size_t n = h->in.n - h->used, from = h->seen > 2 ? h->seen - 2 : 0;
    h->seen = n;
    if (n <= SMALL_HEAD || n >= HTTP1_MAX_HEAD)
        return true;
    return memmem(p + from, n - from, "\n\r\n", 3) || memmem(p + from, n - from, "\n\n", 2);
}

static int parse_request(struct http_conn *c)
{
    static _Thread_local struct http1_head head;
    struct http1 *h = c->state;
    if (!c->partial_ns)
        c->partial_ns = loop_now_ns(c->home->loop);
    if (!may_be_whole(h))
        return 0;
    int n = http1_parse_head(h->in.p + h->used, h->in.n - h->used, false, &head);
    if (n < 0)
        return fail(c, 400);
    if (n == 0)
        return 0;
    h->seen = 0;
    c->partial_ns = 0;
    if (http_server_is_h2_only(c->server))
        return fail(c, 505);
    struct http_exchange *x = h->x = http_exchange_new(c, 1);
    struct str path = head.path;
    const char *query = memchr(path.p, '?', path.n);
    if (query)
        path.n = (size_t)(query - path.p);
    x->r.method = http_exchange_keep(x, head.method);
    x->r.path = http_exchange_keep(x, path);
    x->r.content_type = http_exchange_keep(x, http1_field(&head, "content-type"));
    x->r.content_encoding = http_exchange_keep(x, http1_field(&head, "content-encoding"));
    h->keep_alive = head.keep_alive;
    h->used += (size_t)n;
    h->is_chunked = head.is_chunked;
    h->left = head.content_length;
    h->is_reading_body = head.is_chunked || head.content_length > 0;
    http1_chunked_init(&h->chunked);
    int refused = http_exchange_head(x);
    if (refused) {
        http_exchange_free(&h->x);
        return fail(c, refused);
    }
    if (!h->is_chunked && h->left > x->max_body) {
        http_exchange_refuse(x, HTTP_TOO_LARGE); /* ends the connection: its body is not read */
        return 0;
    }
    h->expects_continue = head.expects_continue;
    /* A chunked body's size is not known: the first step is reserved, the rest as it grows. */
    if (h->is_reading_body && !http_exchange_expect(x, h->is_chunked ? 0 : h->left)) {
        stream_pause(c->stream);
        return 0;
    }
    x->state = EXCHANGE_BODY;
    let_in(c);
    return 1;
}

/* 1 = the body is whole, 0 = needs more. */
static int read_body(struct http_conn *c, struct http_exchange *x)
{
    struct http1 *h = c->state;
    const uint8_t *p = (const uint8_t *)h->in.p + h->used,
                  *end = (const uint8_t *)h->in.p + h->in.n;
    int r = 1, failed = 0;
    if (!h->is_chunked) {
        size_t n = (size_t)MIN(h->left, (uint64_t)(end - p));
        failed = n ? http_exchange_append(x, p, n) : 0;
        p += n;
        h->left -= n;
        r = h->left == 0;
    } else {
        struct str data;
        while (!failed && (r = http1_chunked_next(&h->chunked, &p, end, &data)) == 1)
            failed = http_exchange_append(x, (const uint8_t *)data.p, data.n);
        if (r < 0)
            return r;
        r = r == 2;
    }
    h->used = (size_t)(p - (const uint8_t *)h->in.p);
    if (failed == -E2BIG) {
        http_exchange_refuse(x, HTTP_TOO_LARGE);
        return -ECANCELED;
    }
    if (failed) {
        http_exchange_refuse(x, HTTP_OVERLOADED);
        return -ECANCELED;
    }
    return r;
}

static void drop_used(struct http1 *h)
{
    if (h->used == 0)
        return;
    memmove(h->in.p, h->in.p + h->used, h->in.n - h->used);
    h->in.n -= h->used;
    h->used = 0;
}

/* One request, or as much of it as is here. 1 = it went to the handler, who may have ended all
 * this. */
static int work_once(struct http_conn *c)
{
    struct http1 *h = c->state;
    if (!h->x) {
        int r = parse_request(c);
        if (r <= 0)
            return r;
    }
    struct http_exchange *x = h->x;
    if (!x || x->state != EXCHANGE_BODY)
        return 0;
    int r = read_body(c, x);
    if (r == -ECANCELED)
        return 1;
    if (r < 0)
        return fail(c, 400);
    drop_used(h);
    if (r == 0)
        return 0;
    h->is_reading_body = false;
    stream_pause(c->stream);
    http_exchange_message(x);
    return 1;
}

/* Goes on until it needs more bytes or waits for someone. Answers from inside do not come back
 * here. The rest of a body that was answered early is never taken for a request. */
static int work(struct http_conn *c)
{
    struct http1 *h = c->state;
    int r;
    if (h->is_working)
        return 0;
    h->is_working = true;
    do
        r = work_once(c);
    while (r == 1 && !c->is_closing && !h->discards && !h->is_full && !h->x && h->in.n > h->used);
    if (!c->is_closing) {
        h->is_working = false;
        settle_buffer(h);
    }
    return r < 0 ? r : 0;
}

static int http1_read(struct http_conn *c, const uint8_t *p, size_t n)
{
    struct http1 *h = c->state;
    if (h->discards) {
        h->discarded += n;
        return h->discarded > MAX_DISCARDED ? -E2BIG : 0;
    }
    buf_add(&h->in, p, n);
    if (buf_error(&h->in))
        return fail(c, 400);
    return work(c);
}

static void http1_flush(struct http_conn *c)
{
    struct http1 *h = c->state; /* answers are written at once; the stream keeps what is left */
    if (!h->is_full)
        return;
    h->is_full = false;
    go_on(c);
}

static void http1_admitted(struct http_exchange *x)
{
    struct http_conn *c = x->conn;
    let_in(c);
    stream_resume(c->stream);
    if (work(c) < 0)
        http_conn_end(c);
}

/* What is left of a body cannot be told from a next request. */
static void http1_stalled(struct http_exchange *x)
{
    http_conn_end(x->conn);
}

static void http1_go_away(struct http_conn *c)
{
    struct http1 *h = c->state;
    if (!h->x)
        http_conn_end(c);
}

const struct http_proto http1_proto = {
    .read = http1_read,
    .flush = http1_flush,
    .admitted = http1_admitted,
    .respond = http1_respond,
    .go_away = http1_go_away,
    .free = http1_free,
    .stalled = http1_stalled,
};
