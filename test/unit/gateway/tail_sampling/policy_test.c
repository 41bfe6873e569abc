/* SPDX-License-Identifier: Apache-2.0 */
/* Policies against what the Collector's decide: bounds to the bit, whole milliseconds, early
 * subsets, which strings match. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/hashmap.h"
#include "common/otlp/encode.h"
#include "gateway/tail_sampling/policy.c"

static const uint8_t id[16] = "0123456789abcde";

/* Values of big.Float: the exact product, rounded to 64 bits to even, cut. */
static void bounds_are_the_collectors_to_the_bit(void **state)
{
    static const struct {
        double percent;
        uint64_t bound;
    } cases[] = {
        {10, 1844674407370955263ULL},
        {50, 9223372036854775807ULL},
        {25, 4611686018427387903ULL},
        {33.3, 6142765776545279999ULL},
        {0.1, 18446744073709551ULL},
        {99.99, 18444899399302178815ULL},
        {66.6, 12285531553090559999ULL},
        {1e-9, 184467440ULL},
        {99.99999999999999, 18446744073709549567ULL},
        {1e-20, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(bound_of(cases[i].percent / 100), cases[i].bound);
}

/* The hash of salt and trace id at the very bound is kept, one below it is not. */
static void a_hash_at_the_bound_is_kept(void **state)
{
    struct policy p = {.type = PROBABILISTIC, .salt = STR("default-hash-seed")};
    struct trace t = {.max_end = 1};
    memcpy(t.id, id, 16);
    uint64_t h = fnv1a64(fnv1a64(0xcbf29ce484222325ULL, p.salt.p, p.salt.n), t.id, 16);
    p.most = h;
    assert_true(vote(&p, &t));
    p.most = h - 1;
    assert_false(vote(&p, &t));
    /* FNV-1a's own test vector: "foobar". */
    assert_int_equal(fnv1a64(0xcbf29ce484222325ULL, "foobar", 6), 0x85944171f73967e8ULL);
}

struct span_times {
    uint64_t start_us, end_us;
};

static struct trace *stored(struct store *s, const struct span_times *times, size_t n,
                            struct str attrs, struct str resource)
{
    struct trace *t = store_add(s, hash_bytes(id, 16), id, 0);
    struct store_source src;
    struct batch_builder bb;
    struct batch *b;
    struct buf span;
    batch_builder_init(&bb, SIGNAL_TRACES);
    batch_builder_resource(&bb, resource, true);
    batch_builder_scope(&bb, STR(""), true);
    buf_init(&span);
    for (size_t i = 0; i < n; i++) {
        buf_reset(&span);
        wire_put_bytes(&span, 1, str_make(id, 16));
        wire_put_bytes(&span, 2, STR("12345678"));
        wire_put_i64(&span, 7, times[i].start_us * 1000);
        wire_put_i64(&span, 8, times[i].end_us * 1000);
        buf_add_str(&span, attrs);
        batch_builder_record(&bb, buf_str(&span), 1, NULL);
    }
    assert_int_equal(batch_builder_seal(&bb, &b), 0);
    assert_int_equal(store_source_init(&src, b), 0);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(store_insert(s, t, &src, i), 0);
    store_source_fini(&src);
    buf_fini(&span);
    batch_unref(&b);
    return t;
}

static bool kept_by_latency(const struct span_times *times, size_t n, uint64_t over, uint64_t upper)
{
    struct policy p = {.type = LATENCY, .threshold_ms = over, .upper_ms = upper};
    struct store s;
    store_init(&s);
    bool kept = vote(&p, stored(&s, times, n, STR(""), STR("")));
    store_fini(&s);
    return kept;
}

static void latency_counts_whole_milliseconds(void **state)
{
    struct span_times t[] = {{1000, 3000}, {2000, 501999}};
    assert_false(kept_by_latency(t, 2, 500, 0)); /* 500.999 ms are 500, not more than 500 */
    t[1].end_us = 502000;
    assert_true(kept_by_latency(t, 2, 500, 0));
    assert_true(kept_by_latency(t, 2, 500, 501));
    assert_false(kept_by_latency(t, 2, 501, 600));
    struct span_times backwards[] = {{5000, 1000}};
    assert_false(kept_by_latency(backwards, 1, 0, 0));
}

/* Longer than the upper bound in the end, but within it after its second span. */
static void an_early_subset_may_pass(void **state)
{
    const struct span_times grows[] = {{0, 100000}, {0, 600000}, {0, 2000000}};
    const struct span_times jumps[] = {{0, 2000000}, {0, 600000}, {0, 100000}};
    assert_true(kept_by_latency(grows, 3, 500, 1000));
    assert_false(kept_by_latency(jumps, 3, 500, 1000));
}

static bool kept_by_string(const char *pattern, bool is_regex, bool invert, struct any span_value,
                           struct any resource_value)
{
    const char *values[] = {pattern};
    struct policy_config c = {.name = "p", .type = STRING_ATTRIBUTE};
    struct policy p = {.type = STRING_ATTRIBUTE};
    struct buf attrs, resource, envelope;
    struct span_times times = {0, 1};
    struct store s;
    struct err e;
    c.string_attribute.on = true;
    c.string_attribute.key = "k";
    c.string_attribute.values = (struct option_list){.items = values, .n = 1};
    c.string_attribute.is_regex = is_regex;
    c.string_attribute.invert = invert;
    assert_int_equal(compile(&p, &c, &e), 0);
    buf_init(&attrs);
    buf_init(&resource);
    buf_init(&envelope);
    if (span_value.type != ANY_EMPTY)
        encode_attr(&attrs, SPAN_ATTRIBUTES, STR("k"), span_value);
    if (resource_value.type != ANY_EMPTY)
        encode_attr(&resource, 1, STR("k"), resource_value);
    wire_put_bytes(&envelope, 1, buf_str(&resource));
    store_init(&s);
    bool kept = vote(&p, stored(&s, &times, 1, buf_str(&attrs), buf_str(&envelope)));
    store_fini(&s);
    policy_fini(&p);
    buf_fini(&attrs);
    buf_fini(&resource);
    buf_fini(&envelope);
    return kept;
}

static void strings_match_as_the_collectors_do(void **state)
{
    const struct any none = {.type = ANY_EMPTY}, gold = any_str(STR("gold")),
                     empty = any_str(STR("")), seven = any_int(7);
    assert_true(kept_by_string("gold", false, false, gold, none));
    assert_true(kept_by_string("gold", false, false, none, gold)); /* of the resource */
    assert_false(kept_by_string("gol", false, false, gold, none)); /* exact is whole */
    assert_true(kept_by_string("ol", true, false, gold, none));    /* unanchored */
    assert_false(kept_by_string("", false, false, gold, none));    /* empty values are ignored */
    assert_true(kept_by_string("", true, false, gold, none));      /* matches any text there is */
    assert_false(kept_by_string(".*", true, false, empty, none));  /* no text never matches */
    assert_false(kept_by_string(".*", true, false, seven, none));  /* only texts do */
    assert_false(kept_by_string("gold", false, true, gold, none));
    assert_true(kept_by_string("gold", false, true, none, none)); /* inverted: nothing matches */
}

/* num_traces: the oldest one goes with its spans, and its id is a new one afterwards. */
static void the_oldest_trace_makes_room(void **state)
{
    struct mem_usage before, after;
    const struct span_times times[] = {{0, 1}, {0, 2}};
    struct store s;
    struct trace *t;
    mem_usage_get(&before);
    store_init(&s);
    assert_int_equal(store_evict_oldest(&s), 0);
    stored(&s, times, 2, STR(""), STR(""));
    assert_int_equal(store_find(&s, hash_bytes(id, 16), id, &t), TRACE_PENDING);
    assert_int_equal(store_evict_oldest(&s), 2);
    assert_int_equal(store_find(&s, hash_bytes(id, 16), id, &t), TRACE_UNKNOWN);
    assert_true(list_is_empty(&s.pending));
    store_fini(&s);
    mem_usage_get(&after);
    assert_int_equal(after.in_use, before.in_use);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_are_the_collectors_to_the_bit),
        cmocka_unit_test(a_hash_at_the_bound_is_kept),
        cmocka_unit_test(latency_counts_whole_milliseconds),
        cmocka_unit_test(an_early_subset_may_pass),
        cmocka_unit_test(strings_match_as_the_collectors_do),
        cmocka_unit_test(the_oldest_trace_makes_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
