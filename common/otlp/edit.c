/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A record or group that is changed has a list of changes, a few attributes each; its bytes are not
 * taken apart for that. edit_seal.c writes them.
 */
#include "common/otlp/edit.h"

#include <errno.h>
#include <stdlib.h>

#include "common/otlp/edit_internal.h"
#include "common/otlp/encode.h"

int batch_edit(struct edit **out, struct batch *b)
{
    struct edit *e = try_alloc(sizeof(*e));
    if (!e)
        return -ENOMEM;
    *e = (struct edit){.magic = EDIT_MAGIC, .b = batch_ref(b)};
    arena_init(&e->arena);
    buf_init(&e->scratch);
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
    buf_fini(&e->scratch);
    free(e->pieces);
    CLEAR_MAGIC(e);
    free(e);
    *ep = NULL;
}

uint32_t edit__attributes_number(const struct edit *e, enum edit_level level)
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

/* A record's message; of a group its envelope, whose fields 1 are the message in pieces. */
struct str edit__bytes_at(const struct edit *e, struct edit_at at)
{
    return at.level == EDIT_RECORD     ? record_body(&e->b->records[at.index])
           : at.level == EDIT_RESOURCE ? e->b->resources[at.index].envelope
                                       : e->b->scopes[at.index].envelope;
}

struct change *edit__changes_at(const struct edit *e, struct edit_at at)
{
    return e->changes[at.level] ? e->changes[at.level][at.index] : NULL;
}

/* The one that holds for the key now. */
static struct change *find_change(struct change *c, struct str key)
{
    struct change *last = NULL;
    for (; c; c = c->next)
        if (c->op != CHANGE_GONE && str_eq(c->key, key))
            last = c;
    return last;
}

static struct change *add_change(struct edit *e, struct edit_at at, enum change_op op)
{
    struct change ***level = &e->changes[at.level];
    struct change *c = arena_alloc(&e->arena, sizeof(*c));
    if (!*level)
        *level = arena_zalloc(&e->arena, level_size(e, at.level) * sizeof(struct change *));
    if (!c || !*level) {
        e->failed = true;
        return NULL;
    }
    *c = (struct change){.op = op};
    struct change **end = &(*level)[at.index];
    while (*end)
        end = &(*end)->next;
    *end = c;
    e->is_changed = true;
    return c;
}

/* ---- reading through the changes ---- */

static bool find_old(const struct edit *e, struct edit_at at, struct str key, struct any *out)
{
    uint32_t number = edit__attributes_number(e, at.level);
    if (at.level == EDIT_RECORD)
        return attr_find(edit__bytes_at(e, at), number, key, out);
    return envelope_attr_find(edit__bytes_at(e, at), number, key, out);
}

bool edit_attr_get(const struct edit *e, struct edit_at at, struct str key, struct any *out)
{
    const struct change *c = find_change(edit__changes_at(e, at), key);
    if (!c)
        return find_old(e, at, key, out);
    if (c->op == CHANGE_DELETE)
        return false;
    *out = any_read(c->value);
    return true;
}

/* The next KeyValue at or after byte *pos of a message that begins at `base`. */
static bool next_in(struct str message, const char *base, uint32_t number, size_t *pos,
                    struct attr *out)
{
    size_t from = (size_t)(message.p - base), at = MAX(*pos, from);
    if (at >= from + message.n)
        return false;
    struct wire w = wire_of(str_make(base + at, from + message.n - at));
    bool is_there = attr_next(&w, number, out);
    *pos = is_there ? (size_t)((const char *)w.p - base) : from + message.n;
    return is_there;
}

static bool next_old(const struct edit *e, struct edit_at at, size_t *pos, struct attr *out)
{
    struct str all = edit__bytes_at(e, at);
    uint32_t number = edit__attributes_number(e, at.level);
    if (at.level == EDIT_RECORD)
        return next_in(all, all.p, number, pos, out);
    struct wire outer = wire_of(all);
    struct field f;
    while (wire_next(&outer, &f) == 1)
        if (f.number == 1 && f.type == WIRE_LEN && f.bytes.n &&
            next_in(f.bytes, all.p, number, pos, out))
            return true;
    return false;
}

