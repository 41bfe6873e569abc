/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/components/exporters/load_balancing/route.h"
#include "test/unit/common/components/exporters/load_balancing/batches.h"

static const char *const gateways[] = {"gw-0", "gw-1", "gw-2", "gw-3", "gw-4"};

static int make_ring(void **state)
{
    struct ring *r;
    int rc = ring_new(&r, gateways, 5);
    *state = r;
    return rc;
}

static int drop_ring(void **state)
{
    ring_free((struct ring **)state);
    return 0;
}

static uint32_t owner_of(const struct ring *ring, const char *key)
{
    return ring_owner(ring, key, strlen(key));
}

/* The owner whose part holds the record, or UINT32_MAX. Checks that each record stands once. */
static uint32_t find(const struct route *r, uint32_t record)
{
    uint32_t found = UINT32_MAX, times = 0;
    for (uint32_t o = 0; o <= r->n; o++) {
        uint32_t end = o < r->n ? r->begin[o + 1] : r->n_records;
        for (uint32_t i = r->begin[o]; i < end; i++) {
            if (r->idx[i] != record)
                continue;
            times++;
            found = o < r->n ? o : UINT32_MAX;
        }
    }
    assert_int_equal(times, 1);
    return found;
}

static void traces_go_by_trace_id(void **state)
{
    struct ring *ring = *state;
    struct batch *b = make_traces(0, 600, 3);
    struct route r;
    assert_int_equal(route_batch(&r, b, ring, ROUTE_TRACE_ID), 0);
    assert_int_equal(route_strays(&r), 0);
    for (uint32_t i = 0; i < b->n_records; i++) {
        uint8_t id[16];
        trace_id_of(i / 3, id);
        assert_int_equal(find(&r, i), ring_owner(ring, id, 16));
    }
    for (uint32_t o = 0; o < r.n; o++) {
        assert_true(route_count(&r, o) > 0);
        for (uint32_t i = r.begin[o] + 1; i < r.begin[o + 1]; i++)
            assert_true(r.idx[i - 1] < r.idx[i]);
    }
    route_fini(&r);
    batch_unref(&b);
}

static void traces_go_by_service(void **state)
{
    struct ring *ring = *state;
    struct batch_builder bb;
    struct batch *b;
    struct route r;
    batch_builder_init(&bb, SIGNAL_TRACES);
    begin_resource(&bb, "cart");
    add_span(&bb, 1, 1, "other");
    begin_resource(&bb, NULL);
    add_span(&bb, 2, 2, NULL);
    add_span(&bb, 2, 3, "own");
    begin_resource(&bb, "checkout");
    add_span(&bb, 3, 4, NULL);
    assert_int_equal(batch_builder_seal(&bb, &b), 0);
    assert_int_equal(route_batch(&r, b, ring, ROUTE_SERVICE), 0);
    assert_int_equal(find(&r, 0), owner_of(ring, "service.name=cart|"));
    assert_int_equal(find(&r, 1), owner_of(ring, "service.name=|"));
    assert_int_equal(find(&r, 2), owner_of(ring, "service.name=own|"));
    assert_int_equal(find(&r, 3), owner_of(ring, "service.name=checkout|"));
    route_fini(&r);
    batch_unref(&b);
}

static struct batch *make_logs(void)
{
    struct batch_builder bb;
    struct batch *b;
    batch_builder_init(&bb, SIGNAL_LOGS);
    begin_resource(&bb, "cart");
    for (uint64_t i = 0; i < 50; i++) {
        struct buf body;
        uint8_t id[16];
        buf_init(&body);
        trace_id_of(i, id);
        if (i % 2 == 0)
            wire_put_bytes(&body, 9, str_make(id, 16));
        wire_put_u64(&body, 2, i + 1);
        batch_builder_record(&bb, buf_str(&body), 1, NULL);
        buf_fini(&body);
    }
    begin_resource(&bb, NULL);
    batch_builder_record(&bb, STR("\x10\x01"), 1, NULL);
    int rc = batch_builder_seal(&bb, &b);
    ASSERT(rc == 0);
    return b;
}

