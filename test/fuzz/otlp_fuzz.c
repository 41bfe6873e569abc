/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests from hostile bytes. Beyond not crashing: what was accepted frames into a request that is
 * accepted again and frames into the same bytes; splitting and concatenating loses no item; an edit
 * is seen by the views of the sealed batch.
 *
 * Input: [signal and flags][an Export*ServiceRequest].
 */
#include <stdlib.h>
#include <string.h>

#include "common/otlp/edit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(x)                                                                                   \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

static struct batch *parse(enum signal signal, const void *p, size_t n, unsigned flags)
{
    struct chunk *c = chunk_new(n ? n : 1);
    struct batch *b = NULL;
    struct err e = {0};

    CHECK(c);
    memcpy(c->data, p, n);
    c->len = n;
    if (batch_read(&b, signal, c, 0, n, flags, &e) < 0)
        b = NULL;
    chunk_unref(&c);
    return b;
}

/* Framed again and read again it is the same request: *out takes its bytes. */
static void reframe(const struct batch *b, unsigned flags, struct chunk **out)
{
    struct chunk *again;
    struct batch *second;

    CHECK(batch_frame(out, b, 0) == 0);
    CHECK((*out)->len == batch_framed_size(b));
    second = parse(b->signal, (*out)->data, (*out)->len, flags);
    CHECK(second && second->n_records == b->n_records && second->items == b->items);
    for (uint32_t i = 0; b->keys && i < b->n_records; i++)
        CHECK(memcmp(b->keys[i].trace_id, second->keys[i].trace_id, 16) == 0 &&
              b->keys[i].status == second->keys[i].status &&
              b->keys[i].end_ns == second->keys[i].end_ns);
    CHECK(batch_frame(&again, second, 0) == 0);
    CHECK(again->len == (*out)->len && memcmp(again->data, (*out)->data, again->len) == 0);
    chunk_unref(&again);
    batch_unref(&second);
}

static void split(struct batch *b)
{
    struct batch *parts[2] = {NULL, NULL}, *whole = NULL;

    CHECK(batch_split(&parts[0], &parts[1], b, b->items / 2 + 1) == 0);
    CHECK(parts[0]->items + (parts[1] ? parts[1]->items : 0) == b->items);
    CHECK(batch_concat(&whole, parts, parts[1] ? 2 : 1) == 0);
    CHECK(whole->items == b->items);
    batch_unref(&whole);
    batch_unref(&parts[0]);
    batch_unref(&parts[1]);
}

static void edit(struct batch *b)
{
    struct edit_at at = {EDIT_RECORD, b->n_records - 1};
    struct any value = {.type = ANY_INT, .i = -7}, seen;
    uint32_t number = b->signal == SIGNAL_TRACES ? SPAN_ATTRIBUTES : LOG_ATTRIBUTES;
    struct edit *e;
    struct batch *out = NULL;

    CHECK(batch_edit(&e, b) == 0);
    edit_attr_set(e, at, STR("fuzz"), value);
    CHECK(edit_attr_get(e, at, STR("fuzz"), &seen) && any_eq(seen, value));
    CHECK(edit_seal(&e, &out) == 0);
    CHECK(out && out->n_records == b->n_records && out->items == b->items);
    CHECK(attr_find(record_body(&out->records[at.index]), number, STR("fuzz"), &seen));
    CHECK(any_eq(seen, value));
    batch_unref(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum signal signals[] = {SIGNAL_TRACES, SIGNAL_METRICS, SIGNAL_LOGS};
    unsigned flags;
    struct batch *b;
    struct chunk *framed;

    if (size < 1)
        return 0;
    flags = data[0] & 0x80 ? BATCH_VALIDATE : 0;
    b = parse(signals[data[0] % 3], data + 1, size - 1, flags);
    if (!b)
        return 0;
    reframe(b, flags, &framed);
    chunk_unref(&framed);
    if (b->n_records && b->items) {
        split(b);
        if (flags && b->signal != SIGNAL_METRICS)
            edit(b);
    }
    batch_unref(&b);
    return 0;
}
