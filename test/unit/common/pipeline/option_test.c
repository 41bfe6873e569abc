/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/pipeline/option_parse.h"
#include "common/pipeline/option_print.h"

struct inner {
    bool none_on, default_on, on_on;
    uint64_t none, def, on;
    const char *needed;
};

struct elem {
    const char *name;
    int64_t weight;
};

struct sample {
    bool flag;
    int64_t i;
    uint64_t u;
    double d;
    uint64_t dur;
    const char *text, *secret, *endpoint, *id;
    int word;
    struct option_any any;
    struct option_list texts, doubles, durations, words, map, headers, elems;
    struct inner inner;
    const struct yaml_node *tree;
    uint64_t old;
};

static const char *const words[] = {"", "gzip", "snappy", "zstd", NULL};

#define E_(f) offsetof(struct elem, f)
static const struct option elem_options[] = {
    {.key = "name", .type = OPT_STRING, .offset = E_(name), .flags = OPT_REQUIRED},
    {.key = "weight", .type = OPT_INT, .offset = E_(weight), .def = "7"},
    OPTION_END,
};

#define I_(f) offsetof(struct inner, f)
static const struct option none_options[] = {
    {.key = "size", .type = OPT_UINT, .offset = I_(none), .def = "1"},
    {.key = "needed", .type = OPT_STRING, .offset = I_(needed), .flags = OPT_REQUIRED},
    OPTION_END,
};
static const struct option default_options[] = {
    {.key = "size", .type = OPT_UINT, .offset = I_(def), .def = "2"},
    OPTION_END,
};
static const struct option on_options[] = {
    {.key = "size", .type = OPT_UINT, .offset = I_(on), .def = "3"},
    OPTION_END,
};

#define S_(f) offsetof(struct sample, f)
static const struct option options[] = {
    {.key = "flag", .type = OPT_BOOL, .offset = S_(flag), .def = "true"},
    {.key = "i", .type = OPT_INT, .offset = S_(i), .min = -5, .max = 5},
    {.key = "u", .type = OPT_UINT, .offset = S_(u), .min = 1, .def = "10"},
    {.key = "d", .type = OPT_DOUBLE, .offset = S_(d), .def = "0.5", .min = 0, .max = 1},
    {.key = "timeout", .type = OPT_DURATION, .offset = S_(dur), .def = "200ms", .min = 1e6},
    {.key = "text", .type = OPT_STRING, .offset = S_(text), .def = "x"},
    {.key = "secret", .type = OPT_SECRET, .offset = S_(secret)},
    {.key = "endpoint", .type = OPT_ENDPOINT, .offset = S_(endpoint), .flags = OPT_REQUIRED},
    {.key = "storage", .type = OPT_ID, .offset = S_(id)},
    {.key = "compression", .type = OPT_ENUM, .offset = S_(word), .names = words, .def = "gzip"},
    {.key = "value", .type = OPT_ANY, .offset = S_(any)},
    {.key = "texts", .type = OPT_STRINGS, .offset = S_(texts), .def = "[a, b]"},
    {.key = "doubles", .type = OPT_DOUBLES, .offset = S_(doubles)},
    {.key = "durations", .type = OPT_DURATIONS, .offset = S_(durations), .def = "[2ms, 4ms]"},
    {.key = "words", .type = OPT_ENUMS, .offset = S_(words), .names = words},
    {.key = "map", .type = OPT_MAP, .offset = S_(map)},
    {.key = "headers", .type = OPT_HEADERS, .offset = S_(headers)},
    {.key = "elems",
     .type = OPT_LIST,
     .offset = S_(elems),
     .sub = elem_options,
     .elem_size = sizeof(struct elem)},
    {.key = "opt_none",
     .type = OPT_STRUCT,
     .offset = S_(inner),
     .sub = none_options,
     .presence = OPT_OFF_NONE,
     .on_offset = S_(inner.none_on)},
    {.key = "opt_default",
     .type = OPT_STRUCT,
     .offset = S_(inner),
     .sub = default_options,
     .presence = OPT_OFF_DEFAULT,
     .on_offset = S_(inner.default_on)},
    {.key = "opt_on",
     .type = OPT_STRUCT,
     .offset = S_(inner),
     .sub = on_options,
     .presence = OPT_ON,
     .on_offset = S_(inner.on_on)},
    {.key = "tree", .type = OPT_TREE, .offset = S_(tree)},
    {.key = "size", .type = OPT_UINT, .offset = S_(old)},
    {.key = "size_old",
     .type = OPT_UINT,
     .offset = S_(old),
     .flags = OPT_ALIAS | OPT_DEPRECATED,
     .help = "write size"},
    {.key = "nothing", .type = OPT_TREE, .flags = OPT_NO_EFFECT},
    {.key = "balancer",
     .type = OPT_TREE,
     .flags = OPT_UNSUPPORTED,
     .help = "one connection a loop"},
    OPTION_END,
};

