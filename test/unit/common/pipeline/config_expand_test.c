/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/pipeline/config_tree.h"

struct fixture {
    struct arena arena;
    struct buf problems;
    struct report report;
    struct yaml_ctx yaml;
    struct yaml_node *root;
};

static int expand(struct fixture *f, const char *text)
{
    *f = (struct fixture){0};
    arena_init(&f->arena);
    buf_init(&f->problems);
    f->report.out = &f->problems;
    f->yaml = (struct yaml_ctx){.arena = &f->arena, .report = &f->report};
    assert_int_equal(yaml_parse(&f->yaml, str_of(text), "a.yaml", &f->root), 0);
    return yaml_expand(&f->yaml, f->root);
}

static void end(struct fixture *f)
{
    arena_fini(&f->arena);
    buf_fini(&f->problems);
}

static void expect_tree(const char *text, const char *want)
{
    struct fixture f;
    struct buf out;
    buf_init(&out);
    if (expand(&f, text) < 0)
        fail_msg("%s", buf_cstr(&f.problems));
    yaml_print(f.root, 0, &out);
    assert_string_equal(buf_cstr(&out), want);
    buf_fini(&out);
    end(&f);
}

static void expect_refused(const char *text, const char *want)
{
    struct fixture f;
    assert_true(expand(&f, text) < 0);
    assert_string_equal(buf_cstr(&f.problems), want);
    end(&f);
}

static int variables(void **state)
{
    setenv("T_INT", "42", 1);
    setenv("T_TEXT", "hello", 1);
    setenv("T_EMPTY", "", 1);
    setenv("T_OCTAL", "0123", 1);
    setenv("T_LIST", "[a, b]", 1);
    setenv("T_MAP", "{a: 1, b: '${env:T_INT}'}", 1);
    setenv("T_NAME", "T_INT", 1);
    setenv("T_COLON", "a: b: c", 1);
    setenv("T_QUOTED", "'5'", 1);
    setenv("T_DOLLAR", "a$$b", 1);
    setenv("T_LOOP", "${env:T_LOOP}", 1);
    setenv("T_GROW", "${env:T_GROW}xxxxxxxxxxxxxxxx", 1);
    setenv("T_DEEP", "- ${env:T_DEEP}", 1);
    setenv("T_TWICE", "${env:T_TWICE}${env:T_TWICE}", 1);
    unsetenv("T_UNSET");
    return 0;
}

static void whole_values_are_typed(void **state)
{
    expect_tree("a: ${env:T_INT}\n", "a: 42\n");
    expect_tree("a: ${T_INT}\n", "a: 42\n");
    expect_tree("a: '${env:T_INT}'\n", "a: 42\n"); /* quotes say nothing, as in the Collector */
    expect_tree("a: ${env:T_LIST}\n", "a:\n  - a\n  - b\n");
    expect_tree("a: ${env:T_MAP}\n", "a:\n  a: 1\n  b: 42\n");
    expect_tree("a: ${env:T_EMPTY}\n", "a: null\n");
    expect_tree("a: '${yaml:{x: 1}}'\n", "a: \"{x: 1}\"\n"); /* ends at the first '}' */
    expect_tree("a: ${yaml:[1, 2]}\n", "a:\n  - 1\n  - 2\n");
    expect_tree("a: ['${env:T_INT}', x]\n", "a:\n  - 42\n  - x\n");
}

static void texts_keep_their_form(void **state)
{
    struct fixture f;
    assert_int_equal(expand(&f, "a: ${env:T_OCTAL}\nb: x${env:T_OCTAL}\n"), 0);
    const struct yaml_node *a = yaml_get(f.root, "a"), *b = yaml_get(f.root, "b");
    assert_string_equal(a->orig, "0123");
    assert_false(a->quoted);
    assert_string_equal(b->text, "x0123");
    assert_true(b->quoted);
    end(&f);
    expect_tree("a: ${env:T_COLON}\n", "a: \"a: b: c\"\n");
    expect_tree("a: ${env:T_QUOTED}\n", "a: \"'5'\"\n");
    expect_tree("a: x ${env:T_TEXT} ${env:T_TEXT} y\n", "a: x hello hello y\n");
    expect_tree("a: ${env:T_INT}${env:T_INT}\n", "a: \"4242\"\n");
    expect_tree("a: x${env:T_LIST}\n", "a: x[a, b]\n");
    assert_int_equal(expand(&f, "a: ${env:T_MAP}\n"), 0);
    assert_string_equal(yaml_get(f.root, "a")->orig, "{a: 1, b: '42'}");
    end(&f);
}

