/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 connections of the server, on nghttp2. Flow control is ours (no_auto_window_update): bytes
 * of an admitted body are given back to both windows at once. Bytes of one that waits are owed to
 * both; the connection gets its part back as soon as an admitted body of the same connection needs
 * it. While many connections are open the connection window stays at 64 KB, which bounds what all
 * of them together can push before anyone is asked.
 *
 * nghttp2's callbacks never send: they set states, and flush() runs when mem_recv has returned.
 */
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/io/h2_memory.h"
#include "common/io/http_conn.h"

/*
 * A peer may reset RESET_BURST unanswered requests at once and RESETS_A_SECOND of them for ever:
 * what callers do who give up in time, with all streams of a connection. Beyond it means no good
 * and is sent away (CVE-2023-44487). A reset of what was answered early is how a client stops its
 * body (RFC 9113 §8.1): nghttp2's own limit counts those too, and would cut off whoever we
 * refused often enough.
 */
enum { OUT_BATCH = 64 << 10, RESET_BURST = 1000, RESETS_A_SECOND = 100 };

/*
 * Frames that carry nothing (empty DATA, PING, SETTINGS, PRIORITY, WINDOW_UPDATE) are cheap to send
 * and cost us a turn each. Each request and each second allows some; who sends many more does
 * nothing else (CVE-2019-9511 to 9518).
 */
enum { IDLE_BURST = 10000, IDLE_A_REQUEST = 100, IDLE_A_SECOND = 1000, HEAD_LIST_MAX = 64 << 10 };

/* Frames of a kind beyond what was allowed up to a time. */
struct excess {
    uint64_t frames, since_ns;
};

struct h2 {
    nghttp2_session *session;
    struct http_conn *conn;
    uint64_t withheld; /* from the connection's window: the sum of conn_owed */
    bool is_receiving, wants_flush;
    struct excess idle, resets;
};

static void flush(struct http_conn *c);
static void flush_later(struct http_conn *c);

/* ---- head ---- */

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct h2 *h = user;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct http_exchange *x = http_exchange_new(h->conn, 2);
    x->stream_id = frame->hd.stream_id;
    h->idle.frames -= MIN(h->idle.frames, (uint64_t)IDLE_A_REQUEST);
    nghttp2_session_set_stream_user_data(session, x->stream_id, x);
    return 0;
}

/* grpc-timeout: up to 8 digits and a unit (gRPC over HTTP/2). 0 when it is not one. */
static uint64_t timeout_ns(struct str v)
{
    static const struct {
        char unit;
        uint64_t ns;
    } units[] = {{'H', 3600 * NS_PER_S}, {'M', 60 * NS_PER_S}, {'S', NS_PER_S},
                 {'m', NS_PER_MS},       {'u', NS_PER_US},     {'n', 1}};
    uint64_t n;
    if (v.n < 2 || v.n > 9 || str_to_u64(str_make(v.p, v.n - 1), &n))
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (units[i].unit == v.p[v.n - 1])
            return MAX(n * units[i].ns, 1);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *user)
{
    struct http_exchange *x = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    struct str k = str_make(name, name_n), v = str_make(value, value_n);
    struct h2 *h = user;
    (void)flags;
    if (!x)
        return 0;
    x->head_bytes += name_n + value_n + 32; /* as SETTINGS_MAX_HEADER_LIST_SIZE counts them */
    if (x->state != EXCHANGE_HEAD || x->head_bytes > HEAD_LIST_MAX)
        return 0;
    if (str_is(k, ":method"))
        x->r.method = http_exchange_keep(x, v);
    else if (str_is(k, ":path"))
        x->r.path = http_exchange_keep(x, v);
    else if (str_is(k, "content-type"))
        x->r.content_type = http_exchange_keep(x, v);
    else if (str_is(k, "content-encoding"))
        x->r.content_encoding = http_exchange_keep(x, v);
    else if (str_is(k, "grpc-encoding"))
        x->r.grpc_encoding = http_exchange_keep(x, v);
    else if (str_is(k, "content-length"))
        str_to_u64(v, &x->expected);
    else if (str_is(k, "grpc-timeout") && timeout_ns(v))
        x->r.deadline_ns = loop_now_ns(h->conn->home->loop) + timeout_ns(v);
    return 0;
}

