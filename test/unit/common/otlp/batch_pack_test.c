/* SPDX-License-Identifier: Apache-2.0 */
/* A batch that is packed for a long wait is the same request, costs little more, and comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/otlp/batch.h"
#include "common/otlp/encode.h"
#include "common/otlp/wire.h"

enum { FULL = 128 }; /* spans that nearly fill a chunk of 16 KB */

static void put_span(struct buf *b, unsigned i)
{
    uint8_t id[16] = "trace-id-0000000";

    id[15] = (uint8_t)i;
    buf_reset(b);
    wire_put_bytes(b, 1, str_make(id, 16));
    wire_put_bytes(b, 2, str_make(id + 8, 8));
    wire_put_bytes(b, 5, STR("GET /"));
    wire_put_i64(b, 7, 1700000000000000000ULL + i);
    wire_put_i64(b, 8, 1700000000020000000ULL);
    encode_attr_int(b, 9, "http.response.status_code", 200 + i);
    wire_put_bytes(b, 1000, STR("a field that nobody knows"));
}

static struct batch *sample(unsigned n)
{
    struct batch_builder bb;
    struct batch *b = NULL;
    struct buf attrs, envelope, span;

    buf_init(&attrs);
    buf_init(&envelope);
    buf_init(&span);
    batch_builder_init(&bb, SIGNAL_TRACES);
    for (unsigned i = 0; i < n; i++) {
        if (i % 3 == 0) {
            buf_reset(&attrs);
            encode_attr_int(&attrs, RESOURCE_ATTRIBUTES, "process.pid", i);
            buf_reset(&envelope);
            encode_resource_envelope(&envelope, buf_str(&attrs), (struct str){NULL, 0});
            batch_builder_resource(&bb, buf_str(&envelope), true);
            batch_builder_scope(&bb, (struct str){NULL, 0}, true);
        }
        put_span(&span, i);
        batch_builder_record(&bb, buf_str(&span), 1, NULL);
    }
    assert_int_equal(batch_builder_seal(&bb, &b), 0);
    b->received_ns = 4711;
    buf_fini(&attrs);
    buf_fini(&envelope);
    buf_fini(&span);
    return b;
}

static void assert_same_request(const struct batch *a, const struct batch *b)
{
    struct chunk *x, *y;

    assert_int_equal(batch_frame(&x, a, 5), 0);
    assert_int_equal(batch_frame(&y, b, 5), 0);
    assert_int_equal(x->len, y->len);
    assert_memory_equal(x->data + 5, y->data + 5, x->len - 5);
    chunk_unref(&x);
    chunk_unref(&y);
}

static void packed_and_back(void **state)
{
    struct batch *b = sample(100), *packed, *back;

    (void)state;
    assert_false(batch_is_packed(b));
    assert_int_equal(batch_pack(&packed, b), 0);
    assert_true(batch_is_packed(packed));
    assert_int_equal(packed->items, 100);
    assert_int_equal(packed->bytes, b->bytes);
    assert_int_equal(packed->received_ns, 4711);
    assert_same_request(b, packed);
    assert_true(batch_pinned_bytes(packed) < batch_framed_size(b) + 64 + sizeof(*packed));
    assert_int_equal(batch_unpack(&back, packed), 0);
    batch_unref(&packed);
    assert_false(batch_is_packed(back));
    assert_same_request(b, back);
    assert_int_equal(back->n_records, 100);
    assert_int_equal(back->n_resources, b->n_resources);
    assert_int_equal(back->items, 100);
    assert_int_equal(back->received_ns, 4711);
    assert_memory_equal(back->keys, b->keys, 100 * sizeof(*b->keys));
    batch_unref(&back);
    batch_unref(&b);
}

/* A request that fills its chunk is not copied, wherever in it it begins. */
static void a_full_chunk_is_shared(void **state)
{
    struct batch *b = sample(FULL), *read, *packed, *back;
    struct chunk *c;
    struct err e;

    (void)state;
    for (size_t off = 0; off <= 5; off += 5) {
        assert_int_equal(batch_frame(&c, b, off), 0);
        assert_in_range(c->len, c->cap / 8 * 7 + 5, c->cap);
        assert_int_equal(batch_read(&read, SIGNAL_TRACES, c, off, c->len - off, 0, &e), 0);
        assert_int_equal(batch_pack(&packed, read), 0);
        assert_ptr_equal(packed->chunks[0], c);
        assert_true(batch_pinned_bytes(packed) <= c->cap + sizeof(*packed));
        assert_true(batch_pinned_bytes(read) >
                    batch_pinned_bytes(packed) + FULL * sizeof(*b->keys));
        chunk_unref(&c);
        batch_unref(&read);
        assert_same_request(b, packed);
        assert_int_equal(batch_unpack(&back, packed), 0);
        batch_unref(&packed);
        assert_same_request(b, back);
        assert_int_equal(back->n_records, FULL);
        batch_unref(&back);
    }
    batch_unref(&b);
}

static void all_memory_is_given_back(void **state)
{
    struct mem_usage before, after;

    (void)state;
    packed_and_back(NULL);
    mem_usage_get(&before);
    packed_and_back(NULL);
    mem_usage_get(&after);
    assert_int_equal(before.in_use, after.in_use);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_and_back),
        cmocka_unit_test(a_full_chunk_is_shared),
        cmocka_unit_test(all_memory_is_given_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
