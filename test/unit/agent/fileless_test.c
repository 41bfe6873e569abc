/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/fileless.c"

static void clear(void)
{
    static const char *const names[] = {
        "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_TIMEOUT",  "OTEL_METRICS_EXPORTER",
        "OTEL_TRACES_EXPORTER",        "OTEL_SERVICE_NAME",
        "OTEL_RESOURCE_ATTRIBUTES",    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        "OTEL_EXPORTER_OTLP_INSECURE"};

    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        unsetenv(names[i]);
    buf_reset(&flags.ports);
    buf_reset(&flags.exes);
    buf_reset(&flags.pids);
    flags.all = flags.client_spans = false;
    flags.tier = flags.discovery = NULL;
}

#define HAS(text, part)                                                                            \
    do {                                                                                           \
        if (!strstr(text, part))                                                                   \
            fail_msg("no '%s' in:\n%s", part, text);                                               \
    } while (0)

static void nothing_said(void **ctx)
{
    struct err e;

    clear();
    assert_null(fileless_config(&e));
    assert_int_equal(e.text[0], 0);
    setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x:4317", 1);
    assert_null(fileless_config(&e));
    HAS(e.text, "--port");
}

static void rules_alone_are_a_selection(void **ctx)
{
    struct err e;
    char *y;

    clear();
    assert_int_equal(take_discovery("/etc/tailrace/rules.yaml", &e), 0);
    y = fileless_config(&e);
    HAS(y, "  ebpf:\n    discovery_file: '/etc/tailrace/rules.yaml'\n");
    free(y);
}

static void grpc_by_port(void **ctx)
{
    struct err e;
    char *y;

    clear();
    setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://gw:4317", 1);
    setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b$c'd, x=1", 1);
    setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2500", 1);
    setenv("OTEL_SERVICE_NAME", "shop", 1);
    assert_int_equal(take_port("8080, 8443", &e), 0);
    assert_int_equal(take_exe("*/nginx", &e), 0);
    y = fileless_config(&e);
    HAS(y, "ports: ['8080', '8443']");
    HAS(y, "executables: ['*/nginx']");
    HAS(y,
        "  otlp_grpc/traces:\n    endpoint: 'https://gw:4317'\n    tls:\n      insecure: false\n");
    HAS(y, "headers: {'api-key': 'a b$$c''d', 'x': '1'}");
    HAS(y, "timeout: 2500ms");
    HAS(y, "service_name: 'shop'");
    HAS(y, "exclude_endpoints: ['gw:4317', 'gw:4317']");
    HAS(y, "metrics: {receivers: [ebpf], processors: [batch], exporters: [otlp_grpc/metrics]}");
    free(y);
}

static void per_signal(void **ctx)
{
    struct err e;
    char *y;

    clear();
    flags.all = true;
    setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://gw:4318", 1);
    setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4318/custom", 1);
    setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc", 1);
    y = fileless_config(&e);
    HAS(y, "  otlp_http/traces:\n    traces_endpoint: 'http://t:4318/custom'");
    HAS(y, "  otlp_grpc/metrics:\n    endpoint: 'http://gw:4318'");
    HAS(y, "all: true");
    free(y);
    setenv("OTEL_METRICS_EXPORTER", "none", 1);
    setenv("OTEL_TRACES_EXPORTER", "console", 1);
    y = fileless_config(&e);
    HAS(y, "traces: {receivers: [ebpf], processors: [batch], exporters: [debug]}");
    assert_null(strstr(y, "metrics:"));
    free(y);
}

static void refused(void **ctx)
{
    struct err e;

    clear();
    flags.all = true;
    setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", 1);
    assert_null(fileless_config(&e));
    HAS(e.text, "http/json");
    unsetenv("OTEL_EXPORTER_OTLP_PROTOCOL");
    setenv("OTEL_TRACES_EXPORTER", "zipkin", 1);
    assert_null(fileless_config(&e));
    HAS(e.text, "zipkin");
    assert_int_equal(take_port("80,,81", &e), -EINVAL);
    clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_said), cmocka_unit_test(rules_alone_are_a_selection),
        cmocka_unit_test(grpc_by_port), cmocka_unit_test(per_signal),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
