/* SPDX-License-Identifier: Apache-2.0 */
#include "common/io/http_server.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/io/http_conn.h"

/*
 * A head, and a pause within a body, may take STALLED_MS; a body that was let in MESSAGE_MS,
 * however steadily it drips: it holds memory that others wait for. An idle connection may stay,
 * unless file descriptors run out.
 */
enum {
    TICK_MS = 20, /* while somebody waits for memory */
    TICK_MS_IDLE = 100,
    STALLED_MS = 10000,
    MESSAGE_MS = 30000,
    LINGER_MS = 1000,
    CLOSING_MS = 5000,
    ACCEPT_AGAIN_MS = 100,
    BACKLOG = 1024
};
#define SERVER_MAGIC 0x48545356u

struct http_server {
    unsigned magic;
    int fd;
    uint16_t port;
    uv_poll_t poll; /* of fd, on loop 0 */
    struct tls_context *tls;
    const struct http_handler *_Atomic handler;
    struct http_loop_state *loops; /* one for each */
    struct http_server_config config;
    _Atomic unsigned n_conns;
    _Atomic unsigned loops_open;
    bool is_listening;
    _Atomic bool is_short; /* of file descriptors */
    uv_timer_t later;      /* until accepting is tried again */
    void (*closed)(void *arg);
    void *closed_arg;
    struct task closed_task;
};

static void check_closed(struct http_loop_state *home);

void http_respond(struct http_request *r, const struct http_response *resp)
{
    struct http_exchange *x = CONTAINER_OF(r, struct http_exchange, r);
    struct http_loop_state *home = x->home;
    CHECK_OBJ(r, HTTP_REQUEST_MAGIC);
    ASSERT(loop_current() == r->loop && x->state == EXCHANGE_HANDLER);
    if (!x->conn) {
        http_exchange_free(&x);
        check_closed(home);
        return;
    }
    chunk_unref(&r->body);
    x->state = EXCHANGE_DONE;
    x->conn->proto->respond(x, resp);
}

/* ---- connections ---- */

bool http_server_is_crowded(const struct http_server *s)
{
    /* Windows of 4 MB for all connections must not pass a quarter of a 256 MB budget. */
    return s->n_conns > 16;
}

const struct http_handler *http_server_handler(const struct http_server *s)
{
    return s->handler;
}

uint32_t http_server_max_streams(const struct http_server *s)
{
    return s->config.max_streams ? s->config.max_streams : 100;
}

bool http_server_is_h2_only(const struct http_server *s)
{
    return s->config.is_h2_only;
}

static void free_conn(struct task *t)
{
    struct http_conn *c = CONTAINER_OF(t, struct http_conn, free_task);
    CLEAR_MAGIC(c);
    free(c);
}

void http_conn_end(struct http_conn *c)
{
    struct http_loop_state *home = c->home;
    if (c->is_closing)
        return;
    c->is_closing = true;
    for (struct list *it; (it = list_pop(&c->exchanges));) {
        struct http_exchange *x = LIST_ENTRY(it, struct http_exchange, in_conn);
        http_exchange_cancel(x);
    }
    if (c->proto)
        c->proto->free(c);
    stream_close(&c->stream);
    list_remove(&c->in_home);
    home->n_conns--;
    atomic_fetch_sub(&c->server->n_conns, 1);
    /* Callers up the stack still look at is_closing. */
    c->free_task.run = free_conn;
    loop_post(home->loop, &c->free_task);
    check_closed(home);
}

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/* HTTP/2 begins with its preface (RFC 9113 §3.4), everything else is taken for HTTP/1. */
static int choose_proto(struct http_conn *c, const uint8_t **p, size_t *n)
{
    size_t want = MIN(*n, sizeof(preface) - 1 - c->n_first);
    memcpy(c->first + c->n_first, *p, want);
    c->n_first += want;
    *p += want;
    *n -= want;
    bool is_h2 = memcmp(c->first, preface, c->n_first) == 0;
    if (is_h2 && c->n_first < sizeof(preface) - 1)
        return 0; /* undecided */
    c->proto = is_h2 ? &h2_proto : &http1_proto;
    c->partial_ns = 0;
    int r = is_h2 ? h2_server_new(c) : http1_new(c);
    return r ? r : c->proto->read(c, c->first, c->n_first);
}

static void on_read(void *arg, const uint8_t *p, size_t n)
{
    struct http_conn *c = CAST_OBJ(struct http_conn, arg, HTTP_CONN_MAGIC);
    int r = 0;
    c->touched_ns = loop_now_ns(c->home->loop);
    if (!c->proto)
        r = choose_proto(c, &p, &n);
    if (!c->proto && !c->partial_ns)
        c->partial_ns = c->touched_ns;
    if (r == 0 && n > 0 && c->proto && !c->is_closing)
        r = c->proto->read(c, p, n);
    if (r < 0)
        http_conn_end(c); /* no-op when it has ended already */
}

