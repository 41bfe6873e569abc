/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the bytes of a request to a batch, without recursion and without decoding what nobody asked
 * for.
 *
 *   count   over the framing alone: how many resources, scopes, records     (some ns a span)
 *   fill    envelopes, record slices, span keys                             (the walk)
 *   check   with BATCH_VALIDATE: every record to the leaf (validate.c)
 */
#include <errno.h>
#include <stdio.h>

#include "common/otlp/batch_internal.h"

enum {
    SPAN_TRACE_ID = 1,
    SPAN_ID = 2,
    SPAN_PARENT = 4,
    SPAN_KIND = 6,
    SPAN_START = 7,
    SPAN_END = 8,
    SPAN_STATUS = 15,
    SPAN_FLAGS = 16,
    STATUS_CODE = 3
};

struct counts {
    uint32_t resources, scopes, records;
};

/* Where in the request something is wrong. */
struct place {
    uint32_t resource, scope, record;
};

static int bad(struct err *e, const char *path, const char *what)
{
    return err_set(e, -EBADMSG, "%s: %s", path, what);
}

static int bad_at(struct err *e, enum signal s, const struct place *at, int depth)
{
    static const char *const names[SIGNAL_COUNT][3] = {
        {"resource_spans", "scope_spans", "spans"},
        {"resource_metrics", "scope_metrics", "metrics"},
        {"resource_logs", "scope_logs", "log_records"},
    };
    char path[128];
    if (depth == 0)
        snprintf(path, sizeof(path), "%s", names[s][0]);
    else if (depth == 1)
        snprintf(path, sizeof(path), "%s[%u]", names[s][0], at->resource);
    else if (depth == 2)
        snprintf(path, sizeof(path), "%s[%u].%s[%u]", names[s][0], at->resource, names[s][1],
                 at->scope);
    else
        snprintf(path, sizeof(path), "%s[%u].%s[%u].%s[%u]", names[s][0], at->resource, names[s][1],
                 at->scope, names[s][2], at->record);
    return bad(e, path, "malformed protobuf");
}

/* A message field with another wire type is not what its sender meant: refused, not guessed. */
static bool is_message(const struct field *f, uint32_t number)
{
    return f->number == number && f->type == WIRE_LEN;
}

static int count(struct str request, enum signal s, struct counts *n, struct err *e)
{
    struct wire req = wire_of(request);
    struct field rf, sf, f;
    struct place at = {0};
    int r;
    while ((r = wire_next(&req, &rf)) == 1) {
        if (rf.number != OTLP_REQUEST_RESOURCE)
            continue;
        if (rf.type != WIRE_LEN)
            return bad_at(e, s, &at, 0);
        struct wire res = wire_of(rf.bytes);
        at.resource = n->resources++;
        at.scope = 0;
        while ((r = wire_next(&res, &sf)) == 1) {
            if (sf.number != OTLP_RESOURCE_SCOPE)
                continue;
            if (sf.type != WIRE_LEN)
                return bad_at(e, s, &at, 1);
            struct wire scope = wire_of(sf.bytes);
            n->scopes++;
            while ((r = wire_next(&scope, &f)) == 1) {
                if (f.number == OTLP_SCOPE_RECORD && f.type != WIRE_LEN)
                    return bad_at(e, s, &at, 2);
                n->records += f.number == OTLP_SCOPE_RECORD;
            }
            if (r < 0)
                return bad_at(e, s, &at, 2);
            at.scope++;
        }
        if (r < 0)
            return bad_at(e, s, &at, 1);
    }
    return r < 0 ? bad_at(e, s, &at, 0) : 0;
}

static bool copy_id(uint8_t *to, size_t want, struct str from, uint8_t *flags)
{
    if (from.n == want) {
        memcpy(to, from.p, want);
        return true;
    }
    memset(to, 0, want);
    if (from.n != 0)
        *flags |= SPAN_BAD_ID;
    return from.n == 0;
}

static bool read_status(struct str body, uint8_t *code)
{
    struct wire w = wire_of(body);
    struct field f;
    int r;
    while ((r = wire_next(&w, &f)) == 1)
        if (f.number == STATUS_CODE && f.type == WIRE_VARINT)
            *code = f.value <= 2 ? (uint8_t)f.value : 0;
    return r == 0;
}

