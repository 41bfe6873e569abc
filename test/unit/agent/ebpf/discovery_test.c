/* SPDX-License-Identifier: Apache-2.0 */
/* Discovery rules: the file, its errors with their places, and how processes are named by them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/ebpf/processes.h"
#include "agent/ebpf/receiver_options.h"
#include "common/otlp/view.h"

static char path[] = "/tmp/tailrace-rules-XXXXXX";
static const char rules[] = "rules:\n"
                            "  - name: checkout\n"
                            "    namespace: shop\n"
                            "    ports: [8080, 9000-9010]\n"
                            "    attributes:\n"
                            "      - {key: team, value: payments}\n"
                            "      - {key: host.name, value: told}\n"
                            "  - executables: ['*/java']\n"
                            "    namespace: any-java\n"
                            "  - name: tools\n"
                            "    pids: [77, 78]\n"
                            "    executables: [\"*/curl\", '*/java']\n";

static void write_rules(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int setup(void **state)
{
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    return unlink(path);
}

static struct discovery *load(const char *text)
{
    struct discovery *d;
    struct err e;
    char *content;
    write_rules(text);
    if (discovery_load(&d, path, &content, &e))
        fail_msg("%s", e.text);
    assert_string_equal(content, text);
    free(content);
    return d;
}

static void the_first_rule_that_matches(void **state)
{
    struct discovery *d = load(rules);
    assert_int_equal(d->n_rules, 3);
    assert_int_equal(discovery_by_port(d, 8080), 0);
    assert_int_equal(discovery_by_port(d, 9010), 0);
    assert_int_equal(discovery_by_port(d, 9011), DISCOVERY_NONE);
    assert_int_equal(discovery_by_executable(d, "/opt/bin/java"), 1);
    assert_int_equal(discovery_by_executable(d, "/usr/bin/curl"), 2);
    assert_int_equal(discovery_by_pid(d, 78), 2);
    assert_int_equal(discovery_by_pid(d, 79), DISCOVERY_NONE);
    assert_null(discovery_rule(d, DISCOVERY_NONE));
    assert_string_equal(discovery_rule(d, 1)->namespace, "any-java");
    assert_null(discovery_rule(d, 1)->name);
    assert_int_equal(discovery_by_pid(NULL, 78), DISCOVERY_NONE);
    discovery_free(&d);
}

/* Each file and what must be said of it, after its path. */
static void errors_have_their_places(void **state)
{
    static const struct {
        const char *text, *said;
    } bad[] = {
        {"", ":1:1: the file is empty"},
        {"rules: []\n", ":1:8: Insufficient entries"},
        {"rules:\n  - name: a\n    ports: [80]\n    port: 80\n", ":4:5: Unexpected key: port"},
        {"rules:\n  - pids: [1, x]\n", ":2:15: Invalid uint64_t value: 'x'"},
        {"rules:\n  - pids: [1]\n  - name: b\n", ":3:5: the rule matches nothing"},
        {"rules:\n  - ports: [80]\n  - ports: [90-80]\n", ":3:5: ports: '90-80' is no port"},
        {"rules:\n  - pids: [0]\n", ":2:5: pids: 0 is no process"},
        {"rules:\n  - pids: [1]\n    attributes: [{key: service.name, value: x}]\n",
         ":2:5: attributes: service.name is what"},
        {"rules:\n  - pids: [1]\n    attributes: [{key: x}]\n",
         ":3:24: Missing required mapping field: value"},
        {"rules:\n  - name: [a]\n", ":2:11: Expecting STRING, got event: SEQUENCE_START"},
        {"rules:\n  - name: \"a\n", ":2:5: libyaml: found unexpected end of stream"},
        {"- a\n", ":1:1: Expecting MAPPING, got event: SEQUENCE_START"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct discovery *d;
        struct err e;
        char *content;
        write_rules(bad[i].text);
        assert_int_equal(discovery_load(&d, path, &content, &e), -EINVAL);
        assert_null(d);
        assert_null(content);
        if (strncmp(e.text, path, strlen(path)) != 0 ||
            strncmp(e.text + strlen(path), bad[i].said, strlen(bad[i].said)) != 0)
            fail_msg("%s\ninstead of %s", e.text, bad[i].said);
    }
}

static void a_missing_file_is_told(void **state)
{
    struct discovery *d;
    struct err e;
    char *content;
    assert_int_equal(discovery_load(&d, "/nonexistent/rules", &content, &e), -EINVAL);
    assert_string_equal(e.text, "cannot read /nonexistent/rules: No such file or directory");
}

static const char *exes[] = {"*/nginx"};
static struct ebpf_config config = {
    .exes = {.items = exes, .n = 1}, .service_name = "", .record_file = "", .discovery_file = path};

static void rules_select_too(void **state)
{
    struct selection_storage s;
    struct err e;
    write_rules(rules);
    assert_int_equal(selection_read(&s, &config, &e), 0);
    assert_true(selection_has_port(&s.s, 8080) && selection_has_port(&s.s, 9005));
    assert_true(selection_has_exe(&s.s, "/usr/sbin/nginx"));
    assert_true(selection_has_exe(&s.s, "/usr/bin/curl"));
    assert_true(selection_has_pid(&s.s, 77));
    assert_false(selection_has_pid(&s.s, 1));
    char *before = ebpf_identity(&config, &s), *after;
    selection_free(&s);
    write_rules("rules: [{pids: [1]}]");
    assert_int_equal(selection_read(&s, &config, &e), 0);
    after = ebpf_identity(&config, &s);
    assert_string_not_equal(before, after); /* other rules are another receiver */
    selection_free(&s);
    free(before);
    free(after);
}

static void assert_attribute(struct processes *ps, struct process *p, const char *key,
                             const char *want)
{
    struct any v = {0};
    bool found =
        envelope_attr_find(process_span_resource(ps, p), RESOURCE_ATTRIBUTES, str_of(key), &v);
    if (found != (want != NULL) || (found && !str_is(v.s, want)))
        fail_msg("%s is '%.*s' instead of %s", key, found ? (int)v.s.n : 0, v.s.p,
                 want ? want : "missing");
}

static void processes_are_named(void **state)
{
    struct selection_storage s;
    struct processes ps;
    struct err e;
    write_rules(rules);
    assert_int_equal(selection_read(&s, &config, &e), 0);
    processes_init(&ps, &s.s, &(struct resource_options){"operator", "team=all,zone=z", "1"});
    ps.proc = "/nonexistent";

    struct exec_record java = {.tgid = 50, .path = STR("/usr/bin/java")};
    struct process *p = processes_exec(&ps, &java);
    assert_true(p->selected);
    assert_attribute(&ps, p, "service.namespace", "any-java");
    assert_attribute(&ps, p, "service.name", "operator"); /* the rule has no name */
    assert_attribute(&ps, p, "team", "all");

    processes_select_listener(&ps, 50, 9001); /* it listens: an earlier rule */
    assert_attribute(&ps, p, "service.name", "checkout");
    assert_attribute(&ps, p, "service.namespace", "shop");
    assert_attribute(&ps, p, "team", "payments"); /* before what holds for all */
    assert_attribute(&ps, p, "zone", "z");
    assert_attribute(&ps, p, "host.name", "told");

    struct fork_record worker = {.tgid = 51, .parent = 50};
    assert_attribute(&ps, processes_fork(&ps, &worker), "service.name", "checkout");
    struct exec_record curl = {.tgid = 52, .parent = 1, .path = STR("/usr/bin/curl")};
    assert_attribute(&ps, processes_exec(&ps, &curl), "service.name", "tools");
    struct exec_record nginx = {.tgid = 53, .parent = 1, .path = STR("/usr/sbin/nginx")};
    p = processes_exec(&ps, &nginx);
    assert_true(p->selected);
    assert_attribute(&ps, p, "service.name", "operator");
    assert_attribute(&ps, p, "service.namespace", NULL);

    processes_fini(&ps);
    selection_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_rule_that_matches), cmocka_unit_test(errors_have_their_places),
        cmocka_unit_test(a_missing_file_is_told),      cmocka_unit_test(rules_select_too),
        cmocka_unit_test(processes_are_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
