/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP/2 client against a server that plays frames from a script: what GOAWAY, resets and lost
 * connections mean for each request. The server is a thread of plain blocking reads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/io/http_client.h"

enum { DATA, HEADERS, RST_STREAM = 3, SETTINGS, PING = 6, GOAWAY, END_STREAM = 1, ACK = 1 };
enum { N_CALLS = 3, REFUSED_STREAM = 7, INTERNAL_ERROR = 2, CANCEL = 8 };

/* ---- the server ---- */

static struct {
    int fd;
    uint16_t port;
    void (*script)(int fd, int connection);
    pthread_t thread;
    _Atomic int n_connections;
} peer;

static bool read_all(int fd, void *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t k = recv(fd, (uint8_t *)p + at, n - at, 0);
        if (k <= 0)
            return false;
        at += (size_t)k;
    }
    return true;
}

static void send_frame(int fd, unsigned type, unsigned flags, uint32_t stream, const void *p,
                       size_t n)
{
    uint8_t frame[9 + 256] = {0,
                              (uint8_t)(n >> 8),
                              (uint8_t)n,
                              (uint8_t)type,
                              (uint8_t)flags,
                              (uint8_t)(stream >> 24),
                              (uint8_t)(stream >> 16),
                              (uint8_t)(stream >> 8),
                              (uint8_t)stream};
    ASSERT(n <= 256);
    if (n)
        memcpy(frame + 9, p, n);
    send(fd, frame, 9 + n, MSG_NOSIGNAL);
}

struct frame {
    unsigned type, flags;
    uint32_t stream;
    size_t n;
};

static bool read_frame(int fd, struct frame *f)
{
    static uint8_t payload[1 << 16];
    uint8_t head[9];
    if (!read_all(fd, head, 9))
        return false;
    *f = (struct frame){.type = head[3],
                        .flags = head[4],
                        .stream = (uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 |
                                  (uint32_t)head[7] << 8 | head[8],
                        .n = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2]};
    if (f->n > sizeof(payload) || !read_all(fd, payload, f->n))
        return false;
    if (f->type == SETTINGS && !(f->flags & ACK))
        send_frame(fd, SETTINGS, ACK, 0, NULL, 0);
    return true;
}

/* The preface, and frames until n requests have come whole. */
static bool take_requests(int fd, int n)
{
    struct frame f;
    uint8_t preface[24];
    if (!read_all(fd, preface, sizeof(preface)))
        return false;
    send_frame(fd, SETTINGS, 0, 0, NULL, 0);
    while (n > 0) {
        if (!read_frame(fd, &f))
            return false;
        n -= f.type == DATA && (f.flags & END_STREAM);
    }
    return true;
}

/* Until the client closes. */
static void drain(int fd)
{
    struct frame f;
    while (read_frame(fd, &f))
        continue;
}

/* :status 200 from HPACK's static table, grpc-status: 0 as a literal; no body. */
static void answer(int fd, uint32_t stream)
{
    static const char block[] = "\x88\0\x0bgrpc-status\x01"
                                "0";
    send_frame(fd, HEADERS, 4 | END_STREAM, stream, block, sizeof(block) - 1);
}

static void go_away(int fd, uint32_t last_stream, uint32_t error)
{
    uint32_t p[2] = {htonl(last_stream), htonl(error)};
    send_frame(fd, GOAWAY, 0, 0, p, sizeof(p));
}

static void reset(int fd, uint32_t stream, uint32_t error)
{
    uint32_t p = htonl(error);
    send_frame(fd, RST_STREAM, 0, stream, &p, sizeof(p));
}

static void *serve(void *arg)
{
    (void)arg;
    for (;;) {
        int fd = accept(peer.fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        peer.script(fd, peer.n_connections++);
        close(fd);
    }
}

static void peer_start(void (*script)(int fd, int connection))
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    peer.script = script;
    peer.n_connections = 0;
    peer.fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(peer.fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(peer.fd, 8), 0);
    getsockname(peer.fd, (struct sockaddr *)&sa, &len);
    peer.port = ntohs(sa.sin_port);
    pthread_create(&peer.thread, NULL, serve, NULL);
}

