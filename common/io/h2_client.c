/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 for the client, on nghttp2: many calls on one connection. Bodies are not copied: nghttp2
 * asks for DATA frames, we put the frame head and the chunk's own bytes into one writev.
 */
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>

#include "common/io/client_conn.h"
#include "common/io/h2_memory.h"

enum {
    IOV_MAX_ENTRIES = 128,
    IOV_MAX_BYTES = 256 << 10,
    SCRATCH = 32 << 10,
    FRAME_MAX = 256 << 10,
    CONN_WINDOW = 4 << 20,
    MAX_HEADERS = 48
};

struct h2c {
    nghttp2_session *session;
    struct client_conn *conn;
};

/* What one flush gathers. On the thread, not on the connection: it is empty between flushes. */
struct gather {
    struct iovec iov[IOV_MAX_ENTRIES];
    int n;
    size_t bytes, scratch_n;
    uint8_t scratch[SCRATCH];
};
static _Thread_local struct gather gathered;

/* ---- answers ---- */

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *user)
{
    struct http_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    struct str k = str_make(name, name_n), v = str_make(value, value_n);
    uint64_t status;
    (void)flags;
    (void)user;
    if (!call)
        return 0;
    if (str_is(k, ":status") && str_to_u64(v, &status) == 0)
        call->result.status = (int)status;
    else
        client_call_field(call, k, v);
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                   void *user)
{
    struct http_call *call = nghttp2_session_get_stream_user_data(session, id);
    (void)flags;
    (void)user;
    if (!call || call->body_n + n > HTTP_MAX_RESPONSE)
        return 0; /* the rest of an over-long answer says nothing we need */
    size_t at = client_call_keep(call, p, n);
    if (at == SIZE_MAX)
        return 0;
    if (call->body_n == 0)
        call->body_at = at;
    call->body_n += n;
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    struct http_call *call = nghttp2_session_get_stream_user_data(session, id);
    struct h2c *h = user;
    if (!call)
        return 0;
    nghttp2_session_set_stream_user_data(session, id, NULL);
    /* REFUSED_STREAM: the peer promises that it did nothing (RFC 9113 §8.7). */
    if (error == NGHTTP2_REFUSED_STREAM)
        call->is_on_wire = false;
    bool answered =
        call->result.status != 0 && (error == NGHTTP2_NO_ERROR || call->result.has_grpc_status);
    client_call_done(call, answered ? 0 : -ECONNRESET,
                     answered ? NULL : nghttp2_http2_strerror(error));
    /* For who waits only: calls that done() has posted ask themselves, and leave in one write. */
    if (!list_is_empty(&h->conn->client->waiting) || h->conn->is_going)
        client_pump(h->conn->client);
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct h2c *h = user;
    struct http_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    bool is_last = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
                   (frame->hd.flags & NGHTTP2_FLAG_END_STREAM);
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        h->conn->is_going = true;
        client_pump(h->conn->client);
    }
    /*
     * Answered before all of it was sent: nobody reads the rest (RFC 9113 §8.1). The reset leaves
     * ahead of any DATA, so no body is let go whose bytes are gathered for writing.
     */
    if (is_last && call && call->sent < call->body_len)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_NO_ERROR);
    return 0;
}

/* ---- requests ---- */

static ssize_t want_data(nghttp2_session *session, int32_t id, uint8_t *buf, size_t n,
                         uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct http_call *call = source->ptr;
    size_t left = call->n_prefix + call->body_len - call->sent, take = MIN(n, left);
    (void)session;
    (void)id;
    (void)buf;
    (void)user;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (take == left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)take;
}

static ssize_t data_length(nghttp2_session *session, uint8_t type, int32_t id, int32_t conn_window,
                           int32_t stream_window, uint32_t max_frame, void *user)
{
    (void)session;
    (void)type;
    (void)id;
    (void)user;
    return MIN(MIN(conn_window, stream_window), (int32_t)MIN(max_frame, (uint32_t)FRAME_MAX));
}

static int write_out(struct client_conn *c)
{
    struct gather *g = &gathered;
    int r = g->n ? stream_write(c->stream, g->iov, g->n) : 0;
    g->n = 0;
    g->bytes = g->scratch_n = 0;
    return r;
}

/* A copy of bytes that nghttp2 takes back at its next call. */
static void gather_copy(const uint8_t *p, size_t n)
{
    struct gather *g = &gathered;
    memcpy(g->scratch + g->scratch_n, p, n);
    g->iov[g->n++] = (struct iovec){g->scratch + g->scratch_n, n};
    g->scratch_n += n;
    g->bytes += n;
}

