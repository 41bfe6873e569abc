/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/log.h"
#include "common/pipeline/config.h"
#include "common/pipeline/option_print.h"
#include "test/unit/common/pipeline/sample_components.h"

/* Line numbers of the tests count from this text's first line. */
#define COMPONENTS                                                                                 \
    "receivers: {otlp: {protocols: {grpc: }}}\n"                                                   \
    "exporters: {debug: , otlp_grpc/b: {endpoint: 'b:4317'}}\n"

struct fixture {
    struct config *config;
    struct buf problems;
    int rc;
};

static void load_with(struct fixture *f, const char *text, const char *set)
{
    char *yaml = xasprintf("yaml:%s", text);
    struct config_source src[] = {{yaml, false}, {set, true}};
    buf_init(&f->problems);
    f->rc = config_load(&f->config, src, set ? 2 : 1, sample_components, &f->problems);
    free(yaml);
}

static void load(struct fixture *f, const char *text)
{
    load_with(f, text, NULL);
}

static void end(struct fixture *f)
{
    config_free(&f->config);
    buf_fini(&f->problems);
}

static void load_good(struct fixture *f, const char *text)
{
    load(f, text);
    if (f->rc < 0 || f->problems.n)
        fail_msg("%s", buf_cstr(&f->problems));
    assert_non_null(f->config);
}

static void expect_problems(const char *text, const char *want)
{
    struct fixture f;
    load(&f, text);
    assert_string_equal(buf_cstr(&f.problems), want);
    assert_int_equal(f.rc, -EINVAL);
    assert_null(f.config);
    end(&f);
}

static const char *id_at(const struct option_list *l, size_t i)
{
    return ((const char **)l->items)[i];
}

static void loads_components_and_pipelines(void **state)
{
    struct fixture f;
    load_good(&f, "receivers:\n"
                  "  otlp:\n"
                  "    protocols:\n"
                  "      grpc:\n"
                  "processors:\n"
                  "  batch/slow:\n"
                  "    timeout: 5s\n"
                  "exporters:\n"
                  "  otlp_grpc:\n"
                  "    endpoint: gw:4317\n"
                  "connectors:\n"
                  "  span_metrics:\n"
                  "extensions:\n"
                  "  health_check:\n"
                  "service:\n"
                  "  extensions: [health_check]\n"
                  "  pipelines:\n"
                  "    traces/a:\n"
                  "      receivers: [otlp]\n"
                  "      processors: [batch/slow]\n"
                  "      exporters: [otlp_grpc, span_metrics]\n"
                  "    metrics:\n"
                  "      receivers: [span_metrics]\n"
                  "      exporters: [otlp_grpc]\n"
                  "  telemetry:\n"
                  "    logs: {level: DEBUG, encoding: json}\n"
                  "    resource: {service.name: x, service.version: null}\n");
    assert_int_equal(f.config->components.n, 5);
    assert_int_equal(f.config->pipelines.n, 2);
    const struct config_pipeline *p = f.config->pipelines.items;
    assert_string_equal(p[0].id, "traces/a");
    assert_int_equal(p[0].signal, SIGNAL_TRACES);
    assert_int_equal(p[0].exporters.n, 2);
    assert_string_equal(id_at(&p[0].processors, 0), "batch/slow");
    assert_string_equal(id_at(&p[1].receivers, 0), "span_metrics");
    const struct config_component *c = f.config->components.items;
    assert_ptr_equal(c[1].component, &sample_batch);
    assert_true(((const struct sample_batch *)c[1].config)->timeout == 5000000000);
    assert_int_equal(((const struct sample_batch *)c[1].config)->size, 8192);
    assert_int_equal(c[1].mark.line, 6);
    assert_string_equal(id_at(&f.config->extensions, 0), "health_check");
    assert_int_equal(f.config->telemetry.logs_level, LOG_DEBUG);
    assert_true(f.config->telemetry.logs_json);
    assert_true(f.config->telemetry.metrics_on);
    assert_int_equal(f.config->telemetry.metrics_port, 8888);
    const struct option_pair *r = f.config->telemetry.resource.items;
    assert_string_equal(r[0].value, "x");
    assert_null(r[1].value);
    assert_true(f.config->shutdown_timeout_ns == 15000000000);
    end(&f);
}

