/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One c-ares channel a query: it reads resolv.conf when it is made, and goes with the query.
 *
 *   dns_lookup ─► ares_getaddrinfo ─ sockets watched by uv_poll, a timer for its time-outs ─►
 * on_info ─► finish: done(), then handles are closed, then the memory goes
 *
 * c-ares calls back from inside its own functions; done is therefore always called from a timer.
 */
#include "common/io/dns.h"

#include <ares.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <uv.h>

#define DNS_MAGIC 0x444e5351u

enum { TICK_MS = 20, TRIES = 3 };

/* "127.0.0.1:5353" in tests; else the system's. */
static const char *servers;

struct dns_query {
    unsigned magic;
    struct loop *loop;
    ares_channel channel;
    bool has_channel;
    struct watch *watches;
    struct loop_timer *timer;
    uint64_t deadline_ns;
    dns_done_fn *done;
    void *arg;
    bool is_answered;
    int error;
    char **addresses;
    size_t n;
};

/* A socket of the channel. Lives until its handle is closed. */
struct watch {
    uv_poll_t poll;
    struct dns_query *query; /* NULL once the query let it go */
    ares_socket_t fd;
    struct watch *next;
};

/* ---- sockets ---- */

static void watch_closed(uv_handle_t *h)
{
    free(h->data);
}

static void watch_drop(struct dns_query *q, struct watch *w)
{
    for (struct watch **p = &q->watches; *p; p = &(*p)->next) {
        if (*p == w) {
            *p = w->next;
            break;
        }
    }
    w->query = NULL;
    uv_close((uv_handle_t *)&w->poll, watch_closed);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct watch *w = poll->data;
    struct dns_query *q = w->query;
    ares_socket_t fd = w->fd;
    if (!q)
        return;
    ares_process_fd(q->channel, status < 0 || (events & UV_READABLE) ? fd : ARES_SOCKET_BAD,
                    events & UV_WRITABLE ? fd : ARES_SOCKET_BAD);
}

/* c-ares tells what it waits for on a socket; neither means that it closes it. */
static void on_socket(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct dns_query *q = CAST_OBJ(struct dns_query, arg, DNS_MAGIC);
    struct watch *w = q->watches;
    while (w && w->fd != fd)
        w = w->next;
    if (!readable && !writable) {
        if (w)
            watch_drop(q, w);
        return;
    }
    if (!w) {
        w = xcalloc(1, sizeof(*w));
        if (uv_poll_init(loop_uv(q->loop), &w->poll, fd) < 0) {
            free(w);
            return; /* the time-out will say so */
        }
        w->poll.data = w;
        w->query = q;
        w->fd = fd;
        w->next = q->watches;
        q->watches = w;
    }
    uv_poll_start(&w->poll, (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0), on_ready);
}

/* ---- answers ---- */

static int errno_of(int status)
{
    switch (status) {
    case ARES_SUCCESS:
        return 0;
    case ARES_ENODATA:
    case ARES_ENOTFOUND:
    case ARES_ENONAME:
        return -ENOENT;
    case ARES_ETIMEOUT:
    case ARES_ECANCELLED:
        return -ETIMEDOUT;
    case ARES_ENOMEM:
        return -ENOMEM;
    case ARES_ECONNREFUSED:
        return -ECONNREFUSED;
    case ARES_EBADNAME:
        return -EINVAL;
    default:
        return -EIO;
    }
}

static const char *text_of(int error)
{
    switch (error) {
    case -ENOENT:
        return "no such name, or it has no address";
    case -ETIMEDOUT:
        return "no name server answered in time";
    case -EIO:
        return "the name server failed";
    default:
        return strerror(-error);
    }
}

