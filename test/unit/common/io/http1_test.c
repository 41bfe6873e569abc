/* SPDX-License-Identifier: Apache-2.0 */
/* Heads and chunked bodies, cut at every byte; what could be read in two ways is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/buf.h"
#include "common/io/http1.h"

static void a_head_is_the_same_however_it_is_cut(void **state)
{
    static const char head[] = "POST /v1/traces?x=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n"
                               "content-type:  application/x-protobuf \r\n\r\nBODY";
    struct http1_head h;
    size_t n = strlen(head) - 4;
    (void)state;
    for (size_t i = 0; i < n; i++)
        assert_int_equal(http1_parse_head(head, i, false, &h), 0);
    assert_int_equal(http1_parse_head(head, n + 4, false, &h), n);
    assert_true(str_is(h.method, "POST") && str_is(h.path, "/v1/traces?x=1"));
    assert_true(h.has_length && h.content_length == 12 && h.keep_alive && !h.is_chunked);
    assert_true(str_is(http1_field(&h, "Content-Type"), "application/x-protobuf"));
}

static void smuggling_is_refused(void **state)
{
    static const char *const bad[] = {
        "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 0x10\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length : 1\r\n\r\n",
        "POST / HTTP/1.1\r\n folded: 1\r\n\r\n",
        "POST / HTTP/2.0\r\n\r\n",
        "P\x01ST / HTTP/1.1\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nno-colon\r\n\r\n",
    };
    struct http1_head h;
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(http1_parse_head(bad[i], strlen(bad[i]), false, &h), -EBADMSG);
}

static void endless_heads_end(void **state)
{
    static char big[HTTP1_MAX_HEAD + 100];
    struct http1_head h;
    (void)state;
    memset(big, 'a', sizeof(big));
    memcpy(big, "GET / HTTP/1.1\r\nx: ", 19);
    assert_int_equal(http1_parse_head(big, sizeof(big), false, &h), -E2BIG);
}

static void chunks_are_the_same_however_they_are_cut(void **state)
{
    static const char body[] =
        "4\r\nWiki\r\n6;ext=1\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nT: x\r\n\r\nNEXT";
    (void)state;
    for (size_t step = 1; step < sizeof(body); step++) {
        struct http1_chunked c;
        struct buf out;
        int r = 0;
        size_t at = 0;
        http1_chunked_init(&c);
        buf_init(&out);
        while (r != 2 && at < sizeof(body) - 1) {
            size_t n = sizeof(body) - 1 - at < step ? sizeof(body) - 1 - at : step;
            const uint8_t *p = (const uint8_t *)body + at, *end = p + n;
            struct str data;
            while ((r = http1_chunked_next(&c, &p, end, &data)) == 1)
                buf_add_str(&out, data);
            assert_true(r >= 0);
            at = (size_t)(p - (const uint8_t *)body);
        }
        assert_int_equal(r, 2);
        assert_string_equal(body + at, "NEXT");
        assert_true(str_is(buf_str(&out), "Wikipedia in \r\n\r\nchunks."));
        buf_fini(&out);
    }
}

static void chunk_sizes_that_can_be_read_in_two_ways_are_refused(void **state)
{
    static const char *const bad[] = {"1 0\r\n",     "1\r0\r\n",   " 1\r\n",
                                      "\r\n",        "1;a\rb\r\n", "0x1\r\n",
                                      "1\r\nab\r\n", "1\r\na\n",   "1234567890123456\r\n"};
    static const char *const good[] = {"1\r\n",     "1\n",      "1 \r\n",
                                       "1;a=b\r\n", "1 ;a\r\n", "00001\r\n"};
    struct http1_chunked c;
    struct str data;
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]) + sizeof(good) / sizeof(good[0]); i++) {
        bool is_bad = i < sizeof(bad) / sizeof(bad[0]);
        const char *text = is_bad ? bad[i] : good[i - sizeof(bad) / sizeof(bad[0])];
        const uint8_t *p = (const uint8_t *)text, *end = p + strlen(text);
        int r;
        http1_chunked_init(&c);
        while ((r = http1_chunked_next(&c, &p, end, &data)) == 1)
            ;
        assert_int_equal(r, is_bad ? -EBADMSG : 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunk_sizes_that_can_be_read_in_two_ways_are_refused),
        cmocka_unit_test(a_head_is_the_same_however_it_is_cut),
        cmocka_unit_test(smuggling_is_refused),
        cmocka_unit_test(endless_heads_end),
        cmocka_unit_test(chunks_are_the_same_however_they_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
