/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message is walked twice: once to see which known fields it has and where each first and last
 * stands, then field by field in the order of numbers. So repeated fields that are interleaved on
 * the wire come out as one array, a scalar that is repeated comes out once with its last value, and
 * of a oneof only the last member is left. Field names and kinds are the table of schema.h.
 */
#include "common/otlp/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/text.h"
#include "common/otlp/schema.h"

enum { MAX_DEPTH = 100 };

struct frame {
    const uint8_t *first[FIELD_NUMBERS], *last[FIELD_NUMBERS]; /* their tags; NULL: not there */
    const uint8_t *end;                                        /* of the message */
    const struct field_type *table;
    uint8_t *merged; /* owned: the message's pieces in a row, if it was split */
    struct wire w;   /* in an array of messages: what follows the element just written */
    uint8_t at;      /* number of the field that is being written */
    bool is_array, has_members;
};

struct writer {
    struct buf *out;
    struct frame frames[MAX_DEPTH];
    unsigned depth;
};

static void latch(struct buf *out, int error)
{
    if (!out->error)
        out->error = error;
}

static void add_double(struct buf *out, uint64_t bits)
{
    double d;
    char text[32];
    memcpy(&d, &bits, sizeof(d));
    if (!isfinite(d)) {
        buf_add_cstr(out, isnan(d) ? "\"NaN\"" : d > 0 ? "\"Infinity\"" : "\"-Infinity\"");
        return;
    }
    for (int digits = 15; digits <= 17; digits++) { /* 17 always read back the same */
        snprintf(text, sizeof(text), "%.*g", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
    buf_add_cstr(out, bits == 1ULL << 63 ? "-0.0" : text); /* -0 would be read as an integer */
}

static void add_quoted_u64(struct buf *out, uint64_t v)
{
    buf_add_byte(out, '"');
    text_add_u64(out, v);
    buf_add_byte(out, '"');
}

static void add_quoted_i64(struct buf *out, uint64_t v)
{
    buf_add_byte(out, '"');
    text_add_i64(out, (int64_t)v);
    buf_add_byte(out, '"');
}

static void add_value(struct buf *out, enum leaf l, uint64_t v, struct str bytes)
{
    switch (l) {
    case L_BOOL:
        buf_add_cstr(out, v ? "true" : "false");
        break;
    case L_ENUM:
    case L_INT32:
        text_add_i64(out, (int32_t)(uint32_t)v);
        break;
    case L_SINT32:
        text_add_i64(out, (int32_t)((uint32_t)v >> 1 ^ (0 - ((uint32_t)v & 1))));
        break;
    case L_UINT32:
    case L_FIXED32:
        text_add_u64(out, (uint32_t)v);
        break;
    case L_INT64:
    case L_SFIXED64:
        add_quoted_i64(out, v);
        break;
    case L_FIXED64:
    case L_PACK_FIXED64:
    case L_PACK_UINT64:
        add_quoted_u64(out, v);
        break;
    case L_DOUBLE:
    case L_PACK_DOUBLE:
        add_double(out, v);
        break;
    case L_STRING:
        text_add_json_string(out, bytes);
        break;
    case L_ID16:
    case L_ID8:
    case L_BYTES:
        buf_add_byte(out, '"');
        if (l == L_BYTES)
            text_add_base64(out, bytes, true);
        else
            text_add_hex(out, bytes);
        buf_add_byte(out, '"');
        break;
    default:
        ASSERT(!"a message is no leaf");
    }
}

/* What proto3 takes for absent. */
static bool is_default(enum leaf l, const struct field *f)
{
    if (f->type == WIRE_LEN)
        return f->bytes.n == 0;
    if (l == L_ENUM || l == L_INT32 || l == L_SINT32 || l == L_UINT32)
        return (uint32_t)f->value == 0;
    return f->value == 0;
}

/* "name": in lowerCamelCase, after a comma where one is due. */
static void add_name(struct buf *out, struct frame *f, const char *name)
{
    char text[64];
    size_t n = 0;
    if (f->has_members)
        text[n++] = ',';
    f->has_members = true;
    text[n++] = '"';
    for (const char *c = name; *c; c++) {
        if (*c == '_')
            c++;
        text[n++] = c > name && c[-1] == '_' ? (char)(*c - 'a' + 'A') : *c;
    }
    text[n++] = '"';
    text[n++] = ':';
    buf_add(out, text, n);
}

/* The next known field with that number; 0 at the end. The message was found well-formed. */
static bool next_of(struct wire *w, const struct frame *f, unsigned number, struct field *field)
{
    while (wire_next(w, field) == 1)
        if (field->number == number && leaf_has_type(f->table[number].leaf, field->type))
            return true;
    return false;
}

static struct wire from_first(const struct frame *f, unsigned number)
{
    return (struct wire){f->first[number], f->end};
}

/* Begins a message: notes where its fields stand. Takes `merged`. */
static void push(struct writer *w, enum message m, struct str body, uint8_t *merged)
{
    if (w->depth == MAX_DEPTH) {
        latch(w->out, -EBADMSG);
        free(merged);
        return;
    }
    struct frame *f = &w->frames[w->depth++];
    struct wire cursor = wire_of(body);
    struct field field;
    unsigned member = 0; /* the oneof's, so far */
    int r;
    *f = (struct frame){.end = cursor.end, .table = otlp_fields[m], .merged = merged, .at = 1};
    while ((r = wire_next(&cursor, &field)) == 1) {
        unsigned number = field.number;
        if (number >= FIELD_NUMBERS || f->table[number].leaf == L_NONE ||
            !leaf_has_type(f->table[number].leaf, field.type))
            continue;
        if (f->table[number].form == FIELD_ONEOF && member != number) {
            f->first[member] = NULL;
            member = number;
        }
        if (!f->first[number])
            f->first[number] = field.start;
        f->last[number] = field.start;
    }
    if (r < 0)
        latch(w->out, -EBADMSG);
}

static void pop(struct writer *w)
{
    free(w->frames[--w->depth].merged);
}

static void add_array(struct buf *out, struct frame *f, unsigned number)
{
    const struct field_type *t = &f->table[number];
    struct wire w = from_first(f, number);
    struct field field;
    bool any = false;
    while (next_of(&w, f, number, &field)) {
        bool is_packed = t->leaf != L_STRING && field.type == WIRE_LEN;
        const uint8_t *p = (const uint8_t *)field.bytes.p, *end = is_packed ? p + field.bytes.n : p;
        do {
            if (is_packed && p == end)
                break; /* packed and empty */
            if (is_packed && t->leaf == L_PACK_UINT64 && !wire_varint(&p, end, &field.value))
                return latch(out, -EBADMSG);
            if (is_packed && t->leaf != L_PACK_UINT64) {
                if (end - p < 8)
                    return latch(out, -EBADMSG);
                memcpy(&field.value, p, 8);
                p += 8;
            }
            if (!any) {
                add_name(out, f, t->name);
                buf_add_byte(out, '[');
            } else {
                buf_add_byte(out, ',');
            }
            any = true;
            add_value(out, t->leaf, field.value, field.bytes);
        } while (p < end);
    }
    if (any)
        buf_add_byte(out, ']');
}

static void add_scalar(struct buf *out, struct frame *f, unsigned number)
{
    const struct field_type *t = &f->table[number];
    struct wire w = {f->last[number], f->end};
    struct field field;
    if (wire_next(&w, &field) != 1)
        return;
    if (t->form == FIELD_PLAIN && is_default(t->leaf, &field))
        return;
    add_name(out, f, t->name);
    add_value(out, t->leaf, field.value, field.bytes);
}

/* A singular message. Pieces of one that was split are merged by writing them in a row. */
static void begin_message(struct writer *w, struct frame *f, unsigned number)
{
    const struct field_type *t = &f->table[number];
    struct wire cursor = from_first(f, number);
    struct field field;
    uint8_t *merged = NULL;
    size_t n = 0;
    add_name(w->out, f, t->name);
    buf_add_byte(w->out, '{');
    if (f->first[number] == f->last[number]) {
        if (next_of(&cursor, f, number, &field))
            push(w, t->message, field.bytes, NULL);
        return;
    }
    merged = try_alloc((size_t)(f->end - f->first[number]));
    if (!merged)
        return latch(w->out, -ENOMEM);
    while (next_of(&cursor, f, number, &field)) {
        if (field.bytes.n > 0)
            memcpy(merged + n, field.bytes.p, field.bytes.n);
        n += field.bytes.n;
    }
    push(w, t->message, str_make(merged, n), merged);
}

/* In an array of messages: the next one, or the end. */
static void next_element(struct writer *w, struct frame *f)
{
    struct field field;
    bool is_first = f->w.p == f->first[f->at];
    if (!next_of(&f->w, f, f->at, &field)) {
        buf_add_byte(w->out, ']');
        f->is_array = false;
        f->at++;
        return;
    }
    buf_add_cstr(w->out, is_first ? "{" : ",{");
    push(w, f->table[f->at].message, field.bytes, NULL);
}

/* The field at f->at. */
static void add_field(struct writer *w, struct frame *f)
{
    unsigned number = f->at;
    const struct field_type *t = &f->table[number];
    if (t->leaf == L_MSG && t->form == FIELD_REPEATED) {
        add_name(w->out, f, t->name);
        buf_add_byte(w->out, '[');
        f->w = from_first(f, number);
        f->is_array = true;
        return;
    }
    f->at++;
    if (t->leaf == L_MSG)
        begin_message(w, f, number);
    else if (t->form == FIELD_REPEATED)
        add_array(w->out, f, number);
    else
        add_scalar(w->out, f, number);
}

/* Members of a message, without the braces. True when there was one. */
static bool add_members(struct writer *w, enum message m, struct str body)
{
    bool has_members = false;
    push(w, m, body, NULL);
    while (w->depth > 0 && !w->out->error) {
        struct frame *f = &w->frames[w->depth - 1];
        while (!f->is_array && f->at < FIELD_NUMBERS && !f->first[f->at])
            f->at++;
        if (f->is_array) {
            next_element(w, f);
        } else if (f->at < FIELD_NUMBERS) {
            add_field(w, f);
        } else {
            has_members = f->has_members;
            pop(w);
            if (w->depth > 0)
                buf_add_byte(w->out, '}');
        }
    }
    while (w->depth > 0)
        pop(w);
    return has_members;
}

/* "name":[ of a group's repeated field, after the members of its envelope. */
static void begin_group(struct writer *w, enum message m, struct str envelope, const char *name,
                        uint32_t n)
{
    bool has_members = add_members(w, m, envelope);
    if (n > 0)
        buf_addf(w->out, "%s\"%s\":[", has_members ? "," : "", name);
}

static void add_scope(struct writer *w, const struct batch *b, const struct scope_group *s)
{
    static const enum message tops[SIGNAL_COUNT] = {M_SPAN, M_METRIC, M_LOG};
    buf_add_byte(w->out, '{');
    begin_group(w, M_SCOPE_ENVELOPE, s->envelope, signal_info[b->signal].json_record, s->n_records);
    for (uint32_t i = 0; i < s->n_records; i++) {
        buf_add_cstr(w->out, i ? ",{" : "{");
        add_members(w, tops[b->signal], record_body(&b->records[s->first_record + i]));
        buf_add_byte(w->out, '}');
    }
    buf_add_cstr(w->out, s->n_records ? "]}" : "}");
}

void batch_to_json(const struct batch *b, struct buf *out)
{
    const struct signal_info *names = &signal_info[b->signal];
    struct writer *w = xalloc(sizeof(*w)); /* 34 KB: a frame is filled when it is pushed */
    w->out = out;
    w->depth = 0;
    buf_addf(out, "{\"%s\":[", names->json_resource);
    for (uint32_t r = 0; r < b->n_resources; r++) {
        const struct resource_group *g = &b->resources[r];
        buf_add_cstr(out, r ? ",{" : "{");
        begin_group(w, M_RESOURCE_ENVELOPE, g->envelope, names->json_scope, g->n_scopes);
        for (uint32_t s = 0; s < g->n_scopes; s++) {
            if (s > 0)
                buf_add_byte(out, ',');
            add_scope(w, b, &b->scopes[g->first_scope + s]);
        }
        buf_add_cstr(out, g->n_scopes ? "]}" : "}");
    }
    buf_add_cstr(out, "]}");
    free(w);
}
