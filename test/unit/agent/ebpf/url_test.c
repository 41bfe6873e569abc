/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/ebpf/traceparent.h"
#include "agent/ebpf/url.h"

#define IS(s, want) assert_true(str_is(s, want))

static void targets(void **ctx)
{
    struct target t;

    target_split(STR("/a/b?x=1&y#f"), false, &t);
    IS(t.path, "/a/b");
    IS(t.query, "x=1&y");
    assert_true(t.has_query);
    target_split(STR("http://u:p@h:81?q"), false, &t);
    IS(t.scheme, "http");
    IS(t.authority, "u:p@h:81");
    IS(t.path, "/");
    IS(t.query, "q");
    target_split(STR("*"), false, &t);
    IS(t.path, "*");
    assert_false(t.has_query);
    target_split(STR("h:443"), true, &t);
    IS(t.authority, "h:443");
    target_split(STR("/redirect?to=http://x/"), false, &t);
    IS(t.path, "/redirect");
    IS(t.scheme, "");
}

static void authorities(void **ctx)
{
    uint16_t port;

    IS(authority_host(STR("h:8080"), &port), "h");
    assert_int_equal(port, 8080);
    IS(authority_host(STR("user:secret@h"), &port), "h");
    assert_int_equal(port, 0);
    IS(authority_host(STR("[::1]:443"), &port), "::1");
    assert_int_equal(port, 443);
    IS(authority_host(STR("h:99999"), &port), "h");
    assert_int_equal(port, 0);
    IS(authority_host(STR("[::1"), &port), "[::1");
    assert_int_equal(authority_host((struct str){NULL, 0}, &port).n, 0);
}

static void redaction(void **ctx)
{
    struct buf b;

    buf_init(&b);
    query_redact(&b, STR("a=1&sig=secret&Sig=2&X-Amz-Signature=&sig&=&"), query_sensitive_keys);
    IS(buf_str(&b), "a=1&sig=REDACTED&Sig=2&X-Amz-Signature=REDACTED&sig&=&");
    buf_reset(&b);
    query_redact(&b, STR(""), query_sensitive_keys);
    assert_int_equal(b.n, 0);
    buf_fini(&b);
}

static void forwarded(void **ctx)
{
    IS(forwarded_first(STR(" 1.2.3.4 , 5.6.7.8")), "1.2.3.4");
    IS(forwarded_param(STR("For=\"[2001:db8::1]:80\";Proto=https, for=x"), STR("for")),
       "[2001:db8::1]:80");
    IS(forwarded_param(STR("for=1;proto=https"), STR("proto")), "https");
    assert_int_equal(forwarded_param(STR("for=1"), STR("host")).n, 0);
}

static void traceparents(void **ctx)
{
    static const char *const bad[] = {"",
                                      "00",
                                      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
                                      "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                                      "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                                      "00-00000000000000000000000000000000-b7ad6b7169203331-01",
                                      "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
                                      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
                                      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
                                      "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
                                      "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                                      "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333g-01",
                                      "0g-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"};
    struct trace_context t;

    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(traceparent_parse(str_of(bad[i]), &t));
    assert_true(
        traceparent_parse(STR("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"), &t));
    assert_int_equal(t.flags, 3);
    assert_int_equal(t.trace_id[0], 0x0a);
    assert_int_equal(t.span_id[7], 0x31);
    assert_true(
        traceparent_parse(STR("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), &t));
    assert_true(
        traceparent_parse(STR("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what"), &t));
}

static void ids(void **ctx)
{
    uint8_t a[16], b[16];

    random_id(a, 16);
    random_id(b, 16);
    assert_memory_not_equal(a, b, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets),   cmocka_unit_test(authorities),  cmocka_unit_test(redaction),
        cmocka_unit_test(forwarded), cmocka_unit_test(traceparents), cmocka_unit_test(ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