static bool note_key_field(const struct field *f, struct span_key *k)
{
    static const uint8_t zero[8];
    switch (f->number << 3 | f->type) {
    case SPAN_TRACE_ID << 3 | WIRE_LEN:
        copy_id(k->trace_id, 16, f->bytes, &k->key_flags);
        return true;
    case SPAN_ID << 3 | WIRE_LEN:
        copy_id(k->span_id, 8, f->bytes, &k->key_flags);
        return true;
    case SPAN_PARENT << 3 | WIRE_LEN:
        copy_id(k->parent_span_id, 8, f->bytes, &k->key_flags);
        k->key_flags &= (uint8_t)~SPAN_HAS_PARENT;
        if (memcmp(k->parent_span_id, zero, 8) != 0)
            k->key_flags |= SPAN_HAS_PARENT;
        return true;
    case SPAN_KIND << 3 | WIRE_VARINT:
        k->kind = f->value <= 5 ? (uint8_t)f->value : 0;
        return true;
    case SPAN_START << 3 | WIRE_I64:
        k->start_ns = f->value;
        return true;
    case SPAN_END << 3 | WIRE_I64:
        k->end_ns = f->value;
        return true;
    case SPAN_STATUS << 3 | WIRE_LEN:
        return read_status(f->bytes, &k->status);
    case SPAN_FLAGS << 3 | WIRE_I32:
        k->flags = (uint32_t)f->value;
        return true;
    default:
        return true;
    }
}

bool span_key_read(struct str body, struct span_key *key)
{
    struct wire w = wire_of(body);
    struct field f;
    int r;
    memset(key, 0, offsetof(struct span_key, scope));
    while ((r = wire_next(&w, &f)) == 1)
        if (!note_key_field(&f, key))
            return false;
    return r == 0;
}

size_t metric_points(struct str body)
{
    struct wire w = wire_of(body), d;
    struct field f, p;
    size_t n = 0;
    int r;
    while ((r = wire_next(&w, &f)) == 1) {
        bool is_data = f.number == 5 || f.number == 7 || (f.number >= 9 && f.number <= 11);
        if (!is_data)
            continue;
        if (f.type != WIRE_LEN)
            return SIZE_MAX;
        d = wire_of(f.bytes);
        while ((r = wire_next(&d, &p)) == 1) /* data_points is field 1 of every kind of data */
            n += p.number == 1 && p.type == WIRE_LEN;
        if (r < 0)
            return SIZE_MAX;
    }
    return r < 0 ? SIZE_MAX : n;
}

/* ---- filling ---- */

struct filler {
    struct batch *b;
    unsigned flags;
    struct err *e;
    struct place at;
};

/* An envelope is nearly always one run; pieces between other fields are put together in the arena.
 */
struct pieces {
    const uint8_t *from, *to;
    bool is_copied;
    struct str copy;
};

static bool add_piece(struct batch *b, struct pieces *p, const struct field *f)
{
    size_t n = (size_t)(f->end - f->start);
    if (!p->from) {
        p->from = f->start;
        p->to = f->end;
        return true;
    }
    if (!p->is_copied && p->to == f->start) {
        p->to = f->end;
        return true;
    }
    size_t have = p->is_copied ? p->copy.n : (size_t)(p->to - p->from);
    char *copy = arena_alloc(&b->arena, have + n);
    if (!copy)
        return false;
    memcpy(copy, p->is_copied ? (const uint8_t *)p->copy.p : p->from, have);
    memcpy(copy + have, f->start, n);
    p->copy = str_make(copy, have + n);
    p->is_copied = true;
    return true;
}

static struct str envelope_of(const struct pieces *p)
{
    return p->is_copied ? p->copy : str_make(p->from, (size_t)(p->to - p->from));
}

static int invalid(struct filler *x, int depth)
{
    struct err inner = *x->e;
    bad_at(x->e, x->b->signal, &x->at, depth);
    char *colon = strstr(x->e->text, ": ");
    if (colon)
        snprintf(colon, sizeof(x->e->text) - (size_t)(colon - x->e->text), ".%s", inner.text);
    return -EBADMSG;
}