static void on_drained(void *arg)
{
    struct http_conn *c = CAST_OBJ(struct http_conn, arg, HTTP_CONN_MAGIC);
    if (c->proto)
        c->proto->flush(c);
}

static void on_ready(void *arg)
{
    (void)arg; /* the peer speaks first */
}

static void on_end(void *arg, int error, const char *why)
{
    struct http_conn *c = CAST_OBJ(struct http_conn, arg, HTTP_CONN_MAGIC);
    struct log_ctx ctx = {"http", stream_peer(c->stream)};
    if (error)
        log_debug(&ctx, "connection lost: %s", why);
    http_conn_end(c);
}

static const struct stream_ops conn_ops = {
    .on_ready = on_ready, .on_read = on_read, .on_drained = on_drained, .on_end = on_end};

static void conn_open(struct http_loop_state *home, int fd)
{
    struct http_conn *c = xcalloc(1, sizeof(*c));
    SET_MAGIC(c, HTTP_CONN_MAGIC);
    c->server = home->server;
    c->home = home;
    c->touched_ns = loop_now_ns(home->loop);
    list_init(&c->exchanges);
    list_init(&c->in_home);
    if (stream_accepted(&c->stream, home->loop, fd, home->server->tls, &conn_ops, c) != 0) {
        atomic_fetch_sub(&home->server->n_conns, 1);
        free(c);
        return;
    }
    list_push(&home->conns, &c->in_home);
    home->n_conns++;
}

/* ---- time ---- */

/* A peer is still that could send and does not, not one whose window is withheld by others. */
static uint64_t still_since(const struct http_exchange *x)
{
    return MAX(x->touched_ns, x->conn->withheld_ns);
}

static struct http_exchange *find_stalled(struct http_conn *c, uint64_t now)
{
    LIST_EACH (it, &c->exchanges) {
        if (LIST_ENTRY(it, struct http_exchange, in_conn)->conn_owed)
            c->withheld_ns = now;
    }
    LIST_EACH (it, &c->exchanges) {
        struct http_exchange *x = LIST_ENTRY(it, struct http_exchange, in_conn);
        bool is_partial = x->state == EXCHANGE_BODY || x->state == EXCHANGE_HEAD;
        if (is_partial && (now - still_since(x) > STALLED_MS * NS_PER_MS ||
                           now - x->began_ns > MESSAGE_MS * NS_PER_MS))
            return x;
    }
    return NULL;
}

static bool is_idle(const struct http_conn *c, uint64_t now)
{
    uint64_t timeout_ms = c->home->server->config.idle_timeout_ms, since = now - c->touched_ns;
    if (c->is_lingering)
        return since > LINGER_MS * NS_PER_MS;
    if (c->partial_ns && now - c->partial_ns > STALLED_MS * NS_PER_MS)
        return true;
    if (c->home->server->is_short && !timeout_ms)
        timeout_ms = STALLED_MS;
    return timeout_ms && list_is_empty(&c->exchanges) && since > timeout_ms * NS_PER_MS;
}

/* A server that closes waits for its handler, not for peers who do not finish or do not read. */
static bool is_overdue(const struct http_conn *c, uint64_t now)
{
    if (!c->home->is_closing || now - c->home->closing_ns < CLOSING_MS * NS_PER_MS)
        return false;
    LIST_EACH (it, &c->exchanges) {
        if (LIST_ENTRY(it, struct http_exchange, in_conn)->state == EXCHANGE_HANDLER)
            return false;
    }
    return true;
}

/* True when something was ended: lists may have changed. */
static bool end_one(struct http_loop_state *home, uint64_t now)
{
    LIST_EACH (it, &home->conns) {
        struct http_conn *c = LIST_ENTRY(it, struct http_conn, in_home);
        struct http_exchange *x = find_stalled(c, now);
        if (x) {
            struct log_ctx ctx = {"http", stream_peer(c->stream)};
            bool is_still = now - still_since(x) > STALLED_MS * NS_PER_MS;
            log_warn(&ctx,
                     is_still ? "request given up: no byte of it came for %d s"
                              : "request given up: it was not whole after %d s",
                     (is_still ? STALLED_MS : MESSAGE_MS) / 1000);
            c->proto->stalled(x);
            return true;
        }
        if (is_idle(c, now) || is_overdue(c, now)) {
            http_conn_end(c);
            return true;
        }
    }
    return false;
}

