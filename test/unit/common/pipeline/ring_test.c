/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/pipeline/ring.c"

enum { KEYS = 20000 };

static uint64_t fnv(uint64_t h, const void *p, size_t n)
{
    for (const uint8_t *b = p; n; n--, b++)
        h = (h ^ *b) * 1099511628211ULL;
    return h;
}

static void key_of(uint64_t i, uint8_t id[16])
{
    uint64_t halves[2] = {__builtin_bswap64(i * 0x9e3779b97f4a7c15ULL), __builtin_bswap64(i)};
    memcpy(id, halves, 16);
}

static uint64_t ring_digest(const struct ring *r)
{
    uint64_t h = 14695981039346656037ULL;
    for (uint32_t i = 0; i < r->n_items; i++) {
        const char *e = r->endpoints[r->items[i].owner];
        h = fnv(h, &r->items[i].position, 4);
        h = fnv(h, e, strlen(e));
    }
    return h;
}

static uint64_t owners_digest(const struct ring *r)
{
    uint64_t h = 14695981039346656037ULL;
    for (uint64_t i = 0; i < KEYS; i++) {
        uint8_t id[16];
        key_of(i, id);
        const char *e = ring_endpoint(r, ring_owner(r, id, 16));
        h = fnv(h, e, strlen(e));
    }
    return h;
}

static const char *owner_of(const struct ring *r, const char *key)
{
    return ring_endpoint(r, ring_owner(r, key, strlen(key)));
}

static const char *const one[] = {"a:4317"};
static const char *const three[] = {"10.0.0.1:4317", "10.0.0.2:4317", "10.0.0.3:4317"};
static const char *const five[] = {"gw-0", "gw-1", "gw-2", "gw-3", "gw-4"};
static char many_text[300][16];
static const char *many[300];

static int make_many(void **state)
{
    for (unsigned i = 0; i < 300; i++) {
        snprintf(many_text[i], sizeof(many_text[i]), "endpoint-%u", i);
        many[i] = many_text[i];
    }
    return 0;
}

static void crc_is_the_ieee_one(void **state)
{
    pthread_once(&crc_once, crc_init);
    assert_int_equal(crc32_add(0, "123456789", 9), 0xcbf43926u);
    assert_int_equal(crc32_add(crc32_add(0, "1234", 4), "56789", 5), 0xcbf43926u);
    assert_int_equal(crc32_add(0, "", 0), 0);
}

/* The expected values were computed by the Collector's own ring, v0.158.0. */
static void equals_the_collectors_ring(void **state)
{
    static const struct {
        const char *const *endpoints;
        size_t n;
        uint32_t items;
        uint64_t ring, owners;
        const char *empty, *checkout, *cart;
    } cases[] = {
        {one, 1, 200, 0x79fce5cdae11d0acULL, 0x990da1ea9c26e6a5ULL, "a:4317", "a:4317", "a:4317"},
        {three, 3, 600, 0x7f87586822cbaa47ULL, 0x9d8fc5986c79d8b6ULL, "10.0.0.1:4317",
         "10.0.0.1:4317", "10.0.0.3:4317"},
        {five, 5, 1000, 0x1547be14a52589eeULL, 0x1baf797498e6d0c6ULL, "gw-2", "gw-0", "gw-4"},
        {many, 300, 60000, 0x9b3a6b0d23f7bd57ULL, 0x20d21958bd1b7245ULL, "endpoint-142",
         "endpoint-49", "endpoint-202"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct ring *r;
        assert_int_equal(ring_new(&r, cases[i].endpoints, cases[i].n), 0);
        assert_int_equal(r->n_items, cases[i].items);
        assert_true(ring_digest(r) == cases[i].ring);
        assert_true(owners_digest(r) == cases[i].owners);
        assert_string_equal(owner_of(r, ""), cases[i].empty);
        assert_string_equal(owner_of(r, "checkout"), cases[i].checkout);
        assert_string_equal(owner_of(r, "service.name=cart|"), cases[i].cart);
        ring_free(&r);
        assert_null(r);
    }
}

static void order_does_not_matter(void **state)
{
    static const char *const mixed[] = {"gw-3", "gw-0", "gw-4", "gw-2", "gw-1"};
    struct ring *a, *b, *c;
    assert_int_equal(ring_new(&a, five, 5), 0);
    assert_int_equal(ring_new(&b, mixed, 5), 0);
    assert_int_equal(ring_new(&c, five, 4), 0);
    assert_true(ring_eq(a, b));
    assert_false(ring_eq(a, c));
    assert_string_equal(ring_endpoint(b, 0), "gw-0");
    assert_int_equal(ring_size(b), 5);
    ring_free(&a);
    ring_free(&b);
    ring_free(&c);
}

static void keys_spread_evenly(void **state)
{
    struct ring *r;
    unsigned counts[5] = {0};
    assert_int_equal(ring_new(&r, five, 5), 0);
    for (uint64_t i = 0; i < KEYS; i++) {
        uint8_t id[16];
        key_of(i, id);
        counts[ring_owner(r, id, 16)]++;
    }
    for (int i = 0; i < 5; i++) /* 4000 each were even; 200 virtual nodes give about 7 % */
        assert_in_range(counts[i], 3000, 5000);
    ring_free(&r);
}

static void only_keys_of_a_removed_endpoint_move(void **state)
{
    struct ring *all, *less;
    unsigned moved = 0, strays = 0;
    assert_int_equal(ring_new(&all, five, 5), 0);
    assert_int_equal(ring_new(&less, five, 4), 0);
    for (uint64_t i = 0; i < KEYS; i++) {
        uint8_t id[16];
        key_of(i, id);
        const char *was = ring_endpoint(all, ring_owner(all, id, 16));
        const char *is = ring_endpoint(less, ring_owner(less, id, 16));
        if (strcmp(was, is) == 0)
            continue;
        moved++;
        strays += strcmp(was, "gw-4") != 0; /* a collision resolved differently: rare */
    }
    assert_in_range(moved, 3000, 5000);
    assert_in_range(strays, 0, KEYS / 1000);
    ring_free(&all);
    ring_free(&less);
}

static void a_name_given_twice_is_one_endpoint(void **state)
{
    static const char *const twice[] = {"b", "a", "b"};
    struct ring *r;
    assert_int_equal(ring_new(&r, twice, 3), 0);
    assert_int_equal(ring_size(r), 2);
    assert_int_equal(r->n_items, 600);
    ring_free(&r);
}

static void refuses_nothing_and_survives_no_memory(void **state)
{
    struct ring *r;
    assert_int_equal(ring_new(&r, NULL, 0), -EINVAL);
    assert_null(r);
    for (unsigned n = 1;; n++) {
        mem_fail_after(n);
        int rc = ring_new(&r, five, 5);
        mem_fail_after(0);
        if (rc == 0)
            break;
        assert_int_equal(rc, -ENOMEM);
        assert_null(r);
    }
    ring_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_is_the_ieee_one),
        cmocka_unit_test(equals_the_collectors_ring),
        cmocka_unit_test(order_does_not_matter),
        cmocka_unit_test(keys_spread_evenly),
        cmocka_unit_test(only_keys_of_a_removed_endpoint_move),
        cmocka_unit_test(a_name_given_twice_is_one_endpoint),
        cmocka_unit_test(refuses_nothing_and_survives_no_memory),
    };
    return cmocka_run_group_tests(tests, make_many, NULL);
}
