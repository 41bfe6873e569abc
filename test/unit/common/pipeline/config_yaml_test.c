/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/pipeline/config_tree.h"

struct fixture {
    struct arena arena;
    struct buf problems;
    struct report report;
    struct yaml_ctx yaml;
    struct yaml_node *root;
};

static void begin(struct fixture *f)
{
    *f = (struct fixture){0};
    arena_init(&f->arena);
    buf_init(&f->problems);
    f->report.out = &f->problems;
    f->yaml = (struct yaml_ctx){.arena = &f->arena, .report = &f->report};
}

static void end(struct fixture *f)
{
    arena_fini(&f->arena);
    buf_fini(&f->problems);
}

static int read_text(struct fixture *f, const char *text)
{
    begin(f);
    return yaml_parse(&f->yaml, str_of(text), "a.yaml", &f->root);
}

/* The text reads without problem and prints as `want`. */
static void expect_tree(const char *text, const char *want)
{
    struct fixture f;
    struct buf out;
    buf_init(&out);
    if (read_text(&f, text) < 0)
        fail_msg("%s", buf_cstr(&f.problems));
    yaml_print(f.root, 0, &out);
    assert_string_equal(buf_cstr(&out), want);
    buf_fini(&out);
    end(&f);
}

static void expect_refused(const char *text, const char *want)
{
    struct fixture f;
    assert_int_equal(read_text(&f, text), -EINVAL);
    assert_string_equal(buf_cstr(&f.problems), want);
    assert_null(f.root);
    end(&f);
}

static void reads_values_with_their_places(void **state)
{
    struct fixture f;
    assert_int_equal(read_text(&f, "a:\n  b: [x, 'y']\n  c: \"z\"\n"), 0);
    const struct yaml_node *b = yaml_get(yaml_get(f.root, "a"), "b");
    assert_int_equal(b->kind, YAML_LIST);
    assert_int_equal(b->n, 2);
    assert_string_equal(b->items[1]->text, "y");
    assert_true(b->items[1]->quoted);
    assert_false(b->items[0]->quoted);
    assert_string_equal(b->items[1]->mark.file, "a.yaml");
    assert_int_equal(b->items[1]->mark.line, 2);
    assert_int_equal(b->items[1]->mark.column, 10);
    assert_null(yaml_get(f.root, "nothing"));
    end(&f);
}

static void prints_what_reads_back_alike(void **state)
{
    expect_tree("", "null\n");
    expect_tree("a: '5'\nb: 5\nc: \"true\"\nd:\ne: []\nf: {}\n",
                "a: \"5\"\nb: 5\nc: \"true\"\nd: null\ne: []\nf: {}\n");
    expect_tree("a: !!str 5\nb: !!int '6'\n", "a: \"5\"\nb: 6\n");
    expect_tree("a: |\n  one\n  two\n", "a: \"one\\ntwo\\n\"\n");
    expect_tree("a: 'x: y'\nb: '#c'\nc: d#e\n", "a: \"x: y\"\nb: \"#c\"\nc: d#e\n");
}

static void anchors_become_copies(void **state)
{
    struct fixture f;
    assert_int_equal(read_text(&f, "a: &x {b: 1}\nc: *x\n"), 0);
    const struct yaml_node *a = yaml_get(f.root, "a"), *c = yaml_get(f.root, "c");
    assert_true(a != c);
    assert_string_equal(yaml_get(c, "b")->text, "1");
    assert_true(yaml_get(a, "b") != yaml_get(c, "b"));
    end(&f);
}

static void merge_keys(void **state)
{
    expect_tree("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n",
                "a:\n  x: 1\n  y: 2\nb:\n  y: 3\n  x: 1\n");
    expect_tree("a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b], z: 0}\n",
                "a:\n  x: 1\nb:\n  x: 2\n  y: 2\nc:\n  z: 0\n  x: 1\n  y: 2\n");
    expect_tree("a: {'<<': 5}\n", "a:\n  \"<<\": 5\n");
    expect_refused("a: {<<: 5}\n", "a.yaml:1:9: '<<' wants a mapping or a list of mappings\n");
}

static void refuses_with_the_place(void **state)
{
    expect_refused("a: 1\nb: 2\na: 3\n",
                   "a.yaml:3:1: key 'a' stands twice in this mapping (first at line 1)\n");
    expect_refused("a: 1\n---\nb: 2\n", "a.yaml:2:1: a second document in one file\n");
    expect_refused("[a]: 1\n", "a.yaml:1:1: a key must be a scalar\n");
    expect_refused("? {a: b}\n: 1\n", "a.yaml:1:3: a key must be a scalar\n");
    expect_refused("~: 1\n", "a.yaml:1:1: a key may not be empty\n");
    expect_refused("a: *b\n", "a.yaml:1:4: alias of an anchor that does not exist\n");
    expect_refused("a: &a [*a]\n", "a.yaml:1:8: alias inside its own anchor\n");
    expect_refused("a: !!binary aGk=\n", "a.yaml:1:4: this tag is not supported\n");
    expect_refused("a: !x {}\n", "a.yaml:1:4: this tag is not supported\n");
    expect_refused("a: \"x\\0y\"\n", "a.yaml:1:4: a text may not hold a NUL character\n");
    expect_refused("a: b: c\n",
                   "a.yaml:1:5: not YAML: mapping values are not allowed in this context\n");
    expect_refused("a: [1, 2\nb: 3\n",
                   "a.yaml:2:2: not YAML: did not find expected ',' or ']' while parsing a flow "
                   "sequence (line 1)\n");
    expect_refused("a:\n\tb: 1\n",
                   "a.yaml:2:1: not YAML: found character that cannot start any token while "
                   "scanning for the next token (line 2)\n");
}

