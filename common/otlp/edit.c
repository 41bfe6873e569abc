/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A patch is made for the first change of a record or group: an array of its attributes, slices of
 * the old bytes or of the edit's arena. Sealing writes patched messages anew (all other fields
 * copied with their tags, attributes at the place of the first one) and shares the rest.
 */
#include "common/otlp/edit.h"

#include <errno.h>
#include <stdlib.h>

#include "common/otlp/encode.h"

#define EDIT_MAGIC 0x45444954u

struct entry {
    struct str key, value; /* value: AnyValue bytes */
    struct str field;      /* the whole KeyValue field as it was; {NULL,0} for a new one */
    bool is_set, is_deleted;
};

struct patch {
    struct entry *entries;
    uint32_t n, cap;
    bool is_changed;
};

struct edit {
    unsigned magic;
    struct batch *b;
    struct arena arena;
    struct patch **patches[3]; /* by level, made at the first change of that level */
    uint8_t *dropped;          /* by record */
    uint32_t n_dropped;
    bool is_changed, failed;
};

int batch_edit(struct edit **out, struct batch *b)
{
    struct edit *e = try_alloc(sizeof(*e));
    if (!e)
        return -ENOMEM;
    *e = (struct edit){.magic = EDIT_MAGIC, .b = batch_ref(b)};
    arena_init(&e->arena);
    *out = e;
    return 0;
}

void edit_free(struct edit **ep)
{
    struct edit *e = *ep;
    if (!e)
        return;
    CHECK_OBJ(e, EDIT_MAGIC);
    batch_unref(&e->b);
    arena_fini(&e->arena);
    CLEAR_MAGIC(e);
    free(e);
    *ep = NULL;
}

static uint32_t attributes_number(const struct edit *e, enum edit_level level)
{
    if (level == EDIT_RESOURCE)
        return RESOURCE_ATTRIBUTES;
    if (level == EDIT_SCOPE)
        return SCOPE_ATTRIBUTES;
    return e->b->signal == SIGNAL_LOGS ? LOG_ATTRIBUTES : SPAN_ATTRIBUTES;
}

static uint32_t level_size(const struct edit *e, enum edit_level level)
{
    return level == EDIT_RESOURCE ? e->b->n_resources
           : level == EDIT_SCOPE  ? e->b->n_scopes
                                  : e->b->n_records;
}

static struct patch *find_patch(const struct edit *e, struct edit_at at)
{
    return e->patches[at.level] ? e->patches[at.level][at.index] : NULL;
}

static struct entry *add_entry(struct edit *e, struct patch *p)
{
    if (p->n == p->cap) {
        uint32_t cap = p->cap ? p->cap * 2 : 16;
        struct entry *v = arena_alloc(&e->arena, cap * sizeof(*v));
        if (!v) {
            e->failed = true;
            return NULL;
        }
        if (p->n)
            memcpy(v, p->entries, p->n * sizeof(*v));
        p->entries = v;
        p->cap = cap;
    }
    struct entry *t = &p->entries[p->n++];
    *t = (struct entry){0};
    return t;
}

/* Message bytes that hold the attributes: of a record its body, of a group each piece of its
 * envelope. */
static bool next_message(const struct edit *e, struct edit_at at, struct wire *outer, bool *started,
                         struct str *out)
{
    struct field f;
    if (at.level == EDIT_RECORD) {
        if (*started)
            return false;
        *started = true;
        *out = record_body(&e->b->records[at.index]);
        return true;
    }
    if (!*started) {
        *started = true;
        *outer = wire_of(at.level == EDIT_RESOURCE ? e->b->resources[at.index].envelope
                                                   : e->b->scopes[at.index].envelope);
    }
    while (wire_next(outer, &f) == 1) {
        if (f.number == 1 && f.type == WIRE_LEN) {
            *out = f.bytes;
            return true;
        }
    }
    return false;
}

static void load_entries(struct edit *e, struct edit_at at, struct patch *p)
{
    uint32_t number = attributes_number(e, at.level);
    struct wire outer = {0};
    bool started = false;
    struct str message;
    while (next_message(e, at, &outer, &started, &message)) {
        struct wire w = wire_of(message);
        struct field f;
        while (wire_next(&w, &f) == 1) {
            if (f.number != number || f.type != WIRE_LEN)
                continue;
            struct entry *t = add_entry(e, p);
            if (!t)
                return;
            t->key = message_bytes(f.bytes, 1);
            t->value = message_bytes(f.bytes, 2);
            t->field = str_make(f.start, (size_t)(f.end - f.start));
        }
    }
}

