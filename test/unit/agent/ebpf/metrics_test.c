/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/ebpf/metrics.h"

static const struct str none = {NULL, 0};

/* The fields of OTLP's ResourceMetrics.resource with nothing in it; any bytes do for telling apart.
 */
#define A STR("\x0a\x00")
#define B STR("\x0a\x02\x10\x00")

static uint32_t taken(struct metrics *m)
{
    struct batch *b = metrics_take(m, 2);
    uint32_t items = b ? (uint32_t)b->items : 0;

    batch_unref(&b);
    return items;
}

static void bounds(void **ctx)
{
    struct metrics m;
    struct metric_series *first, *over;

    metrics_init(&m, 1, "1", 1);
    first = metrics_series(&m, METRIC_TCP_FAILURES, A, none);
    assert_ptr_equal(metrics_series(&m, METRIC_TCP_FAILURES, A, none), first);
    over = metrics_series(&m, METRIC_TCP_FAILURES, A, STR("x"));
    assert_ptr_not_equal(over, first);
    assert_ptr_equal(metrics_series(&m, METRIC_TCP_FAILURES, A, STR("y")), over);
    assert_int_equal(m.overflowed, 2);
    /* What is set as a whole never shares. */
    assert_ptr_not_equal(metrics_counted(&m, METRIC_TCP_FAILURES, A, STR("x")), over);
    assert_ptr_not_equal(metrics_counted(&m, METRIC_TCP_FAILURES, A, STR("x")),
                         metrics_counted(&m, METRIC_TCP_FAILURES, A, STR("y")));
    assert_int_equal(m.overflowed, 2);
    metrics_fini(&m);
}

static void ends(void **ctx)
{
    struct metrics m;

    metrics_init(&m, 10, "1", 1);
    metrics_counted(&m, METRIC_TCP_RETRANSMITS, A, none)->sum = 1;
    metrics_counted(&m, METRIC_TCP_FAILURES, A, none)->sum = 2;
    metrics_counted(&m, METRIC_TCP_RETRANSMITS, B, none)->sum = 3;
    assert_int_equal(taken(&m), 3);
    assert_int_equal(taken(&m), 0); /* nothing has changed */
    metrics_end(&m, A);
    assert_int_equal(taken(&m), 3); /* told once more */
    assert_int_equal(m.n, 1);
    metrics_counted(&m, METRIC_TCP_RETRANSMITS, A, none)->sum = 4; /* a new one of that name */
    assert_int_equal(taken(&m), 2);
    assert_int_equal(m.n, 2);
    metrics_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds),
        cmocka_unit_test(ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
