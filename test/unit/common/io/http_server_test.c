/* SPDX-License-Identifier: Apache-2.0 */
/* The server over real sockets: what half-received bodies may take, and that all is given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/io/foreign.h"
#include "common/io/http_server.h"

enum { MIB = 1 << 20, LIMIT = 32 * MIB, BUDGET = LIMIT / 4, MAX_BODY = 16 * MIB };

static struct http_server *server;
static _Atomic uint64_t messages, message_bytes;
static _Atomic bool is_closed;

static void answer(struct http_request *r, int status)
{
    struct http_response resp = {.status = status};
    http_respond(r, &resp);
}

static int on_head(void *arg, struct http_request *r, uint64_t *max_body)
{
    (void)arg;
    *max_body = MAX_BODY;
    return str_is(r->path, "/none") ? 404 : 0;
}

static void on_message(void *arg, struct http_request *r)
{
    (void)arg;
    messages++;
    message_bytes += r->body ? r->body->len - HTTP_BODY_HEADROOM : 0;
    answer(r, 200);
}

static void on_refuse(void *arg, struct http_request *r, enum http_refusal why)
{
    (void)arg;
    answer(r, why == HTTP_OVERLOADED ? 503 : why == HTTP_TOO_LARGE ? 413 : 400);
}

static const struct http_handler handler = {
    .head = on_head, .message = on_message, .refuse = on_refuse};

static void open_server(void *arg)
{
    struct http_server_config c = {.endpoint = "127.0.0.1:0"};
    struct err e;
    (void)arg;
    ASSERT(http_server_open(&server, &c, &handler, &e) == 0);
}

static void on_closed(void *arg)
{
    (void)arg;
    is_closed = true;
}

static void close_server(void *arg)
{
    (void)arg;
    http_server_close(&server, on_closed, NULL);
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

static int group_setup(void **state)
{
    struct err e;
    (void)state;
    if (loops_start(1, &e))
        return -1;
    loop_call(loops_get(0), open_server, NULL);
    mem_limit_set(LIMIT);
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    loop_call(loops_get(0), close_server, NULL);
    while (!is_closed)
        nap();
    loops_stop();
    return 0;
}

/* ---- a client that does what it is told ---- */

