/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

/* The running half is another file's; here it only notes what it was asked for. */
#define service_run fake_service_run
#define service_check fake_service_check
#include "common/pipeline/cli.c"
#include "test/unit/common/pipeline/sample_components.h"

static struct {
    unsigned runs, checks;
    char sources[512];
    const char *refuse;
} fake;

int fake_service_run(const struct service_program *p, const struct config_source *src, size_t n)
{
    fake.runs++;
    fake.sources[0] = 0;
    for (size_t i = 0; i < n; i++) {
        size_t at = strlen(fake.sources);
        snprintf(fake.sources + at, sizeof(fake.sources) - at, "%s%s%s", i ? " | " : "",
                 src[i].is_set ? "set " : "", src[i].text);
    }
    return 7;
}

int fake_service_check(const struct service_program *p, const struct config *c, struct err *e)
{
    fake.checks++;
    return fake.refuse ? err_set(e, -EINVAL, "%s", fake.refuse) : 0;
}

static unsigned ports;
static int take_port(const char *value, struct err *e)
{
    ports++;
    return strcmp(value, "0") == 0 ? err_set(e, -EINVAL, "not a port") : 0;
}

static int doctor_argc;
static int run_doctor(int argc, char **argv)
{
    doctor_argc = argc;
    return strcmp(argv[0], "doctor") == 0 ? 3 : 99;
}

static char *make_config(struct err *e)
{
    return ports ? xstrdup("receivers: {}") : NULL;
}

static const struct service_program program = {
    .name = "tailrace-test",
    .description = "a program of tests",
    .components = sample_components,
    .flags = (const struct service_flag[]){{"--port", "LIST", "ports", take_port}, {NULL}},
    .commands = (const struct service_command[]){{"doctor", "looks around", run_doctor}, {NULL}},
    .make_config = make_config,
};