static void old_names_are_taken_with_a_warning(void **state)
{
    struct fixture f;
    load(&f, "receivers: {otlp: {protocols: {grpc: }}}\n"
             "exporters: {otlp/b: {endpoint: 'b:1'}}\n"
             "service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp/b]}}}\n");
    assert_int_equal(f.rc, 0);
    assert_string_equal(
        buf_cstr(&f.problems),
        "yaml:2:13: warning: exporters::otlp/b: 'otlp' is an old name of the exporter "
        "'otlp_grpc'\n");
    const struct config_component *c = f.config->components.items;
    assert_ptr_equal(c[1].component, &sample_otlp_grpc);
    assert_string_equal(c[1].id, "otlp/b"); /* the id stays as written */
    end(&f);
}

static void sets_lie_over_files(void **state)
{
    struct fixture f;
    load_with(
        &f,
        COMPONENTS
        "service: {pipelines: {traces: {receivers: [otlp], exporters: [debug, otlp_grpc/b]}}}\n",
        "exporters.otlp_grpc/b.endpoint=c:1");
    assert_int_equal(f.rc, 0);
    const struct config_component *c = f.config->components.items;
    assert_string_equal(((const struct sample_exporter *)c[2].config)->endpoint, "c:1");
    end(&f);
    load_with(
        &f, COMPONENTS "service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\n",
        "exporters.otlp_grpc/b.endpoint=c");
    assert_int_equal(f.rc, -EINVAL);
    assert_string_equal(
        buf_cstr(&f.problems),
        "--set exporters.otlp_grpc/b.endpoint=c:1:1: exporters::otlp_grpc/b::endpoint: "
        "'c' is no endpoint: it has no port; write host:port\n");
    end(&f);
}

#define PIPE(body) COMPONENTS "service:\n  pipelines:\n" body

static void problems_of_names(void **state)
{
    expect_problems("receivers: {otlp: {protocols: {grpc: }}}\n"
                    "exporters:\n"
                    "  kafka: {brokers: [x]}\n"
                    "  debgu:\n"
                    "service: {pipelines: {traces: {receivers: [otlp], exporters: [kafka]}}}\n",
                    "yaml:3:3: exporters::kafka: no such exporter in this build\n"
                    "yaml:4:3: exporters::debgu: no such exporter in this build (did you mean "
                    "'debug'?)\n");
    expect_problems(
        COMPONENTS "processors: {otlp_grpc: }\n"
                   "service: {pipelines: {traces: {receivers: [otlp], exporters: "
                   "[debug]}}}\n",
        "yaml:3:14: processors::otlp_grpc: no such processor in this build ('otlp_grpc' "
        "is an exporter)\n");
    expect_problems(COMPONENTS "exporter: {}\n"
                               "service: {pipelines: {traces: {receivers: [otlp], exporters: "
                               "[debug]}}}\n",
                    "yaml:3:1: unknown key 'exporter' (did you mean 'exporters'?)\n");
    expect_problems(COMPONENTS "processors: {batch: {send_batch_sise: 5}}\n"
                               "service: {pipelines: {traces: {receivers: [otlp], exporters: "
                               "[debug]}}}\n",
                    "yaml:3:22: processors::batch: unknown key 'send_batch_sise' (did you mean "
                    "'send_batch_size'?)\n");
    expect_problems("receivers: {otlp: }\nexporters: {debug: , otlp_grpc: }\n"
                    "service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\n",
                    "yaml:1:13: receivers::otlp: no protocol is switched on\n"
                    "yaml:2:22: exporters::otlp_grpc: key 'endpoint' is required\n");
}