static struct patch *need_patch(struct edit *e, struct edit_at at)
{
    struct patch ***level = &e->patches[at.level];
    if (e->failed)
        return NULL;
    if (!*level)
        *level = arena_zalloc(&e->arena, level_size(e, at.level) * sizeof(struct patch *));
    struct patch *p = *level ? (*level)[at.index] : NULL;
    if (p || !*level) {
        e->failed |= !*level;
        return p;
    }
    p = arena_zalloc(&e->arena, sizeof(*p));
    if (!p) {
        e->failed = true;
        return NULL;
    }
    (*level)[at.index] = p;
    load_entries(e, at, p);
    return e->failed ? NULL : p;
}

static struct entry *find_entry(const struct patch *p, struct str key)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (!p->entries[i].is_deleted && str_eq(p->entries[i].key, key))
            return &p->entries[i];
    return NULL;
}

/* The AnyValue's bytes in the edit's arena. */
static struct str keep_value(struct edit *e, struct any v)
{
    struct buf b;
    buf_init(&b);
    encode_attr(&b, 1, (struct str){NULL, 0}, v);
    struct str kv = message_bytes(buf_str(&b), 1);
    struct str value = arena_dup(&e->arena, message_bytes(kv, 2));
    e->failed |= buf_error(&b) != 0 || !value.p;
    buf_fini(&b);
    return value;
}

void edit_attr_set(struct edit *e, struct edit_at at, struct str key, struct any value)
{
    struct patch *p = need_patch(e, at);
    if (!p)
        return;
    struct entry *t = find_entry(p, key);
    struct str bytes = keep_value(e, value);
    if (t) {
        for (struct entry *d = t + 1; d < p->entries + p->n; d++) /* duplicates of the key go */
            d->is_deleted |= str_eq(d->key, key);
    } else {
        t = add_entry(e, p);
        if (!t)
            return;
        t->key = arena_dup(&e->arena, key);
    }
    t->value = bytes;
    t->is_set = true;
    p->is_changed = e->is_changed = true;
}

void edit_attr_delete(struct edit *e, struct edit_at at, struct str key)
{
    struct any unused;
    if (!find_patch(e, at) && !edit_attr_get(e, at, key, &unused))
        return; /* nothing to delete: no patch for it */
    struct patch *p = need_patch(e, at);
    for (uint32_t i = 0; p && i < p->n; i++) {
        if (p->entries[i].is_deleted || !str_eq(p->entries[i].key, key))
            continue;
        p->entries[i].is_deleted = true;
        p->is_changed = e->is_changed = true;
    }
}

bool edit_attr_get(const struct edit *e, struct edit_at at, struct str key, struct any *out)
{
    const struct patch *p = find_patch(e, at);
    if (p) {
        const struct entry *t = find_entry(p, key);
        if (t)
            *out = any_read(t->value);
        return t != NULL;
    }
    struct wire outer = {0};
    bool started = false;
    struct str message;
    while (next_message(e, at, &outer, &started, &message))
        if (attr_find(message, attributes_number(e, at.level), key, out))
            return true;
    return false;
}

bool edit_attr_next(const struct edit *e, struct edit_at at, size_t *pos, struct attr *out)
{
    /* Iterating makes the patch: positions are indexes of its entries. */
    const struct patch *p = need_patch((struct edit *)(uintptr_t)e, at);
    while (p && *pos < p->n) {
        const struct entry *t = &p->entries[(*pos)++];
        if (t->is_deleted)
            continue;
        *out = (struct attr){t->key, t->value};
        return true;
    }
    return false;
}

void edit_drop(struct edit *e, uint32_t record)
{
    if (!e->dropped)
        e->dropped = arena_zalloc(&e->arena, e->b->n_records);
    if (!e->dropped) {
        e->failed = true;
        return;
    }
    e->n_dropped += !e->dropped[record];
    e->dropped[record] = 1;
    e->is_changed = true;
}

/* ---- sealing ---- */

/* What the old KeyValue had besides key and value. */
static void put_unknown(struct buf *out, struct str field)
{
    struct wire outer = wire_of(field), w;
    struct field kv, f;
    if (wire_next(&outer, &kv) != 1)
        return;
    w = wire_of(kv.bytes);
    while (wire_next(&w, &f) == 1)
        if (f.number > 2)
            buf_add(out, f.start, (size_t)(f.end - f.start));
}

static void put_entries(struct buf *out, const struct patch *p, uint32_t number)
{
    for (uint32_t i = 0; i < p->n; i++) {
        const struct entry *t = &p->entries[i];
        if (t->is_deleted)
            continue;
        if (!t->is_set) {
            buf_add_str(out, t->field);
            continue;
        }
        size_t mark = wire_begin(out, number);
        wire_put_bytes(out, 1, t->key);
        wire_put_bytes(out, 2, t->value);
        put_unknown(out, t->field);
        wire_end(out, mark);
    }
}