static int address_cmp(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_address(struct dns_query *q, const struct sockaddr *sa)
{
    char text[INET6_ADDRSTRLEN] = "";
    if (sa->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, text,
                  sizeof(text));
    else if (sa->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, text,
                  sizeof(text));
    for (size_t i = 0; i < q->n; i++)
        if (strcmp(q->addresses[i], text) == 0)
            return;
    if (!*text)
        return;
    q->addresses = xrealloc(q->addresses, (q->n + 1) * sizeof(char *));
    q->addresses[q->n++] = xstrdup(text);
}

static void on_info(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    struct dns_query *q = CAST_OBJ(struct dns_query, arg, DNS_MAGIC);
    (void)timeouts;
    q->is_answered = true;
    q->error = errno_of(status);
    for (struct ares_addrinfo_node *n = info ? info->nodes : NULL; n; n = n->ai_next)
        add_address(q, n->ai_addr);
    if (info)
        ares_freeaddrinfo(info);
    if (q->n)
        qsort(q->addresses, q->n, sizeof(char *), address_cmp);
    else if (!q->error)
        q->error = -ENOENT;
    loop_timer_start(q->timer, 0, 0); /* tells it from outside of c-ares */
}

/* ---- life ---- */

static void query_free(struct dns_query *q)
{
    if (q->has_channel)
        ares_destroy(q->channel); /* closes its sockets: on_socket drops the watches */
    while (q->watches)
        watch_drop(q, q->watches);
    loop_timer_free(&q->timer);
    for (size_t i = 0; i < q->n; i++)
        free(q->addresses[i]);
    free(q->addresses);
    CLEAR_MAGIC(q);
    free(q);
}

static void finish(struct dns_query *q)
{
    struct dns_answer a = {.error = q->error,
                           .why = q->error ? text_of(q->error) : NULL,
                           .addresses = (const char *const *)q->addresses,
                           .n = q->error ? 0 : q->n};
    q->done(q->arg, &a);
    query_free(q);
}

static void on_tick(void *arg)
{
    struct dns_query *q = CAST_OBJ(struct dns_query, arg, DNS_MAGIC);
    if (q->is_answered) {
        finish(q);
        return;
    }
    if (loop_now_ns(q->loop) >= q->deadline_ns)
        ares_cancel(q->channel); /* ends in on_info */
    else
        ares_process_fd(q->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static int channel_init(struct dns_query *q, uint64_t timeout_ms)
{
    struct ares_options o = {.timeout = (int)MIN(MAX(timeout_ms / TRIES, 1u), 60000u),
                             .tries = TRIES,
                             .lookups = "fb",
                             .sock_state_cb = on_socket,
                             .sock_state_cb_data = q};
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
    int status = ares_init_options(&q->channel, &o, mask);
    if (status == ARES_SUCCESS && servers)
        status = ares_set_servers_ports_csv(q->channel, servers);
    return status;
}

/* A numeric host is its own answer (c-ares 1.18 would ask for its other family). */
static bool is_numeric(const char *host)
{
    struct in6_addr a;
    return inet_pton(AF_INET, host, &a) == 1 || inet_pton(AF_INET6, host, &a) == 1;
}

struct dns_query *dns_lookup(struct loop *l, const char *host, uint64_t timeout_ms,
                             dns_done_fn *done, void *arg)
{
    static const struct ares_addrinfo_hints hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_NOSORT};
    struct dns_query *q = xcalloc(1, sizeof(*q));

    SET_MAGIC(q, DNS_MAGIC);
    q->loop = l;
    q->done = done;
    q->arg = arg;
    q->deadline_ns = loop_now_ns(l) + timeout_ms * 1000000;
    q->timer = loop_timer_new(l, on_tick, q);
    loop_timer_start(q->timer, TICK_MS, TICK_MS);
    if (is_numeric(host)) {
        q->addresses = xcalloc(1, sizeof(char *));
        q->addresses[q->n++] = xstrdup(host);
        on_info(q, ARES_SUCCESS, 0, NULL);
        return q;
    }
    int status = channel_init(q, timeout_ms);
    q->has_channel = status == ARES_SUCCESS;
    if (q->has_channel)
        ares_getaddrinfo(q->channel, host, NULL, &hints, on_info, q);
    else
        on_info(q, status, 0, NULL);
    return q;
}

static void forget_answer(void *arg, const struct dns_answer *a)
{
    (void)arg;
    (void)a;
}

void dns_cancel(struct dns_query **q)
{
    if (!*q)
        return;
    (*q)->done = forget_answer;
    query_free(*q);
    *q = NULL;
}
