/* SPDX-License-Identifier: Apache-2.0 */
/* OTLP/JSON of messages written by hand: what is kept, left out, merged and refused. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/otlp/json.h"
#include "common/otlp/wire.h"

/* The JSON of a batch with one record of that body; its error in *error. */
static char *json_of(enum signal signal, const struct buf *body, int *error)
{
    struct batch_builder bb;
    struct batch *b = NULL;
    struct buf out;
    batch_builder_init(&bb, signal);
    batch_builder_resource(&bb, (struct str){NULL, 0}, true);
    batch_builder_scope(&bb, (struct str){NULL, 0}, true);
    struct span_key key = {.kind = 1};
    batch_builder_record(&bb, buf_str(body), 1, signal == SIGNAL_TRACES ? &key : NULL);
    assert_int_equal(batch_builder_seal(&bb, &b), 0);
    buf_init(&out);
    batch_to_json(b, &out);
    batch_unref(&b);
    *error = buf_error(&out);
    char *text = xstrdup(buf_cstr(&out));
    buf_fini(&out);
    return text;
}

static void check(enum signal signal, struct buf *body, const char *want)
{
    int error;
    char *got = json_of(signal, body, &error);
    assert_int_equal(error, 0);
    assert_string_equal(got, want);
    free(got);
    buf_fini(body);
}

#define SPAN(members) "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{" members "}]}]}]}"
#define LOG(members) "{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[{" members "}]}]}]}"

static void ids_are_hex_and_times_are_strings(void **state)
{
    struct buf b = {0};
    wire_put_bytes(&b, 1, STR("\x01\xab\xff"));
    wire_put_i64(&b, 7, UINT64_MAX);
    wire_put_u64(&b, 6, 3);
    wire_put_i64(&b, 8, 0); /* zero is absent */
    check(SIGNAL_TRACES, &b,
          SPAN("\"traceId\":\"01abff\",\"kind\":3,\"startTimeUnixNano\":\"18446744073709551615\""));
}

static void what_is_repeated_or_split_is_merged(void **state)
{
    struct buf b = {0};
    size_t m = wire_begin(&b, 15);
    wire_put_u64(&b, 3, 2);
    wire_end(&b, m);
    m = wire_begin(&b, 9);
    wire_put_bytes(&b, 1, STR("a"));
    wire_end(&b, m);
    m = wire_begin(&b, 15);
    wire_put_bytes(&b, 2, STR("\"\n\xc3\xa9\xff"));
    wire_end(&b, m);
    m = wire_begin(&b, 9);
    wire_put_bytes(&b, 1, STR("b"));
    wire_end(&b, m);
    wire_put_bytes(&b, 5, STR("x"));
    wire_put_bytes(&b, 5, STR("y"));
    wire_put_bytes(&b, 999, STR("unknown"));
    wire_put_u64(&b, 5, 1); /* known number, other wire type: unknown, too */
    check(SIGNAL_TRACES, &b,
          SPAN("\"name\":\"y\",\"attributes\":[{\"key\":\"a\"},{\"key\":\"b\"}],"
               "\"status\":{\"message\":\"\\\"\\u000a\xc3\xa9\xef\xbf\xbd\",\"code\":2}"));
}

static void of_a_oneof_the_last_is_left(void **state)
{
    struct buf b = {0};
    size_t m = wire_begin(&b, 5);
    wire_put_bytes(&b, 1, STR("gone"));
    wire_put_u64(&b, 2, 0);
    wire_end(&b, m);
    check(SIGNAL_LOGS, &b, LOG("\"body\":{\"boolValue\":false}"));
}

static void doubles_that_json_lacks_are_strings(void **state)
{
    static const struct {
        double d;
        const char *text;
    } cases[] = {{NAN, "\"NaN\""},
                 {INFINITY, "\"Infinity\""},
                 {-INFINITY, "\"-Infinity\""},
                 {0.1, "0.1"},
                 {-0.0, "-0.0"},
                 {1e300, "1e+300"},
                 {1.0 / 3, "0.333333333333333315"},
                 {5, "5"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf b = {0};
        char want[128];
        size_t m = wire_begin(&b, 5);
        wire_put_double(&b, 4, cases[i].d);
        wire_end(&b, m);
        snprintf(want, sizeof(want), LOG("\"body\":{\"doubleValue\":%s}"), cases[i].text);
        int error;
        char *got = json_of(SIGNAL_LOGS, &b, &error);
        if (cases[i].d == 1.0 / 3)
            assert_true(strtod(strstr(got, "Value\":") + 7, NULL) == cases[i].d);
        else
            assert_string_equal(got, want);
        free(got);
        buf_fini(&b);
    }
}

/* Arrays within arrays; each level is two messages, AnyValue and ArrayValue. */
static void depth_is_bounded(void **state)
{
    for (int levels = 10; levels <= 60; levels += 50) {
        struct buf b = {0};
        size_t marks[128], n = 0;
        marks[n++] = wire_begin(&b, 5);
        for (int i = 0; i < levels; i++) {
            marks[n++] = wire_begin(&b, 5);
            marks[n++] = wire_begin(&b, 1);
        }
        while (n > 0)
            wire_end(&b, marks[--n]);
        int error;
        free(json_of(SIGNAL_LOGS, &b, &error));
        assert_int_equal(error, levels == 10 ? 0 : -EBADMSG);
        buf_fini(&b);
    }
}

static void malformed_bytes_latch(void **state)
{
    struct buf b = {0};
    int error;
    buf_add(&b, "\x2a\x05x", 3); /* body: 5 bytes of which one is there */
    free(json_of(SIGNAL_LOGS, &b, &error));
    assert_int_equal(error, -EBADMSG);
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_hex_and_times_are_strings),
        cmocka_unit_test(what_is_repeated_or_split_is_merged),
        cmocka_unit_test(of_a_oneof_the_last_is_left),
        cmocka_unit_test(doubles_that_json_lacks_are_strings),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(malformed_bytes_latch),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    pool_detach();
    return r;
}
