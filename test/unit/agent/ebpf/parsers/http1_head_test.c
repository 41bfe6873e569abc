/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of ordinary heads says of each what the readers of all heads say, or nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/ebpf/parsers/http1_head.h"
#include "common/base/mem.h"

static const char *const requests[] = {
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /a?b=c HTTP/1.0\r\nhost:a:80\r\nContent-Length: 16\r\nuser-AGENT:\t x y \r\n\r\nbody: 1\r\n",
    "PUT /\xc3\xa9 HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\nTraceState: a=b\r\n"
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
    "GET /x HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4, 5.6.7.8\r\nX-Forwarded-Proto: https\r\n"
    "Forwarded: for=1.2.3.4\r\ntraceparent: a\r\ntraceparent: b\r\nAccept: */*\r\n\r\n",
};
static const char *const responses[] = {
    "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    "Content-Length: 2\r\nConnection: keep-alive\r\n\r\n{}",
    "HTTP/1.0 404\r\ncontent-length: 7, 7\r\n\r\n",
    "HTTP/1.1 101 Switching: Protocols\r\nUpgrade: x\r\n\r\n",
    "HTTP/1.1 500 \r\ntransfer-encoding: chunked\r\nContent-Type: text/plain\r\n\r\n0\r\n\r\n",
};

/* The length of the head, by the readers of all heads; 0: none that is whole and well-formed. */
static size_t read_slowly(struct str s, bool is_request, struct http1_head *out)
{
    size_t scanned = 0, end = 0;

    if ((is_request ? http1_is_request(s) : http1_is_response(s)) >= 0)
        end = http1_head_end(s, &scanned);
    s.n = end;
    if (end == 0 || !(is_request ? http1_read_request(s, out) : http1_read_response(s, out)))
        return 0;
    return end;
}

static void assert_same_text(struct str a, struct str b)
{
    assert_true(a.p == b.p);
    assert_int_equal(a.n, b.n);
}

static void assert_same(const struct http1_head *a, const struct http1_head *b)
{
    assert_same_text(a->method, b->method);
    assert_same_text(a->target, b->target);
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->minor, b->minor);
    assert_int_equal(a->has_length, b->has_length);
    assert_int_equal(a->chunked, b->chunked);
    assert_int_equal(a->other_coding, b->other_coding);
    assert_int_equal(a->repeated_traceparent, b->repeated_traceparent);
    assert_int_equal(a->length, b->length);
    assert_int_equal(a->length_at, b->length_at);
    for (unsigned i = 0; i < HTTP1_FIELD_COUNT; i++)
        assert_same_text(a->fields[i], b->fields[i]);
}

/* True when it was read at once, and then as the others read it. */
static bool check(struct str s, bool is_request)
{
    /* As large as it is said to be: a byte read behind it is an error. */
    char *copy = malloc(s.n ? s.n : 1);
    struct http1_head quick, slow;
    size_t n;

    memcpy(copy, s.p, s.n);
    s.p = copy;
    n = http1_read_at_once(s, is_request, &quick);
    if (n) {
        assert_int_equal(n, read_slowly(s, is_request, &slow));
        assert_same(&quick, &slow);
    }
    free(copy);
    return n > 0;
}

static void ordinary_heads_are_read_at_once(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(requests); i++)
        assert_true(check(str_of(requests[i]), true));
    for (unsigned i = 0; i < ARRAY_LEN(responses); i++)
        assert_true(check(str_of(responses[i]), false));
}

static void a_part_is_not(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(requests) + ARRAY_LEN(responses); i++) {
        bool is_request = i < ARRAY_LEN(requests);
        struct str s = str_of(is_request ? requests[i] : responses[i - ARRAY_LEN(requests)]);
        size_t scanned = 0, end = http1_head_end(s, &scanned);

        for (s.n = 0; s.n < end; s.n++)
            assert_false(check(s, is_request));
    }
}

