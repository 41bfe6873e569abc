/* SPDX-License-Identifier: Apache-2.0 */
/* The shard's store against a plain model: what is pending, what was decided, which bytes lie
 * where. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/hashmap.h"
#include "common/otlp/encode.h"
#include "gateway/tail_sampling/store.h"

enum { IDS = 6000, STEPS = 200000 };

struct model {
    enum trace_state state;
    uint32_t spans;
};

static void id_of(uint32_t n, uint8_t id[16])
{
    memset(id, 7, 16);
    memcpy(id, &n, sizeof(n));
}

static uint64_t hash_of(uint32_t n)
{
    uint8_t id[16];
    id_of(n, id);
    return hash_bytes(id, 16);
}

/* A batch with one span of each of n traces, over two resources and three scopes. */
static struct batch *make_batch(uint32_t first, uint32_t n)
{
    struct batch_builder bb;
    struct batch *b;
    struct buf span;
    batch_builder_init(&bb, SIGNAL_TRACES);
    buf_init(&span);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t id[16];
        if (i % 4 == 0) {
            struct buf envelope;
            buf_init(&envelope);
            encode_attr_str(&envelope, 1, "service.name", i % 8 ? STR("a") : STR("b"));
            batch_builder_resource(&bb, buf_str(&envelope), true);
            buf_fini(&envelope);
        }
        if (i % 2 == 0)
            batch_builder_scope(&bb, i % 3 ? STR("\x0a\x00") : STR(""), true);
        id_of(first + i, id);
        buf_reset(&span);
        wire_put_bytes(&span, 1, str_make(id, 16));
        wire_put_bytes(&span, 2, STR("12345678"));
        wire_put_u64(&span, 6, i % 5);
        batch_builder_record(&bb, buf_str(&span), 1, NULL);
    }
    buf_fini(&span);
    assert_int_equal(batch_builder_seal(&bb, &b), 0);
    return b;
}

static void expect(struct store *s, uint32_t n, const struct model *m, struct trace **t)
{
    uint8_t id[16];
    id_of(n, id);
    enum trace_state state = store_find(s, hash_of(n), id, t);
    assert_int_equal(state, m->state);
    if (state == TRACE_PENDING) {
        assert_memory_equal((*t)->id, id, 16);
        assert_int_equal((*t)->n_spans, m->spans);
    }
}

static void add_span(struct store *s, struct batch *b, uint32_t n, struct model *m)
{
    struct store_source src;
    struct trace *t = NULL;
    uint8_t id[16];
    id_of(n, id);
    expect(s, n, m, &t);
    if (m->state == TRACE_SAMPLED || m->state == TRACE_NOT_SAMPLED)
        return;
    if (m->state == TRACE_UNKNOWN)
        t = store_add(s, hash_of(n), id, n);
    assert_non_null(t);
    assert_int_equal(store_source_init(&src, b), 0);
    assert_int_equal(store_insert(s, t, &src, n % b->n_records), 0);
    store_source_fini(&src);
    m->state = TRACE_PENDING;
    m->spans++;
}

static void decide(struct store *s, uint32_t n, struct model *m, enum trace_state state)
{
    struct trace *t;
    uint32_t spans = 0;
    expect(s, n, m, &t);
    if (m->state != TRACE_PENDING)
        return;
    for (unsigned i = 0; i < t->n_runs; i++) {
        struct run r = trace_runs(t)[i];
        for (uint32_t at = r.last; at; at = run_span(&r, at)->prev)
            spans++;
        store_release(s, &r);
    }
    assert_int_equal(spans, m->spans);
    free(t->more_runs);
    store_remember(s, t, state);
    *m = (struct model){state, 0};
}

/* The oldest decision of that state goes. `order` is the model's queue of them. */
static void forget(struct store *s, enum trace_state state, struct model *model, uint32_t *order,
                   uint64_t *first, uint64_t end)
{
    assert_int_equal(store_remembered(s, state), end - *first);
    if (*first == end)
        return;
    store_forget_oldest(s, state);
    model[order[(*first)++ % STEPS]].state = TRACE_UNKNOWN;
}