/* The message with its attributes replaced: they stand where the first one stood, else at the end.
 */
static void put_message(struct buf *out, struct str message, const struct patch *p, uint32_t number,
                        bool *done)
{
    struct wire w = wire_of(message);
    struct field f;
    while (wire_next(&w, &f) == 1) {
        if (f.number != number || f.type != WIRE_LEN) {
            buf_add(out, f.start, (size_t)(f.end - f.start));
        } else if (!*done) {
            put_entries(out, p, number);
            *done = true;
        }
    }
}

static void put_envelope(struct buf *out, struct str envelope, const struct patch *p,
                         uint32_t number)
{
    struct wire w = wire_of(envelope);
    struct field f;
    bool done = false;
    while (wire_next(&w, &f) == 1) {
        if (f.number != 1 || f.type != WIRE_LEN) {
            buf_add(out, f.start, (size_t)(f.end - f.start));
            continue;
        }
        size_t mark = wire_begin(out, 1);
        put_message(out, f.bytes, p, number, &done);
        wire_end(out, mark);
    }
    if (!done) { /* no attribute so far: a further piece, which merges with the first */
        size_t mark = wire_begin(out, 1);
        put_entries(out, p, number);
        wire_end(out, mark);
    }
}

static struct str sealed_envelope(struct edit *e, struct edit_at at, struct str old,
                                  struct buf *tmp)
{
    const struct patch *p = find_patch(e, at);
    if (!p || !p->is_changed)
        return old;
    buf_reset(tmp);
    put_envelope(tmp, old, p, attributes_number(e, at.level));
    return buf_str(tmp);
}

static void seal_record(struct edit *e, struct batch_builder *bb, uint32_t i, struct buf *tmp)
{
    const struct batch *b = e->b;
    const struct record *r = &b->records[i];
    const struct patch *p = find_patch(e, (struct edit_at){EDIT_RECORD, i});
    if (!p || !p->is_changed) {
        batch_builder_record_field(bb, r, b->keys ? &b->keys[i] : NULL, false);
        return;
    }
    uint32_t number = attributes_number(e, EDIT_RECORD);
    bool done = false;
    buf_reset(tmp);
    put_message(tmp, record_body(r), p, number, &done);
    if (!done)
        put_entries(tmp, p, number);
    /* Attributes are no part of the key: it stays. */
    batch_builder_record(bb, buf_str(tmp), r->items, b->keys ? &b->keys[i] : NULL);
}

static int seal(struct edit *e, struct batch **out)
{
    const struct batch *b = e->b;
    struct batch_builder bb;
    struct buf tmp;
    buf_init(&tmp);
    batch_builder_init(&bb, b->signal);
    for (uint32_t i = 0; i < b->n_chunks; i++)
        batch_builder_share(&bb, b->chunks[i]);
    for (uint32_t r = 0; r < b->n_resources; r++) {
        const struct resource_group *res = &b->resources[r];
        bool has_resource = false;
        for (uint32_t s = res->first_scope; s < res->first_scope + res->n_scopes; s++) {
            const struct scope_group *g = &b->scopes[s];
            bool has_scope = false;
            for (uint32_t i = g->first_record; i < g->first_record + g->n_records; i++) {
                if (e->dropped && e->dropped[i])
                    continue;
                if (!has_resource)
                    batch_builder_resource(
                        &bb,
                        sealed_envelope(e, (struct edit_at){EDIT_RESOURCE, r}, res->envelope, &tmp),
                        true);
                if (!has_scope)
                    batch_builder_scope(
                        &bb, sealed_envelope(e, (struct edit_at){EDIT_SCOPE, s}, g->envelope, &tmp),
                        true);
                has_resource = has_scope = true;
                seal_record(e, &bb, i, &tmp);
            }
        }
    }
    if (buf_error(&tmp))
        bb.error = -ENOMEM;
    buf_fini(&tmp);
    int r = batch_builder_seal(&bb, out);
    if (r == 0 && *out)
        (*out)->received_ns = b->received_ns;
    return r;
}

int edit_seal(struct edit **ep, struct batch **out)
{
    struct edit *e = *ep;
    int r = e->failed ? -ENOMEM : 0;
    *out = NULL;
    if (r == 0 && !e->is_changed)
        *out = batch_ref(e->b);
    else if (r == 0)
        r = seal(e, out);
    edit_free(ep);
    return r;
}