/* ---- body ---- */

static void give_back_to_conn(struct http_exchange *x)
{
    struct h2 *h = x->conn->state;
    if (x->conn_owed == 0)
        return;
    nghttp2_session_consume_connection(h->session, x->conn_owed);
    h->withheld -= x->conn_owed;
    x->conn_owed = 0;
    h->wants_flush = true;
}

static void give_back(struct http_exchange *x)
{
    struct h2 *h = x->conn->state;
    if (x->stream_owed)
        nghttp2_session_consume_stream(h->session, x->stream_id, x->stream_owed);
    x->stream_owed = 0;
    give_back_to_conn(x);
    h->wants_flush = true;
}

/* A reserved message always gets the credit to finish, whoever waits on the same connection. */
static void free_way(struct http_conn *c)
{
    struct h2 *h = c->state;
    bool is_needed = false;
    if (h->withheld == 0)
        return;
    LIST_EACH (it, &c->exchanges) {
        const struct http_exchange *x = LIST_ENTRY(it, struct http_exchange, in_conn);
        is_needed |= x->state == EXCHANGE_BODY && x->assembling > 0;
    }
    if (!is_needed)
        return;
    LIST_EACH (it, &c->exchanges)
        give_back_to_conn(LIST_ENTRY(it, struct http_exchange, in_conn));
}

/* The first five bytes of a gRPC message tell its size (gRPC over HTTP/2). False: refused. */
static bool note_prefix(struct http_exchange *x, const uint8_t *p)
{
    uint64_t n = (uint64_t)p[1] << 24 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 8 | p[4];
    x->is_prefix_seen = true;
    if (n + 5 > x->max_body) {
        http_exchange_refuse(x, HTTP_TOO_LARGE);
        return false;
    }
    http_exchange_expect(x, n + 5);
    return true;
}

static void take_data(struct http_exchange *x, const uint8_t *p, size_t n)
{
    bool is_wanted = x->r.is_grpc && !x->is_prefix_seen;
    /* Nearly always the prefix comes in one piece: then it is asked before anything is kept. */
    if (is_wanted && !x->r.body && n >= 5 && !note_prefix(x, p))
        return;
    int r = http_exchange_append(x, p, n);
    if (r) {
        http_exchange_refuse(x, r == -E2BIG ? HTTP_TOO_LARGE : HTTP_OVERLOADED);
        return;
    }
    if (is_wanted && !x->is_prefix_seen && x->r.body->len >= HTTP_BODY_HEADROOM + 5)
        note_prefix(x, x->r.body->data + HTTP_BODY_HEADROOM);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                   void *user)
{
    struct http_exchange *x = nghttp2_session_get_stream_user_data(session, id);
    struct h2 *h = user;
    (void)flags;
    if (!x) { /* answered already: its bytes are thrown away */
        nghttp2_session_consume(session, id, n);
        return 0;
    }
    x->stream_owed += n;
    x->conn_owed += n;
    h->withheld += n;
    if (x->state == EXCHANGE_HANDLER || x->state == EXCHANGE_DONE) {
        give_back(x);
        return 0;
    }
    take_data(x, p, n);
    /* The exchange may have been refused, answered and detached meanwhile. */
    x = nghttp2_session_get_stream_user_data(session, id);
    if (x && x->state != EXCHANGE_WAITING)
        give_back(x);
    free_way(h->conn);
    return 0;
}

static void body_is_whole(struct http_exchange *x)
{
    x->has_all = true;
    if (x->state == EXCHANGE_WAITING)
        return; /* when it is admitted */
    if (x->r.is_grpc && (!x->r.body || x->r.body->len < HTTP_BODY_HEADROOM + 5 ||
                         x->r.body->len != HTTP_BODY_HEADROOM + x->expected)) {
        http_exchange_refuse(x, HTTP_BAD_BODY);
        return;
    }
    http_exchange_message(x);
}

