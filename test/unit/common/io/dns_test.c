/* SPDX-License-Identifier: Apache-2.0 */
/* Lookups against a name server of the test's own, on a real loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include <pthread.h>
#include <unistd.h>

#include "common/io/dns.c"

enum { TYPE_A = 1, TYPE_AAAA = 28, NXDOMAIN = 3, SERVFAIL = 2 };

/* What the server says next. */
static struct {
    int fd;
    pthread_t thread;
    _Atomic bool is_silent;
    _Atomic int rcode;
    _Atomic int n_v4, n_v6;
    _Atomic unsigned asked;
} server;

static size_t put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
    return 2;
}

/* 10.0.0.9, 10.0.0.8, ... and fd00::9, fd00::8, ...: not in order. */
static size_t put_record(uint8_t *p, unsigned type, int i)
{
    size_t at = 0, len = type == TYPE_A ? 4 : 16;
    at += put16(p + at, 0xc00c); /* the question's name */
    at += put16(p + at, type);
    at += put16(p + at, 1);
    at += put16(p + at, 0);
    at += put16(p + at, 1);
    at += put16(p + at, (unsigned)len);
    memset(p + at, 0, len);
    p[at] = type == TYPE_A ? 10 : 0xfd;
    p[at + len - 1] = (uint8_t)(9 - i);
    return at + len;
}

static size_t answer(uint8_t *p, size_t n)
{
    size_t q = 12;
    while (q < n && p[q])
        q += p[q] + 1u;
    unsigned type = (unsigned)p[q + 1] << 8 | p[q + 2];
    size_t at = q + 5;
    int count = server.rcode ? 0 : type == TYPE_A ? server.n_v4 : server.n_v6;
    put16(p + 2, 0x8180u | (unsigned)server.rcode);
    put16(p + 6, (unsigned)count);
    put16(p + 8, 0);
    put16(p + 10, 0);
    for (int i = 0; i < count; i++)
        at += put_record(p + at, type, i);
    return at;
}

static void *serve(void *arg)
{
    for (;;) {
        uint8_t packet[2048];
        struct sockaddr_in from;
        socklen_t n_from = sizeof(from);
        ssize_t n = recvfrom(server.fd, packet, 512, 0, (struct sockaddr *)&from, &n_from);
        if (n <= 12)
            return NULL;
        server.asked++;
        if (server.is_silent)
            continue;
        size_t len = answer(packet, (size_t)n);
        sendto(server.fd, packet, len, 0, (struct sockaddr *)&from, n_from);
    }
}

static int start(void **state)
{
    static char text[64];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    struct err e = {{0}};
    server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (bind(server.fd, (struct sockaddr *)&a, n) < 0 ||
        getsockname(server.fd, (struct sockaddr *)&a, &n) < 0)
        return -1;
    snprintf(text, sizeof(text), "127.0.0.1:%u", ntohs(a.sin_port));
    servers = text;
    pthread_create(&server.thread, NULL, serve, NULL);
    return loops_start(1, &e);
}

static int stop(void **state)
{
    struct sockaddr_in a;
    socklen_t n = sizeof(a);
    loops_stop();
    getsockname(server.fd, (struct sockaddr *)&a, &n);
    sendto(server.fd, "x", 1, 0, (struct sockaddr *)&a, n); /* too short: ends it */
    pthread_join(server.thread, NULL);
    close(server.fd);
    return 0;
}

/* ---- one lookup ---- */

struct lookup {
    const char *host;
    uint64_t timeout_ms;
    struct dns_query *query;
    _Atomic bool is_done;
    bool is_inside, was_inside;
    int error;
    char text[512];
};

static void on_done(void *arg, const struct dns_answer *a)
{
    struct lookup *l = arg;
    l->was_inside = l->is_inside;
    l->error = a->error;
    assert_true((a->error == 0) == (a->n > 0));
    assert_true((a->error == 0) == (a->why == NULL));
    for (size_t i = 0; i < a->n; i++)
        snprintf(l->text + strlen(l->text), sizeof(l->text) - strlen(l->text), "%s%s", i ? " " : "",
                 a->addresses[i]);
    l->is_done = true;
}

