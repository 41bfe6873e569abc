/* SPDX-License-Identifier: Apache-2.0 */
/* What is kept leaves whole: each span once, under the envelopes that it came with, ready to send.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/hashmap.h"
#include "common/otlp/encode.h"
#include "gateway/tail_sampling/kept.h"

/* More scopes than are grouped at once; spans for several blocks. */
enum { SCOPES = 90, SCOPES_PER_RESOURCE = 7, TRACES = 700, SPANS = 9000 };

static void id_of(uint32_t n, uint8_t id[16])
{
    memset(id, 7, 16);
    memcpy(id, &n, sizeof(n));
}

static void put_span(struct buf *b, uint32_t i)
{
    char name[400];
    uint8_t id[16];
    id_of(i % TRACES, id);
    memset(name, 'n', sizeof(name));
    buf_reset(b);
    wire_put_bytes(b, 1, str_make(id, 16));
    wire_put_bytes(b, 2, str_make(&(uint64_t){i + 1}, 8));
    wire_put_bytes(b, 5, str_make(name, i % sizeof(name)));
}

/* Spans i, i + SCOPES, i + 2 * SCOPES … lie in scope i. */
static struct batch *make_batch(uint32_t first, uint32_t end)
{
    struct batch_builder bb;
    struct batch *b;
    struct buf envelope, span;
    buf_init(&envelope);
    buf_init(&span);
    batch_builder_init(&bb, SIGNAL_TRACES);
    for (uint32_t i = first; i < end; i++) {
        unsigned scope = i % SCOPES;
        if (i == first || scope % SCOPES_PER_RESOURCE == 0) {
            buf_reset(&envelope);
            encode_attr_int(&envelope, 7, "resource", scope / SCOPES_PER_RESOURCE);
            batch_builder_resource(&bb, buf_str(&envelope), true);
        }
        buf_reset(&envelope);
        encode_attr_int(&envelope, 7, "scope", scope);
        batch_builder_scope(&bb, scope ? buf_str(&envelope) : STR(""), true);
        put_span(&span, i);
        batch_builder_record(&bb, buf_str(&span), 1, NULL);
    }
    assert_int_equal(batch_builder_seal(&bb, &b), 0);
    buf_fini(&envelope);
    buf_fini(&span);
    return b;
}

/* A sum over spans: equal when each is there as often, wherever it lies. */
static uint64_t mark_of(const struct batch *b, uint32_t i)
{
    const struct span_key *k = &b->keys[i];
    uint64_t envelopes = hash_mix(hash_str(b->resources[k->resource].envelope) | 1,
                                  hash_str(b->scopes[k->scope].envelope) | 1);
    return hash_mix(envelopes, hash_bytes(b->records[i].field, b->records[i].len));
}

static void insert(struct store *s, const struct batch *b)
{
    struct store_source src;
    assert_int_equal(store_source_init(&src, b), 0);
    for (uint32_t i = 0; i < b->n_records; i++) {
        const uint8_t *id = b->keys[i].trace_id;
        struct trace *t = NULL;
        uint64_t hash = hash_bytes(id, 16);
        if (store_find(s, hash, id, &t) == TRACE_UNKNOWN)
            t = store_add(s, hash, id, 1);
        assert_int_equal(store_insert(s, t, &src, i), 0);
    }
    store_source_fini(&src);
}

static bool is_kept(const uint8_t id[16])
{
    uint32_t n;
    memcpy(&n, id, sizeof(n));
    return n % 3 == 0;
}

static void decide_all(struct store *s, struct kept *k)
{
    while (!list_is_empty(&s->pending)) {
        struct trace *t = LIST_ENTRY(s->pending.next, struct trace, in_order);
        bool keep = is_kept(t->id);
        if (keep) {
            kept_add(k, t);
        } else {
            for (unsigned i = 0; i < t->n_runs; i++)
                store_release(s, &trace_runs(t)[i]);
            free(t->more_runs);
        }
        store_remember(s, t, keep ? TRACE_SAMPLED : TRACE_NOT_SAMPLED);
    }
}

static void assert_ready_to_send(const struct batch *b)
{
    struct batch *packed;
    uint64_t tables = batch_pinned_bytes(b) - b->chunks[0]->cap;
    assert_int_equal(b->n_chunks, 1);
    assert_int_equal(b->raw.n, b->chunks[0]->len);
    assert_true(tables > b->n_records * sizeof(struct span_key));
    /* What waits keeps the chunk and gives the tables up, or is copied: never much more than data.
     */
    assert_int_equal(batch_pack(&packed, b), 0);
    assert_true(batch_pinned_bytes(packed) <= b->raw.n * 8 / 7 + 64 + sizeof(*packed));
    batch_unref(&packed);
}

static void leaves_whole(void **state)
{
    struct mem_usage before, after;
    struct store s;
    struct kept k = {0};
    struct batch *out;
    uint64_t want = 0, got = 0, n = 0;

    (void)state;
    mem_usage_get(&before);
    store_init(&s);
    for (uint32_t first = 0; first < SPANS; first += 450) {
        struct batch *b = make_batch(first, first + 450);
        insert(&s, b);
        for (uint32_t i = 0; i < b->n_records; i++) {
            if (is_kept(b->keys[i].trace_id)) {
                want += mark_of(b, i);
                n++;
            }
        }
        batch_unref(&b);
    }
    assert_true(s.next_block > 4);
    decide_all(&s, &k);
    assert_int_equal(kept_batch(&k, &out), 0);
    assert_int_equal(out->n_records, n);
    assert_int_equal(out->items, n);
    for (uint32_t i = 0; i < out->n_records; i++)
        got += mark_of(out, i);
    assert_true(got == want);
    assert_ready_to_send(out);
    for (uint32_t i = 0; i < k.n_runs; i++)
        store_release(&s, &k.runs[i]);
    batch_unref(&out);
    kept_fini(&k);
    store_fini(&s);
    mem_usage_get(&after);
    assert_int_equal(after.in_use, before.in_use);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaves_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