static void defaults_and_nesting(void **state)
{
    expect_tree("a: ${env:T_UNSET:-8080}\n", "a: 8080\n");
    expect_tree("a: ${env:T_UNSET:-}\n", "a: null\n");
    expect_tree("a: ${env:T_EMPTY:-8080}\n", "a: null\n"); /* present, though empty */
    expect_tree("a: ${env:T_INT:-8080}\n", "a: 42\n");
    expect_tree("a: ${env:${env:T_NAME}}\n", "a: 42\n");
    expect_tree("a: ${env:T_UNSET:-${env:T_TEXT}}\n", "a: hello\n");
}

/* What is printed is written so that it reads as the same: what would be replaced is escaped again.
 */
static void dollars(void **state)
{
    expect_tree("a: $$\n", "a: $\n");
    expect_tree("a: $${env:T_INT}\n", "a: $${env:T_INT}\n");
    expect_tree("a: $$${env:T_INT}\n", "a: $42\n");
    expect_tree("a: $$$${env:T_INT}\n", "a: $$$${env:T_INT}\n");
    expect_tree("a: $${env:T_INT} ${env:T_INT}\n", "a: $${env:T_INT} $${env:T_INT}\n");
    expect_tree("a: ${env:T_INT} $${env:T_INT}\n", "a: 42 $42\n");
    expect_tree("a: $T_INT\n", "a: $T_INT\n");
    expect_tree("a: x}${\n", "a: x}$${\n");
    expect_tree("a: '{{ $1 }}'\n", "a: \"{{ $1 }}\"\n");
    expect_tree("a: ${env:T_DOLLAR}\n", "a: a$b\n");
    expect_tree("${env:T_INT}: 1\n", "${env:T_INT}: 1\n"); /* keys are left alone */
}

static void an_unset_variable_is_said(void **state)
{
    struct fixture f;
    assert_int_equal(expand(&f, "a:\n  b: ${env:T_UNSET}\n"), 0);
    assert_int_equal(yaml_get(yaml_get(f.root, "a"), "b")->kind, YAML_NULL);
    assert_string_equal(buf_cstr(&f.problems),
                        "a.yaml:2:6: warning: environment variable T_UNSET is not set: read as "
                        "empty\n");
    assert_int_equal(f.report.errors, 0);
    end(&f);
}

static void files_come_in(void **state)
{
    char path[] = "/tmp/tailrace-config-XXXXXX", text[128];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "a: ${env:T_INT}\n", 16), 16);
    close(fd);
    snprintf(text, sizeof(text), "x: ${file:%s}\n", path);
    struct fixture f;
    assert_int_equal(expand(&f, text), 0);
    assert_string_equal(yaml_get(yaml_get(f.root, "x"), "a")->text, "42");
    end(&f);
    unlink(path);
}

static void refuses_with_the_place(void **state)
{
    expect_refused("a: ${http://x}\n",
                   "a.yaml:1:4: scheme 'http' is not supported: use file, env or yaml\n");
    expect_refused("a: ${file:/nowhere/z}\n",
                   "a.yaml:1:4: cannot read /nowhere/z: No such file or directory\n");
    expect_refused("a: ${env:1A}\n",
                   "a.yaml:1:4: '1A' is no name of an environment variable "
                   "([A-Za-z_][A-Za-z0-9_]*); a literal $ before { is written $$\n");
    expect_refused("a: ${T_UNSET:-5}\n",
                   "a.yaml:1:4: a default wants the scheme: ${env:T_UNSET:-5}\n");
    expect_refused("a: ${env:T_UNSET:-$x}\n", "a.yaml:1:4: '$' inside of ${env:T_UNSET:-$x}\n");
}

static void circles_end(void **state)
{
    static const char circle[] = "a.yaml:1:4: more than 1000 substitutions: do they refer to each "
                                 "other?\n";
    expect_refused("a: ${env:T_LOOP}\n", circle);
    expect_refused("a: ${env:T_GROW}\n", circle);
    expect_refused("a: ${env:T_TWICE}\n",
                   "a.yaml:1:4: longer than 262144 bytes after substitution\n");
    struct fixture f;
    assert_true(expand(&f, "a: ${env:T_DEEP}\n") < 0);
    assert_non_null(strstr(buf_cstr(&f.problems), "nested too deeply after substitution"));
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_values_are_typed),    cmocka_unit_test(texts_keep_their_form),
        cmocka_unit_test(defaults_and_nesting),      cmocka_unit_test(dollars),
        cmocka_unit_test(an_unset_variable_is_said), cmocka_unit_test(files_come_in),
        cmocka_unit_test(refuses_with_the_place),    cmocka_unit_test(circles_end),
    };
    return cmocka_run_group_tests(tests, variables, NULL);
}
