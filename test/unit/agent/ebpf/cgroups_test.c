/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/ebpf/cgroups.h"
#include "agent/ebpf/processes.h"
#include "common/otlp/view.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static char top[64];

static const char *below(const char *name)
{
    static char path[300];

    snprintf(path, sizeof(path), "%s/%s", top, name);
    return path;
}

static uint64_t make(const char *name)
{
    struct stat st;

    assert_int_equal(mkdir(below(name), 0700), 0);
    assert_int_equal(stat(below(name), &st), 0);
    return st.st_ino;
}

static int setup(void **ctx)
{
    strcpy(top, "/tmp/tailrace-cgroups-XXXXXX");
    return mkdtemp(top) ? 0 : -1;
}

static int teardown(void **ctx)
{
    char cmd[100];

    snprintf(cmd, sizeof(cmd), "rm -r %s", top);
    return system(cmd);
}

/* What /proc/self/mountinfo says: cpu is version 1's, or only the unified hierarchy is there. */
static void init(struct cgroups *cs, bool v1)
{
    char path[300];
    FILE *f;

    snprintf(path, sizeof(path), "%s", below("mountinfo"));
    f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "30 29 0:26 / %s/unified rw,relatime - cgroup2 cgroup2 rw\n", top);
    fprintf(f, "31 29 0:27 / %s/cpuset rw,relatime shared:9 - cgroup cgroup rw,cpuset\n", top);
    if (v1)
        fprintf(f, "32 29 0:28 / %s/cpu rw,relatime shared:9 - cgroup none rw,cpu,cpuacct\n", top);
    fclose(f);
    cgroups_init(cs, path);
}

static struct processes ps;
static const struct selection none;

/* Of the cgroup's resource: "" if there is none. */
static const char *attribute(struct cgroups *cs, uint64_t id, const char *key)
{
    static char text[300];
    struct any v;

    text[0] = 0;
    if (envelope_attr_find(cgroups_resource(cs, &ps, id), RESOURCE_ATTRIBUTES, str_of(key), &v))
        snprintf(text, sizeof(text), STR_FMT, STR_ARG(v.s));
    return text;
}

static void names(void **ctx)
{
    struct cgroups cs;
    uint64_t unified = make("unified"), cpu = make("cpu"), container;
    char id[32];

    make("cpu/kubepods");
    make("cpu/kubepods/pod1");
    container = make("cpu/kubepods/pod1/" ID);
    processes_init(&ps, &none, &(struct resource_options){"", "team=a", "1"});

    init(&cs, true);
    snprintf(id, sizeof(id), "%llu", (unsigned long long)container);
    assert_string_equal(attribute(&cs, container, "cgroup.path"), "/kubepods/pod1/" ID);
    assert_string_equal(attribute(&cs, container, "cgroup.id"), id);
    assert_string_equal(attribute(&cs, container, "container.id"), ID);
    assert_string_equal(attribute(&cs, container, "team"), "a");
    assert_string_equal(attribute(&cs, cpu, "cgroup.path"), "/");
    assert_string_equal(attribute(&cs, cpu, "container.id"), "");
    /* Numbers of another hierarchy are no cgroups of this one. */
    assert_string_equal(attribute(&cs, unified, "cgroup.path"), "");
    cgroups_fini(&cs);

    init(&cs, false);
    assert_string_equal(attribute(&cs, unified, "cgroup.path"), "/");
    assert_string_equal(attribute(&cs, container, "cgroup.path"), "");
    cgroups_fini(&cs);
    processes_fini(&ps);
}

static uint64_t gone[4];
static size_t n_gone;

static void on_gone(void *arg, uint64_t id, struct str resource)
{
    assert_ptr_equal(arg, &ps);
    assert_true(resource.n > 0);
    gone[n_gone++] = id;
}

static void sweep(void **ctx)
{
    struct cgroups cs;
    uint64_t stays, goes;

    make("unified");
    stays = make("unified/a");
    goes = make("unified/b");
    processes_init(&ps, &none, &(struct resource_options){"", "", "1"});
    init(&cs, false);
    assert_string_equal(attribute(&cs, stays, "cgroup.path"), "/a");
    assert_string_equal(attribute(&cs, goes, "cgroup.path"), "/b");
    cgroups_sweep(&cs, on_gone, &ps);
    assert_int_equal(n_gone, 0);
    rmdir(below("unified/b"));
    assert_string_equal(attribute(&cs, goes, "cgroup.path"), "/b"); /* as long as it is known */
    cgroups_sweep(&cs, on_gone, &ps);
    assert_int_equal(n_gone, 1);
    assert_true(gone[0] == goes);
    assert_string_equal(attribute(&cs, goes, "cgroup.path"), "");
    cgroups_sweep(&cs, on_gone, &ps); /* one that nobody finds is forgotten, too */
    assert_int_equal(n_gone, 2);
    cgroups_fini(&cs);
    processes_fini(&ps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names, setup, teardown),
        cmocka_unit_test_setup_teardown(sweep, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