/* Runs the command line with standard output and error caught in `out`. */
static char out[65536];
static int run(const struct service_program *p, const char *const *args)
{
    char *argv[16] = {"tailrace-test"};
    int argc = 1;
    for (; args[argc - 1]; argc++)
        argv[argc] = (char *)args[argc - 1];
    fflush(stdout);
    fflush(stderr);
    FILE *file = tmpfile();
    int old_out = dup(1), old_err = dup(2);
    dup2(fileno(file), 1);
    dup2(fileno(file), 2);
    int status = service_main(p, argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(old_out, 1);
    dup2(old_err, 2);
    close(old_out);
    close(old_err);
    rewind(file);
    out[fread(out, 1, sizeof(out) - 1, file)] = 0;
    fclose(file);
    return status;
}
#define RUN(...) run(&program, (const char *const[]){__VA_ARGS__, NULL})

static int reset(void **state)
{
    memset(&fake, 0, sizeof(fake));
    ports = 0;
    doctor_argc = 0;
    return 0;
}

#define GOOD                                                                                       \
    "yaml:{receivers: {otlp: {protocols: {grpc: }}}, exporters: {otlp_grpc: {endpoint: 'b:1', "    \
    "token: hunter2}}, service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}}"

static void runs_with_its_sources_in_order(void **state)
{
    assert_int_equal(RUN("--config", "a.yaml", "--set=x.y=1", "--config=b.yaml"), 7);
    assert_string_equal(fake.sources, "a.yaml | b.yaml | set x.y=1");
    assert_int_equal(fake.runs, 1);
}

static void own_flags_make_a_configuration(void **state)
{
    assert_int_equal(RUN("--set", "a=1", "--port", "80"), 7);
    assert_string_equal(fake.sources, "yaml:receivers: {} | set a=1");
    assert_int_equal(RUN("--port=0"), 1);
    assert_non_null(strstr(out, "--port: not a port"));
    assert_int_equal(RUN("--port", "1", "--config", "x"), 1);
    assert_non_null(strstr(out, "--config cannot go with flags"));
}

static void the_embedded_configuration_serves_without_file(void **state)
{
    struct service_program p = program;
    p.make_config = NULL;
    p.default_config = "exporters: {}";
    assert_int_equal(run(&p, (const char *const[]){NULL}), 7);
    assert_string_equal(fake.sources, "yaml:exporters: {}");
    assert_int_equal(run(&p, (const char *const[]){"--config", "f", NULL}), 7);
    assert_string_equal(fake.sources, "f");
}

static void bad_lines_are_refused(void **state)
{
    static const struct {
        const char *args[4], *says;
    } cases[] = {
        {{NULL}, "at least one config flag must be provided"},
        {{"--config"}, "--config wants a value"},
        {{"--bogus"}, "unknown flag --bogus"},
        {{"--feature-gates=x"}, "there are no feature gates: x"},
        {{"validat"}, "unknown command 'validat' (did you mean 'validate'?)"},
        {{"validate", "x"}, "'x' after the command 'validate'"},
        {{"components", "nonsense"}, "no component is called 'nonsense'"},
        {{"components", "--x"}, "components takes NAME"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(run(&program, cases[i].args), 1);
        if (!strstr(out, cases[i].says))
            fail_msg("wanted '%s' in '%s'", cases[i].says, out);
    }
    assert_int_equal(fake.runs, 0);
}

static void validate(void **state)
{
    assert_int_equal(RUN("--config", GOOD, "validate"), 0);
    assert_string_equal(out, "");
    assert_int_equal(RUN("validate", "--config", GOOD), 0);
    assert_int_equal(fake.checks, 2);
    assert_int_equal(RUN("validate", "--config", "yaml:{exporters: {kafka: }}"), 1);
    assert_non_null(strstr(out, "exporters::kafka: no such exporter in this build\n"));
    assert_int_equal(fake.checks, 2);
    fake.refuse = "otlp_grpc: cannot read ca_file";
    assert_int_equal(RUN("validate", "--config", GOOD), 1);
    assert_non_null(strstr(out, "otlp_grpc: cannot read ca_file"));
}

static void print_config(void **state)
{
    assert_int_equal(RUN("--config", GOOD, "print-config"), 0);
    assert_non_null(strstr(out, "token: \"[REDACTED]\"\n"));
    assert_int_equal(RUN("print-config", "--mode", "unredacted", "--config", GOOD), 0);
    assert_non_null(strstr(out, "token: hunter2\n"));
    assert_int_equal(RUN("print-config", "--mode", "x", "--config", GOOD), 1);
}

static void components(void **state)
{
    assert_int_equal(RUN("components"), 0);
    static const char *const parts[] = {
        "buildinfo:\n    command: tailrace-test\n    description: a program of tests\n    version: ",
        "receivers:\n    - name: otlp\n      stability:\n        traces: Stable\n        metrics: "
        "Stable\n        logs: Stable\n",
        "connectors:\n    - name: span_metrics\n      stability:\n        traces-to-metrics: "
        "Development\n    - name: forward\n      stability:\n        traces-to-traces: Development\n",
        "extensions:\n    - name: health_check\n      stability:\n        extension: Development\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (!strstr(out, parts[i]))
            fail_msg("wanted '%s' in '%s'", parts[i], out);
    assert_null(strstr(out, "spanmetrics")); /* canonical names only */
    assert_int_equal(RUN("components", "spanmetrics"), 0);
    assert_non_null(strstr(out, "connector ## span_metrics\n"));
}

static void schema_is_balanced_json(void **state)
{
    assert_int_equal(RUN("components", "--schema"), 0);
    int depth = 0;
    bool in_string = false;
    for (const char *p = out; *p; p++) {
        if (*p == '\\' && in_string)
            p++;
        else if (*p == '"')
            in_string = !in_string;
        else if (!in_string && (*p == '{' || *p == '['))
            depth++;
        else if (!in_string && (*p == '}' || *p == ']'))
            assert_true(--depth >= 0);
    }
    assert_int_equal(depth, 0);
    assert_non_null(strstr(out, "\"^(otlp_grpc|otlp)(/.+)?$\""));
    assert_non_null(strstr(out, "\"send_batch_size\""));
}

static void reference_pages_of_two_programs_make_one(void **state)
{
    char dir[] = "/tmp/tailrace-reference-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    const struct component *const few[] = {&sample_debug, NULL};
    struct service_program small = program;
    small.components = few;
    const char *const args[] = {"components", "--reference", dir, NULL};
    assert_int_equal(run(&small, args), 0);
    assert_int_equal(run(&program, args), 0);
    assert_int_equal(run(&program, args), 0);
    snprintf(path, sizeof(path), "%s/exporters.md", dir);
    FILE *f = fopen(path, "r");
    out[fread(out, 1, sizeof(out) - 1, f)] = 0;
    fclose(f);
    unsigned titles = 0;
    for (const char *p = out; (p = strstr(p, "\n## ")); p++)
        titles++;
    assert_int_equal(titles, 2); /* debug and otlp_grpc, each once */
    for (enum component_kind k = 0; k < KIND_COUNT; k++) {
        snprintf(path, sizeof(path), "%s/%s.md", dir, kind_section(k));
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(dir), 0);
}

static void help_version_and_own_commands(void **state)
{
    assert_int_equal(RUN("--help"), 0);
    static const char *const parts[] = {"tailrace-test: a program of tests",
                                        "--config SOURCE",
                                        "--port LIST",
                                        "validate",
                                        "doctor",
                                        "exporters  ",
                                        " otlp_grpc, debug\n"};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (!strstr(out, parts[i]))
            fail_msg("wanted '%s' in '%s'", parts[i], out);
    assert_int_equal(RUN("--version"), 0);
    assert_true(strncmp(out, "tailrace-test version ", 22) == 0);
    assert_int_equal(RUN("doctor", "--anything", "x"), 3);
    assert_int_equal(doctor_argc, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(runs_with_its_sources_in_order, reset),
        cmocka_unit_test_setup(own_flags_make_a_configuration, reset),
        cmocka_unit_test_setup(the_embedded_configuration_serves_without_file, reset),
        cmocka_unit_test_setup(bad_lines_are_refused, reset),
        cmocka_unit_test_setup(validate, reset),
        cmocka_unit_test_setup(print_config, reset),
        cmocka_unit_test_setup(components, reset),
        cmocka_unit_test_setup(schema_is_balanced_json, reset),
        cmocka_unit_test_setup(reference_pages_of_two_programs_make_one, reset),
        cmocka_unit_test_setup(help_version_and_own_commands, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