struct fixture {
    struct arena arena;
    struct buf problems;
    struct report report;
    struct yaml_ctx yaml;
    struct yaml_node *root;
    struct sample s;
    int rc;
};

static void parse(struct fixture *f, const char *text)
{
    *f = (struct fixture){0};
    arena_init(&f->arena);
    buf_init(&f->problems);
    f->report.out = &f->problems;
    f->yaml = (struct yaml_ctx){.arena = &f->arena, .report = &f->report};
    assert_int_equal(yaml_parse(&f->yaml, str_of(text), "c.yaml", &f->root), 0);
    assert_int_equal(yaml_expand(&f->yaml, f->root), 0);
    f->rc = options_parse(&f->s, options, f->root, &f->arena, &f->problems);
}

static void end(struct fixture *f)
{
    arena_fini(&f->arena);
    buf_fini(&f->problems);
}

static void parse_good(struct fixture *f, const char *text)
{
    parse(f, text);
    if (f->rc < 0 || f->problems.n)
        fail_msg("%s", buf_cstr(&f->problems));
}

/* Adds the required key, so that only the line under test can fail. */
static void expect_problem(const char *text, int rc, const char *want)
{
    struct fixture f;
    struct buf all;
    buf_init(&all);
    buf_addf(&all, "endpoint: h:1\n%s", text);
    parse(&f, buf_cstr(&all));
    buf_fini(&all);
    assert_string_equal(buf_cstr(&f.problems), want);
    assert_int_equal(f.rc, rc);
    end(&f);
}

static void defaults(void **state)
{
    struct fixture f;
    parse_good(&f, "endpoint: h:1\n");
    assert_true(f.s.flag);
    assert_int_equal(f.s.u, 10);
    assert_true(f.s.d == 0.5);
    assert_int_equal(f.s.dur, 200000000);
    assert_string_equal(f.s.text, "x");
    assert_string_equal(f.s.secret, "");
    assert_string_equal(f.s.id, "");
    assert_int_equal(f.s.word, 1);
    assert_int_equal(f.s.any.type, OPTION_NONE);
    assert_int_equal(f.s.texts.n, 2);
    assert_string_equal(((const char **)f.s.texts.items)[1], "b");
    assert_int_equal(((uint64_t *)f.s.durations.items)[1], 4000000);
    assert_false(f.s.inner.none_on);
    assert_int_equal(f.s.inner.none, 1);
    assert_false(f.s.inner.default_on);
    assert_int_equal(f.s.inner.def, 2);
    assert_true(f.s.inner.on_on);
    assert_int_equal(f.s.inner.on, 3);
    assert_null(f.s.tree);
    end(&f);
}