static int dial(void)
{
    struct sockaddr_in sa = {.sin_family = AF_INET,
                             .sin_port = htons(http_server_port(server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval patience = {.tv_sec = 10};
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    size_t n = strlen(text);
    assert_int_equal(send(fd, text, n, MSG_NOSIGNAL), n);
}

static void begin_chunked(int fd)
{
    say(fd, "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
}

/* One chunk of n bytes; false when the server has closed. */
static bool send_chunk(int fd, size_t n)
{
    static char bytes[MIB + 64];
    char head[32];
    int h = snprintf(head, sizeof(head), "%zx\r\n", n);
    memset(bytes, 'x', sizeof(bytes));
    memcpy(bytes, head, (size_t)h);
    memcpy(bytes + h + n, "\r\n", 2);
    size_t all = (size_t)h + n + 2, at = 0;
    while (at < all) {
        ssize_t k = send(fd, bytes + at, all - at, MSG_NOSIGNAL);
        if (k <= 0)
            return false;
        at += (size_t)k;
    }
    return true;
}

/* The answer's status; 0 when there is none yet (wait false) or none comes. */
static int status_of(int fd, bool wait)
{
    char text[512];
    ssize_t n = recv(fd, text, sizeof(text) - 1, wait ? 0 : MSG_DONTWAIT);
    int status = 0;
    if (n <= 0)
        return 0;
    text[n] = '\0';
    if (sscanf(text, "HTTP/1.1 %d ", &status) != 1)
        return -1;
    return status;
}

static struct mem_usage usage(void)
{
    struct mem_usage u;
    mem_usage_get(&u);
    return u;
}

/*
 * Waits until as much is in use and reserved as before; what is left over is a leak. What libraries
 * took is counted in steps.
 */
static void assert_memory_is_back(const struct mem_usage *before)
{
    for (int i = 0; i < 2500; i++, nap())
        if (usage().in_use <= before->in_use + FOREIGN_STEP && usage().reserved == 0)
            return;
    assert_int_equal(usage().in_use, before->in_use);
    assert_int_equal(usage().reserved, 0);
}

/* ---- tests ---- */

static void bodies_of_unknown_size_share_the_assembly_budget(void **state)
{
    enum { N = 6, EACH = 3 * MIB };
    struct mem_usage before = usage();
    int fd[N], n_refused = 0, n_whole = 0, status[N] = {0};
    uint64_t most = 0, whole_before = message_bytes;
    (void)state;
    for (int i = 0; i < N; i++) {
        fd[i] = dial();
        begin_chunked(fd[i]);
    }
    /* In turns, so that all of them are half received at the same time. */
    for (int k = 0; k < EACH / (64 << 10); k++)
        for (int i = 0; i < N; i++) {
            if (!status[i])
                status[i] = status_of(fd[i], false);
            if (!status[i] && !send_chunk(fd[i], 64 << 10))
                status[i] = status_of(fd[i], true);
            most = MAX(most, usage().in_use + usage().reserved - before.in_use);
        }
    /* Nobody is finished before the server has read as much as it lets in. */
    bool is_one_refused = false;
    for (int k = 0; k < 2500 && !is_one_refused; k++, nap())
        for (int i = 0; i < N; i++) {
            status[i] = status[i] ? status[i] : status_of(fd[i], false);
            is_one_refused |= status[i] == 503;
        }
    for (int i = 0; i < N; i++) {
        if (!status[i])
            send(fd[i], "0\r\n\r\n", 5, MSG_NOSIGNAL);
        if (!status[i])
            status[i] = status_of(fd[i], true);
        assert_true(status[i] == 200 || status[i] == 503);
        n_refused += status[i] == 503;
        n_whole += status[i] == 200;
        close(fd[i]);
    }
    assert_true(n_whole >= 1);
    assert_true(n_refused >= 1);
    assert_int_equal(message_bytes - whole_before, (uint64_t)n_whole * EACH);
    /* While one grows it is there twice: the old bytes are copied to the new place. */
    assert_in_range(most, 1, BUDGET + BUDGET / 2);
    assert_memory_is_back(&before);
}

static void a_single_body_may_be_larger_than_the_budget(void **state)
{
    struct mem_usage before = usage();
    int fd = dial();
    (void)state;
    begin_chunked(fd);
    for (int i = 0; i < BUDGET / MIB + 1; i++)
        assert_true(send_chunk(fd, MIB));
    say(fd, "0\r\n\r\n");
    assert_int_equal(status_of(fd, true), 200);
    close(fd);
    assert_memory_is_back(&before);
}

static void what_is_too_large_is_refused_at_its_head_or_where_it_grows_too_large(void **state)
{
    struct mem_usage before = usage();
    char head[128];
    int fd = dial();
    (void)state;
    snprintf(head, sizeof(head), "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n",
             MAX_BODY + 1);
    say(fd, head);
    assert_int_equal(status_of(fd, true), 413);
    close(fd);
    mem_limit_set(0); /* so that only its size speaks against it */
    fd = dial();
    begin_chunked(fd);
    int status = 0;
    for (int i = 0; i < MAX_BODY / MIB + 2 && !status; i++)
        if (!send_chunk(fd, MIB) || (status = status_of(fd, false)))
            break;
    assert_int_equal(status ? status : status_of(fd, true), 413);
    close(fd);
    mem_limit_set(LIMIT);
    assert_memory_is_back(&before);
}

static void a_promised_body_waits_for_its_turn_and_is_refused_after_a_second(void **state)
{
    struct mem_usage before = usage();
    int holder = dial(), late = dial();
    char head[128];
    (void)state;
    snprintf(head, sizeof(head), "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n",
             BUDGET - MIB);
    say(holder, head);
    while (usage().reserved == 0)
        nap();
    uint64_t began = clock_mono_ns();
    say(late, head);
    assert_int_equal(status_of(late, true), 503);
    uint64_t waited_ms = (clock_mono_ns() - began) / NS_PER_MS;
    assert_in_range(waited_ms, 900, 3000);
    close(late);
    /* The next one is let in when the first has left. */
    late = dial();
    say(late,
        "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3145728\r\n\r\n");
    nap();
    assert_int_equal(status_of(late, false), 0);
    close(holder);
    assert_int_equal(status_of(late, true), 100);
    close(late);
    assert_memory_is_back(&before);
}

static void what_an_http1_connection_keeps_is_counted_and_given_back(void **state)
{
    enum { N = 20, HERE = 100 << 10, ALL = 1 << 20 };
    struct mem_usage before = usage();
    char head[128];
    int holder = dial(), fd[N];
    (void)state;
    snprintf(head, sizeof(head), "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n",
             BUDGET);
    say(holder, head);
    while (usage().reserved == 0)
        nap();
    struct mem_usage held = usage();
    /* They wait for memory; what came with their heads waits in the connection. */
    snprintf(head, sizeof(head), "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n", ALL);
    for (int i = 0; i < N; i++) {
        static char piece[HERE];
        fd[i] = dial();
        memcpy(piece, head, strlen(head));
        memset(piece + strlen(head), 'x', sizeof(piece) - strlen(head));
        assert_int_equal(send(fd[i], piece, sizeof(piece), MSG_NOSIGNAL), sizeof(piece));
    }
    for (int i = 0; i < 400 && usage().in_use < held.in_use + N * (HERE / 4); i++)
        nap();
    assert_true(usage().in_use >= held.in_use + N * (HERE / 4));
    close(holder);
    for (int i = 0; i < N; i++)
        close(fd[i]);
    assert_memory_is_back(&before);
}

static void what_connections_cost_is_counted(void **state)
{
    enum { N = 100 };
    static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                                "\0\0\0\4\0\0\0\0"; /* and an empty SETTINGS frame */
    struct mem_usage before = usage();
    int fd[N];
    (void)state;
    for (int i = 0; i < N; i++) {
        fd[i] = dial();
        assert_int_equal(send(fd[i], hello, sizeof(hello), MSG_NOSIGNAL), sizeof(hello));
    }
    for (int i = 0; i < N; i++) {
        char c;
        assert_int_equal(recv(fd[i], &c, 1, 0),
                         1); /* the server's SETTINGS: the session is there */
    }
    assert_true(usage().in_use > before.in_use + N * 1024);
    for (int i = 0; i < N; i++)
        close(fd[i]);
    assert_memory_is_back(&before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_of_unknown_size_share_the_assembly_budget),
        cmocka_unit_test(a_single_body_may_be_larger_than_the_budget),
        cmocka_unit_test(what_is_too_large_is_refused_at_its_head_or_where_it_grows_too_large),
        cmocka_unit_test(a_promised_body_waits_for_its_turn_and_is_refused_after_a_second),
        cmocka_unit_test(what_an_http1_connection_keeps_is_counted_and_given_back),
        cmocka_unit_test(what_connections_cost_is_counted),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
