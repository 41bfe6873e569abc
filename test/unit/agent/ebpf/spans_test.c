/* SPDX-License-Identifier: Apache-2.0 */
/* Spans of all lengths and of several processes in one batch, each readable and in its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/ebpf/spans.h"
#include "common/base/err.h"

enum { LONGEST = 16350 };

/* A span whose path is n characters long, of one of three processes. */
static void add(struct spans *s, size_t n)
{
    static char path[LONGEST];
    struct request r;
    struct buf resource;
    struct buf attrs;

    memset(path, 'p', sizeof(path));
    buf_init(&resource);
    buf_init(&attrs);
    encode_attr_int(&attrs, RESOURCE_ATTRIBUTES, "process.pid", (int64_t)(n % 3));
    encode_resource_envelope(&resource, buf_str(&attrs), (struct str){NULL, 0});
    request_init(&r);
    r.role = ROLE_SERVER;
    r.method = STR("GET");
    r.scheme = STR("http");
    r.version = "1.1";
    r.path = str_make(path, n);
    r.start_ns = 1000 + n;
    r.end_ns = 2000 + n;
    r.has_parent = n % 2;
    memset(&r.parent, 7, sizeof(r.parent));
    spans_add(s, &r, buf_str(&resource), n % 3, 5);
    request_fini(&r);
    buf_fini(&resource);
    buf_fini(&attrs);
}

/* The spans read back from the request that the batch makes: how many, of which paths. */
static size_t read_back(const struct batch *b, uint64_t *length_sum)
{
    struct chunk *c = NULL;
    struct batch *again = NULL;
    struct err e = {0};
    size_t n;

    assert_int_equal(batch_frame(&c, b, 0), 0);
    assert_int_equal(batch_read(&again, SIGNAL_TRACES, c, 0, c->len, BATCH_VALIDATE, &e), 0);
    chunk_unref(&c);
    *length_sum = 0;
    for (size_t i = 0; i < again->n_records; i++) {
        const struct span_key *k = &again->keys[i];
        /* The key that came with the batch is the one that is read from the bytes. */
        assert_memory_equal(k->trace_id, b->keys[i].trace_id, 16);
        assert_memory_equal(k->span_id, b->keys[i].span_id, 8);
        assert_memory_equal(k->parent_span_id, b->keys[i].parent_span_id, 8);
        assert_int_equal(k->start_ns, b->keys[i].start_ns);
        assert_int_equal(k->end_ns, b->keys[i].end_ns);
        assert_int_equal(k->flags, b->keys[i].flags);
        assert_int_equal(k->kind, b->keys[i].kind);
        assert_int_equal(k->resource, b->keys[i].resource);
        *length_sum += k->start_ns - 1005;
    }
    n = again->n_records;
    assert_int_equal(again->n_resources, b->n_resources);
    batch_unref(&again);
    return n;
}

static void all_lengths(void **state)
{
    struct spans s;
    struct batch *b;
    uint64_t lost = 0, sum, want = 0;
    size_t n = 0;
    (void)state;
    spans_init(&s, "1");
    for (size_t i = 1; i < LONGEST; i += i == 400 ? 15750 : 1, n++) {
        add(&s, i);
        want += i;
    }
    assert_int_equal(s.dropped, 0);
    b = spans_take(&s, &lost);
    assert_non_null(b);
    assert_int_equal(lost, 0);
    assert_int_equal(b->n_resources, 3);
    assert_int_equal(read_back(b, &sum), n);
    assert_int_equal(sum, want);
    batch_unref(&b);
    assert_null(spans_take(&s, &lost));
    spans_fini(&s);
}

/* Of one process nothing is sorted: the order is the one they came in. */
static void one_process(void **state)
{
    struct spans s;
    struct batch *b;
    uint64_t lost = 0;
    (void)state;
    spans_init(&s, "1");
    for (size_t i = 3; i < 300; i += 3)
        add(&s, i);
    b = spans_take(&s, &lost);
    assert_int_equal(b->n_resources, 1);
    for (size_t i = 0; i < b->n_records; i++)
        assert_int_equal(b->keys[i].start_ns, 1005 + 3 * (i + 1));
    batch_unref(&b);
    spans_fini(&s);
}

static void what_has_no_room_is_counted(void **state)
{
    struct spans s;
    struct batch *b;
    uint64_t lost = 0, sum;
    size_t n = SPANS_MAX_BYTES / 4000;
    (void)state;
    spans_init(&s, "1");
    for (size_t i = 0; i < n; i++)
        add(&s, 4500);
    assert_in_range(s.dropped, 1, n / 2);
    b = spans_take(&s, &lost);
    assert_int_equal(read_back(b, &sum) + s.dropped, n);
    batch_unref(&b);
    add(&s, 5); /* there is room again */
    b = spans_take(&s, &lost);
    assert_int_equal(b->n_records, 1);
    batch_unref(&b);
    spans_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_lengths),
        cmocka_unit_test(one_process),
        cmocka_unit_test(what_has_no_room_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