static int fill_record(struct filler *x, const struct field *f)
{
    struct batch *b = x->b;
    uint32_t i = b->n_records++;
    struct record *rec = &b->records[i];
    size_t hdr = (size_t)(f->end - f->start) - f->bytes.n, items = 1;
    rec->field = f->start;
    rec->len = (uint32_t)(f->end - f->start);
    rec->hdr = (uint8_t)hdr;
    bool is_valid = !(x->flags & BATCH_VALIDATE);
    if (b->keys) {
        struct span_key *k = &b->keys[i];
        if (!is_valid)
            is_valid = span_scan(f->bytes, k);
        if ((!is_valid || !(x->flags & BATCH_VALIDATE)) && !span_key_read(f->bytes, k))
            return bad_at(x->e, b->signal, &x->at, 3);
        k->scope = b->n_scopes - 1;
        k->resource = b->n_resources - 1;
    } else if (b->signal == SIGNAL_METRICS) {
        items = metric_points(f->bytes);
        if (items >= 1u << 24)
            return bad_at(x->e, b->signal, &x->at, 3);
    }
    if (!is_valid && !otlp_validate_record(b->signal, f->bytes, x->e))
        return invalid(x, 3);
    rec->items = (uint32_t)items & 0xffffff;
    b->items += items;
    b->bytes += rec->len;
    return 0;
}

static int fill_scope(struct filler *x, struct str body)
{
    struct batch *b = x->b;
    struct scope_group *g = &b->scopes[b->n_scopes++];
    struct pieces envelope = {0};
    struct wire w = wire_of(body);
    struct field f;
    g->first_record = b->n_records;
    x->at.record = 0;
    while (wire_next(&w, &f) == 1) {
        if (!is_message(&f, OTLP_SCOPE_RECORD)) {
            if (!add_piece(b, &envelope, &f))
                return -ENOMEM;
            continue;
        }
        int r = fill_record(x, &f);
        if (r)
            return r;
        x->at.record++;
    }
    g->n_records = b->n_records - g->first_record;
    g->envelope = envelope_of(&envelope);
    b->bytes += g->envelope.n;
    if ((x->flags & BATCH_VALIDATE) && !otlp_validate_scope(g->envelope, x->e))
        return invalid(x, 2);
    return 0;
}

static int fill_resource(struct filler *x, struct str body)
{
    struct batch *b = x->b;
    struct resource_group *g = &b->resources[b->n_resources++];
    struct pieces envelope = {0};
    struct wire w = wire_of(body);
    struct field f;
    g->first_scope = b->n_scopes;
    x->at.scope = 0;
    while (wire_next(&w, &f) == 1) {
        if (!is_message(&f, OTLP_RESOURCE_SCOPE)) {
            if (!add_piece(b, &envelope, &f))
                return -ENOMEM;
            continue;
        }
        int r = fill_scope(x, f.bytes);
        if (r)
            return r;
        x->at.scope++;
    }
    g->n_scopes = b->n_scopes - g->first_scope;
    g->envelope = envelope_of(&envelope);
    b->bytes += g->envelope.n;
    if ((x->flags & BATCH_VALIDATE) && !otlp_validate_resource(g->envelope, x->e))
        return invalid(x, 1);
    return 0;
}

static bool make_tables(struct batch *b, const struct counts *n)
{
    b->resources = arena_alloc(&b->arena, n->resources * sizeof(*b->resources));
    b->scopes = arena_alloc(&b->arena, n->scopes * sizeof(*b->scopes));
    b->records = arena_alloc(&b->arena, n->records * sizeof(*b->records));
    if (b->signal == SIGNAL_TRACES)
        b->keys = arena_alloc(&b->arena, n->records * sizeof(*b->keys));
    return b->resources && b->scopes && b->records && (b->keys || b->signal != SIGNAL_TRACES);
}

int batch_read(struct batch **out, enum signal signal, struct chunk *chunk, size_t off, size_t len,
               unsigned flags, struct err *e)
{
    struct str request = str_make(chunk->data + off, len);
    struct counts n = {0};
    uint32_t cap = 0;
    int r = count(request, signal, &n, e);
    if (r)
        return r;
    struct batch *b = batch__new(signal);
    if (!b || !make_tables(b, &n) || batch__share(b, chunk, &cap)) {
        batch_unref(&b);
        return err_set(e, -ENOMEM, "out of memory");
    }
    struct filler x = {.b = b, .flags = flags, .e = e};
    struct wire w = wire_of(request);
    struct field f;
    while (r == 0 && wire_next(&w, &f) == 1) {
        if (f.number != OTLP_REQUEST_RESOURCE)
            continue;
        r = fill_resource(&x, f.bytes);
        x.at.resource++;
    }
    if (r) {
        batch_unref(&b);
        return r == -ENOMEM ? err_set(e, r, "out of memory") : r;
    }
    b->raw = request;
    *out = b;
    return 0;
}
