/* SPDX-License-Identifier: Apache-2.0 */
/* The export protocol's small messages against bytes written by hand, and against broken ones. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/otlp/encode.h"

#define URL "\x0a\x28type.googleapis.com/google.rpc.RetryInfo"
#define DELAY "\x12\x0a\x0a\x08\x08\x02\x10\x80\xca\xb5\xee\x01" /* 2 s and 500,000,000 ns */

struct read {
    int result, code;
    char text[16];
    struct retry_hint hint;
};

static struct read read_status(struct str s)
{
    struct read r = {0};
    char *copy = xstrndup(s.p, s.n); /* of that length: ASan sees what is read past it */
    r.result = decode_rpc_status(str_make(copy, s.n), &r.code, r.text, sizeof(r.text), &r.hint);
    free(copy);
    return r;
}

static void status_has_the_bytes_of_the_protocol(void **state)
{
    struct buf b = {0};
    encode_rpc_status(&b, 14, "full", 2500);
    assert_true(str_eq(buf_str(&b), STR("\x08\x0e\x12\x04"
                                        "full\x1a\x36" URL DELAY)));
    buf_reset(&b);
    encode_rpc_status(&b, 0, NULL, 0);
    assert_int_equal(b.n, 0);
    encode_rpc_status(&b, 3, "", 0);
    assert_true(str_eq(buf_str(&b), STR("\x08\x03")));
    buf_fini(&b);
}

static void what_is_written_is_read(void **state)
{
    static const uint64_t waits[] = {0, 1, 999, 1000, 30500, 86400000};
    for (size_t i = 0; i < ARRAY_LEN(waits); i++) {
        struct buf b = {0};
        encode_rpc_status(&b, 8, "0123456789abcdefg", waits[i]);
        struct read r = read_status(buf_str(&b));
        assert_int_equal(r.result, 0);
        assert_int_equal(r.code, 8);
        assert_string_equal(r.text, "0123456789abcde"); /* as much as there is room for */
        assert_int_equal(r.hint.is_there, waits[i] > 0);
        assert_int_equal(r.hint.delay_ms, waits[i]);
        buf_fini(&b);
    }
}

static void details_of_other_types_are_passed_over(void **state)
{
    struct read r = read_status(STR("\x1a\x0b\x0a\x03"
                                    "a/b\x12\x04\x0a\x09xx"
                                    "\x1a\x36" URL DELAY "\x08\x0e"));
    assert_int_equal(r.result, 0);
    assert_int_equal(r.code, 14);
    assert_int_equal(r.hint.delay_ms, 2500);
    /* the type behind the value; a type that only begins like it */
    assert_int_equal(read_status(STR("\x1a\x36" DELAY URL)).hint.delay_ms, 2500);
    r = read_status(STR("\x1a\x37\x0a\x29type.googleapis.com/google.rpc.RetryInfos" DELAY));
    assert_int_equal(r.result, 0);
    assert_false(r.hint.is_there);
    assert_int_equal(r.hint.delay_ms, 0);
    /* RetryInfo without a delay: there all the same, which makes RESOURCE_EXHAUSTED retryable */
    r = read_status(STR("\x1a\x2a" URL));
    assert_true(r.hint.is_there);
    assert_int_equal(r.hint.delay_ms, 0);
}

static void absurd_delays_are_no_hint(void **state)
{
    /* -1 s; 2,000,000,000 ns */
    assert_int_equal(read_status(STR("\x1a\x39" URL "\x12\x0d\x0a\x0b\x08"
                                     "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
                         .hint.delay_ms,
                     0);
    assert_int_equal(
        read_status(STR("\x1a\x34" URL "\x12\x08\x0a\x06\x10\x80\xa8\xd6\xb9\x07")).hint.delay_ms,
        0);
}

static void broken_messages_are_refused(void **state)
{
    int64_t rejected;
    char text[8];
    assert_int_equal(read_status(STR("\x12\x05"
                                     "abc"))
                         .result,
                     -EBADMSG);
    assert_int_equal(read_status(STR("\x1a\x02\x0a\x7f")).result, -EBADMSG);
    assert_int_equal(read_status(STR("\xff\xff\xff\xff\xff\xff")).result, -EBADMSG);
    assert_int_equal(decode_export_response(STR("\x0a\x03\x08"), &rejected, text, sizeof(text)),
                     -EBADMSG);
}

static void partial_success_is_read(void **state)
{
    int64_t rejected = 5;
    char text[8] = "before";
    assert_int_equal(decode_export_response(STR(""), &rejected, text, sizeof(text)), 0);
    assert_int_equal(rejected, 0);
    assert_string_equal(text, "");
    /* unknown fields around it, the message in two pieces, a text that is too long */
    assert_int_equal(
        decode_export_response(STR("\x52\x01x\x0a\x05\x08\x2a\x9a\x06\x00\x0a\x0b\x12\x09"
                                   "too large"),
                               &rejected, text, sizeof(text)),
        0);
    assert_int_equal(rejected, 42);
    assert_string_equal(text, "too lar");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_has_the_bytes_of_the_protocol),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(details_of_other_types_are_passed_over),
        cmocka_unit_test(absurd_delays_are_no_hint),
        cmocka_unit_test(broken_messages_are_refused),
        cmocka_unit_test(partial_success_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
