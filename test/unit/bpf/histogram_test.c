/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's buckets against logarithms. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bpf/histogram.h"

/* Bucket i holds (2^((i + OFFSET) / 4), 2^((i + OFFSET + 1) / 4)]. */
static int expected(uint64_t ns)
{
    int i = (int)ceil(log2((double)ns / 1e9) * 4) - 1 - WIRE_OFFSET;

    return i < 0 ? -1 : i >= WIRE_BUCKETS ? WIRE_BUCKETS - 1 : i;
}

/* Whether so near to a bound that the rounding of either side may decide; how near, of the value.
 */
static int near_bound(uint64_t ns, double how)
{
    double x = log2((double)ns / 1e9) * 4;

    return fabs(x - round(x)) < how * 4 / log(2);
}

static void logarithms(void **ctx)
{
    unsigned compared = 0;

    for (double at = 1; at < 2e12; at *= 1.003) {
        uint64_t ns = (uint64_t)at;
        double how = (ns >> 33 ? 1024 : 0.5) / (double)ns;

        if (near_bound(ns, how))
            continue;
        if (expected(ns) < 0)
            assert_true(bucket_of(ns) < 0);
        else
            assert_int_equal(bucket_of(ns), expected(ns));
        compared++;
    }
    assert_true(compared > 8000);
}

static void edges(void **ctx)
{
    const uint64_t second = 1000000000;

    assert_true(bucket_of(0) < 0);
    assert_true(bucket_of(238) < 0); /* 2^-22 s are 238.4 ns */
    assert_int_equal(bucket_of(239), 0);
    /* A bound is in the bucket below it. */
    assert_int_equal(bucket_of(second), -WIRE_OFFSET - 1);
    assert_int_equal(bucket_of(second + 1), -WIRE_OFFSET);
    assert_int_equal(bucket_of(second / 4), -WIRE_OFFSET - 9);
    assert_int_equal(bucket_of(8 * second), -WIRE_OFFSET + 11);
    assert_int_equal(bucket_of(UINT64_MAX), WIRE_BUCKETS - 1);
}

static void adding(void **ctx)
{
    static struct wire_histogram h;

    histogram_add(&h, 100);
    histogram_add(&h, 1000000000);
    histogram_add(&h, 31000000000ull);
    assert_int_equal(h.zeros, 1);
    assert_int_equal(h.buckets[-WIRE_OFFSET - 1], 1);
    assert_int_equal(h.buckets[expected(31000000000ull)], 1);
    assert_int_equal(h.sum_ns, 32000000100ull);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logarithms),
        cmocka_unit_test(edges),
        cmocka_unit_test(adding),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