static void on_tick(void *arg)
{
    struct http_loop_state *home = arg;
    uint64_t now = loop_now_ns(home->loop);
    http_admission_tick(home);
    while (end_one(home, now))
        continue;
    bool is_closed = !home->timer; /* that may have been the last connection */
    if (!is_closed && list_is_empty(&home->waiting))
        loop_timer_pace(home->timer, TICK_MS_IDLE);
}

void http_server_tick_soon(struct http_loop_state *home)
{
    if (home->timer)
        loop_timer_pace(home->timer, TICK_MS);
}

void http_server_wake(struct http_server *s, struct loop *l)
{
    struct http_loop_state *home = &s->loops[loop_index(l)];
    if (home->timer)
        http_admission_wake(home);
}

/* ---- accepting ---- */

struct handover {
    struct task task;
    struct http_loop_state *home;
    int fd;
};

static void take_over(struct task *t)
{
    struct handover *h = CONTAINER_OF(t, struct handover, task);
    if (h->home->is_closing) {
        close(h->fd);
        atomic_fetch_sub(&h->home->server->n_conns, 1);
    } else {
        conn_open(h->home, h->fd);
    }
    free(h);
}

/* The loop that read the least lately; ties go to the one with the fewest connections. */
static struct http_loop_state *idlest(struct http_server *s)
{
    static unsigned next;
    struct http_loop_state *best = NULL;
    uint64_t best_load = UINT64_MAX;
    for (unsigned i = 0; i < loops_count(); i++) {
        struct http_loop_state *l = &s->loops[(next + i) % loops_count()];
        uint64_t load = *loop_load(l->loop) >> 16; /* differences below 64 KB are none */
        if (load < best_load) {
            best = l;
            best_load = load;
        }
    }
    next++;
    return best;
}

static void on_acceptable(uv_poll_t *poll, int status, int events);

static void accept_again(uv_timer_t *t)
{
    struct http_server *s = CAST_OBJ(struct http_server, t->data, SERVER_MAGIC);
    uv_poll_start(&s->poll, UV_READABLE, on_acceptable);
}

/* Whoever waits in the backlog would wake us at once, again and again. */
static void accept_later(struct http_server *s)
{
    if (!s->is_short)
        log_warn(&(struct log_ctx){"http", NULL},
                 "no file descriptor for a new connection: idle ones are closed");
    s->is_short = true;
    uv_poll_stop(&s->poll);
    uv_timer_start(&s->later, accept_again, ACCEPT_AGAIN_MS, 0);
}

static void on_acceptable(uv_poll_t *poll, int status, int events)
{
    struct http_server *s = CAST_OBJ(struct http_server, poll->data, SERVER_MAGIC);
    (void)events;
    if (status < 0)
        return;
    for (int i = 0; i < 64; i++) {
        int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
            accept_later(s);
        if (fd < 0)
            return;
        s->is_short = false;
        struct handover *h = xcalloc(1, sizeof(*h));
        h->task.run = take_over;
        h->home = idlest(s);
        h->fd = fd;
        atomic_fetch_add(&s->n_conns, 1);
        loop_post(h->home->loop, &h->task);
    }
}

static int listen_on(struct http_server *s, const char *endpoint, struct err *e)
{
    char host[256], port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *ai = NULL;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } sa = {.v6 = {0}};
    socklen_t len = sizeof(sa);
    int on = 1, off = 0, r;
    if (endpoint_split(endpoint, host, sizeof(host), port, sizeof(port)))
        return err_set(e, -EINVAL, "endpoint '%s': want host:port", endpoint);
    r = getaddrinfo(host[0] ? host : NULL, port, &hints, &ai);
    if (r)
        return err_set(e, -EINVAL, "endpoint '%s': %s", endpoint, gai_strerror(r));
    ASSERT(ai);
    /* Without a host all addresses are meant: an IPv6 socket takes IPv4 too. */
    struct addrinfo *a = ai;
    for (struct addrinfo *i = ai; !host[0] && i; i = i->ai_next)
        if (i->ai_family == AF_INET6)
            a = i;
    s->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    r = s->fd < 0 ? -errno : 0;
    if (r == 0) {
        setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        if (a->ai_family == AF_INET6)
            setsockopt(s->fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
        if (bind(s->fd, a->ai_addr, a->ai_addrlen) || listen(s->fd, BACKLOG) ||
            getsockname(s->fd, &sa.any, &len))
            r = -errno;
    }
    freeaddrinfo(ai);
    if (r)
        return err_set(e, r, "cannot listen on %s: %s", endpoint, strerror(-r));
    s->port = ntohs(sa.any.sa_family == AF_INET6 ? sa.v6.sin6_port : sa.v4.sin_port);
    return 0;
}

