/* SPDX-License-Identifier: Apache-2.0 */
#include "common/io/stream.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "common/base/buf.h"

#define STREAM_MAGIC 0x5354524du
enum { TLS_PIECE = 16 << 10, CONNECT_TIMEOUT_MS = 10000 };

struct stream {
    unsigned magic;
    struct loop *loop;
    uv_tcp_t tcp;
    uv_timer_t timer; /* connect timeout */
    uv_connect_t connect;
    uv_getaddrinfo_t resolve;
    uv_write_t write;
    struct buf pending; /* what the running uv_write sends */
    struct buf waiting; /* what came while it runs */
    struct tls *tls;
    const struct stream_ops *ops;
    void *arg;
    bool is_writing, is_ready, is_reading, is_paused, is_closing, has_ended;
    bool is_resolving, tcp_open;
    struct addrinfo *addrs, *next_addr; /* of the name, and the one to try next */
    int connect_error;
    bool is_replacing; /* the socket is closed to try another address */
    int handles;       /* uv handles that are not closed yet */
    char peer[64];
};

static void end(struct stream *s, int error, const char *why)
{
    if (s->has_ended || s->is_closing)
        return;
    s->has_ended = true;
    if (s->is_reading)
        uv_read_stop((uv_stream_t *)&s->tcp);
    s->is_reading = false;
    s->ops->on_end(s->arg, error, why);
}

/* ---- writing ---- */

static void on_written(uv_write_t *w, int status);

static int send_pending(struct stream *s)
{
    uv_buf_t b = uv_buf_init(s->pending.p, (unsigned)s->pending.n);
    s->write.data = s;
    int r = uv_write(&s->write, (uv_stream_t *)&s->tcp, &b, 1, on_written);
    s->is_writing = r == 0;
    return r;
}

static void on_written(uv_write_t *w, int status)
{
    struct stream *s = CAST_OBJ(struct stream, w->data, STREAM_MAGIC);
    s->is_writing = false;
    buf_reset(&s->pending);
    if (s->is_closing)
        return;
    if (status) {
        end(s, status, uv_strerror(status));
        return;
    }
    if (s->waiting.n) {
        struct buf t = s->pending;
        s->pending = s->waiting;
        s->waiting = t;
        status = send_pending(s);
        if (status)
            end(s, status, uv_strerror(status));
        return;
    }
    if (s->pending.cap > 1 << 20)
        buf_fini(&s->pending);
    if (s->is_ready)
        s->ops->on_drained(s->arg);
}

static int keep_rest(struct stream *s, struct buf *to, const uv_buf_t *b, unsigned n, size_t skip)
{
    for (unsigned i = 0; i < n; i++) {
        if (skip >= b[i].len) {
            skip -= b[i].len;
            continue;
        }
        buf_add(to, b[i].base + skip, b[i].len - skip);
        skip = 0;
    }
    return buf_error(to) ? buf_error(to) : to == &s->pending ? send_pending(s) : 0;
}

static int write_raw(struct stream *s, const struct iovec *iov, int n)
{
    uv_buf_t b[64];
    int r = 0;
    for (int at = 0; at < n && r == 0; at += (int)ARRAY_LEN(b)) {
        unsigned k = (unsigned)MIN(n - at, (int)ARRAY_LEN(b));
        for (unsigned i = 0; i < k; i++)
            b[i] = uv_buf_init(iov[at + (int)i].iov_base, (unsigned)iov[at + (int)i].iov_len);
        if (s->is_writing) {
            r = keep_rest(s, &s->waiting, b, k, 0);
            continue;
        }
        size_t all = 0;
        for (unsigned i = 0; i < k; i++)
            all += b[i].len;
        int sent = uv_try_write((uv_stream_t *)&s->tcp, b, k);
        if (sent == UV_EAGAIN)
            sent = 0;
        if (sent < 0)
            return sent;
        if ((size_t)sent < all)
            r = keep_rest(s, &s->pending, b, k, (size_t)sent);
    }
    return r;
}

