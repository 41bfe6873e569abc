/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 for the client: one call at a time on a connection, which is kept for the next one. */
#include <errno.h>
#include <stdlib.h>

#include "common/base/buf.h"
#include "common/io/client_conn.h"
#include "common/io/http1.h"

struct http1c {
    struct buf in;
    size_t used;
    struct http_call *call;
    struct http1_chunked chunked;
    bool has_head, is_chunked, until_close, keep_alive;
    uint64_t left;
};

static int http1c_open(struct client_conn *c)
{
    struct http1c *h = xcalloc(1, sizeof(*h));
    buf_init(&h->in);
    h->in.max = HTTP1_MAX_HEAD + 2 * LOOP_READ_BUFFER;
    c->state = h;
    return 0;
}

static void http1c_free(struct client_conn *c)
{
    struct http1c *h = c->state;
    buf_fini(&h->in);
    free(h);
    c->state = NULL;
}

static bool http1c_has_room(const struct client_conn *c)
{
    return c->n_calls == 0;
}

static int http1c_submit(struct client_conn *c, struct http_call *call)
{
    struct http1c *h = c->state;
    struct buf head;
    buf_init(&head);
    buf_addf(&head, "POST %s HTTP/1.1\r\nhost: %s\r\ncontent-length: %zu\r\n", call->path,
             c->client->authority, call->n_prefix + call->body_len);
    for (unsigned i = 0; i < call->n_headers; i++)
        buf_addf(&head, "%s: %s\r\n", call->headers[i].name, call->headers[i].value);
    buf_add_cstr(&head, "\r\n");
    buf_add(&head, call->prefix, call->n_prefix);
    struct iovec v[2] = {{head.p, head.n}, {call->body->data + call->body_off, call->body_len}};
    int r =
        buf_error(&head) ? buf_error(&head) : stream_write(c->stream, v, call->body_len ? 2 : 1);
    buf_fini(&head);
    if (r)
        return r;
    call->is_on_wire = true;
    h->call = call;
    h->has_head = false;
    return 0;
}

/* 1: the head was read. 0: needs more. */
static int read_head(struct http1c *h)
{
    static _Thread_local struct http1_head head;
    for (;;) {
        int n = http1_parse_head(h->in.p + h->used, h->in.n - h->used, true, &head);
        if (n <= 0)
            return n;
        h->used += (size_t)n;
        if (head.status >= 200)
            break; /* 100 Continue and its like are passed over */
    }
    h->call->result.status = head.status;
    for (unsigned i = 0; i < head.n_fields; i++)
        client_call_field(h->call, head.fields[i].name, head.fields[i].value);
    bool bodyless = head.status == 204 || head.status == 304;
    h->is_chunked = head.is_chunked;
    h->until_close = !bodyless && !head.is_chunked && !head.has_length;
    h->left = bodyless ? 0 : head.content_length;
    h->keep_alive = head.keep_alive && !h->until_close;
    h->has_head = true;
    http1_chunked_init(&h->chunked);
    return 1;
}

static void keep_body(struct http_call *call, struct str data)
{
    if (call->body_n + data.n > HTTP_MAX_RESPONSE)
        return; /* the rest of an over-long answer says nothing we need */
    size_t at = client_call_keep(call, data.p, data.n);
    if (at == SIZE_MAX)
        return;
    if (call->body_n == 0)
        call->body_at = at;
    call->body_n += data.n;
}

/* 1: the body is whole. */
static int read_body(struct http1c *h)
{
    const uint8_t *p = (const uint8_t *)h->in.p + h->used,
                  *end = (const uint8_t *)h->in.p + h->in.n;
    struct str data;
    int r;
    if (h->is_chunked) {
        while ((r = http1_chunked_next(&h->chunked, &p, end, &data)) == 1)
            keep_body(h->call, data);
        r = r == 2 ? 1 : r;
    } else {
        size_t n = h->until_close ? (size_t)(end - p) : (size_t)MIN(h->left, (uint64_t)(end - p));
        keep_body(h->call, str_make(p, n));
        p += n;
        h->left -= h->until_close ? 0 : n;
        r = !h->until_close && h->left == 0;
    }
    h->used = (size_t)(p - (const uint8_t *)h->in.p);
    return r;
}

static int http1c_read(struct client_conn *c, const uint8_t *p, size_t n)
{
    struct http1c *h = c->state;
    if (!h->call)
        return -EPROTO; /* nothing was asked */
    buf_add(&h->in, p, n);
    if (buf_error(&h->in))
        return -EPROTO;
    int r = h->has_head ? 1 : read_head(h);
    if (r > 0)
        r = read_body(h);
    if (r < 0)
        return -EPROTO;
    memmove(h->in.p, h->in.p + h->used, h->in.n - h->used);
    h->in.n -= h->used;
    h->used = 0;
    if (r == 0)
        return 0;
    struct http_call *call = h->call;
    struct http_client *client = c->client;
    h->call = NULL;
    c->is_going |= !h->keep_alive;
    client_call_done(call, 0, NULL);
    client_pump(client);
    return 0;
}

/* A late answer could not be told from the next call's: the connection is given up. */
static void http1c_cancel(struct client_conn *c, struct http_call *call)
{
    struct http1c *h = c->state;
    (void)call;
    h->call = NULL;
    c->is_going = true;
}

static void http1c_flush(struct client_conn *c)
{
    (void)c; /* requests are written at once; the stream keeps what the socket does not take */
}

const struct client_proto http1_client_proto = {
    .open = http1c_open,
    .read = http1c_read,
    .submit = http1c_submit,
    .cancel = http1c_cancel,
    .flush = http1c_flush,
    .has_room = http1c_has_room,
    .free = http1c_free,
};