/* One more of them: `a_second` are forgiven, and at `burst` the connection ends. */
static void note_excess(struct h2 *h, struct excess *x, const char *what, uint64_t burst,
                        uint64_t a_second)
{
    uint64_t step_ns = NS_PER_S / a_second;
    uint64_t forgiven = (loop_now_ns(h->conn->home->loop) - x->since_ns) / step_ns;
    x->frames -= MIN(x->frames, forgiven);
    x->since_ns += forgiven * step_ns;
    if (++x->frames != burst)
        return;
    struct log_ctx ctx = {"http", stream_peer(h->conn->stream)};
    log_warn(&ctx, "connection ended: too many %s", what);
    nghttp2_session_terminate_session(h->session, NGHTTP2_ENHANCE_YOUR_CALM);
}

static void note_abuse(struct h2 *h, const nghttp2_frame_hd *hd)
{
    bool is_empty =
        hd->type == NGHTTP2_DATA && hd->length == 0 && !(hd->flags & NGHTTP2_FLAG_END_STREAM);
    /* 1: the answer has left as a whole; 0: not yet; -1: there is no such stream any more. */
    if (hd->type == NGHTTP2_RST_STREAM &&
        nghttp2_session_get_stream_local_close(h->session, hd->stream_id) != 1)
        note_excess(h, &h->resets, "resets of unanswered requests", RESET_BURST, RESETS_A_SECOND);
    else if (is_empty || hd->type == NGHTTP2_PING || hd->type == NGHTTP2_SETTINGS ||
             hd->type == NGHTTP2_PRIORITY || hd->type == NGHTTP2_WINDOW_UPDATE)
        note_excess(h, &h->idle, "frames without content", IDLE_BURST, IDLE_A_SECOND);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct h2 *h = user;
    note_abuse(h, &frame->hd);
    bool is_last = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    struct http_exchange *x = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!x || (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
        return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && x->state == EXCHANGE_HEAD && !x->handler) {
        uint64_t length = x->expected;
        x->expected = 0;
        int status = http_exchange_head(x);
        if (x->head_bytes > HEAD_LIST_MAX)
            status = 431;
        if (status) {
            struct http_response resp = {.status = status};
            x->state = EXCHANGE_HANDLER;
            http_respond(&x->r, &resp);
            return 0;
        }
        x->state = EXCHANGE_BODY;
        /* For gRPC the prefix tells; a plain body of unknown size reserves as it grows. */
        if (!x->r.is_grpc && length > x->max_body)
            http_exchange_refuse(x, HTTP_TOO_LARGE);
        else if (!x->r.is_grpc && !is_last)
            http_exchange_expect(x, length);
        x = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    }
    if (x && is_last && (x->state == EXCHANGE_BODY || x->state == EXCHANGE_WAITING))
        body_is_whole(x);
    h->wants_flush = true;
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    struct http_exchange *x = nghttp2_session_get_stream_user_data(session, id);
    struct h2 *h = user;
    (void)error;
    if (!x)
        return 0;
    /* What was not given back would be lost to the connection's window. */
    give_back_to_conn(x);
    nghttp2_session_set_stream_user_data(session, id, NULL);
    http_exchange_cancel(x);
    h->wants_flush = true;
    return 0;
}

/* ---- answers ---- */

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buf, size_t n,
                         uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct http_exchange *x = source->ptr;
    size_t left = x->out.n - x->out_at, take = MIN(left, n);
    (void)user;
    memcpy(buf, x->out.p + x->out_at, take);
    x->out_at += take;
    if (x->out_at < x->out.n)
        return (ssize_t)take;
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (x->trailers.n) {
        nghttp2_nv nv[8];
        size_t k = 0;
        for (const char *p = x->trailers.p; p < x->trailers.p + x->trailers.n && k < 8; k++) {
            size_t name_n = strlen(p), value_n = strlen(p + name_n + 1);
            nv[k] = (nghttp2_nv){(uint8_t *)(uintptr_t)p, (uint8_t *)(uintptr_t)p + name_n + 1,
                                 name_n, value_n, NGHTTP2_NV_FLAG_NONE};
            p += name_n + value_n + 2;
        }
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_submit_trailer(session, id, nv, k);
    }
    return (ssize_t)take;
}

