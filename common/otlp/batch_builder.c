/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "common/otlp/batch_internal.h"

enum { COPY_CHUNK = 256 << 10, FIRST_CHUNK = 16 << 10 };

void batch_builder_init(struct batch_builder *bb, enum signal signal)
{
    *bb = (struct batch_builder){.b = batch__new(signal)};
    if (!bb->b)
        bb->error = -ENOMEM;
}

/*
 * Tables grow by doubling inside the arena: what is left behind is at most as large as the table,
 * and goes with the batch.
 */
static void *grow_table(struct batch_builder *bb, void *old, uint32_t n, uint32_t *cap, size_t size)
{
    if (n < *cap)
        return old;
    uint32_t more = *cap ? *cap * 2 : 8;
    void *p = arena_alloc(&bb->b->arena, more * size);
    if (!p) {
        bb->error = -ENOMEM;
        return NULL;
    }
    if (n)
        memcpy(p, old, n * size);
    *cap = more;
    return p;
}

/* Bytes into the batch's own chunks. NULL once latched. */
static uint8_t *copy_room(struct batch_builder *bb, size_t n)
{
    if (!bb->tail || bb->tail->cap - bb->tail->len < n) {
        size_t want = bb->tail ? COPY_CHUNK : FIRST_CHUNK;
        struct chunk *c = chunk_new(MAX(n, want));
        if (!c || batch__share(bb->b, c, &bb->cap_chunks)) {
            chunk_unref(&c);
            bb->error = -ENOMEM;
            return NULL;
        }
        bb->tail = c;
        chunk_unref(&c); /* the batch holds it */
    }
    uint8_t *p = bb->tail->data + bb->tail->len;
    bb->tail->len += n;
    return p;
}

static struct str keep(struct batch_builder *bb, struct str s, bool copy)
{
    if (!copy || s.n == 0)
        return s;
    uint8_t *p = copy_room(bb, s.n);
    if (!p)
        return (struct str){NULL, 0};
    memcpy(p, s.p, s.n);
    return str_make(p, s.n);
}

void batch_builder_share(struct batch_builder *bb, struct chunk *c)
{
    if (!bb->error && batch__share(bb->b, c, &bb->cap_chunks))
        bb->error = -ENOMEM;
}

void batch_builder_resource(struct batch_builder *bb, struct str envelope, bool copy)
{
    struct batch *b = bb->b;
    if (bb->error)
        return;
    struct resource_group *v =
        grow_table(bb, b->resources, b->n_resources, &bb->cap_resources, sizeof(*v));
    if (!v)
        return;
    b->resources = v;
    v[b->n_resources++] = (struct resource_group){keep(bb, envelope, copy), b->n_scopes, 0};
    b->bytes += envelope.n;
}

void batch_builder_scope(struct batch_builder *bb, struct str envelope, bool copy)
{
    struct batch *b = bb->b;
    if (bb->error)
        return;
    ASSERT(b->n_resources > 0);
    struct scope_group *v = grow_table(bb, b->scopes, b->n_scopes, &bb->cap_scopes, sizeof(*v));
    if (!v)
        return;
    b->scopes = v;
    v[b->n_scopes++] = (struct scope_group){keep(bb, envelope, copy), b->n_records, 0};
    b->resources[b->n_resources - 1].n_scopes++;
    b->bytes += envelope.n;
}

static bool grow_records(struct batch_builder *bb)
{
    struct batch *b = bb->b;
    uint32_t cap = bb->cap_records;
    struct record *v = grow_table(bb, b->records, b->n_records, &cap, sizeof(*v));
    if (!v)
        return false;
    b->records = v;
    if (b->signal == SIGNAL_TRACES) {
        cap = bb->cap_records;
        struct span_key *k = grow_table(bb, b->keys, b->n_records, &cap, sizeof(*k));
        if (!k)
            return false;
        b->keys = k;
    }
    bb->cap_records = cap;
    return true;
}

static void add(struct batch_builder *bb, const struct record *r, const struct span_key *key)
{
    struct batch *b = bb->b;
    ASSERT(b->n_scopes > 0);
    if (!grow_records(bb))
        return;
    b->records[b->n_records] = *r;
    if (b->keys) {
        struct span_key *k = &b->keys[b->n_records];
        if (key)
            *k = *key;
        else if (!span_key_read(record_body(r), k))
            bb->error = -EBADMSG;
        k->scope = b->n_scopes - 1;
        k->resource = b->n_resources - 1;
    }
    b->n_records++;
    b->scopes[b->n_scopes - 1].n_records++;
    b->items += r->items;
    b->bytes += r->len;
}

