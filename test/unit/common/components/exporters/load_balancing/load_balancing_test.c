/* SPDX-License-Identifier: Apache-2.0 */
/* The exporter's configuration: what is taken, what is refused and with which words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/components/exporters/load_balancing/load_balancing.c"
#include "common/pipeline/config.h"

static const struct component source = {
    .kind = KIND_RECEIVER, .name = "source", .signals = SIGNAL_ALL};
static const struct component *const registry[] = {&source, &load_balancing_component, NULL};

static int load(struct config **out, const char *body, struct buf *problems)
{
    char *text = xasprintf("yaml:receivers: {source: }\n"
                           "service: {pipelines: {traces: {receivers: [source], exporters: "
                           "[load_balancing]}}}\n"
                           "exporters:\n  load_balancing: %s\n",
                           body);
    struct config_source src = {text, false};
    buf_init(problems);
    int rc = config_load(out, &src, 1, registry, problems);
    free(text);
    return rc;
}

static void expect_refused(const char *body, const char *want)
{
    struct config *c;
    struct buf problems;
    assert_int_equal(load(&c, body, &problems), -EINVAL);
    assert_string_equal(buf_cstr(&problems), want);
    buf_fini(&problems);
}

static void refusals(void **state)
{
    static const char dns[] =
        "yaml:4:3: exporters::load_balancing: resolver: exactly one of static "
        "and dns is needed\n";
    expect_refused("", dns);
    expect_refused("{resolver: {}}", dns);
    expect_refused("{resolver: {static: {hostnames: [a]}, dns: {hostname: b}}}", dns);
    expect_refused("{resolver: {dns: {}}}",
                   "yaml:4:31: exporters::load_balancing::resolver::dns: key 'hostname' is "
                   "required\n");
    expect_refused("{resolver: {dns: {hostname: b, port: x}}}",
                   "yaml:4:3: exporters::load_balancing: resolver::dns::port: 'x' is no port\n");
    expect_refused(
        "{resolver: {k8s: {service: x}}}",
        "yaml:4:31: exporters::load_balancing::resolver: the Collector's key 'k8s' is not "
        "supported here: use dns with a headless service\n");
    expect_refused(
        "{routing_key: attributes, resolver: {static: {hostnames: [a]}}}",
        "yaml:4:33: exporters::load_balancing::routing_key: 'attributes' is none of \"\", "
        "traceID, service\n");
    expect_refused(
        "{protocol: {otlp: {endpoint: x:1}}, resolver: {static: {hostnames: [a]}}}",
        "yaml:4:3: exporters::load_balancing: protocol::otlp::endpoint is each backend's "
        "own: name them under resolver\n");
    expect_refused(
        "{protocol: {otlp: {timout: 1s}}, resolver: {static: {hostnames: [a]}}}",
        "yaml:4:38: exporters::load_balancing::protocol::otlp: unknown key 'timout' (did "
        "you mean 'timeout'?)\n");
}

static void defaults(void **state)
{
    struct config *config;
    struct buf problems;
    assert_int_equal(load(&config, "{resolver: {dns: {hostname: gw}}}", &problems), 0);
    assert_string_equal(buf_cstr(&problems), "");
    const struct config_component *all = config->components.items;
    const struct lb_config *c = all[1].config;
    assert_int_equal(c->routing_key, ROUTE_DEFAULT);
    assert_true(c->resolver.dns_on);
    assert_false(c->resolver.static_on);
    assert_string_equal(c->resolver.hostname, "gw");
    assert_string_equal(c->resolver.port, "4317");
    assert_true(c->resolver.interval_ns == 5000000000);
    assert_true(c->resolver.timeout_ns == 1000000000);
    assert_true(c->otlp.queue.queue_on);
    assert_int_equal(c->otlp.queue.queue_size, 1000);
    assert_true(c->otlp.queue.timeout_ns == 5000000000);
    assert_int_equal(c->otlp.compression, COMPRESS_GZIP);
    config_free(&config);
    buf_fini(&problems);
}

static void a_sub_exporter_has_the_configuration_but_its_own_endpoint(void **state)
{
    struct lb_config c = {.otlp = {.endpoint = "", .authority = "x"}};
    struct otlp_grpc_config *sub = sub_config(&c, "b:1");
    assert_string_equal(sub->endpoint, "b:1");
    assert_string_equal(sub->authority, "x");
    free(sub);
}

static void only_equal_protocols_are_taken_over(void **state)
{
    struct config *a, *b;
    struct buf problems;
    static const struct {
        const char *body;
        bool same;
    } cases[] = {
        {"{resolver: {static: {hostnames: [a, b]}}}", true},
        {"{protocol: {otlp: {timeout: 5s}}, resolver: {dns: {hostname: x}}}", true},
        {"{protocol: {otlp: {timeout: 4s}}, resolver: {static: {hostnames: [a]}}}", false},
        {"{protocol: {otlp: {headers: {k: v}}}, resolver: {static: {hostnames: [a]}}}", false},
        {"{protocol: {otlp: {tls: {insecure: true}}}, resolver: {static: {hostnames: [a]}}}",
         false},
    };
    assert_int_equal(load(&a, "{resolver: {static: {hostnames: [a]}}}", &problems), 0);
    buf_fini(&problems);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(load(&b, cases[i].body, &problems), 0);
        const struct config_component *x = a->components.items, *y = b->components.items;
        assert_int_equal(same_protocol(x[1].config, y[1].config), cases[i].same);
        config_free(&b);
        buf_fini(&problems);
    }
    config_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refusals),
        cmocka_unit_test(defaults),
        cmocka_unit_test(a_sub_exporter_has_the_configuration_but_its_own_endpoint),
        cmocka_unit_test(only_equal_protocols_are_taken_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
