/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealing an edit: the whole request is written once, back to front, so that every length is known
 * when its turn comes; the new batch owns that one chunk and can be sent as it lies there.
 * Attributes that stay keep their place and bytes, replaced ones take the place of the old one, new
 * ones come last.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/otlp/edit_internal.h"

/* ---- what a changed message consists of ---- */

static void add_piece(struct edit *e, const void *p, size_t n)
{
    if (n == 0)
        return;
    if (e->n_pieces == e->cap_pieces) {
        size_t cap = MAX(e->cap_pieces * 2, 64u);
        struct piece *v = try_realloc(e->pieces, cap * sizeof(*v));
        if (!v) {
            e->failed = true;
            return;
        }
        e->pieces = v;
        e->cap_pieces = cap;
    }
    e->pieces[e->n_pieces++] = (struct piece){p, n};
}

static void add_str(struct edit *e, struct str s)
{
    add_piece(e, s.p, s.n);
}

static size_t pieces_size(const struct edit *e, size_t from)
{
    size_t n = 0;
    for (size_t i = from; i < e->n_pieces; i++)
        n += e->pieces[i].n;
    return n;
}

/* Tag and length before the pieces from `at` on. */
static void add_head(struct edit *e, size_t at, uint32_t number)
{
    size_t n = pieces_size(e, at);
    buf_reset(&e->scratch);
    wire_put_tag(&e->scratch, number, WIRE_LEN);
    wire_put_varint(&e->scratch, n);
    struct str head = arena_dup(&e->arena, buf_str(&e->scratch));
    e->failed |= !head.p || buf_error(&e->scratch);
    add_piece(e, head.p, head.n);
    if (e->failed)
        return;
    struct piece last = e->pieces[e->n_pieces - 1];
    memmove(&e->pieces[at + 1], &e->pieces[at], (e->n_pieces - 1 - at) * sizeof(last));
    e->pieces[at] = last;
}

/* The new KeyValue, with what the old one had besides key and value. */
static void add_replaced(struct edit *e, const struct change *c, struct str old, uint32_t number)
{
    struct wire w = wire_of(old);
    struct field f;
    size_t from = e->n_pieces;
    while (wire_next(&w, &f) == 1)
        if (f.number > 2)
            add_piece(e, f.start, (size_t)(f.end - f.start));
    if (e->n_pieces == from) {
        add_str(e, c->field);
        return;
    }
    struct wire own = wire_of(c->field);
    if (wire_next(&own, &f) != 1)
        return;
    add_str(e, f.bytes);
    add_head(e, from, number);
}

static struct change *change_of(struct change *c, struct str key)
{
    for (; c; c = c->next)
        if ((c->op == CHANGE_SET || c->op == CHANGE_DELETE) && str_eq(c->key, key))
            return c;
    return NULL;
}

/* The message's pieces, but for new attributes. */
static void add_message(struct edit *e, struct str message, struct change *changes, uint32_t number)
{
    struct wire w = wire_of(message);
    const uint8_t *from = w.p;
    struct field f;
    while (wire_next(&w, &f) == 1) {
        if (f.number != number || f.type != WIRE_LEN)
            continue;
        struct change *c = change_of(changes, attr_key(f.bytes));
        if (!c)
            continue;
        add_piece(e, from, (size_t)(f.start - from));
        from = f.end;
        if (c->op == CHANGE_SET && !c->is_placed)
            add_replaced(e, c, f.bytes, number);
        c->is_placed = true;
    }
    if (message.n)
        add_piece(e, from, (size_t)((const uint8_t *)message.p + message.n - from));
}

static void add_new(struct edit *e, struct change *changes)
{
    for (struct change *c = changes; c; c = c->next) {
        if (c->op == CHANGE_APPEND || (c->op == CHANGE_SET && !c->is_placed))
            add_str(e, c->field);
        c->is_placed = false;
    }
}