static void values(void **state)
{
    struct fixture f;
    setenv("T_OCTAL", "0123", 1);
    setenv("T_EMPTY", "", 1);
    parse_good(&f, "flag: false\ni: -5\nu: 0x10\nd: 1\ntimeout: 1m\ntext: ${env:T_OCTAL}\n"
                   "secret: pw\nendpoint: '[::1]:4317'\nstorage: file_storage/q\n"
                   "compression: ZSTD\nvalue: 5\ntexts: a,b,c\ndoubles: [1, 2.5]\n"
                   "durations: [1s]\nwords: [gzip, '']\nmap: {a: 1, b: 'x'}\n"
                   "headers: [{name: x, value: y}]\nelems: [{name: n}, {name: m, weight: -1}]\n"
                   "opt_none: {needed: z}\nopt_default:\nopt_on: {size: 9, enabled: true}\n"
                   "tree: {q: [1]}\nsize: ${env:T_OCTAL}\n");
    assert_false(f.s.flag);
    assert_int_equal(f.s.i, -5);
    assert_int_equal(f.s.u, 16);
    assert_true(f.s.d == 1);
    assert_int_equal(f.s.dur, 60000000000);
    assert_string_equal(f.s.text, "0123");
    assert_int_equal(f.s.old, 83); /* the same variable as a number is octal */
    assert_string_equal(f.s.secret, "pw");
    assert_int_equal(f.s.word, 3);
    assert_int_equal(f.s.any.type, OPTION_INT);
    assert_int_equal(f.s.any.i, 5);
    assert_int_equal(f.s.texts.n, 3);
    assert_true(((double *)f.s.doubles.items)[1] == 2.5);
    assert_int_equal(((int *)f.s.words.items)[1], 0);
    assert_string_equal(((struct option_pair *)f.s.map.items)[0].value, "1");
    assert_string_equal(((struct option_pair *)f.s.headers.items)[0].value, "y");
    assert_int_equal(((struct elem *)f.s.elems.items)[0].weight, 7);
    assert_int_equal(((struct elem *)f.s.elems.items)[1].weight, -1);
    assert_true(f.s.inner.none_on);
    assert_true(f.s.inner.default_on);
    assert_int_equal(f.s.inner.on, 9);
    assert_int_equal(yaml_get(f.s.tree, "q")->n, 1);
    end(&f);
}

static void empty_text_from_a_variable_is_a_value(void **state)
{
    struct fixture f;
    setenv("T_EMPTY", "", 1);
    parse_good(&f, "endpoint: h:1\ntext: ${env:T_EMPTY}\nu:\n");
    assert_string_equal(f.s.text, "");
    assert_int_equal(f.s.u, 10);
    end(&f);
}