static void start_home(struct task *t)
{
    struct http_loop_state *home = CONTAINER_OF(t, struct http_loop_state, start_task);
    if (home->is_closing)
        return;
    home->timer = loop_timer_new(home->loop, on_tick, home);
    loop_timer_pace(home->timer, TICK_MS);
}

int http_server_open(struct http_server **out, const struct http_server_config *c,
                     const struct http_handler *h, struct err *e)
{
    struct http_server *s = xcalloc(1, sizeof(*s));
    struct loop *loop0 = loops_get(0);
    int r = 0;
    ASSERT(loop_current() == loop0);
    SET_MAGIC(s, SERVER_MAGIC);
    s->fd = -1;
    s->config = *c;
    s->handler = h;
    if (c->tls && c->tls->on)
        r = tls_context_new(&s->tls, true, c->tls, e);
    if (r == 0)
        r = listen_on(s, c->endpoint, e);
    if (r) {
        if (s->fd >= 0)
            close(s->fd);
        tls_context_free(&s->tls);
        free(s);
        return r;
    }
    s->loops = xcalloc(loops_count(), sizeof(*s->loops));
    s->loops_open = loops_count();
    for (unsigned i = 0; i < loops_count(); i++) {
        struct http_loop_state *home = &s->loops[i];
        home->server = s;
        home->loop = loops_get(i);
        list_init(&home->conns);
        list_init(&home->waiting);
        list_init(&home->held);
        list_init(&home->orphans);
        home->start_task.run = start_home;
        loop_post(home->loop, &home->start_task);
    }
    uv_poll_init(loop_uv(loop0), &s->poll, s->fd);
    uv_timer_init(loop_uv(loop0), &s->later);
    s->poll.data = s->later.data = s;
    uv_poll_start(&s->poll, UV_READABLE, on_acceptable);
    s->is_listening = true;
    *out = s;
    return 0;
}

void http_server_set_handler(struct http_server *s, const struct http_handler *h)
{
    s->handler = h;
}

uint16_t http_server_port(const struct http_server *s)
{
    return s->port;
}

/* ---- closing ---- */

static void server_gone(struct task *t)
{
    struct http_server *s = CONTAINER_OF(t, struct http_server, closed_task);
    void (*closed)(void *) = s->closed;
    void *arg = s->closed_arg;
    tls_context_free(&s->tls);
    free(s->loops);
    CLEAR_MAGIC(s);
    free(s);
    closed(arg);
}

static void home_closed(struct task *t)
{
    struct http_server *s = CONTAINER_OF(t, struct http_loop_state, closed_task)->server;
    if (atomic_fetch_sub(&s->loops_open, 1) == 1) {
        s->closed_task.run = server_gone;
        loop_post(loops_get(0), &s->closed_task);
    }
}

/* The end is told by a task of its own: callers up the stack still look at the home. */
static void check_closed(struct http_loop_state *home)
{
    if (!home->is_closing || home->is_closed || home->n_conns > 0 || !list_is_empty(&home->orphans))
        return;
    home->is_closed = true;
    loop_timer_free(&home->timer);
    home->closed_task.run = home_closed;
    loop_post(home->loop, &home->closed_task);
}

static void close_home(struct task *t)
{
    struct http_loop_state *home = CONTAINER_OF(t, struct http_loop_state, close_task);
    home->is_closing = true;
    home->closing_ns = loop_now_ns(home->loop);
    home->n_conns++; /* the last connection's end must not be the home's before the loop is through
                      */
    LIST_EACH_SAFE (it, next, &home->conns) {
        struct http_conn *c = LIST_ENTRY(it, struct http_conn, in_home);
        c->is_going = true;
        if (c->proto)
            c->proto->go_away(c);
        else
            http_conn_end(c);
    }
    http_admission_wake(home); /* what is whole goes through, open or not */
    home->n_conns--;
    check_closed(home);
}

static void timer_closed(uv_handle_t *h);

static void listener_closed(uv_handle_t *h)
{
    struct http_server *s = CAST_OBJ(struct http_server, h->data, SERVER_MAGIC);
    uv_close((uv_handle_t *)&s->later, timer_closed);
}

static void timer_closed(uv_handle_t *h)
{
    struct http_server *s = CAST_OBJ(struct http_server, h->data, SERVER_MAGIC);
    close(s->fd);
    s->fd = -1;
    for (unsigned i = 0; i < loops_count(); i++) {
        s->loops[i].close_task.run = close_home;
        loop_post(s->loops[i].loop, &s->loops[i].close_task);
    }
}

void http_server_close(struct http_server **sp, void (*closed)(void *arg), void *arg)
{
    struct http_server *s = *sp;
    *sp = NULL;
    s->closed = closed;
    s->closed_arg = arg;
    uv_poll_stop(&s->poll);
    uv_close((uv_handle_t *)&s->poll, listener_closed);
}
