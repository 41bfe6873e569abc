/* SPDX-License-Identifier: Apache-2.0 */
#include "common/otlp/batch.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/otlp/batch_internal.h"

struct batch *batch__new(enum signal signal)
{
    struct batch *b = try_alloc(sizeof(*b));
    if (!b)
        return NULL;
    *b = (struct batch){.magic = BATCH_MAGIC, .signal = signal, .received_ns = clock_mono_ns()};
    atomic_store_explicit(&b->refs, 1, memory_order_relaxed);
    arena_init(&b->arena);
    return b;
}

int batch__share(struct batch *b, struct chunk *c, uint32_t *cap)
{
    for (uint32_t i = b->n_chunks; i-- > 0;) /* the same one is given many times in a row */
        if (b->chunks[i] == c)
            return 0;
    if (b->n_chunks == *cap) {
        uint32_t n = *cap ? *cap * 2 : 4;
        struct chunk **v = try_realloc(b->chunks, n * sizeof(*v));
        if (!v)
            return -ENOMEM;
        b->chunks = v;
        *cap = n;
    }
    b->chunks[b->n_chunks++] = chunk_ref(c);
    return 0;
}

struct batch *batch_ref(struct batch *b)
{
    CHECK_OBJ(b, BATCH_MAGIC);
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    return b;
}

void batch_unref(struct batch **bp)
{
    struct batch *b = *bp;
    if (!b)
        return;
    CHECK_OBJ(b, BATCH_MAGIC);
    *bp = NULL;
    if (atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) > 1)
        return;
    for (uint32_t i = 0; i < b->n_chunks; i++)
        chunk_unref(&b->chunks[i]);
    free(b->chunks);
    arena_fini(&b->arena);
    CLEAR_MAGIC(b);
    free(b);
}

uint64_t batch_pinned_bytes(const struct batch *b)
{
    uint64_t sum = sizeof(*b) + b->arena.bytes;
    for (uint32_t i = 0; i < b->n_chunks; i++)
        sum += b->chunks[i]->cap;
    return sum;
}

/* Groups are in order of their first member: binary search for the last one that begins at or
 * before. */
uint32_t batch_resource_of_scope(const struct batch *b, uint32_t scope)
{
    uint32_t low = 0, high = b->n_resources;
    while (high - low > 1) {
        uint32_t mid = (low + high) / 2;
        if (b->resources[mid].first_scope <= scope)
            low = mid;
        else
            high = mid;
    }
    return low;
}

uint32_t batch_scope_of_record(const struct batch *b, uint32_t record)
{
    uint32_t low = 0, high = b->n_scopes;
    if (b->keys)
        return b->keys[record].scope;
    while (high - low > 1) {
        uint32_t mid = (low + high) / 2;
        if (b->scopes[mid].first_record <= record)
            low = mid;
        else
            high = mid;
    }
    return low;
}

/* Adds record i of b, opening its groups when they are not those of the one before. */
static void add_record(struct batch_builder *bb, const struct batch *b, uint32_t i,
                       uint32_t *last_scope)
{
    uint32_t scope = batch_scope_of_record(b, i);
    if (scope != *last_scope) {
        uint32_t res = batch_resource_of_scope(b, scope);
        if (*last_scope == UINT32_MAX || batch_resource_of_scope(b, *last_scope) != res)
            batch_builder_resource(bb, b->resources[res].envelope, false);
        batch_builder_scope(bb, b->scopes[scope].envelope, false);
        *last_scope = scope;
    }
    batch_builder_record_field(bb, &b->records[i], b->keys ? &b->keys[i] : NULL, false);
}

/*
 * Slices point into b's chunks, which the new batch shares; envelopes that b made contiguous lie in
 * b's arena and are copied.
 */
static bool in_chunks(const struct batch *b, struct str s)
{
    for (uint32_t i = 0; i < b->n_chunks; i++) {
        const uint8_t *p = (const uint8_t *)s.p, *data = b->chunks[i]->data;
        if (s.n == 0 || (p >= data && p < data + b->chunks[i]->cap))
            return true;
    }
    return false;
}

static void add_groups(struct batch_builder *bb, const struct batch *b, const uint32_t *idx,
                       uint32_t n)
{
    uint32_t last = UINT32_MAX;
    for (uint32_t i = 0; i < b->n_chunks; i++)
        batch_builder_share(bb, b->chunks[i]);
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = idx ? idx[k] : k, scope = batch_scope_of_record(b, i);
        uint32_t res = batch_resource_of_scope(b, scope);
        bool plain =
            in_chunks(b, b->scopes[scope].envelope) && in_chunks(b, b->resources[res].envelope);
        if (plain || scope == last) {
            add_record(bb, b, i, &last);
            continue;
        }
        batch_builder_resource(bb, b->resources[res].envelope, true);
        batch_builder_scope(bb, b->scopes[scope].envelope, true);
        last = scope;
        add_record(bb, b, i, &last);
    }
}

int batch_select(struct batch **out, const struct batch *b, const uint32_t *idx, uint32_t n)
{
    struct batch_builder bb;
    batch_builder_init(&bb, b->signal);
    add_groups(&bb, b, idx, n);
    int r = batch_builder_seal(&bb, out);
    if (r == 0 && *out)
        (*out)->received_ns = b->received_ns;
    return r;
}