static void optional_blocks(void **state)
{
    static const struct {
        const char *text;
        bool none, def, on;
    } cases[] = {
        {"", false, false, true},
        {"opt_none:\nopt_default:\nopt_on:\n", false, true, true},
        {"opt_none: {needed: x}\nopt_default: {}\nopt_on: {}\n", true, true, true},
        {"opt_none: {enabled: false, nonsense: 1}\nopt_default: {enabled: false}\n"
         "opt_on: {enabled: false, size: no}\n",
         false, false, false},
        {"opt_none: {enabled: true, needed: x}\nopt_on: {enabled: true}\n", true, false, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture f;
        char text[512];
        snprintf(text, sizeof(text), "endpoint: h:1\n%s", cases[i].text);
        parse_good(&f, text);
        assert_int_equal(f.s.inner.none_on, cases[i].none);
        assert_int_equal(f.s.inner.default_on, cases[i].def);
        assert_int_equal(f.s.inner.on_on, cases[i].on);
        end(&f);
    }
    expect_problem("opt_none: {}\n", -EINVAL, "c.yaml:2:1: opt_none: key 'needed' is required\n");
    expect_problem("opt_on: {enabled: 'yes'}\n", -EINVAL,
                   "c.yaml:2:19: opt_on::enabled: expected true or false\n");
}

static void problems_have_place_path_and_advice(void **state)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"timout: 5s\n", "c.yaml:2:1: unknown key 'timout' (did you mean 'timeout'?)\n"},
        {"qqqqqqqq: 5s\n", "c.yaml:2:1: unknown key 'qqqqqqqq'\n"},
        {"flag: yes\n", "c.yaml:2:7: flag: expected true or false, found 'yes'\n"},
        {"flag: 'true'\n", "c.yaml:2:7: flag: expected true or false, found the text 'true'\n"},
        {"i: 6\n", "c.yaml:2:4: i: 6 is not in the range from -5 to 5\n"},
        {"i: 1.5\n", "c.yaml:2:4: i: expected an integer, found '1.5'\n"},
        {"u: 0\n", "c.yaml:2:4: u: 0 is less than the least value 1\n"},
        {"u: -3\n",
         "c.yaml:2:4: u: expected an integer that is not negative and fits 64 bits, found '-3'\n"},
        {"u: [1]\n", "c.yaml:2:4: u: expected an integer, found a list\n"},
        {"timeout: 5 parsecs\n", "c.yaml:2:10: timeout: expected a duration such as 200ms, 5s or "
                                 "1m30s, found '5 parsecs'\n"},
        {"timeout: 1us\n", "c.yaml:2:10: timeout: 1us is less than the least value 1ms\n"},
        {"storage: a b\n", "c.yaml:2:10: storage: 'a b' is no component id: an id is a type "
                           "([A-Za-z][0-9A-Za-z_]*), or type/name\n"},
        {"compression: gzp\n",
         "c.yaml:2:14: compression: 'gzp' is none of \"\", gzip, snappy, zstd "
         "(did you mean 'gzip'?)\n"},
        {"text: {a: 1}\n", "c.yaml:2:7: text: expected a text, found a mapping\n"},
        {"value: [1]\n", "c.yaml:2:8: value: expected a single value, found a list\n"},
        {"doubles: [1, x]\n", "c.yaml:2:14: doubles[1]: expected a number, found 'x'\n"},
        {"map: {a: [1]}\n", "c.yaml:2:10: map::a: expected a text, found a list\n"},
        {"headers: [{value: v}]\n", "c.yaml:2:11: headers[0]: key 'name' is required\n"},
        {"elems: [{nam: x}]\n",
         "c.yaml:2:9: elems[0]: key 'name' is required\n"
         "c.yaml:2:10: elems[0]: unknown key 'nam' (did you mean 'name'?)\n"},
        {"elems: {name: x}\n", "c.yaml:2:8: elems: expected a list\n"},
        {"opt_on: 5\n", "c.yaml:2:9: opt_on: expected a mapping of keys, found a single value\n"},
        {"balancer: {}\n", "c.yaml:2:1: the Collector's key 'balancer' is not supported here: one "
                           "connection a loop\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        expect_problem(cases[i].text, -EINVAL, cases[i].want);
    expect_problem("size: 1\nsize_old: 2\n", -EINVAL,
                   "c.yaml:3:1: 'size_old' is another spelling of 'size': give one of them\n"
                   "c.yaml:3:1: warning: size_old: deprecated: write size\n");
}

static void warnings_do_not_fail(void **state)
{
    expect_problem("size_old: 2\n", 0, "c.yaml:2:1: warning: size_old: deprecated: write size\n");
    expect_problem("nothing: {a: 1}\n", 0,
                   "c.yaml:2:1: warning: nothing: accepted for compatibility, but does nothing "
                   "here\n");
    expect_problem(
        "durations: [30]\n", 0,
        "c.yaml:2:13: warning: durations[0]: 30 without a unit is 30 nanoseconds; 30s are "
        "seconds\n");
}

static void all_problems_are_collected(void **state)
{
    struct fixture f;
    parse(&f, "flag: 5\nu: x\nbogus: 1\n");
    assert_int_equal(f.rc, -EINVAL);
    assert_string_equal(buf_cstr(&f.problems),
                        "c.yaml:1:7: flag: expected true or false, found '5'\n"
                        "c.yaml:2:4: u: expected an integer, found 'x'\n"
                        "c.yaml:1:1: key 'endpoint' is required\n"
                        "c.yaml:3:1: unknown key 'bogus'\n");
    end(&f);
}

