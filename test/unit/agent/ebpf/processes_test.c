/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/ebpf/processes.h"
#include "common/base/clock.h"
#include "common/otlp/view.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static char proc[64];

static void write_file(unsigned pid, const char *name, const char *text, size_t n)
{
    char path[200];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%u", proc, pid);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/%u/%s", proc, pid, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fwrite(text, n, 1, f);
    fclose(f);
}

static void fake_process(unsigned pid, const char *exe, const char *env, size_t env_n)
{
    char path[200];

    write_file(pid, "cgroup", "0::/kubepods/pod1/" ID "\n", 20 + 64);
    write_file(pid, "environ", env, env_n);
    snprintf(path, sizeof(path), "%s/%u/exe", proc, pid);
    assert_int_equal(symlink(exe, path), 0);
}

static int setup(void **ctx)
{
    strcpy(proc, "/tmp/tailrace-proc-XXXXXX");
    return mkdtemp(proc) ? 0 : -1;
}

static int teardown(void **ctx)
{
    char cmd[100];

    snprintf(cmd, sizeof(cmd), "rm -r %s", proc);
    return system(cmd);
}

static void init(struct processes *ps, const struct selection *s)
{
    processes_init(ps, s, &(struct resource_options){"", "team=a,note=x%20y", "1"});
    ps->proc = proc;
}

static void names(void **ctx)
{
    static const char *const exes[] = {"*/nginx", "*/curl"};
    struct selection s = {.exes = exes, .n_exes = 2, .self = 1};
    struct processes ps;
    struct process *p;
    struct any v;

    fake_process(10, "/usr/sbin/nginx", "A=1\0OTEL_SERVICE_NAME=front\0", 28);
    fake_process(11, "/usr/bin/curl (deleted)", "OTEL_RESOURCE_ATTRIBUTES=service.name=job,k=v\0",
                 46);
    fake_process(12, "/usr/bin/tailrace-gateway", "", 0);
    fake_process(13, "/usr/bin/python3", "", 0);
    init(&ps, &s);
    p = processes_get(&ps, 10);
    assert_string_equal(p->service_name, "front");
    assert_string_equal(p->container_id, ID);
    assert_true(p->selected);
    assert_true(envelope_attr_find(process_span_resource(&ps, p), RESOURCE_ATTRIBUTES,
                                   STR("process.pid"), &v));
    assert_int_equal(v.i, 10);
    assert_true(envelope_attr_find(process_span_resource(&ps, p), RESOURCE_ATTRIBUTES,
                                   STR("service.instance.id"), &v));
    assert_true(v.s.n > 3 && memcmp(v.s.p + v.s.n - 3, ":10", 3) == 0);
    assert_false(envelope_attr_find(process_metric_resource(&ps, p), RESOURCE_ATTRIBUTES,
                                    STR("process.pid"), &v));
    assert_true(
        envelope_attr_find(process_span_resource(&ps, p), RESOURCE_ATTRIBUTES, STR("note"), &v));
    assert_true(str_is(v.s, "x y"));
    assert_true(str_is(resource_service_name(process_span_resource(&ps, p)), "front"));
    p = processes_get(&ps, 11);
    assert_string_equal(p->service_name, "job");
    assert_string_equal(p->path, "/usr/bin/curl");
    assert_true(p->selected);
    assert_true(
        envelope_attr_find(process_span_resource(&ps, p), RESOURCE_ATTRIBUTES, STR("k"), &v));
    p = processes_get(&ps, 12);
    assert_false(p->selected);
    assert_true(p->ours);
    p = processes_get(&ps, 13);
    assert_false(p->selected);
    assert_string_equal(p->service_name, "python3");
    assert_ptr_equal(processes_get(&ps, 13), p);
    processes_fini(&ps);
}

static void short_lived(void **ctx)
{
    static const char *const exes[] = {"*/curl"};
    struct selection s = {.exes = exes, .n_exes = 1, .self = 1};
    struct processes ps;
    struct process *p;
    struct exec_record x = {
        .tgid = 900, .parent = 10, .path = STR("/usr/bin/curl"), .argv = STR("curl")};
    struct exit_record gone = {.tgid = 900, .time_ns = 5 * NS_PER_S};
    struct fork_record f = {.tgid = 901, .parent = 900};

    init(&ps, &s);
    processes_get(&ps, 10);      /* its parent, in a container */
    p = processes_exec(&ps, &x); /* nothing of it in /proc */
    assert_true(p->selected);
    assert_string_equal(p->service_name, "curl");
    assert_string_equal(p->container_id, ID);
    p = processes_fork(&ps, &f);
    assert_string_equal(p->path, "/usr/bin/curl");
    assert_true(p->selected);
    processes_exit(&ps, &gone);
    processes_tick(&ps, 6 * NS_PER_S);
    assert_non_null(processes_find(&ps, 900)); /* spans may still come */
    x.path = STR("/usr/bin/other");
    p = processes_exec(&ps, &x); /* the number again */
    assert_false(p->selected);
    processes_exit(&ps, &gone);
    processes_tick(&ps, 60 * NS_PER_S);
    assert_null(processes_find(&ps, 900));
    processes_fini(&ps);
}

static void by_port(void **ctx)
{
    static const uint16_t ports[] = {8080};
    struct selection s = {.ports = ports, .n_ports = 1, .self = 1};
    struct fork_record f = {.tgid = 902, .parent = 13};
    struct processes ps;

    init(&ps, &s);
    assert_false(processes_get(&ps, 13)->selected);
    processes_select_listener(&ps, 13, 8080);
    assert_true(processes_get(&ps, 13)->selected);
    assert_true(processes_fork(&ps, &f)->selected); /* and its children */
    processes_fini(&ps);
}

static void container_ids(void **ctx)
{
    assert_true(str_is(container_id_of(STR("1:name=/docker/" ID ".scope")), ID));
    assert_int_equal(container_id_of(STR("0::/user.slice")).n, 0);
    assert_int_equal(container_id_of(STR("0::/" ID "0")).n, 0); /* 65 digits: something else */
}

static void excluded(void **ctx)
{
    struct endpoint x[2] = {{.address = {[10] = 0xff, 0xff, 127, 0, 0, 1}, .port = 4317},
                            {.port = 9}};
    struct selection s = {.excluded = x, .n_excluded = 2};
    struct endpoint v4 = {.address = {127, 0, 0, 1}, .port = 4317};
    struct endpoint other = {.address = {127, 0, 0, 2}, .port = 4317};
    struct endpoint any = {.address = {1, 2, 3, 4}, .port = 9};

    assert_true(selection_is_excluded(&s, AF_INET, &v4));
    assert_true(selection_is_excluded(&s, AF_INET6, &x[0]));
    assert_false(selection_is_excluded(&s, AF_INET, &other));
    assert_true(selection_is_excluded(&s, AF_INET, &any));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),         cmocka_unit_test(short_lived), cmocka_unit_test(by_port),
        cmocka_unit_test(container_ids), cmocka_unit_test(excluded),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