static void peer_stop(void)
{
    shutdown(peer.fd, SHUT_RDWR);
    pthread_join(peer.thread, NULL);
    close(peer.fd);
}

/* ---- calls ---- */

struct outcome {
    int error, status, grpc_status;
    bool is_uncertain;
};

static struct http_client *client;
static struct http_call calls[2 * N_CALLS];
static struct outcome outcomes[2 * N_CALLS];
static _Atomic int n_done;
static int n_sent;
static uint64_t patience_ms = 10000;

static void on_done(struct http_call *c, const struct http_result *r)
{
    outcomes[c - calls] = (struct outcome){.error = r->error,
                                           .status = r->status,
                                           .grpc_status = r->has_grpc_status ? r->grpc_status : -1,
                                           .is_uncertain = r->is_uncertain};
    n_done++;
}

static void open_client(void *arg)
{
    char endpoint[32];
    struct http_client_config c = {.endpoint = endpoint, .is_h2 = true};
    (void)arg;
    snprintf(endpoint, sizeof(endpoint), "127.0.0.1:%u", peer.port);
    ASSERT(http_client_new(&client, loops_get(0), &c) == 0);
}

static void close_client(void *arg)
{
    (void)arg;
    http_client_close(&client);
}

static void send_some(void *arg)
{
    static const struct http_call_header headers[] = {{"content-type", "application/grpc"}};
    int n = *(int *)arg;
    for (int i = 0; i < n; i++) {
        struct http_call *c = &calls[n_sent++];
        *c = (struct http_call){.path = "/x",
                                .headers = headers,
                                .n_headers = 1,
                                .body = chunk_new(100),
                                .body_len = 100,
                                .timeout_ms = patience_ms,
                                .done = on_done};
        memset(c->body->data, 0, 100);
        c->body->len = 100;
        http_call_send(client, c);
    }
}

static void send_calls(int n)
{
    loop_call(loops_get(0), send_some, &n);
}

static void wait_done(int n)
{
    for (int i = 0; i < 5000 && n_done < n; i++)
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    assert_int_equal(n_done, n);
}

static void begin(void (*script)(int fd, int connection))
{
    n_done = n_sent = 0;
    peer_start(script);
    loop_call(loops_get(0), open_client, NULL);
}

static void end(void)
{
    loop_call(loops_get(0), close_client, NULL);
    peer_stop();
}

static void assert_answered(int i)
{
    assert_int_equal(outcomes[i].error, 0);
    assert_int_equal(outcomes[i].status, 200);
    assert_int_equal(outcomes[i].grpc_status, 0);
}

static void assert_failed(int i, bool is_uncertain)
{
    assert_true(outcomes[i].error < 0);
    assert_int_equal(outcomes[i].is_uncertain, is_uncertain);
}

static int group_setup(void **state)
{
    struct err e;
    (void)state;
    return loops_start(1, &e);
}

static int group_teardown(void **state)
{
    (void)state;
    loops_stop();
    return 0;
}

/* ---- tests ---- */

/* Streams 1, 3, 5: the first is answered, the second is under way, the third was never looked at.
 */
static void goes_away_and_closes(int fd, int connection)
{
    if (connection > 0) {
        if (take_requests(fd, 1))
            answer(fd, 1);
        drain(fd);
        return;
    }
    if (!take_requests(fd, N_CALLS))
        return;
    go_away(fd, 3, 0);
    answer(fd, 1);
    shutdown(fd, SHUT_WR);
    drain(fd);
}

static void after_goaway_what_was_not_looked_at_is_certain_and_the_rest_is_not(void **state)
{
    (void)state;
    begin(goes_away_and_closes);
    send_calls(N_CALLS);
    wait_done(N_CALLS);
    assert_answered(0);
    assert_failed(1, true);
    assert_failed(2, false);
    send_calls(1); /* by a new connection */
    wait_done(N_CALLS + 1);
    assert_answered(N_CALLS);
    assert_int_equal(peer.n_connections, 2);
    end();
}