static void a_secret_is_never_quoted(void **state)
{
    struct fixture f;
    parse(&f, "endpoint: h:1\nsecret: {hunter2: 1}\n");
    assert_string_equal(buf_cstr(&f.problems),
                        "c.yaml:2:9: secret: expected a text, found a mapping\n");
    end(&f);
}

static void prints_and_reads_back_the_same(void **state)
{
    struct fixture f, g;
    struct buf once, twice;
    buf_init(&once);
    buf_init(&twice);
    parse_good(&f,
               "endpoint: h:1\nvalue: 'a: b'\nd: 0.1\nelems: [{name: n}, {name: m}]\n"
               "map: {a: 1}\ntimeout: 1.5s\nopt_on: {enabled: false}\ntree: {q: [1, {a: b}]}\n");
    options_print(options, &f.s, 0, false, &once);
    parse(&g, buf_cstr(&once));
    if (g.rc < 0)
        fail_msg("%s\n%s", buf_cstr(&g.problems), buf_cstr(&once));
    options_print(options, &g.s, 0, false, &twice);
    assert_string_equal(buf_cstr(&once), buf_cstr(&twice));
    assert_non_null(strstr(buf_cstr(&once), "elems:\n  - name: n\n    weight: 7\n  - name: m\n"));
    assert_non_null(strstr(buf_cstr(&once), "opt_on:\n  enabled: false\n"));
    end(&f);
    end(&g);
    buf_reset(&once);
    parse_good(&f, "endpoint: h:1\nsecret: hunter2\nheaders: {authorization: hunter2}\n");
    options_print(options, &f.s, 0, true, &once);
    assert_null(strstr(buf_cstr(&once), "hunter2"));
    assert_non_null(strstr(buf_cstr(&once), "secret: \"[REDACTED]\"\n"));
    end(&f);
    buf_fini(&once);
    buf_fini(&twice);
}

static const struct component sample_component = {
    .kind = KIND_EXPORTER,
    .name = "sample",
    .aliases = (const char *const[]){"sampl", "smpl", NULL},
    .help = "Does nothing | well.",
    .signals = SIGNAL_BIT(SIGNAL_TRACES) | SIGNAL_BIT(SIGNAL_LOGS),
    .stability = STABILITY_BETA,
    .options = options,
};

static void reference_page(void **state)
{
    struct buf out;
    buf_init(&out);
    options_reference(&sample_component, &out);
    const char *s = buf_cstr(&out);
    static const char *const parts[] = {
        "## sample\n\nDoes nothing | well.\n\nbeta; traces, logs; old names: `sampl`, `smpl`.\n\n",
        "| `u` | integer ≥ 0 | `10` |  At least 1. |\n",
        "| `timeout` | duration | `200ms` |  At least 1ms. |\n",
        "| `endpoint` | host:port | required |  |\n",
        "| `compression` | one of `\"\"`, `gzip`, `snappy`, `zstd` | `gzip` |  |\n",
        "| `elems` | list of mappings |  |  |\n| `elems[]::name` | text | required |  |\n",
        "| `opt_on` | mapping | on |  `enabled: false` switches it off. |\n| `opt_on::size` |",
        "| `size` | integer ≥ 0 | `0` |  Also written `size_old`. |\n",
        "\nKeys of the Collector that are refused: `balancer`.\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (!strstr(s, parts[i]))
            fail_msg("missing: %s\nin: %s", parts[i], s);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(values),
        cmocka_unit_test(empty_text_from_a_variable_is_a_value),
        cmocka_unit_test(optional_blocks),
        cmocka_unit_test(problems_have_place_path_and_advice),
        cmocka_unit_test(warnings_do_not_fail),
        cmocka_unit_test(all_problems_are_collected),
        cmocka_unit_test(a_secret_is_never_quoted),
        cmocka_unit_test(prints_and_reads_back_the_same),
        cmocka_unit_test(reference_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