void batch_builder_record(struct batch_builder *bb, struct str body, uint32_t items,
                          const struct span_key *key)
{
    uint8_t head[16];
    if (bb->error)
        return;
    size_t n = (size_t)(wire_write_head(head, OTLP_SCOPE_RECORD, body.n) - head);
    uint8_t *p = copy_room(bb, n + body.n);
    if (!p)
        return;
    memcpy(p, head, n);
    if (body.n)
        memcpy(p + n, body.p, body.n);
    struct record r = {
        .field = p, .len = (uint32_t)(n + body.n), .hdr = (uint8_t)n, .items = items & 0xffffff};
    add(bb, &r, key);
}

void batch_builder_record_field(struct batch_builder *bb, const struct record *r,
                                const struct span_key *key, bool copy)
{
    struct record mine = *r;
    if (bb->error)
        return;
    if (copy) {
        uint8_t *p = copy_room(bb, r->len);
        if (!p)
            return;
        memcpy(p, r->field, r->len);
        mine.field = p;
    }
    add(bb, &mine, key);
}

int batch_builder_seal(struct batch_builder *bb, struct batch **out)
{
    int r = bb->error;
    *out = NULL;
    if (r == 0 && bb->b->n_records > 0) {
        *out = bb->b;
        bb->b = NULL;
    }
    batch_builder_fini(bb);
    return r;
}

void batch_builder_fini(struct batch_builder *bb)
{
    batch_unref(&bb->b);
}

/* ---- writing ---- */

static size_t scope_size(const struct batch *b, const struct scope_group *s)
{
    size_t n = s->envelope.n;
    for (uint32_t i = 0; i < s->n_records; i++)
        n += b->records[s->first_record + i].len;
    return n;
}

static size_t resource_size(const struct batch *b, const struct resource_group *r)
{
    size_t n = r->envelope.n;
    for (uint32_t s = 0; s < r->n_scopes; s++)
        n += wire_field_size(scope_size(b, &b->scopes[r->first_scope + s]));
    return n;
}

size_t batch_framed_size(const struct batch *b)
{
    size_t n = 0;
    if (b->raw.p)
        return b->raw.n;
    for (uint32_t r = 0; r < b->n_resources; r++)
        n += wire_field_size(resource_size(b, &b->resources[r]));
    return n;
}

static uint8_t *put(uint8_t *p, const void *from, size_t n)
{
    if (n)
        memcpy(p, from, n);
    return p + n;
}

/* Records that lie side by side in their chunk are copied in one go: untouched ones mostly do. */
static uint8_t *put_records(uint8_t *p, const struct batch *b, const struct scope_group *s)
{
    uint32_t i = s->first_record, end = i + s->n_records;
    while (i < end) {
        const uint8_t *from = b->records[i].field, *to = from + b->records[i].len;
        for (i++; i < end && b->records[i].field == to; i++)
            to += b->records[i].len;
        p = put(p, from, (size_t)(to - from));
    }
    return p;
}

void batch__write(const struct batch *b, struct chunk *c)
{
    uint8_t *p = c->data + c->len;
    if (b->raw.p) {
        p = put(p, b->raw.p, b->raw.n);
    } else {
        for (uint32_t r = 0; r < b->n_resources; r++) {
            const struct resource_group *res = &b->resources[r];
            p = wire_write_head(p, OTLP_REQUEST_RESOURCE, resource_size(b, res));
            p = put(p, res->envelope.p, res->envelope.n);
            for (uint32_t s = 0; s < res->n_scopes; s++) {
                const struct scope_group *scope = &b->scopes[res->first_scope + s];
                p = wire_write_head(p, OTLP_RESOURCE_SCOPE, scope_size(b, scope));
                p = put(p, scope->envelope.p, scope->envelope.n);
                p = put_records(p, b, scope);
            }
        }
    }
    c->len = (size_t)(p - c->data);
}

int batch_frame(struct chunk **out, const struct batch *b, size_t headroom)
{
    size_t n = batch_framed_size(b);
    struct chunk *c = chunk_new(headroom + n);
    if (!c)
        return -ENOMEM;
    c->len = headroom;
    batch__write(b, c);
    ASSERT(c->len == headroom + n);
    *out = c;
    return 0;
}
