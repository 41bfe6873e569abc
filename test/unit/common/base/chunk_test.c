/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/arena.h"
#include "common/base/buf.h"

static uint64_t in_use(void)
{
    struct mem_usage u;
    mem_usage_get(&u);
    return u.in_use;
}

static void *free_all(void *arg)
{
    struct chunk **c = arg;
    for (int i = 0; i < 64; i++)
        chunk_unref(&c[i]);
    return NULL;
}

static void chunks_come_back_from_other_threads(void **state)
{
    (void)state;
    uint64_t before = in_use();
    struct chunk *c[64];
    pthread_t t;
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 64; i++) {
            c[i] = chunk_new(5000);
            assert_non_null(c[i]);
            memset(c[i]->data, i, 5000);
        }
        assert_int_equal(pthread_create(&t, NULL, free_all, c), 0);
        assert_int_equal(pthread_join(t, NULL), 0);
        assert_int_equal(in_use(), before);
    }
}

static void *make_one(void *arg)
{
    struct chunk **c = arg;
    *c = chunk_new(100000);
    return NULL;
}

static void a_chunk_outlives_its_thread(void **state)
{
    struct chunk *c = NULL;
    pthread_t t;
    (void)state;
    assert_int_equal(pthread_create(&t, NULL, make_one, &c), 0);
    assert_int_equal(pthread_join(t, NULL), 0);
    memset(c->data, 7, c->cap);
    struct chunk *again = chunk_ref(c);
    chunk_unref(&c);
    assert_int_equal(again->data[99999], 7);
    chunk_unref(&again);
}

static void the_limit_is_never_passed(void **state)
{
    struct mem_usage u;
    struct chunk *kept[200];
    int n = 0;
    (void)state;
    mem_usage_get(&u);
    mem_limit_set(u.mapped + (8 << 20));
    while (n < 200 && (kept[n] = chunk_new(1 << 20)))
        n++;
    assert_in_range(n, 7, 9);
    mem_usage_get(&u);
    assert_true(u.mapped <= u.limit && u.refused >= 1);
    mem_limit_set(0);
    while (n)
        chunk_unref(&kept[--n]);
}

/* Blocks that lie free in one class give way to another at the limit. */
static void free_blocks_give_way_at_the_limit(void **state)
{
    struct mem_usage u;
    struct chunk *small[16], *large;
    mem_usage_get(&u);
    mem_limit_set(u.mapped + (4 << 20));
    for (size_t i = 0; i < ARRAY_LEN(small); i++)
        assert_non_null(small[i] = chunk_new(256 << 10));
    for (size_t i = 0; i < ARRAY_LEN(small); i++)
        chunk_unref(&small[i]);
    assert_non_null(large = chunk_new(3 << 20));
    mem_usage_get(&u);
    assert_true(u.mapped <= u.limit);
    chunk_unref(&large);
    mem_limit_set(0);
}

static void reservations_count_against_the_ceiling(void **state)
{
    (void)state;
    uint64_t ceiling = in_use() + 1000;
    assert_int_equal(mem_reserve(600, ceiling), 0);
    assert_int_equal(mem_reserve(600, ceiling), -ENOMEM);
    mem_unreserve(600);
    assert_int_equal(mem_reserve(600, ceiling), 0);
    mem_unreserve(600);
}

static void allocations_that_fail_leave_things_as_they_were(void **state)
{
    struct buf b;
    (void)state;
    buf_init(&b);
    buf_add_cstr(&b, "kept");
    mem_fail_after(1);
    for (int i = 0; i < 100; i++)
        buf_add_cstr(&b, "0123456789");
    assert_int_equal(buf_error(&b), -ENOMEM);
    assert_memory_equal(b.p, "kept", 4);
    mem_fail_after(0);
    buf_fini(&b);
}

static void arenas_grow_and_go_at_once(void **state)
{
    struct arena a;
    (void)state;
    uint64_t before = in_use();
    arena_init(&a);
    for (size_t i = 1; i < 2000; i++) {
        uint8_t *p = arena_alloc(&a, i);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 8, 0);
        memset(p, 0xAA, i);
    }
    struct str s = arena_dup(&a, STR("text"));
    assert_string_equal(s.p, "text");
    assert_true(in_use() > before);
    arena_fini(&a);
    assert_int_equal(in_use(), before);
}

static int end(void **state)
{
    (void)state;
    pool_detach();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_come_back_from_other_threads),
        cmocka_unit_test(a_chunk_outlives_its_thread),
        cmocka_unit_test(the_limit_is_never_passed),
        cmocka_unit_test(free_blocks_give_way_at_the_limit),
        cmocka_unit_test(reservations_count_against_the_ceiling),
        cmocka_unit_test(allocations_that_fail_leave_things_as_they_were),
        cmocka_unit_test(arenas_grow_and_go_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