static void problems_come_in_the_order_of_their_places(void **state)
{
    struct fixture f;
    struct config_source src[] = {{"yaml:service: {pipelines: {traces: {receivers: [x], exporters: "
                                   "[y]}}}\nexporters:\n  kafka:\nreceivers:\n  otpl:\n",
                                   false},
                                  {"exporters.debug=5", true}};
    buf_init(&f.problems);
    f.rc = config_load(&f.config, src, 2, sample_components, &f.problems);
    assert_string_equal(
        buf_cstr(&f.problems),
        "yaml:1:44: service::pipelines::traces::receivers[0]: receiver 'x' is not "
        "defined\n"
        "yaml:1:60: service::pipelines::traces::exporters[0]: exporter 'y' is not "
        "defined\n"
        "yaml:3:3: exporters::kafka: no such exporter in this build\n"
        "yaml:5:3: receivers::otpl: no such receiver in this build (did you mean "
        "'otlp'?)\n"
        "--set exporters.debug=5:1:1: exporters::debug: expected a mapping of keys, "
        "found a single value\n");
    end(&f);
}

static void problems_of_pipelines(void **state)
{
    expect_problems(PIPE("    traces: {receivers: [otlp], exporters: [dbug]}\n"),
                    "yaml:5:45: service::pipelines::traces::exporters[0]: exporter 'dbug' is not "
                    "defined (did you mean 'debug'?)\n");
    expect_problems(
        PIPE("    traces: {receivers: [otlp]}\n"),
        "yaml:5:5: service::pipelines::traces::exporters: a pipeline needs at least one "
        "exporter\n");
    expect_problems(
        PIPE("    traces: {receivers: [], exporters: [debug]}\n"),
        "yaml:5:25: service::pipelines::traces::receivers: a pipeline needs at least one "
        "receiver\n");
    expect_problems(PIPE("    spans: {receivers: [otlp], exporters: [debug]}\n"),
                    "yaml:5:5: service::pipelines::spans: 'spans' is no signal of this build\n");
    expect_problems(
        PIPE("    trace: {receivers: [otlp], exporters: [debug]}\n"),
        "yaml:5:5: service::pipelines::trace: 'trace' is no signal of this build (did you "
        "mean 'traces'?)\n");
    expect_problems(
        PIPE("    traces: {receivers: [otlp], exporter: [debug], exporters: [debug]}\n"),
        "yaml:5:33: service::pipelines::traces: unknown key 'exporter' (did you mean "
        "'exporters'?)\n");
    expect_problems(COMPONENTS "service: {pipelines: }\n",
                    "yaml:3:10: service::pipelines: at least one pipeline is needed\n");
    expect_problems(COMPONENTS, "yaml: service::pipelines: at least one pipeline is needed\n");
    expect_problems(
        "receivers: {span_source: }\nexporters: {debug: }\n"
        "service: {pipelines: {metrics: {receivers: [span_source], exporters: "
        "[debug]}}}\n",
        "yaml:3:45: service::pipelines::metrics::receivers[0]: receiver 'span_source' does "
        "not make metrics\n");
    expect_problems(
        COMPONENTS "processors: {batch: }\n"
                   "service: {pipelines: {traces: {receivers: [otlp], processors: [batch, "
                   "batch], exporters: [debug]}}}\n",
        "yaml:4:71: service::pipelines::traces::processors[1]: processor 'batch' stands "
        "twice in this pipeline\n");
    expect_problems(
        COMPONENTS "service: {extensions: [health_chek], pipelines: {traces: {receivers: "
                   "[otlp], exporters: [debug]}}}\nextensions: {health_check: }\n",
        "yaml:3:24: service::extensions[0]: extension 'health_chek' is not defined (did "
        "you mean 'health_check'?)\n");
}