int batch_concat(struct batch **out, struct batch *const *parts, uint32_t n)
{
    struct batch_builder bb;
    ASSERT(n > 0);
    batch_builder_init(&bb, parts[0]->signal);
    for (uint32_t i = 0; i < n; i++)
        add_groups(&bb, parts[i], NULL, parts[i]->n_records);
    return batch_builder_seal(&bb, out);
}

/* The request is all that its chunk holds, or nearly: no copy of it would be much smaller. */
static bool fills_its_chunk(const struct batch *b)
{
    return b->raw.p && b->n_chunks == 1 && b->raw.n >= b->chunks[0]->cap / 8 * 7;
}

static int pack_into(struct batch *packed, const struct batch *b)
{
    uint32_t cap = 0;
    if (fills_its_chunk(b)) {
        packed->raw = b->raw;
        return batch__share(packed, b->chunks[0], &cap);
    }
    struct chunk *c = chunk_new_exact(batch_framed_size(b));
    if (!c || batch__share(packed, c, &cap)) {
        chunk_unref(&c);
        return -ENOMEM;
    }
    batch__write(b, c);
    packed->raw = str_make(c->data, c->len);
    chunk_unref(&c); /* the batch holds it */
    return 0;
}

int batch_pack(struct batch **out, const struct batch *b)
{
    struct batch *packed = batch__new(b->signal);
    if (!packed || pack_into(packed, b)) {
        batch_unref(&packed);
        return -ENOMEM;
    }
    packed->items = b->items;
    packed->bytes = b->bytes;
    packed->received_ns = b->received_ns;
    *out = packed;
    return 0;
}

int batch_unpack(struct batch **out, const struct batch *packed)
{
    struct chunk *c = packed->chunks[0];
    struct err e;
    size_t off = (size_t)((const uint8_t *)packed->raw.p - c->data);
    int r = batch_read(out, packed->signal, c, off, packed->raw.n, 0, &e);
    ASSERT(r != -EBADMSG); /* it was written by batch_pack */
    if (r == 0) {
        ASSERT((*out)->items == packed->items);
        (*out)->received_ns = packed->received_ns;
    }
    return r;
}

/* ---- splitting ---- */

/* The metric with points [from, from + n) of its data points, as a message. */
static void cut_metric(struct str body, uint32_t from, uint32_t n, struct buf *out)
{
    struct wire w = wire_of(body), d;
    struct field f, p;
    uint32_t i = 0;
    while (wire_next(&w, &f) == 1) {
        bool is_data = f.number == 5 || f.number == 7 || (f.number >= 9 && f.number <= 11);
        if (!is_data || f.type != WIRE_LEN) {
            buf_add(out, f.start, (size_t)(f.end - f.start));
            continue;
        }
        size_t mark = wire_begin(out, f.number);
        d = wire_of(f.bytes);
        while (wire_next(&d, &p) == 1) {
            bool is_point = p.number == 1 && p.type == WIRE_LEN;
            bool take = !is_point || (i >= from && i < from + n);
            i += is_point;
            if (take)
                buf_add(out, p.start, (size_t)(p.end - p.start));
        }
        wire_end(out, mark);
    }
}

/* Part of record i's points as a record of its own in bb. */
static void add_cut(struct batch_builder *bb, const struct batch *b, uint32_t i, uint32_t from,
                    uint32_t n)
{
    struct buf body;
    uint32_t scope = batch_scope_of_record(b, i), res = batch_resource_of_scope(b, scope);
    buf_init(&body);
    cut_metric(record_body(&b->records[i]), from, n, &body);
    batch_builder_resource(bb, b->resources[res].envelope, true);
    batch_builder_scope(bb, b->scopes[scope].envelope, true);
    batch_builder_record(bb, buf_str(&body), n, NULL);
    if (buf_error(&body))
        bb->error = -ENOMEM;
    buf_fini(&body);
}

static void add_range(struct batch_builder *bb, const struct batch *b, uint32_t from, uint32_t to)
{
    uint32_t *idx = xalloc((to - from + 1) * sizeof(*idx));
    for (uint32_t i = from; i < to; i++)
        idx[i - from] = i;
    add_groups(bb, b, idx, to - from);
    free(idx);
}

int batch_split(struct batch **head, struct batch **tail, const struct batch *b, uint64_t max_items)
{
    struct batch_builder h, t;
    uint32_t whole = 0;
    uint64_t taken = 0;
    ASSERT(max_items > 0);
    while (whole < b->n_records && taken + b->records[whole].items <= max_items)
        taken += b->records[whole++].items;
    /* The first metric that does not fit is cut between its points. */
    uint32_t cut =
        whole < b->n_records && b->signal == SIGNAL_METRICS ? (uint32_t)(max_items - taken) : 0;
    batch_builder_init(&h, b->signal);
    batch_builder_init(&t, b->signal);
    add_range(&h, b, 0, whole);
    if (cut) {
        add_cut(&h, b, whole, 0, cut);
        add_cut(&t, b, whole, cut, b->records[whole].items - cut);
    }
    if (whole + (cut != 0) < b->n_records)
        add_range(&t, b, whole + (cut != 0), b->n_records);
    int r = batch_builder_seal(&h, head);
    if (r) {
        batch_builder_fini(&t);
        return r;
    }
    r = batch_builder_seal(&t, tail);
    if (r)
        batch_unref(head);
    return r;
}
