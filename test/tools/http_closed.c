/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_closed --port P [--tls] [--path /] [--seconds 3] [--connections 64] [--watch PID]
 *
 * As many GET requests over kept connections as the server answers: the next one of a connection is
 * sent when the one before is answered. It asks for events and never waits for them, so that
 * answering wakes nobody: what is measured is the server, and not whether this CPU was at rest when
 * an answer came. Where it may, it runs in a real-time class and leaves this CPU to others for
 * half of the time, in pieces too short for the server to run out of requests: the scheduler's own
 * share would be whole ticks. Ends when all requests are answered; prints one JSON line, with the
 * CPU time that the process --watch took from the first request (after the handshakes) to the last
 * answer, and the requests a second of each quarter of a second but the last.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 4096, EVENTS = 64, WORK_NS = 250000, REST_NS = 250000 };
enum { SLICE_NS = 250000000, SLICES_MAX = 1024 };

struct conn {
    int fd;
    SSL *ssl;
    size_t head_len; /* of the answer's head so far */
    size_t left;     /* of its body, once the head is over */
    char head[HEAD_MAX + 1];
};

struct load {
    uint16_t port;
    const char *path;
    double seconds;
    unsigned n, watched;
    bool tls;
    char request[512];
    size_t request_len;
    SSL_CTX *ctx;
    int ep;
    struct conn *conns;
    uint64_t sent, answered;
    uint64_t until_ns;
    uint64_t slice_ns, slice_answered; /* when the present slice began, and with how many */
    double slices[SLICES_MAX];         /* requests a second */
    unsigned n_slices;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *what)
{
    fprintf(stderr, "http_closed: %s: %s\n", what, errno ? strerror(errno) : "failed");
    ERR_print_errors_fp(stderr);
    exit(1);
}

/* What the watched process, which has one thread, has run; 0 if there is none. */
static uint64_t cpu_ns(const struct load *l)
{
    char path[64];
    unsigned long long ns = 0;
    FILE *f;

    if (!l->watched)
        return 0;
    snprintf(path, sizeof(path), "/proc/%u/schedstat", l->watched);
    f = fopen(path, "r");
    if (!f || fscanf(f, "%llu", &ns) != 1)
        fail(path);
    fclose(f);
    return ns;
}

static void send_request(struct load *l, struct conn *c)
{
    int len = (int)l->request_len;
    int n =
        c->ssl ? SSL_write(c->ssl, l->request, len) : (int)write(c->fd, l->request, (size_t)len);

    if (n != len) /* the one before was answered: there is room */
        fail("write");
    c->head_len = c->left = 0;
    l->sent++;
}

static void on_answer(struct load *l, struct conn *c)
{
    l->answered++;
    if (now_ns() < l->until_ns)
        send_request(l, c);
}

/* The head is in c->head, up to its end; of the body, `more` bytes are there. */
static void on_head(struct load *l, struct conn *c, size_t more)
{
    const char *length = strcasestr(c->head, "\r\ncontent-length:");

    errno = 0;
    if (strncmp(c->head, "HTTP/1.1 200", 12) != 0 || !length)
        fail("an answer that is not 200 with a length");
    c->left = strtoul(length + 17, NULL, 10);
    if (more > c->left)
        fail("an answer that nobody has asked for");
    c->left -= more;
    if (c->left == 0)
        on_answer(l, c);
}

static void on_bytes(struct load *l, struct conn *c, const char *p, size_t n)
{
    if (c->left) {
        if (n > c->left)
            fail("more than the answer's length");
        c->left -= n;
        if (c->left == 0)
            on_answer(l, c);
        return;
    }
    size_t before = c->head_len, take = n < HEAD_MAX - before ? n : HEAD_MAX - before;
    memcpy(c->head + before, p, take);
    c->head[c->head_len += take] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end && c->head_len == HEAD_MAX)
        fail("a head that is too long");
    if (!end)
        return;
    end[2] = 0;
    on_head(l, c, n - ((size_t)(end + 4 - c->head) - before));
}

static void on_readable(struct load *l, struct conn *c)
{
    static char buf[64 << 10];
    ssize_t n;

    if (!c->ssl) {
        n = read(c->fd, buf, sizeof(buf));
        if (n > 0)
            on_bytes(l, c, buf, (size_t)n);
        else if (n == 0 || errno != EAGAIN)
            fail("read");
        return;
    }
    do {
        n = SSL_read(c->ssl, buf, sizeof(buf));
        if (n > 0)
            on_bytes(l, c, buf, (size_t)n);
        else if (SSL_get_error(c->ssl, (int)n) != SSL_ERROR_WANT_READ)
            fail("SSL_read");
    } while (n > 0 && SSL_has_pending(c->ssl));
}