/* Whether the KeyValue that ends at `end` is the first of its key. */
static bool is_first(const struct edit *e, struct edit_at at, size_t end, struct str key)
{
    struct attr a;
    size_t pos = 0;
    while (next_old(e, at, &pos, &a))
        if (str_eq(a.key, key))
            return pos == end;
    return false;
}

bool edit_attr_next(const struct edit *e, struct edit_at at, size_t *pos, struct attr *out)
{
    /* Positions are byte offsets in the old bytes, after those numbers of changes. */
    static const size_t added = SIZE_MAX / 2;
    struct change *changes = edit__changes_at(e, at);
    while (*pos < added && next_old(e, at, pos, out)) {
        const struct change *c = find_change(changes, out->key);
        if (c && (c->op != CHANGE_SET || !is_first(e, at, *pos, out->key)))
            continue;
        if (c)
            *out = (struct attr){c->key, c->value};
        return true;
    }
    *pos = MAX(*pos, added);
    size_t i = added;
    for (struct change *c = changes; c; c = c->next, i++) {
        struct any unused;
        if (i < *pos || (c->op != CHANGE_APPEND && c->op != CHANGE_SET) ||
            (c->op == CHANGE_SET && find_old(e, at, c->key, &unused)))
            continue;
        *pos = i + 1;
        *out = (struct attr){c->key, c->value};
        return true;
    }
    return false;
}

/* ---- changing ---- */

/* Whether c sets just that: the common values only, others are encoded each time. */
static bool is_same(const struct change *c, struct str key, struct any v)
{
    if (!str_eq(c->key, key))
        return false;
    struct any old = any_read(c->value);
    if (old.type != v.type)
        return false;
    return v.type == ANY_STRING ? str_eq(old.s, v.s) : v.type == ANY_INT && old.i == v.i;
}

/* Key, value and field of c. */
static void write_field(struct edit *e, struct edit_at at, struct change *c, struct str key,
                        struct any value)
{
    const struct change *last = e->last_level == at.level ? e->last_set : NULL;
    if (last && is_same(last, key, value)) {
        c->key = last->key;
        c->value = last->value;
        c->field = last->field;
    } else {
        buf_reset(&e->scratch);
        encode_attr(&e->scratch, edit__attributes_number(e, at.level), key, value);
        c->field = arena_dup(&e->arena, buf_str(&e->scratch));
        struct wire w = wire_of(c->field);
        struct field kv;
        if (buf_error(&e->scratch) || !c->field.p || wire_next(&w, &kv) != 1) {
            e->failed = true;
            return;
        }
        c->key = message_bytes(kv.bytes, 1);
        c->value = message_bytes(kv.bytes, 2);
        e->last_set = c;
        e->last_level = at.level;
    }
    /* Lengths around it may need more bytes than before, and a group a further piece. */
    e->growth += c->field.n + 32;
}

void edit_attr_set(struct edit *e, struct edit_at at, struct str key, struct any value)
{
    struct change *c = find_change(edit__changes_at(e, at), key);
    if (!c || c->op == CHANGE_DELETE)
        c = add_change(e, at, c ? CHANGE_APPEND : CHANGE_SET);
    if (!c)
        return;
    write_field(e, at, c, key, value);
}

void edit_attr_delete(struct edit *e, struct edit_at at, struct str key)
{
    struct any unused;
    struct change *c = find_change(edit__changes_at(e, at), key);
    if (c) {
        c->op = c->op == CHANGE_APPEND ? CHANGE_GONE : CHANGE_DELETE;
        return;
    }
    if (!find_old(e, at, key, &unused))
        return;
    c = add_change(e, at, CHANGE_DELETE);
    if (!c)
        return;
    c->key = arena_dup(&e->arena, key);
    e->failed |= !c->key.p;
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

/* ---- the end ---- */

int edit_seal(struct edit **ep, struct batch **out)
{
    struct edit *e = *ep;
    int r = e->failed ? -ENOMEM : 0;
    *out = NULL;
    if (r == 0 && !e->is_changed)
        *out = batch_ref(e->b);
    else if (r == 0)
        r = edit__seal(e, out);
    edit_free(ep);
    return r;
}
