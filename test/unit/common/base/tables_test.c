/* SPDX-License-Identifier: Apache-2.0 */
/* hashmap against a plain array, histograms against their definitions, UTF-8 against RFC 3629. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/base/hashmap.h"
#include "common/base/histogram.h"

enum { KEYS = 500, STEPS = 200000 };

struct thing {
    uint64_t key;
};

static bool same(const void *value, const void *key)
{
    const struct thing *t = value;
    return t->key == *(const uint64_t *)key;
}

/* Few distinct hashes: long runs of collisions, over the table's end too. */
static uint64_t bad_hash(uint64_t key)
{
    return key % 7 * 0x1000000000000001ULL - (key % 3);
}

static void hashmap_equals_a_model(void **state)
{
    struct hashmap m;
    struct thing things[KEYS];
    bool in[KEYS] = {false};
    size_t n = 0;
    (void)state;
    srand(1);
    hashmap_init(&m);
    for (uint64_t k = 0; k < KEYS; k++)
        things[k].key = k;
    for (int i = 0; i < STEPS; i++) {
        uint64_t k = (uint64_t)rand() % KEYS;
        struct thing *found = hashmap_find(&m, bad_hash(k), same, &k);
        assert_ptr_equal(found, in[k] ? &things[k] : NULL);
        if (in[k])
            assert_ptr_equal(hashmap_take(&m, bad_hash(k), same, &k), &things[k]);
        else
            assert_int_equal(hashmap_add(&m, bad_hash(k), &things[k]), 0);
        in[k] = !in[k];
        n += in[k] ? 1 : (size_t)-1;
        assert_int_equal(m.n, n);
    }
    size_t pos = 0, seen = 0;
    for (struct thing *t; (t = hashmap_next(&m, &pos)); seen++)
        assert_true(in[t->key]);
    assert_int_equal(seen, n);
    hashmap_fini(&m);
}

static void explicit_buckets_hold_their_upper_bound(void **state)
{
    static const double bounds[] = {1, 5, 10};
    struct histogram h;
    (void)state;
    histogram_init(&h, bounds, 3);
    const double values[] = {0.5, 1, 1.0001, 5, 9, 10, 10.1};
    for (size_t i = 0; i < ARRAY_LEN(values); i++)
        histogram_observe(&h, values[i], 2);
    assert_int_equal(h.buckets[0], 4);
    assert_int_equal(h.buckets[1], 4);
    assert_int_equal(h.buckets[2], 4);
    assert_int_equal(h.buckets[3], 2);
    assert_int_equal(h.count, 14);
    assert_true(h.min == 0.5 && h.max == 10.1);
    histogram_fini(&h);
}

/* Every observation lies in the bucket whose bounds enclose it, at whatever scale that came to be.
 */
static void check_exponential(const struct exp_histogram *h, const double *v, size_t n)
{
    uint64_t counts[512] = {0}, total = 0;
    long double base = powl(2, powl(2, -h->scale));
    assert_true(h->positive.n <= h->max_size && h->positive.n <= ARRAY_LEN(counts));
    for (size_t i = 0; i < n; i++) {
        /* By definition (base^index, base^(index+1)]; logarithms are exact enough off the edges. */
        long double index = ceill(logl((long double)v[i]) / logl(base) - 1e-9L) - 1;
        long at = (long)index - h->positive.offset;
        assert_in_range(at, 0, h->positive.n - 1);
        counts[at]++;
    }
    for (uint32_t i = 0; i < h->positive.n; i++) {
        assert_int_equal(h->positive.counts[i], counts[i]);
        total += counts[i];
    }
    assert_int_equal(total + h->zero_count, h->count);
}

static void exponential_buckets_enclose_their_values(void **state)
{
    static double v[4000];
    struct exp_histogram h, a, b;
    (void)state;
    srand(2);
    for (size_t i = 0; i < ARRAY_LEN(v); i++)
        v[i] = exp((double)rand() / RAND_MAX * 30 - 15);
    v[0] = 1;
    v[1] = 4;
    v[2] = 0.25;
    exp_histogram_init(&h, 160);
    exp_histogram_init(&a, 160);
    exp_histogram_init(&b, 160);
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        exp_histogram_observe(&h, v[i], 1);
        exp_histogram_observe(i % 2 ? &a : &b, v[i], 1);
    }
    check_exponential(&h, v, ARRAY_LEN(v));
    exp_histogram_merge(&a, &b);
    check_exponential(&a, v, ARRAY_LEN(v));
    exp_histogram_observe(&h, 0, 3);
    assert_int_equal(h.zero_count, 3);
    exp_histogram_fini(&h);
    exp_histogram_fini(&a);
    exp_histogram_fini(&b);
}

static void utf8_is_that_of_rfc_3629(void **state)
{
    static const char *const good[] = {"",
                                       "plain",
                                       "\xc2\x80",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf",
                                       "12345678\xc3\xa9"};
    static const char *const bad[] = {
        "\x80",         "\xc0\x80",         "\xc1\xbf",         "\xe0\x9f\xbf",
        "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xc3",         "12345678\xff",     "\xe2\x82"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        assert_true(str_is_utf8(good[i], strlen(good[i])));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(str_is_utf8(bad[i], strlen(bad[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashmap_equals_a_model),
        cmocka_unit_test(explicit_buckets_hold_their_upper_bound),
        cmocka_unit_test(exponential_buckets_enclose_their_values),
        cmocka_unit_test(utf8_is_that_of_rfc_3629),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