static void connect_one(struct load *l, struct conn *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(l->port)};
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof(to)))
        fail("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (l->tls) {
        c->ssl = SSL_new(l->ctx);
        if (!c->ssl || !SSL_set_fd(c->ssl, c->fd) || SSL_connect(c->ssl) != 1)
            fail("handshake");
    }
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) || epoll_ctl(l->ep, EPOLL_CTL_ADD, c->fd, &ev))
        fail("epoll");
}

static void close_one(struct conn *c)
{
    SSL_free(c->ssl);
    close(c->fd);
}

static void end_slice(struct load *l, uint64_t now)
{
    if (l->n_slices < SLICES_MAX)
        l->slices[l->n_slices++] =
            (double)(l->answered - l->slice_answered) * 1e9 / (double)(now - l->slice_ns);
    l->slice_ns = now;
    l->slice_answered = l->answered;
}

static void print(const struct load *l, uint64_t elapsed_ns, uint64_t cpu)
{
    printf("{\"requests\": %" PRIu64 ", \"elapsed_s\": %.6f, \"cpu_s\": %.6f, \"slices\": [",
           l->answered, (double)elapsed_ns / 1e9, (double)cpu / 1e9);
    for (unsigned i = 0; i < l->n_slices; i++)
        printf("%s%.1f", i ? ", " : "", l->slices[i]);
    printf("]}\n");
}

static void run(struct load *l)
{
    uint64_t started = now_ns(), now = started, rest = started + WORK_NS, cpu = cpu_ns(l);

    l->slice_ns = started;
    l->until_ns = started + (uint64_t)(l->seconds * 1e9);
    for (unsigned i = 0; i < l->n; i++)
        send_request(l, &l->conns[i]);
    while (l->answered < l->sent) {
        struct epoll_event ev[EVENTS];
        int n = epoll_wait(l->ep, ev, EVENTS, 0);
        for (int i = 0; i < n; i++)
            on_readable(l, ev[i].data.ptr);
        now = now_ns();
        if (now >= l->slice_ns + SLICE_NS && now < l->until_ns)
            end_slice(l, now);
        if (now > rest) {
            nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL);
            rest = now_ns() + WORK_NS;
        }
        if (now > l->until_ns + 10000000000u) {
            errno = ETIMEDOUT;
            fail("answers");
        }
    }
    print(l, now_ns() - started, cpu_ns(l) - cpu);
}

static int parse(struct load *l, int argc, char **argv)
{
    *l = (struct load){.path = "/", .seconds = 3, .n = 64};
    for (int i = 1; i < argc; i++) {
        const char *v = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--tls") == 0) {
            l->tls = true;
            continue;
        }
        if (!v)
            return -1;
        if (strcmp(argv[i], "--port") == 0)
            l->port = (uint16_t)strtoul(v, NULL, 10);
        else if (strcmp(argv[i], "--path") == 0)
            l->path = v;
        else if (strcmp(argv[i], "--seconds") == 0)
            l->seconds = strtod(v, NULL);
        else if (strcmp(argv[i], "--connections") == 0)
            l->n = (unsigned)strtoul(v, NULL, 10);
        else if (strcmp(argv[i], "--watch") == 0)
            l->watched = (unsigned)strtoul(v, NULL, 10);
        else
            return -1;
        i++;
    }
    return l->port && l->n ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct load l;

    if (parse(&l, argc, argv)) {
        fprintf(stderr, "usage: http_closed --port PORT [--tls] [--path PATH] [--seconds N] "
                        "[--connections N] [--watch PID]\n");
        return 2;
    }
    l.request_len =
        (size_t)snprintf(l.request, sizeof(l.request),
                         "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n", l.path, l.port);
    if (l.request_len >= sizeof(l.request))
        return 2;
    l.ep = epoll_create1(EPOLL_CLOEXEC);
    l.ctx = l.tls ? SSL_CTX_new(TLS_client_method()) : NULL;
    l.conns = calloc(l.n, sizeof(*l.conns));
    if (l.ep < 0 || (l.tls && !l.ctx) || !l.conns)
        fail("start");
    if (l.ctx)
        SSL_CTX_set_read_ahead(l.ctx, 1);
    for (unsigned i = 0; i < l.n; i++)
        connect_one(&l, &l.conns[i]);
    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1});
    run(&l);
    for (unsigned i = 0; i < l.n; i++)
        close_one(&l.conns[i]);
    free(l.conns);
    SSL_CTX_free(l.ctx);
    close(l.ep);
    return 0;
}