static int flush_tls(struct stream *s)
{
    uint8_t out[TLS_PIECE + 1024];
    size_t n;
    int r = 0;
    while (r == 0 && (n = tls_drain(s->tls, out, sizeof(out))) > 0) {
        struct iovec v = {out, n};
        r = write_raw(s, &v, 1);
    }
    return r;
}

int stream_write(struct stream *s, const struct iovec *iov, int n)
{
    int r = 0;
    CHECK_OBJ(s, STREAM_MAGIC);
    if (s->has_ended || !s->is_ready)
        return -EPIPE;
    if (!s->tls) {
        r = write_raw(s, iov, n);
    } else {
        for (int i = 0; i < n && r == 0; i++)
            r = tls_write(s->tls, iov[i].iov_base, iov[i].iov_len);
        if (r == 0)
            r = flush_tls(s);
    }
    return r;
}

bool stream_is_blocked(const struct stream *s)
{
    return s->is_writing;
}

size_t stream_pending(const struct stream *s)
{
    return s->pending.n + s->waiting.n;
}

/* ---- reading ---- */

static void ready(struct stream *s)
{
    s->is_ready = true;
    uv_timer_stop(&s->timer);
    s->ops->on_ready(s->arg);
}

static void feed_tls(struct stream *s, const uint8_t *p, size_t n)
{
    uint8_t plain[TLS_PIECE];
    int r = tls_feed(s->tls, p, n);
    bool was_ready = s->is_ready;
    if (r == 0)
        r = tls_handshake(s->tls);
    int flushed = flush_tls(s); /* alerts go out even when it failed */
    if (r < 0 || flushed < 0) {
        end(s, r < 0 ? r : flushed, r < 0 ? tls_error(s->tls) : uv_strerror(flushed));
        return;
    }
    if (r == 1 && !was_ready)
        ready(s);
    while (s->is_ready && !s->is_closing && !s->has_ended &&
           (r = tls_read(s->tls, plain, sizeof(plain))) > 0)
        s->ops->on_read(s->arg, plain, (size_t)r);
    if (r < 0 && !s->is_closing)
        end(s, r == -ESHUTDOWN ? 0 : r, r == -ESHUTDOWN ? "closed" : tls_error(s->tls));
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *b)
{
    struct stream *s = CAST_OBJ(struct stream, h->data, STREAM_MAGIC);
    (void)suggested;
    *b = uv_buf_init((char *)loop_read_buffer(s->loop), LOOP_READ_BUFFER);
}

/*
 * While on_read runs the stream may be closed by its owner: memory stays until uv's close
 * callbacks, which come in a later phase of the loop.
 */
static void on_uv_read(uv_stream_t *h, ssize_t n, const uv_buf_t *b)
{
    struct stream *s = CAST_OBJ(struct stream, h->data, STREAM_MAGIC);
    if (n == 0)
        return; /* EAGAIN */
    if (n < 0) {
        end(s, n == UV_EOF ? 0 : (int)n, n == UV_EOF ? "closed by peer" : uv_strerror((int)n));
        return;
    }
    atomic_fetch_add_explicit(loop_load(s->loop), (uint64_t)n, memory_order_relaxed);
    if (s->tls)
        feed_tls(s, (const uint8_t *)b->base, (size_t)n);
    else
        s->ops->on_read(s->arg, (const uint8_t *)b->base, (size_t)n);
}

static void update_reading(struct stream *s)
{
    bool want = s->tcp_open && !s->is_paused && !s->has_ended && !s->is_closing;
    if (want == s->is_reading)
        return;
    s->is_reading = want;
    if (want)
        uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_uv_read);
    else
        uv_read_stop((uv_stream_t *)&s->tcp);
}

void stream_pause(struct stream *s)
{
    s->is_paused = true;
    update_reading(s);
}

void stream_resume(struct stream *s)
{
    s->is_paused = false;
    update_reading(s);
}

/* ---- life ---- */

static void on_timeout(uv_timer_t *t)
{
    struct stream *s = CAST_OBJ(struct stream, t->data, STREAM_MAGIC);
    end(s, -ETIMEDOUT, "connection timed out");
}