/* The old connection goes on with what it has, new requests go by another one. */
static _Atomic bool may_answer;

static void goes_away_gently(int fd, int connection)
{
    (void)connection;
    if (!take_requests(fd, 1))
        return;
    go_away(fd, 0x7fffffff, 0);
    while (!may_answer)
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    answer(fd, 1);
    drain(fd);
}

static void after_a_gentle_goaway_requests_under_way_are_answered(void **state)
{
    (void)state;
    may_answer = false;
    begin(goes_away_gently);
    send_calls(1);
    for (int i = 0; i < 1000 && peer.n_connections < 1; i++)
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL); /* GOAWAY is read: no way to see it */
    may_answer = true;
    wait_done(1);
    assert_answered(0);
    send_calls(1);
    wait_done(2);
    assert_answered(1);
    assert_int_equal(peer.n_connections, 2);
    end();
}

static void resets(int fd, int connection)
{
    (void)connection;
    if (!take_requests(fd, N_CALLS))
        return;
    reset(fd, 1, REFUSED_STREAM);
    reset(fd, 3, INTERNAL_ERROR);
    answer(fd, 5);
    drain(fd);
}

static void a_refused_stream_is_certain_another_reset_is_not(void **state)
{
    (void)state;
    begin(resets);
    send_calls(N_CALLS);
    wait_done(N_CALLS);
    assert_failed(0, false); /* RFC 9113 §8.7: nothing was done */
    assert_failed(1, true);
    assert_answered(2);
    assert_int_equal(peer.n_connections, 1);
    end();
}

static void hangs_up(int fd, int connection)
{
    (void)connection;
    take_requests(fd, N_CALLS);
}

static void a_lost_connection_makes_all_uncertain(void **state)
{
    (void)state;
    begin(hangs_up);
    send_calls(N_CALLS);
    wait_done(N_CALLS);
    for (int i = 0; i < N_CALLS; i++)
        assert_failed(i, true);
    end();
}

static void nobody_listens_is_certain(void **state)
{
    (void)state;
    begin(hangs_up);
    peer_stop();
    send_calls(2);
    wait_done(2);
    assert_failed(0, false);
    assert_failed(1, false);
    loop_call(loops_get(0), close_client, NULL);
}

static void talks_nonsense(int fd, int connection)
{
    (void)connection;
    if (take_requests(fd, 1))
        send(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL);
    drain(fd);
}

static void an_answer_of_another_protocol_ends_the_connection(void **state)
{
    (void)state;
    begin(talks_nonsense);
    send_calls(1);
    wait_done(1);
    assert_failed(0, true);
    end();
}

static void is_silent(int fd, int connection)
{
    (void)connection;
    take_requests(fd, 1);
    drain(fd);
}

static void a_call_without_answer_ends_in_its_time(void **state)
{
    uint64_t began = clock_mono_ns();
    (void)state;
    begin(is_silent);
    patience_ms = 500;
    send_calls(1);
    wait_done(1);
    assert_int_equal(outcomes[0].error, -ETIMEDOUT);
    assert_true(outcomes[0].is_uncertain);
    assert_in_range((clock_mono_ns() - began) / NS_PER_MS, 490, 3000);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_goaway_what_was_not_looked_at_is_certain_and_the_rest_is_not),
        cmocka_unit_test(after_a_gentle_goaway_requests_under_way_are_answered),
        cmocka_unit_test(a_refused_stream_is_certain_another_reset_is_not),
        cmocka_unit_test(a_lost_connection_makes_all_uncertain),
        cmocka_unit_test(nobody_listens_is_certain),
        cmocka_unit_test(an_answer_of_another_protocol_ends_the_connection),
        cmocka_unit_test(a_call_without_answer_ends_in_its_time),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