static void add_envelope(struct edit *e, struct edit_at at, struct change *changes)
{
    struct str envelope = edit__bytes_at(e, at);
    uint32_t number = edit__attributes_number(e, at.level);
    struct wire w = wire_of(envelope);
    struct field f;
    unsigned messages = 0;
    while (wire_next(&w, &f) == 1)
        messages += f.number == 1 && f.type == WIRE_LEN;
    w = wire_of(envelope);
    while (wire_next(&w, &f) == 1) {
        size_t at_piece = e->n_pieces;
        if (f.number != 1 || f.type != WIRE_LEN) {
            add_piece(e, f.start, (size_t)(f.end - f.start));
            continue;
        }
        add_message(e, f.bytes, changes, number);
        if (messages == 1)
            add_new(e, changes);
        add_head(e, at_piece, 1);
    }
    if (messages == 1)
        return;
    size_t at_piece = e->n_pieces; /* a further piece, which merges with the others */
    add_new(e, changes);
    if (e->n_pieces > at_piece)
        add_head(e, at_piece, 1);
}

/* ---- writing, back to front ---- */

struct writer {
    struct edit *e;
    struct batch *out;
    uint8_t *base, *p;
    /* Next free entries of the tables, which are filled from their ends too. */
    uint32_t resource, scope, record;
};

static void put(struct writer *w, const void *from, size_t n)
{
    ASSERT(n <= (size_t)(w->p - w->base));
    w->p -= n;
    if (n)
        memcpy(w->p, from, n);
}

static void put_head(struct writer *w, uint32_t number, size_t n)
{
    size_t size = wire_varint_size(n);
    ASSERT(size < (size_t)(w->p - w->base));
    w->p -= size + 1;
    wire_write_head(w->p, number, n);
}

static void put_pieces(struct writer *w)
{
    struct edit *e = w->e;
    for (size_t i = e->n_pieces; i-- > 0;)
        put(w, e->pieces[i].p, e->pieces[i].n);
}

static struct str put_envelope(struct writer *w, struct edit_at at)
{
    const uint8_t *end = w->p;
    struct change *changes = edit__changes_at(w->e, at);
    struct str old = edit__bytes_at(w->e, at);
    w->e->n_pieces = 0;
    if (changes) {
        add_envelope(w->e, at, changes);
        put_pieces(w);
    } else {
        put(w, old.p, old.n);
    }
    return str_make(w->p, (size_t)(end - w->p));
}

static void put_record(struct writer *w, uint32_t i)
{
    struct edit *e = w->e;
    const struct batch *b = e->b;
    struct record *r = &w->out->records[--w->record];
    const uint8_t *end = w->p;
    struct change *changes = edit__changes_at(e, (struct edit_at){EDIT_RECORD, i});
    *r = b->records[i];
    if (changes) {
        e->n_pieces = 0;
        add_message(e, record_body(r), changes, edit__attributes_number(e, EDIT_RECORD));
        add_new(e, changes);
        put_pieces(w);
        size_t n = (size_t)(end - w->p);
        put_head(w, OTLP_SCOPE_RECORD, n);
        r->len = (uint32_t)(end - w->p);
        r->hdr = (r->len - n) & 0xff;
    } else {
        put(w, r->field, r->len);
    }
    r->field = w->p;
    if (b->keys) /* attributes are no part of the key */
        w->out->keys[w->record] = b->keys[i];
    w->out->items += r->items;
    w->out->bytes += r->len;
}

static void put_scope(struct writer *w, uint32_t s)
{
    const struct scope_group *g = &w->e->b->scopes[s];
    const uint8_t *end = w->p;
    uint32_t before = w->record;
    for (uint32_t i = g->first_record + g->n_records; i-- > g->first_record;)
        if (!w->e->dropped || !w->e->dropped[i])
            put_record(w, i);
    if (w->record == before)
        return;
    struct scope_group *mine = &w->out->scopes[--w->scope];
    *mine = (struct scope_group){.envelope = put_envelope(w, (struct edit_at){EDIT_SCOPE, s}),
                                 .n_records = before - w->record};
    w->out->bytes += mine->envelope.n;
    put_head(w, OTLP_RESOURCE_SCOPE, (size_t)(end - w->p));
}