/* Trailers must outlive this call: packed as name\0value\0. Values are text without NUL. */
static struct str pack_trailers(const struct http_response *resp)
{
    size_t n = 0;
    for (unsigned i = 0; i < resp->n_trailers; i++)
        n += strlen(resp->trailers[i].name) + resp->trailers[i].value.n + 2;
    char *p = xalloc(n), *at = p;
    for (unsigned i = 0; i < resp->n_trailers; i++) {
        const struct http_header *t = &resp->trailers[i];
        at = stpcpy(at, t->name) + 1;
        if (t->value.n)
            memcpy(at, t->value.p, t->value.n);
        at += t->value.n;
        *at++ = '\0';
    }
    return str_make(p, n);
}

static void h2_respond(struct http_exchange *x, const struct http_response *resp)
{
    struct http_conn *c = x->conn;
    struct h2 *h = c->state;
    char status[12];
    nghttp2_nv nv[16];
    size_t n = 0;
    snprintf(status, sizeof(status), "%d", resp->status);
    nv[n++] =
        (nghttp2_nv){(uint8_t *)(uintptr_t) ":status", (uint8_t *)status, 7, strlen(status), 0};
    for (unsigned i = 0; i < resp->n_headers && n < ARRAY_LEN(nv); i++)
        nv[n++] = (nghttp2_nv){(uint8_t *)(uintptr_t)resp->headers[i].name,
                               (uint8_t *)(uintptr_t)resp->headers[i].value.p,
                               strlen(resp->headers[i].name), resp->headers[i].value.n, 0};
    if (resp->body.n) {
        char *copy = xalloc(resp->body.n);
        memcpy(copy, resp->body.p, resp->body.n);
        x->out = str_make(copy, resp->body.n);
    }
    if (resp->n_trailers)
        x->trailers = pack_trailers(resp);
    bool has_body = resp->body.n > 0 || resp->n_trailers > 0;
    nghttp2_data_provider source = {.source.ptr = x, .read_callback = read_body};
    give_back(x);
    nghttp2_submit_response(h->session, x->stream_id, nv, n, has_body ? &source : NULL);
    /*
     * An early answer does not reset the stream: the reset would overtake the status. What the peer
     * still sends is thrown away until it has seen the answer.
     */
    h->wants_flush = true;
    flush_later(c);
}

/* ---- sending ---- */

/* Runs before the connection's memory goes, which is posted too. */
static void run_flush(struct task *t)
{
    struct http_conn *c = CONTAINER_OF(t, struct http_conn, flush_task);
    c->is_flush_posted = false;
    if (!c->is_closing)
        flush(c);
}

/* With others of this turn, in one write; what is received now is followed by a flush anyway. */
static void flush_later(struct http_conn *c)
{
    const struct h2 *h = c->state;
    if (h->is_receiving || c->is_flush_posted)
        return;
    c->is_flush_posted = true;
    c->flush_task.run = run_flush;
    loop_post(c->home->loop, &c->flush_task);
}

static void flush(struct http_conn *c)
{
    struct h2 *h = c->state;
    static _Thread_local uint8_t out[OUT_BATCH + (17 << 10)];
    while (!c->is_closing && !stream_is_blocked(c->stream)) {
        size_t n = 0;
        const uint8_t *p;
        ssize_t k;
        /* Frames of many answers leave in one write. */
        while (n < OUT_BATCH && (k = nghttp2_session_mem_send(h->session, &p)) > 0) {
            if ((size_t)k > sizeof(out) - n) { /* larger than any frame we make: as it is */
                struct iovec v[2] = {{out, n}, {(void *)(uintptr_t)p, (size_t)k}};
                stream_write(c->stream, v, 2);
                n = 0;
                continue;
            }
            memcpy(out + n, p, (size_t)k);
            n += (size_t)k;
        }
        if (n == 0)
            break;
        struct iovec v = {out, n};
        if (stream_write(c->stream, &v, 1) < 0)
            break;
    }
    h->wants_flush = false;
    if (c->is_closing || stream_is_blocked(c->stream) || nghttp2_session_want_write(h->session))
        return;
    bool is_done = c->is_going && list_is_empty(&c->exchanges);
    if (is_done || !nghttp2_session_want_read(h->session))
        http_conn_end(c);
}

