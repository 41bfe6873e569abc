/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/base/mem.h"
#include "common/pipeline/option_value.h"

static void kinds_of_plain_words(void **state)
{
    static const struct {
        const char *text;
        enum value_kind kind;
    } cases[] = {
        {"", VALUE_NULL},
        {"~", VALUE_NULL},
        {"null", VALUE_NULL},
        {"nULL", VALUE_STRING},
        {"true", VALUE_BOOL},
        {"False", VALUE_BOOL},
        {"yes", VALUE_STRING},
        {"on", VALUE_STRING},
        {"0", VALUE_INT},
        {"-17", VALUE_INT},
        {"+17", VALUE_INT},
        {"0x1F", VALUE_INT},
        {"0o17", VALUE_INT},
        {"017", VALUE_INT},
        {"0b101", VALUE_INT},
        {"1_000", VALUE_INT},
        {"09", VALUE_FLOAT},
        {"1.5", VALUE_FLOAT},
        {".5", VALUE_FLOAT},
        {"1.", VALUE_FLOAT},
        {"1e3", VALUE_FLOAT},
        {"1e", VALUE_STRING},
        {".", VALUE_STRING},
        {"-", VALUE_STRING},
        {".inf", VALUE_FLOAT},
        {"-.Inf", VALUE_FLOAT},
        {".nan", VALUE_FLOAT},
        {"inf", VALUE_STRING},
        {"nan", VALUE_STRING},
        {"0x", VALUE_STRING},
        {"0xg", VALUE_STRING},
        {"1.2.3", VALUE_STRING},
        {"5s", VALUE_STRING},
        {"_1", VALUE_STRING},
        {"1_000.5", VALUE_FLOAT},
        {"1e400", VALUE_STRING},
        {"9223372036854775807", VALUE_INT},
        {"9223372036854775808", VALUE_FLOAT},
        {"-9223372036854775808", VALUE_INT},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (value_kind(cases[i].text) != cases[i].kind)
            fail_msg("'%s' is of kind %d", cases[i].text, value_kind(cases[i].text));
}

static void integers(void **state)
{
    int64_t i;
    uint64_t u;
    assert_int_equal(value_int("-9223372036854775808", &i), 0);
    assert_true(i == INT64_MIN);
    assert_int_equal(value_int("-9223372036854775809", &i), -ERANGE);
    assert_int_equal(value_int("0755", &i), 0);
    assert_int_equal(i, 493);
    assert_int_equal(value_int("0o755", &i), 0);
    assert_int_equal(i, 493);
    assert_int_equal(value_int("0xFf", &i), 0);
    assert_int_equal(i, 255);
    assert_int_equal(value_int("-0b11", &i), 0);
    assert_int_equal(i, -3);
    assert_int_equal(value_int("089", &i), -EINVAL);
    assert_int_equal(value_int("", &i), -EINVAL);
    assert_int_equal(value_int("12a", &i), -EINVAL);
    assert_int_equal(value_uint("18446744073709551615", &u), 0);
    assert_true(u == UINT64_MAX);
    assert_int_equal(value_uint("18446744073709551616", &u), -ERANGE);
    assert_int_equal(value_uint("-1", &u), -ERANGE);
}

static void doubles(void **state)
{
    double d;
    assert_int_equal(value_double("1.25e2", &d), 0);
    assert_true(d == 125);
    assert_int_equal(value_double("-7", &d), 0);
    assert_true(d == -7);
    assert_int_equal(value_double("-.inf", &d), 0);
    assert_true(isinf(d) && d < 0);
    assert_int_equal(value_double("1,5", &d), -EINVAL);
    assert_int_equal(value_double("0x1p3", &d), -EINVAL);
}

static void durations(void **state)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {
        {"0", 0},
        {"200ms", 200000000},
        {"1h2m3.5s", 3723500000000},
        {"1.5h", 5400000000000},
        {"100us", 100000},
        {"100\xc2\xb5s", 100000},
        {"100\xce\xbcs", 100000},
        {"7ns", 7},
        {"30", 30},
        {".5s", 500000000},
        {"+2s", 2000000000},
        {"2562047h47m16.854775807s", INT64_MAX},
        {"0.1234567891234567s", 123456789},
    };
    uint64_t ns;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_int_equal(value_duration(good[i].text, &ns), 0);
        if (ns != good[i].ns)
            fail_msg("%s is %llu", good[i].text, (unsigned long long)ns);
    }
    static const char *const bad[] = {"",    "s",  "5 s", "5parsec", "1.5",
                                      "1h2", ".s", "-",   "5s!",     "1..5s"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (value_duration(bad[i], &ns) != -EINVAL)
            fail_msg("'%s' was taken", bad[i]);
    assert_int_equal(value_duration("-1s", &ns), -ERANGE);
    assert_int_equal(value_duration("-5", &ns), -ERANGE);
    assert_int_equal(value_duration("2562048h", &ns), -ERANGE);
    assert_int_equal(value_duration("99999999999999999999999h", &ns), -ERANGE);
}

static void duration_texts_read_back(void **state)
{
    static const struct {
        uint64_t ns;
        const char *text;
    } cases[] = {
        {0, "0s"},
        {200000000, "200ms"},
        {1500000000, "1.5s"},
        {90000000000, "1m30s"},
        {3600000000000, "1h"},
        {3661000000000, "1h1m1s"},
        {1001, "1001ns"},
        {15000, "15us"},
        {60000000001, "1m0.000000001s"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char out[48];
        uint64_t back;
        value_duration_text(cases[i].ns, out, sizeof(out));
        assert_string_equal(out, cases[i].text);
        assert_int_equal(value_duration(out, &back), 0);
        assert_true(back == cases[i].ns);
    }
}

static void endpoints(void **state)
{
    static const char *const good[] = {"localhost:4317", ":8888",     "[::1]:4317",
                                       "10.0.0.1:0",     "https://x", "dns:///gw:4317",
                                       "unix:///run/x"};
    static const char *const bad[] = {"localhost", "::1:4317", "[::1]", "x:70000", "x:http",
                                      "x:",        "a b:1",    "://x",  "http://", "[::1:4317"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (value_endpoint_fault(good[i]))
            fail_msg("'%s': %s", good[i], value_endpoint_fault(good[i]));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (!value_endpoint_fault(bad[i]))
            fail_msg("'%s' was taken", bad[i]);
}

static void ids(void **state)
{
    static const char *const good[] = {"otlp", "otlp/2", "otlp_grpc/a.b-c", "x/\xc3\xa9",
                                       "A9_/b/c"};
    static const char *const bad[] = {"",    "/x",  "otlp/",    "9a",
                                      "a b", "a-b", "otlp/a b", "otlp/a=b"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        if (value_id_fault(good[i]))
            fail_msg("'%s': %s", good[i], value_id_fault(good[i]));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (!value_id_fault(bad[i]))
            fail_msg("'%s' was taken", bad[i]);
    assert_true(str_is(value_id_type("otlp/a/b"), "otlp"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds_of_plain_words),
        cmocka_unit_test(integers),
        cmocka_unit_test(doubles),
        cmocka_unit_test(durations),
        cmocka_unit_test(duration_texts_read_back),
        cmocka_unit_test(endpoints),
        cmocka_unit_test(ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