static void follows_the_model(void **state)
{
    struct mem_usage before, after;
    struct store s;
    struct model *model = calloc(IDS, sizeof(*model));
    uint32_t *order[STORE_DECIDED];
    uint64_t first[STORE_DECIDED] = {0}, end[STORE_DECIDED] = {0}, r = 88172645463325252ULL;
    struct batch *b = make_batch(0, 64);

    for (unsigned i = 0; i < IDS; i++)
        model[i].state = TRACE_UNKNOWN;
    for (unsigned i = 0; i < STORE_DECIDED; i++)
        order[i] = calloc(STEPS, sizeof(*order[i]));
    mem_usage_get(&before);
    store_init(&s);
    for (unsigned i = 0; i < STEPS; i++) {
        r ^= r << 13, r ^= r >> 7, r ^= r << 17;
        uint32_t n = (uint32_t)(r >> 8) % IDS;
        enum trace_state to = r % 3 ? TRACE_NOT_SAMPLED : TRACE_SAMPLED;
        /* Fills at first, then takes turns; in the last part more is forgotten than is decided. */
        if (r % 100 < 45) {
            add_span(&s, b, n, &model[n]);
        } else if (r % 100 < 80) {
            bool was_pending = model[n].state == TRACE_PENDING;
            decide(&s, n, &model[n], to);
            if (was_pending)
                order[to][end[to]++ % STEPS] = n;
        } else if (i > STEPS / 4) {
            forget(&s, to, model, order[to], &first[to], end[to]);
        }
    }
    assert_true(end[TRACE_NOT_SAMPLED] > 10000); /* several pages came and went */
    for (uint32_t n = 0; n < IDS; n++) {
        struct trace *t;
        expect(&s, n, &model[n], &t);
    }
    store_fini(&s);
    mem_usage_get(&after);
    assert_int_equal(after.in_use, before.in_use);
    batch_unref(&b);
    for (unsigned i = 0; i < STORE_DECIDED; i++)
        free(order[i]);
    free(model);
}

/* Everything is forgotten in the middle of a page: no page may stay behind. */
static void an_emptied_page_is_freed(void **state)
{
    struct mem_usage before, after;
    struct store s;
    struct batch *b = make_batch(0, 8);
    struct model m[3] = {{TRACE_UNKNOWN, 0}, {TRACE_UNKNOWN, 0}, {TRACE_UNKNOWN, 0}};
    mem_usage_get(&before);
    store_init(&s);
    for (uint32_t n = 0; n < 3; n++) {
        add_span(&s, b, n, &m[n]);
        decide(&s, n, &m[n], TRACE_SAMPLED);
    }
    for (uint32_t n = 0; n < 3; n++)
        store_forget_oldest(&s, TRACE_SAMPLED);
    assert_int_equal(store_remembered(&s, TRACE_SAMPLED), 0);
    store_fini(&s);
    mem_usage_get(&after);
    assert_int_equal(after.in_use, before.in_use);
    batch_unref(&b);
}

/* Spans lie with the bytes and the envelopes that they came with. */
static void spans_are_stored_whole(void **state)
{
    struct store s;
    struct store_source src;
    struct batch *b = make_batch(0, 64);
    store_init(&s);
    assert_int_equal(store_source_init(&src, b), 0);
    for (uint32_t i = 0; i < b->n_records; i++) {
        struct trace *t = store_add(&s, hash_of(i), b->keys[i].trace_id, 1);
        assert_int_equal(store_insert(&s, t, &src, i), 0);
    }
    store_source_fini(&src);
    for (uint32_t i = 0; i < b->n_records; i++) {
        struct trace *t = NULL;
        assert_int_equal(store_find(&s, hash_of(i), b->keys[i].trace_id, &t), TRACE_PENDING);
        assert_int_equal(t->n_runs, 1);
        const struct run *r = trace_runs(t);
        const struct stored_span *span = run_span(r, r->last);
        assert_int_equal(span->len, b->records[i].len);
        assert_memory_equal(span + 1, b->records[i].field, span->len);
        assert_true(str_eq(block_bytes(r->block, span->resource),
                           b->resources[b->keys[i].resource].envelope));
        assert_true(
            str_eq(block_bytes(r->block, span->scope), b->scopes[b->keys[i].scope].envelope));
    }
    store_fini(&s);
    batch_unref(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_model),
        cmocka_unit_test(an_emptied_page_is_freed),
        cmocka_unit_test(spans_are_stored_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