static int h2_read(struct http_conn *c, const uint8_t *p, size_t n)
{
    struct h2 *h = c->state;
    h->is_receiving = true;
    ssize_t r = nghttp2_session_mem_recv(h->session, p, n);
    h->is_receiving = false;
    if (r < 0) {
        struct log_ctx ctx = {"http", stream_peer(c->stream)};
        log_debug(&ctx, "HTTP/2: %s", nghttp2_strerror((int)r));
        return -EPROTO;
    }
    flush(c);
    return 0;
}

static void h2_flush(struct http_conn *c)
{
    flush(c);
}

static void h2_admitted(struct http_exchange *x)
{
    struct http_conn *c = x->conn;
    give_back(x);
    free_way(c);
    if (x->has_all)
        body_is_whole(x);
    flush_later(c);
}

static void h2_stalled(struct http_exchange *x)
{
    struct http_conn *c = x->conn;
    struct h2 *h = c->state;
    int32_t id = x->stream_id;
    if (x->state == EXCHANGE_HEAD) { /* half a header block: nothing else can be read meanwhile */
        http_conn_end(c);
        return;
    }
    give_back_to_conn(x);
    nghttp2_session_set_stream_user_data(h->session, id, NULL);
    http_exchange_cancel(x);
    /* It never was whole, so nothing was done with it: the peer may safely send it again. */
    nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM);
    flush(c);
}

static void h2_go_away(struct http_conn *c)
{
    struct h2 *h = c->state;
    nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(h->session), NGHTTP2_NO_ERROR,
                          NULL, 0);
    flush(c);
}

static void h2_free(struct http_conn *c)
{
    struct h2 *h = c->state;
    nghttp2_session_del(h->session);
    free(h);
    c->state = NULL;
}

/* ---- making ---- */

static int set_up(struct h2 *h)
{
    nghttp2_session_callbacks *cb;
    nghttp2_option *opt;
    if (nghttp2_session_callbacks_new(&cb))
        return -ENOMEM;
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_option_new(&opt);
    nghttp2_option_set_no_auto_window_update(opt, 1);
    nghttp2_option_set_max_outbound_ack(opt, 1000);
    nghttp2_option_set_stream_reset_rate_limit(opt, UINT64_MAX, UINT64_MAX); /* note_abuse */
    nghttp2_mem memory = h2_memory();
    int r = nghttp2_session_server_new3(&h->session, cb, h, opt, &memory);
    nghttp2_option_del(opt);
    nghttp2_session_callbacks_del(cb);
    return r ? -ENOMEM : 0;
}

int h2_server_new(struct http_conn *c)
{
    struct h2 *h = xcalloc(1, sizeof(*h));
    h->conn = c;
    if (set_up(h)) {
        free(h);
        return -ENOMEM;
    }
    c->state = h;
    bool crowded = http_server_is_crowded(c->server);
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, http_server_max_streams(c->server)},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, crowded ? H2_WINDOW_SMALL : H2_WINDOW_STREAM},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, 256 << 10},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEAD_LIST_MAX},
    };
    nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));
    if (!crowded)
        nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, H2_WINDOW_CONN);
    return 0;
}

const struct http_proto h2_proto = {
    .read = h2_read,
    .flush = h2_flush,
    .admitted = h2_admitted,
    .respond = h2_respond,
    .go_away = h2_go_away,
    .free = h2_free,
    .stalled = h2_stalled,
};