static void logs_by_hex_trace_id_or_anywhere(void **state)
{
    struct ring *ring = *state;
    struct batch *b = make_logs();
    struct route r;
    bool spread = false;
    assert_int_equal(route_batch(&r, b, ring, ROUTE_TRACE_ID), 0);
    for (uint32_t i = 0; i < 50; i++) {
        uint8_t id[16];
        char hex[33];
        trace_id_of(i, id);
        for (int k = 0; k < 16; k++)
            snprintf(hex + 2 * k, 3, "%02x", id[k]);
        if (i % 2 == 0)
            assert_int_equal(find(&r, i), owner_of(ring, hex));
        else
            spread = spread || find(&r, i) != find(&r, 1);
    }
    assert_true(spread); /* 25 records without id on one of five backends: 1 in 5^24 */
    assert_int_equal(route_strays(&r), 0);
    route_fini(&r);
    batch_unref(&b);
}

static void logs_by_bare_service(void **state)
{
    struct ring *ring = *state;
    struct batch *b = make_logs();
    struct route r;
    assert_int_equal(route_batch(&r, b, ring, ROUTE_SERVICE), 0);
    assert_int_equal(find(&r, 0), owner_of(ring, "cart"));
    assert_int_equal(find(&r, 49), owner_of(ring, "cart"));
    assert_int_equal(find(&r, 50), owner_of(ring, ""));
    route_fini(&r);
    batch_unref(&b);
}

static void metrics_without_service_are_strays(void **state)
{
    struct ring *ring = *state;
    struct batch_builder bb;
    struct batch *b;
    struct route r;
    batch_builder_init(&bb, SIGNAL_METRICS);
    begin_resource(&bb, NULL);
    batch_builder_record(&bb, STR("\x0a\x01m"), 3, NULL);
    begin_resource(&bb, "cart");
    batch_builder_record(&bb, STR("\x0a\x01n"), 2, NULL);
    assert_int_equal(batch_builder_seal(&bb, &b), 0);
    assert_int_equal(route_batch(&r, b, ring, ROUTE_SERVICE), 0);
    assert_int_equal(route_strays(&r), 1);
    assert_int_equal(r.idx[r.begin[r.n]], 0);
    assert_int_equal(find(&r, 1), owner_of(ring, "cart"));
    route_fini(&r);
    batch_unref(&b);
}

static void the_key_follows_the_signal(void **state)
{
    assert_int_equal(route_key_of(ROUTE_DEFAULT, SIGNAL_TRACES), ROUTE_TRACE_ID);
    assert_int_equal(route_key_of(ROUTE_DEFAULT, SIGNAL_LOGS), ROUTE_SERVICE);
    assert_int_equal(route_key_of(ROUTE_DEFAULT, SIGNAL_METRICS), ROUTE_SERVICE);
    assert_int_equal(route_key_of(ROUTE_SERVICE, SIGNAL_TRACES), ROUTE_SERVICE);
    assert_int_equal(route_key_of(ROUTE_TRACE_ID, SIGNAL_LOGS), ROUTE_TRACE_ID);
}

static void no_memory_is_an_error(void **state)
{
    struct batch *b = make_traces(0, 10, 2);
    for (unsigned n = 1; n <= 3; n++) {
        struct route r;
        mem_fail_after(n);
        int rc = route_batch(&r, b, *state, ROUTE_TRACE_ID);
        mem_fail_after(0);
        assert_int_equal(rc, -ENOMEM);
    }
    batch_unref(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(traces_go_by_trace_id),
        cmocka_unit_test(traces_go_by_service),
        cmocka_unit_test(logs_by_hex_trace_id_or_anywhere),
        cmocka_unit_test(logs_by_bare_service),
        cmocka_unit_test(metrics_without_service_are_strays),
        cmocka_unit_test(the_key_follows_the_signal),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_ring, drop_ring);
}