static void a_text_is_a_list_with_commas(void **state)
{
    struct fixture f;
    load_good(&f, COMPONENTS
              "extensions: {health_check: }\n"
              "service: {extensions: health_check, pipelines: {traces: {receivers: otlp, "
              "exporters: 'debug,otlp_grpc/b'}}}\n");
    const struct config_pipeline *p = f.config->pipelines.items;
    assert_string_equal(id_at(&p->exporters, 1), "otlp_grpc/b");
    assert_int_equal(f.config->extensions.n, 1);
    end(&f);
}

static void problems_of_connectors(void **state)
{
    expect_problems(
        "receivers: {otlp: {protocols: {grpc: }}}\n"
        "exporters: {debug: }\n"
        "connectors: {span_metrics: }\n"
        "service: {pipelines: {traces: {receivers: [otlp], exporters: [debug, "
        "span_metrics]}}}\n",
        "yaml:3:14: connectors::span_metrics: exporter of pipeline 'traces', but receiver "
        "of no pipeline that it can make traces into\n");
    expect_problems(
        "receivers: {otlp: {protocols: {grpc: }}}\n"
        "exporters: {debug: }\n"
        "connectors: {span_metrics: }\n"
        "service: {pipelines: {metrics: {receivers: [otlp, span_metrics], exporters: "
        "[debug]}}}\n",
        "yaml:3:14: connectors::span_metrics: receiver of pipeline 'metrics', but exporter "
        "of no pipeline that it can make metrics from\n");
    expect_problems("receivers: {otlp: {protocols: {grpc: }}}\n"
                    "exporters: {debug: }\n"
                    "connectors: {forward/x: , forward/y: }\n"
                    "service:\n"
                    "  pipelines:\n"
                    "    traces/in: {receivers: [otlp], exporters: [forward/x]}\n"
                    "    traces/a: {receivers: [forward/x], exporters: [forward/y]}\n"
                    "    traces/b: {receivers: [forward/y], exporters: [forward/x, debug]}\n",
                    "yaml:7:5: service::pipelines::traces/a: its output comes back to it through "
                    "connectors\n"
                    "yaml:8:5: service::pipelines::traces/b: its output comes back to it through "
                    "connectors\n");
    struct fixture f;
    load_good(&f, "receivers: {otlp: {protocols: {grpc: }}}\n"
                  "exporters: {debug: }\n"
                  "connectors: {forward: }\n"
                  "service:\n"
                  "  pipelines:\n"
                  "    traces/in: {receivers: [otlp], exporters: [forward]}\n"
                  "    traces/out: {receivers: [forward], exporters: [debug]}\n"
                  "    logs/in: {receivers: [otlp], exporters: [forward]}\n"
                  "    logs/out: {receivers: [forward], exporters: [debug]}\n");
    end(&f);
}

#define TELEMETRY(body)                                                                            \
    "receivers: {otlp: {protocols: {grpc: }}}\nexporters: {debug: }\n"                             \
    "service:\n  pipelines: {traces: {receivers: [otlp], exporters: [debug]}}\n"                   \
    "  telemetry:\n" body

static void telemetry(void **state)
{
    struct fixture f;
    load_good(&f, TELEMETRY("    metrics:\n"
                            "      level: detailed\n"
                            "      readers: [{pull: {exporter: {prometheus: {host: 0.0.0.0, port: "
                            "9999, without_units: false}}}}]\n"));
    assert_string_equal(f.config->telemetry.metrics_host, "0.0.0.0");
    assert_int_equal(f.config->telemetry.metrics_port, 9999);
    assert_int_equal(f.config->telemetry.metrics_level, 3);
    assert_true(f.config->telemetry.without_type_suffix);
    assert_false(f.config->telemetry.without_units);
    end(&f);
    load_good(&f, TELEMETRY("    metrics: {level: none, readers: []}\n"));
    assert_false(f.config->telemetry.metrics_on);
    end(&f);
    expect_problems(TELEMETRY("    metrics: {readers: []}\n"),
                    "yaml:6:24: service::telemetry::metrics::readers: no reader although "
                    "metrics::level is not none\n");
    expect_problems(TELEMETRY("    metrics: {readers: [{periodic: {}}]}\n"),
                    "yaml:6:25: service::telemetry::metrics::readers: expected pull: {exporter: "
                    "{prometheus: {host: ..., port: ...}}}\n"
                    "yaml:6:26: service::telemetry::metrics::readers[0]: the Collector's key "
                    "'periodic' is not supported here: scrape the Prometheus reader\n");
    expect_problems(
        TELEMETRY("    metrics: {readers: [{pull: {exporter: {prometheus: {host: h}}}}]}\n"),
        "yaml:6:44: "
        "service::telemetry::metrics::readers[0]::pull::exporter::prometheus: key 'port' "
        "is required\n");
    expect_problems(
        TELEMETRY("    logs: {level: loud}\n"),
        "yaml:6:19: service::telemetry::logs::level: 'loud' is none of debug, info, warn, "
        "error\n");
}