static int send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t n,
                     nghttp2_data_source *source, void *user)
{
    struct http_call *call = source->ptr;
    struct gather *g = &gathered;
    (void)session;
    (void)frame;
    (void)user;
    uint8_t start[9 + sizeof(call->prefix)];
    size_t prefix = call->sent < call->n_prefix ? MIN(n, call->n_prefix - call->sent) : 0;
    if (g->n + 2 > IOV_MAX_ENTRIES || g->scratch_n + sizeof(start) > SCRATCH ||
        g->bytes > IOV_MAX_BYTES)
        return NGHTTP2_ERR_WOULDBLOCK; /* flush() writes and comes again */
    memcpy(start, head, 9);
    if (prefix)
        memcpy(start + 9, call->prefix + call->sent, prefix);
    gather_copy(start, 9 + prefix);
    call->sent += prefix;
    if (n > prefix) {
        uint8_t *p = call->body->data + call->body_off + (call->sent - call->n_prefix);
        g->iov[g->n++] = (struct iovec){p, n - prefix};
        g->bytes += n - prefix;
        call->sent += n - prefix;
    }
    call->is_on_wire = true;
    return 0;
}

static void flush(struct client_conn *c)
{
    struct h2c *h = c->state;
    struct gather *g = &gathered;
    int r = 0;
    while (r == 0 && !stream_is_blocked(c->stream)) {
        const uint8_t *p;
        ssize_t n = nghttp2_session_mem_send(h->session, &p);
        if (n < 0)
            r = -EPROTO;
        else if (n > 0) {
            if ((size_t)n > SCRATCH - g->scratch_n || g->n + 1 > IOV_MAX_ENTRIES)
                r = write_out(c);
            if (r == 0 && (size_t)n <= SCRATCH)
                gather_copy(p, (size_t)n);
            else if (r == 0)
                r = stream_write(c->stream, &(struct iovec){(void *)(uintptr_t)p, (size_t)n}, 1);
        } else if (g->n) {
            r = write_out(c); /* full, or nothing more to say */
        } else {
            break;
        }
    }
    write_out(c);
    bool is_over =
        !nghttp2_session_want_read(h->session) && !nghttp2_session_want_write(h->session);
    if (r || is_over)
        client_conn_end(c, r, "connection ended");
}

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name),
                        strlen(value), NGHTTP2_NV_FLAG_NONE};
}

static int submit(struct client_conn *c, struct http_call *call)
{
    struct h2c *h = c->state;
    nghttp2_nv nv[MAX_HEADERS + 4];
    size_t n = 0;
    nv[n++] = header(":method", "POST");
    nv[n++] = header(":scheme", stream_is_tls(c->stream) ? "https" : "http");
    nv[n++] = header(":authority", c->client->authority);
    nv[n++] = header(":path", call->path);
    for (unsigned i = 0; i < call->n_headers && n < ARRAY_LEN(nv); i++)
        nv[n++] = header(call->headers[i].name, call->headers[i].value);
    nghttp2_data_provider source = {.source.ptr = call, .read_callback = want_data};
    int32_t id = nghttp2_submit_request(h->session, NULL, nv, n, &source, call);
    if (id < 0)
        return -EPROTO;
    call->stream_id = id;
    return 0;
}

static void cancel(struct client_conn *c, struct http_call *call)
{
    struct h2c *h = c->state;
    nghttp2_session_set_stream_user_data(h->session, call->stream_id, NULL);
    nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, call->stream_id, NGHTTP2_CANCEL);
    /* The reset must leave before the body goes: nghttp2 drops queued DATA of a reset stream. */
    if (!stream_is_blocked(c->stream)) {
        const uint8_t *p;
        ssize_t n;
        while ((n = nghttp2_session_mem_send(h->session, &p)) > 0)
            if (stream_write(c->stream, &(struct iovec){(void *)(uintptr_t)p, (size_t)n}, 1) < 0)
                break;
        write_out(c);
    }
}

static bool has_room(const struct client_conn *c)
{
    const struct h2c *h = c->state;
    uint32_t most =
        nghttp2_session_get_remote_settings(h->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    return c->n_calls < MIN(most, 100u);
}

static int h2c_read(struct client_conn *c, const uint8_t *p, size_t n)
{
    struct h2c *h = c->state;
    ssize_t r = nghttp2_session_mem_recv(h->session, p, n);
    if (r < 0)
        return -EPROTO;
    if (!c->is_closing)
        flush(c);
    return 0;
}

static int h2c_open(struct client_conn *c)
{
    struct h2c *h = xcalloc(1, sizeof(*h));
    nghttp2_session_callbacks *cb;
    h->conn = c;
    if (nghttp2_session_callbacks_new(&cb)) {
        free(h);
        return -ENOMEM;
    }
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_send_data_callback(cb, send_data);
    nghttp2_session_callbacks_set_data_source_read_length_callback(cb, data_length);
    nghttp2_mem memory = h2_memory();
    int r = nghttp2_session_client_new3(&h->session, cb, h, NULL, &memory);
    nghttp2_session_callbacks_del(cb);
    if (r) {
        free(h);
        return -ENOMEM;
    }
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20}};
    nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));
    nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, CONN_WINDOW);
    c->state = h;
    flush(c);
    return 0;
}

static void h2c_free(struct client_conn *c)
{
    struct h2c *h = c->state;
    nghttp2_session_del(h->session);
    free(h);
    c->state = NULL;
}

const struct client_proto h2_client_proto = {
    .open = h2c_open,
    .read = h2c_read,
    .submit = submit,
    .cancel = cancel,
    .flush = flush,
    .has_room = has_room,
    .free = h2c_free,
};