static void refuses_depth_and_size(void **state)
{
    struct fixture f;
    struct buf b;
    buf_init(&b);
    for (int i = 0; i < 200; i++)
        buf_add_byte(&b, '[');
    for (int i = 0; i < 200; i++)
        buf_add_byte(&b, ']');
    assert_int_equal(read_text(&f, buf_cstr(&b)), -EINVAL);
    assert_string_equal(buf_cstr(&f.problems), "a.yaml:1:101: nested too deeply\n");
    end(&f);
    buf_reset(&b);
    for (int i = 0; i < 9; i++) /* nine levels of nine: 9^9 nodes */
        buf_addf(&b, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i + 1, i + 1, i,
                 i, i, i, i, i, i, i, i);
    struct buf bomb;
    buf_init(&bomb);
    buf_addf(&bomb, "a0: &a0 x\n%s", buf_cstr(&b));
    assert_int_equal(read_text(&f, buf_cstr(&bomb)), -EINVAL);
    assert_non_null(strstr(buf_cstr(&f.problems), "more than 200000 values"));
    end(&f);
    buf_fini(&bomb);
    buf_fini(&b);

    char *big = malloc(YAML_MAX_BYTES + 2);
    memset(big, 'x', YAML_MAX_BYTES + 1);
    big[YAML_MAX_BYTES + 1] = 0;
    assert_int_equal(read_text(&f, big), -EINVAL);
    assert_string_equal(buf_cstr(&f.problems), "a.yaml:1:1: larger than 4194304 bytes\n");
    end(&f);
    free(big);
}

static void merges_sources(void **state)
{
    struct fixture f;
    struct yaml_node *over;
    struct buf out;
    assert_int_equal(read_text(&f, "a: {x: 1, y: [1, 2], z: {q: 1}}\nb: 2\n"), 0);
    assert_int_equal(
        yaml_parse(&f.yaml, STR("a: {y: [3], z: null, w: 4}\nb: {c: 5}\n"), "b.yaml", &over), 0);
    assert_int_equal(yaml_merge(&f.yaml, f.root, over), 0);
    buf_init(&out);
    yaml_print(f.root, 0, &out);
    assert_string_equal(buf_cstr(&out),
                        "a:\n  x: 1\n  y:\n    - 3\n  z: null\n  w: 4\nb:\n  c: 5\n");
    buf_fini(&out);
    end(&f);
}

static void loads_sources(void **state)
{
    struct fixture f;
    struct yaml_node *n;
    struct buf out;
    begin(&f);
    buf_init(&out);
    struct config_source set = {"processors.batch.timeout=2s", true};
    assert_int_equal(source_load(&f.yaml, &set, &n), 0);
    yaml_print(n, 0, &out);
    assert_string_equal(buf_cstr(&out), "processors:\n  batch:\n    timeout: 2s\n");
    buf_reset(&out);
    struct config_source yaml = {"yaml:service::telemetry::logs::level: debug", false};
    assert_int_equal(source_load(&f.yaml, &yaml, &n), 0);
    yaml_print(n, 0, &out);
    assert_string_equal(buf_cstr(&out), "service:\n  telemetry:\n    logs:\n      level: debug\n");
    assert_string_equal(buf_cstr(&f.problems), "");

    static const struct {
        struct config_source s;
        const char *problem;
    } bad[] = {
        {{"/nowhere/x.yaml", false}, "cannot read /nowhere/x.yaml: No such file or directory\n"},
        {{"file:/nowhere/y", false}, "cannot read /nowhere/y: No such file or directory\n"},
        {{"https://example.org/c", false},
         "scheme 'https' is not supported: use file, env or yaml\n"},
        {{"yaml:[1]", false},
         "yaml:1:1: a configuration is a mapping with receivers, exporters, service ...\n"},
        {{"novalue", true}, "--set novalue: write --set path.to.key=value\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        buf_reset(&f.problems);
        assert_true(source_load(&f.yaml, &bad[i].s, &n) < 0);
        assert_string_equal(buf_cstr(&f.problems), bad[i].problem);
    }
    buf_fini(&out);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_values_with_their_places),
        cmocka_unit_test(prints_what_reads_back_alike),
        cmocka_unit_test(anchors_become_copies),
        cmocka_unit_test(merge_keys),
        cmocka_unit_test(refuses_with_the_place),
        cmocka_unit_test(refuses_depth_and_size),
        cmocka_unit_test(merges_sources),
        cmocka_unit_test(loads_sources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