static void an_unused_component_is_said(void **state)
{
    struct fixture f;
    load(&f,
         COMPONENTS "service: {pipelines: {traces: {receivers: [otlp], exporters: [debug]}}}\n");
    assert_int_equal(f.rc, 0);
    assert_string_equal(buf_cstr(&f.problems),
                        "yaml:2:22: warning: exporters::otlp_grpc/b: defined, "
                        "but no pipeline names it\n");
    end(&f);
}

static void what_is_printed_loads_again(void **state)
{
    struct fixture f, g;
    struct buf once, twice;
    buf_init(&once);
    buf_init(&twice);
    load_good(
        &f,
        "receivers: {otlp: {protocols: {grpc: }}}\n"
        "exporters: {debug: , otlp_grpc/b: {endpoint: 'b:4317', token: hunter2}}\n"
        "service: {pipelines: {traces: {receivers: [otlp], exporters: [debug, "
        "otlp_grpc/b]}}, telemetry: {resource: {a: null, b: '5', c: '$$$${HOME}$$', '${k}': 1}}}\n");
    config_print(f.config, false, &once);
    load_good(&g, buf_cstr(&once));
    config_print(g.config, false, &twice);
    assert_string_equal(buf_cstr(&once), buf_cstr(&twice));
    buf_reset(&once);
    config_print(f.config, true, &once);
    assert_null(strstr(buf_cstr(&once), "hunter2"));
    end(&f);
    end(&g);
    buf_fini(&once);
    buf_fini(&twice);
}

static void memory_refused_is_an_error_not_a_crash(void **state)
{
    /* Fails each allocation in turn until the load goes through. */
    static const char text[] =
        "yaml:" COMPONENTS "service: {pipelines: {traces: {receivers: [otlp], exporters: [debug, "
        "otlp_grpc/b]}}}\n";
    struct config_source src = {text, false};
    unsigned n = 1;
    for (;; n++) {
        struct config *c = NULL;
        struct buf problems;
        buf_init(&problems);
        mem_fail_after(n);
        int rc = config_load(&c, &src, 1, sample_components, &problems);
        mem_fail_after(0);
        bool good = rc == 0 && !buf_error(&problems);
        config_free(&c);
        buf_fini(&problems);
        if (good)
            break;
        assert_true(n < 1000);
    }
    assert_true(n > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loads_components_and_pipelines),
        cmocka_unit_test(old_names_are_taken_with_a_warning),
        cmocka_unit_test(sets_lie_over_files),
        cmocka_unit_test(problems_of_names),
        cmocka_unit_test(problems_come_in_the_order_of_their_places),
        cmocka_unit_test(problems_of_pipelines),
        cmocka_unit_test(a_text_is_a_list_with_commas),
        cmocka_unit_test(problems_of_connectors),
        cmocka_unit_test(telemetry),
        cmocka_unit_test(an_unused_component_is_said),
        cmocka_unit_test(what_is_printed_loads_again),
        cmocka_unit_test(memory_refused_is_an_error_not_a_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