static void put_resource(struct writer *w, uint32_t r)
{
    const struct resource_group *g = &w->e->b->resources[r];
    const uint8_t *end = w->p;
    uint32_t before = w->scope;
    for (uint32_t s = g->first_scope + g->n_scopes; s-- > g->first_scope;)
        put_scope(w, s);
    if (w->scope == before)
        return;
    struct resource_group *mine = &w->out->resources[--w->resource];
    *mine = (struct resource_group){.envelope = put_envelope(w, (struct edit_at){EDIT_RESOURCE, r}),
                                    .n_scopes = before - w->scope};
    w->out->bytes += mine->envelope.n;
    put_head(w, OTLP_REQUEST_RESOURCE, (size_t)(end - w->p));
}

/* Where the filled parts of the tables begin, and which group each entry belongs to. */
static void number_groups(struct writer *w)
{
    struct batch *out = w->out;
    uint32_t scope = 0, record = 0;
    out->resources += w->resource;
    out->scopes += w->scope;
    out->records += w->record;
    out->n_resources -= w->resource;
    out->n_scopes -= w->scope;
    out->n_records -= w->record;
    if (out->keys)
        out->keys += w->record;
    for (uint32_t r = 0; r < out->n_resources; r++) {
        out->resources[r].first_scope = scope;
        for (uint32_t end = scope + out->resources[r].n_scopes; scope < end; scope++) {
            out->scopes[scope].first_record = record;
            for (uint32_t n = out->scopes[scope].n_records; n > 0; n--, record++) {
                if (!out->keys)
                    continue;
                out->keys[record].scope = scope;
                out->keys[record].resource = r;
            }
        }
    }
}

static int make_tables(struct batch *out, const struct batch *b)
{
    struct arena *a = &out->arena;
    out->n_resources = b->n_resources;
    out->n_scopes = b->n_scopes;
    out->n_records = b->n_records;
    out->received_ns = b->received_ns;
    out->resources = arena_alloc(a, b->n_resources * sizeof(*b->resources));
    out->scopes = arena_alloc(a, b->n_scopes * sizeof(*b->scopes));
    out->records = arena_alloc(a, b->n_records * sizeof(*b->records));
    if (b->keys)
        out->keys = arena_alloc(a, b->n_records * sizeof(*b->keys));
    return out->resources && out->scopes && out->records && (out->keys || !b->keys) ? 0 : -ENOMEM;
}

int edit__seal(struct edit *e, struct batch **result)
{
    const struct batch *b = e->b;
    enum { HEAD = 8 }; /* tag and length of a message around others, at most */
    size_t most = b->bytes + e->growth + HEAD * ((size_t)b->n_resources + b->n_scopes);
    struct batch *out = batch__new(b->signal);
    struct chunk *c = chunk_new(most);
    uint32_t cap = 0;
    if (!out || !c || make_tables(out, b) || batch__share(out, c, &cap)) {
        batch_unref(&out);
        chunk_unref(&c);
        return -ENOMEM;
    }
    c->len = most;
    struct writer w = {.e = e,
                       .out = out,
                       .base = c->data,
                       .p = c->data + most,
                       .resource = b->n_resources,
                       .scope = b->n_scopes,
                       .record = b->n_records};
    for (uint32_t r = b->n_resources; r-- > 0;)
        put_resource(&w, r);
    out->raw = str_make(w.p, (size_t)(c->data + most - w.p));
    number_groups(&w);
    chunk_unref(&c); /* the batch holds it */
    if (e->failed || out->n_records == 0)
        batch_unref(&out);
    *result = out;
    return e->failed ? -ENOMEM : 0;
}