static struct stream *make(struct loop *l, const struct stream_ops *ops, void *arg)
{
    struct stream *s = xcalloc(1, sizeof(*s));
    ASSERT(loop_current() == l);
    SET_MAGIC(s, STREAM_MAGIC);
    s->loop = l;
    s->ops = ops;
    s->arg = arg;
    uv_tcp_init(loop_uv(l), &s->tcp);
    uv_timer_init(loop_uv(l), &s->timer);
    s->tcp.data = s->timer.data = s;
    s->handles = 2;
    buf_init(&s->pending);
    buf_init(&s->waiting);
    return s;
}

static void name_peer(struct stream *s)
{
    struct sockaddr_storage sa;
    char host[46] = "?";
    int len = sizeof(sa), port = 0;
    if (uv_tcp_getpeername(&s->tcp, (struct sockaddr *)&sa, &len) == 0) {
        if (sa.ss_family == AF_INET6) {
            uv_ip6_name((struct sockaddr_in6 *)&sa, host, sizeof(host));
            port = ntohs(((struct sockaddr_in6 *)&sa)->sin6_port);
        } else {
            uv_ip4_name((struct sockaddr_in *)&sa, host, sizeof(host));
            port = ntohs(((struct sockaddr_in *)&sa)->sin_port);
        }
    }
    snprintf(s->peer, sizeof(s->peer), sa.ss_family == AF_INET6 ? "[%s]:%d" : "%s:%d", host, port);
}

/* The socket is connected: handshake or ready at once. */
static int begin(struct stream *s, struct tls_context *tls, const char *host)
{
    s->tcp_open = true;
    uv_tcp_nodelay(&s->tcp, 1);
    name_peer(s);
    if (!tls)
        return 0;
    int r = s->tls ? 0 : tls_new(&s->tls, tls, host);
    if (r)
        return r;
    return tls_handshake(s->tls) < 0 ? -EPROTO : flush_tls(s);
}

int stream_accepted(struct stream **out, struct loop *l, int fd, struct tls_context *tls,
                    const struct stream_ops *ops, void *arg)
{
    struct stream *s = make(l, ops, arg);
    int r = uv_tcp_open(&s->tcp, fd);
    if (r)
        close(fd);
    else
        r = begin(s, tls, NULL);
    if (r) {
        stream_close(&s);
        return r;
    }
    if (tls)
        uv_timer_start(&s->timer, on_timeout, CONNECT_TIMEOUT_MS, 0);
    else
        s->is_ready =
            true; /* no on_ready from inside: the caller has the stream only when we return */
    update_reading(s);
    *out = s;
    return 0;
}

static void on_connected(uv_connect_t *c, int status);
static void on_closed(uv_handle_t *h);

static void on_replaced(uv_handle_t *h);

/* Tries the next address; the last one's failure is the connection's. */
static void try_next(struct stream *s, int status)
{
    struct addrinfo *a = s->next_addr;
    if (!a) {
        end(s, status, uv_strerror(status));
        return;
    }
    s->next_addr = a->ai_next;
    s->connect.data = s;
    status = uv_tcp_connect(&s->connect, &s->tcp, a->ai_addr, on_connected);
    if (status == 0)
        return;
    s->connect_error = status;
    s->is_replacing = true;
    uv_close((uv_handle_t *)&s->tcp, on_replaced);
}

/* A socket whose connect failed cannot be used again. */
static void on_replaced(uv_handle_t *h)
{
    struct stream *s = CAST_OBJ(struct stream, h->data, STREAM_MAGIC);
    s->is_replacing = false;
    if (s->is_closing) {
        on_closed(h);
        return;
    }
    uv_tcp_init(loop_uv(s->loop), &s->tcp);
    s->tcp.data = s;
    try_next(s, s->connect_error);
}

