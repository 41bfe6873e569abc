/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/pipeline/telemetry.h"

static const struct metric_desc spans = {
    "receiver_accepted_spans", "h", "{spans}", METRIC_KIND_COUNTER, LEVEL_BASIC, NULL, 0};
static const struct metric_desc uptime = {"process_uptime", "h",  "s", METRIC_KIND_COUNTER,
                                          LEVEL_BASIC,      NULL, 0};
static const struct metric_desc cpu = {"process_cpu_seconds", "h",  "s", METRIC_KIND_COUNTER,
                                       LEVEL_BASIC,           NULL, 0};
static const struct metric_desc rss = {"process_memory_rss", "h",  "By", METRIC_KIND_GAUGE,
                                       LEVEL_BASIC,          NULL, 0};

static void expect(const struct metric_desc *d, const char *want)
{
    struct buf b;
    buf_init(&b);
    telemetry_name(d, &b);
    assert_string_equal(buf_cstr(&b), want);
    buf_fini(&b);
}

static void bare_by_default(void **state)
{
    expect(&spans, "otelcol_receiver_accepted_spans");
    expect(&uptime, "otelcol_process_uptime");
    expect(&rss, "otelcol_process_memory_rss");
}

static void suffixed_when_asked(void **state)
{
    telemetry_set_names(true, true);
    expect(&spans, "otelcol_receiver_accepted_spans_total");
    expect(&uptime, "otelcol_process_uptime_seconds_total");
    expect(&cpu, "otelcol_process_cpu_seconds_total");
    expect(&rss, "otelcol_process_memory_rss_bytes");
    telemetry_set_names(true, false);
    expect(&uptime, "otelcol_process_uptime_total");
    telemetry_set_names(false, false);
}

static void exposes_them_once_each(void **state)
{
    struct label one = {"receiver", "a"}, two = {"receiver", "b"};
    struct buf b;
    series_add(telemetry_series(&spans, &one, 1), 3);
    series_add(telemetry_series(&spans, &two, 1), 4);
    buf_init(&b);
    telemetry_set_names(true, true);
    telemetry_expose(&b);
    telemetry_set_names(false, false);
    assert_string_equal(buf_cstr(&b), "# HELP otelcol_receiver_accepted_spans_total h\n"
                                      "# TYPE otelcol_receiver_accepted_spans_total counter\n"
                                      "otelcol_receiver_accepted_spans_total{receiver=\"a\"} 3\n"
                                      "otelcol_receiver_accepted_spans_total{receiver=\"b\"} 4\n");
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bare_by_default),
        cmocka_unit_test(suffixed_when_asked),
        cmocka_unit_test(exposes_them_once_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