static void mutate(char *p, size_t *n, size_t cap)
{
    static const char odd[] = "\r\n:; \t\0\x7f\xff/HTP1,0";
    size_t at = (size_t)rand() % *n;

    switch (rand() % 4) {
    case 0:
        p[at] = odd[(size_t)rand() % (sizeof(odd) - 1)];
        break;
    case 1:
        p[at] ^= 1 << rand() % 8;
        break;
    case 2:
        memmove(p + at, p + at + 1, *n - at - 1);
        *n -= *n > 1;
        break;
    default:
        if (*n == cap)
            break;
        memmove(p + at + 1, p + at, *n - at);
        p[at] = odd[(size_t)rand() % (sizeof(odd) - 1)];
        ++*n;
    }
}

static void unusual_heads_are_left_to_the_others(void **state)
{
    unsigned quick = 0, rounds = 400000;
    (void)state;
    srand(1);
    for (unsigned i = 0; i < rounds; i++) {
        bool is_request = rand() % 2;
        const char *from = (is_request ? requests : responses)[rand() % 4];
        size_t n = strlen(from);
        char text[512];

        memcpy(text, from, n);
        for (int k = rand() % 4; k >= 0; k--)
            mutate(text, &n, sizeof(text));
        quick += check(str_make(text, n), is_request);
    }
    assert_in_range(quick, rounds / 10, rounds / 10 * 9); /* both sides were asked */
}

static void no_head_is_too_long(void **state)
{
    size_t n = HTTP1_HEAD_MAX + 100;
    char *p = malloc(n);
    struct http1_head head;
    (void)state;
    memset(p, 'a', n);
    memcpy(p, "GET / HTTP/1.1\r\nx:", 18);
    memcpy(p + n - 4, "\r\n\r\n", 4);
    assert_int_equal(http1_read_at_once(str_make(p, n), true, &head), 0);
    memcpy(p + HTTP1_HEAD_MAX - 4, "\r\n\r\n", 4);
    assert_int_equal(http1_read_at_once(str_make(p, n), true, &head), HTTP1_HEAD_MAX);
    free(p);
}

static void put(char *p, size_t *n, const char *text)
{
    memcpy(p + *n, text, strlen(text));
    *n += strlen(text);
}

/* Each field that is kept, at every place of a block of 16 bytes, in each spelling. */
static void every_kept_field_is_found(void **state)
{
    static const char *const names[][HTTP1_FIELD_COUNT] = {
        {"Host", "User-Agent", "Traceparent", "Tracestate", "Forwarded", "X-Forwarded-For",
         "X-Forwarded-Proto"},
        {"host", "user-agent", "traceparent", "tracestate", "forwarded", "x-forwarded-for",
         "x-forwarded-proto"},
        {"HOST", "USER-AGENT", "TRACEPARENT", "TRACESTATE", "FORWARDED", "X-FORWARDED-FOR",
         "X-FORWARDED-PROTO"},
    };

    for (size_t pad = 0; pad < 64; pad++)
        for (size_t k = 0; k < ARRAY_LEN(names) * HTTP1_FIELD_COUNT; k++) {
            unsigned field = k % HTTP1_FIELD_COUNT;
            struct http1_head quick, careful;
            char p[256];
            size_t n = 0;

            put(p, &n, "GET / HTTP/1.1\r\nZ:");
            for (size_t i = 0; i < pad; i++)
                put(p, &n, i % 7 ? "z" : ":");
            put(p, &n, "\r\n");
            put(p, &n, names[k / HTTP1_FIELD_COUNT][field]);
            put(p, &n, ": a:b\r\ncontent-LENGTH: 7\r\n\r\n");
            assert_int_equal(http1_read_at_once(str_make(p, n), true, &quick), n);
            assert_true(http1_read_request(str_make(p, n), &careful));
            assert_same(&quick, &careful);
            for (unsigned i = 0; i < HTTP1_FIELD_COUNT; i++)
                assert_true(str_is(quick.fields[i], i == field ? "a:b" : ""));
            assert_true(quick.has_length);
            assert_int_equal(quick.length, 7);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordinary_heads_are_read_at_once),
        cmocka_unit_test(a_part_is_not),
        cmocka_unit_test(unusual_heads_are_left_to_the_others),
        cmocka_unit_test(no_head_is_too_long),
        cmocka_unit_test(every_kept_field_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