static void on_connected(uv_connect_t *c, int status)
{
    struct stream *s = CAST_OBJ(struct stream, c->data, STREAM_MAGIC);
    if (s->is_closing || s->is_replacing)
        return;
    if (status && s->next_addr && !s->has_ended) {
        s->connect_error = status;
        s->is_replacing = true;
        uv_close((uv_handle_t *)&s->tcp, on_replaced);
        return;
    }
    if (status == 0)
        status = begin(s, NULL, NULL);
    if (status == 0 && s->tls)
        status = tls_handshake(s->tls) < 0 ? -EPROTO : flush_tls(s);
    if (status) {
        end(s, status, status == -EPROTO ? tls_error(s->tls) : uv_strerror(status));
        return;
    }
    update_reading(s);
    if (!s->tls)
        ready(s);
}

static void on_resolved(uv_getaddrinfo_t *r, int status, struct addrinfo *ai)
{
    struct stream *s = CAST_OBJ(struct stream, r->data, STREAM_MAGIC);
    s->is_resolving = false;
    if (!s->is_closing && status == 0) {
        s->addrs = s->next_addr = ai;
        try_next(s, UV_EAI_NODATA);
        return;
    }
    uv_freeaddrinfo(ai);
    if (!s->is_closing) {
        end(s, status, uv_strerror(status));
    } else if (s->handles == 0) {
        CLEAR_MAGIC(s);
        free(s);
    }
}

int stream_connect(struct stream **out, struct loop *l, const char *endpoint,
                   struct tls_context *tls, const struct stream_ops *ops, void *arg)
{
    char host[256], port[16];
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    int r = endpoint_split(endpoint, host, sizeof(host), port, sizeof(port));
    if (r)
        return r;
    struct stream *s = make(l, ops, arg);
    snprintf(s->peer, sizeof(s->peer), "%.63s", endpoint);
    if (tls)
        r = tls_new(&s->tls, tls, host);
    if (r == 0) {
        s->resolve.data = s;
        r = uv_getaddrinfo(loop_uv(l), &s->resolve, on_resolved, host[0] ? host : "localhost", port,
                           &hints);
        s->is_resolving = r == 0;
    }
    if (r) {
        stream_close(&s);
        return r;
    }
    uv_timer_start(&s->timer, on_timeout, CONNECT_TIMEOUT_MS, 0);
    *out = s;
    return 0;
}

void stream_set_connect_timeout(struct stream *s, uint64_t ms)
{
    if (!s->is_ready)
        uv_timer_start(&s->timer, on_timeout, ms, 0);
}

static void on_closed(uv_handle_t *h)
{
    struct stream *s = CAST_OBJ(struct stream, h->data, STREAM_MAGIC);
    if (--s->handles > 0)
        return;
    tls_free(&s->tls);
    buf_fini(&s->pending);
    buf_fini(&s->waiting);
    uv_freeaddrinfo(s->addrs);
    s->addrs = NULL;
    if (s->is_resolving)
        return; /* the resolver's callback frees it */
    CLEAR_MAGIC(s);
    free(s);
}

void stream_close(struct stream **sp)
{
    struct stream *s = *sp;
    if (!s)
        return;
    CHECK_OBJ(s, STREAM_MAGIC);
    *sp = NULL;
    s->is_closing = true;
    if (s->is_resolving)
        uv_cancel((uv_req_t *)&s->resolve);
    uv_close((uv_handle_t *)&s->timer, on_closed);
    if (!s->is_replacing)
        uv_close((uv_handle_t *)&s->tcp, on_closed);
}

const char *stream_peer(const struct stream *s)
{
    return s->peer;
}

bool stream_is_tls(const struct stream *s)
{
    return s->tls != NULL;
}

int endpoint_split(const char *endpoint, char *host, size_t host_size, char *port, size_t port_size)
{
    const char *colon = strrchr(endpoint, ':'), *from = endpoint, *to = colon;
    if (!colon || colon[1] == '\0')
        return -EINVAL;
    if (endpoint[0] == '[') {
        from = endpoint + 1;
        to = strchr(from, ']');
        if (!to || to + 1 != colon)
            return -EINVAL;
    }
    int n = snprintf(host, host_size, "%.*s", (int)(to - from), from);
    int m = snprintf(port, port_size, "%s", colon + 1);
    if (n < 0 || (size_t)n >= host_size || m < 0 || (size_t)m >= port_size)
        return -EINVAL;
    return 0;
}