static void begin_lookup(void *arg)
{
    struct lookup *l = arg;
    l->is_inside = true;
    l->query = dns_lookup(loops_get(0), l->host, l->timeout_ms, on_done, l);
    l->is_inside = false;
}

static void cancel_lookup(void *arg)
{
    dns_cancel(&((struct lookup *)arg)->query);
}

static void look_up(struct lookup *l, const char *host, uint64_t timeout_ms)
{
    memset(l, 0, sizeof(*l));
    l->host = host;
    l->timeout_ms = timeout_ms;
    loop_call(loops_get(0), begin_lookup, l);
    for (int i = 0; !l->is_done && i < 2000; i++)
        nanosleep(&(struct timespec){0, 5000000}, NULL);
    assert_true(l->is_done);
    assert_false(l->was_inside);
}

static void say(int n_v4, int n_v6, int rcode, bool is_silent)
{
    server.n_v4 = n_v4;
    server.n_v6 = n_v6;
    server.rcode = rcode;
    server.is_silent = is_silent;
}

static void both_families_sorted(void **state)
{
    struct lookup l;
    say(3, 2, 0, false);
    look_up(&l, "gw.test", 2000);
    assert_int_equal(l.error, 0);
    assert_string_equal(l.text, "10.0.0.7 10.0.0.8 10.0.0.9 fd00::8 fd00::9");
    say(1, 0, 0, false);
    look_up(&l, "gw.test", 2000);
    assert_string_equal(l.text, "10.0.0.9");
}

static void numbers_and_hosts_file_ask_nobody(void **state)
{
    struct lookup l;
    unsigned before = server.asked;
    look_up(&l, "127.0.0.5", 1000);
    assert_string_equal(l.text, "127.0.0.5");
    look_up(&l, "::1", 1000);
    assert_string_equal(l.text, "::1");
    look_up(&l, "localhost", 1000);
    assert_int_equal(l.error, 0);
    assert_non_null(strstr(l.text, "127.0.0.1"));
    assert_int_equal(server.asked, before);
}

static void failures_have_their_reason(void **state)
{
    struct lookup l;
    say(0, 0, NXDOMAIN, false);
    look_up(&l, "gone.test", 2000);
    assert_int_equal(l.error, -ENOENT);
    say(0, 0, 0, false);
    look_up(&l, "empty.test", 2000);
    assert_int_equal(l.error, -ENOENT);
    say(0, 0, SERVFAIL, false);
    look_up(&l, "broken.test", 2000);
    assert_true(l.error < 0);
    look_up(&l, "", 1000);
    assert_true(l.error < 0);
}

static void silence_ends_in_time(void **state)
{
    struct lookup l;
    struct timespec a, b;
    say(1, 0, 0, true);
    clock_gettime(CLOCK_MONOTONIC, &a);
    look_up(&l, "silent.test", 300);
    clock_gettime(CLOCK_MONOTONIC, &b);
    assert_int_equal(l.error, -ETIMEDOUT);
    double s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
    assert_true(s >= 0.25 && s < 3);
}

static void a_cancelled_lookup_is_silent(void **state)
{
    struct lookup l = {.host = "silent.test", .timeout_ms = 200}, next;
    say(1, 0, 0, true);
    loop_call(loops_get(0), begin_lookup, &l);
    loop_call(loops_get(0), cancel_lookup, &l);
    assert_null(l.query);
    say(1, 0, 0, false);
    look_up(&next, "gw.test", 2000);
    assert_false(l.is_done);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_families_sorted),
        cmocka_unit_test(numbers_and_hosts_file_ask_nobody),
        cmocka_unit_test(failures_have_their_reason),
        cmocka_unit_test(silence_ends_in_time),
        cmocka_unit_test(a_cancelled_lookup_is_silent),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
