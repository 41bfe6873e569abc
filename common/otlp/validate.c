/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Validation to the leaf: every known field has its wire type, strings are UTF-8, ids have their
 * length, AnyValues nest at most 100 deep. Message types are tables; a stack of cursors takes the
 * place of recursion. Unknown fields are skipped: they are well-formed or wire_next refuses them.
 */
#include <errno.h>
#include <stdio.h>

#include "common/otlp/batch_internal.h"
#include "common/otlp/schema.h"

enum { MAX_DEPTH = 100 };

struct level {
    struct wire w;
    uint8_t message;
    const char *name; /* of the field that led here; NULL at the top */
};

static bool packed_ok(enum leaf l, struct str s)
{
    const uint8_t *p = (const uint8_t *)s.p, *end = p + s.n;
    uint64_t v;
    if (l != L_PACK_UINT64)
        return s.n % 8 == 0;
    while (p < end)
        if (!wire_varint(&p, end, &v))
            return false;
    return true;
}

/* NULL when the field is right, else what is wrong. */
static const char *check_leaf(enum leaf l, const struct field *f)
{
    if (l == L_NONE)
        return NULL;
    if (!leaf_has_type(l, f->type))
        return "wrong wire type";
    switch (l) {
    case L_STRING:
        return str_is_utf8(f->bytes.p, f->bytes.n) ? NULL : "bad UTF-8";
    case L_ID16:
    case L_ID8:
        return f->bytes.n == 0 || f->bytes.n == (l == L_ID16 ? 16 : 8) ? NULL
                                                                       : "wrong length of id";
    case L_PACK_FIXED64:
    case L_PACK_DOUBLE:
    case L_PACK_UINT64:
        return f->type != WIRE_LEN || packed_ok(l, f->bytes) ? NULL : "wrong wire type";
    default:
        return NULL;
    }
}

static bool fail(struct err *e, const struct level *levels, unsigned depth, const char *field,
                 const char *what)
{
    size_t n = 0;
    e->text[0] = '\0';
    for (unsigned i = 1; i < depth && n < sizeof(e->text) / 2; i++)
        n += (size_t)snprintf(e->text + n, sizeof(e->text) - n, "%s.", levels[i].name);
    snprintf(e->text + n, sizeof(e->text) - n, "%s: %s", field, what);
    return false;
}

/* Most strings are short ASCII: told by one look at each eight bytes, the rest by the full test. */
static inline bool is_text(struct str s)
{
    const uint8_t *p = (const uint8_t *)s.p, *end = p + s.n;
    uint64_t high = 0, word;
    for (; end - p >= 8; p += 8) {
        memcpy(&word, p, 8);
        high |= word;
    }
    for (; p < end; p++)
        high |= *p;
    /* Every byte of the tail was or'ed into the lowest one. */
    return (high & 0x8080808080808080ULL) == 0 || str_is_utf8(s.p, s.n);
}

static bool validate(enum message top, struct str body, struct err *e)
{
    struct level levels[MAX_DEPTH];
    struct wire w = wire_of(body); /* the innermost cursor: outer ones lie in levels */
    const struct field_type *table = otlp_fields[top];
    unsigned depth = 1;
    levels[0] = (struct level){.message = (uint8_t)top};
    for (;;) {
        struct field f;
        int r = wire_next(&w, &f);
        if (UNLIKELY(r < 0))
            return fail(e, levels, depth, "(message)", "malformed protobuf");
        if (r == 0) {
            if (--depth == 0)
                return true;
            w = levels[depth - 1].w;
            table = otlp_fields[levels[depth - 1].message];
            continue;
        }
        if (f.number >= FIELD_NUMBERS)
            continue;
        const struct field_type *t = &table[f.number];
        if (t->leaf == L_MSG && f.type == WIRE_LEN) {
            if (UNLIKELY(depth == MAX_DEPTH))
                return fail(e, levels, 4, t->name, "nested too deep");
            levels[depth - 1].w = w;
            levels[depth++] = (struct level){.message = t->message, .name = t->name};
            w = wire_of(f.bytes);
            table = otlp_fields[t->message];
            continue;
        }
        if (LIKELY(t->leaf == L_STRING && f.type == WIRE_LEN && is_text(f.bytes)))
            continue;
        const char *what =
            t->leaf == L_MSG ? "wrong wire type" : check_leaf((enum leaf)t->leaf, &f);
        if (UNLIKELY(what != NULL))
            return fail(e, levels, depth, t->name, what);
    }
}

bool otlp_validate_record(enum signal signal, struct str body, struct err *e)
{
    static const enum message tops[SIGNAL_COUNT] = {M_SPAN, M_METRIC, M_LOG};
    return validate(tops[signal], body, e);
}

bool otlp_validate_resource(struct str envelope, struct err *e)
{
    return validate(M_RESOURCE_ENVELOPE, envelope, e);
}

bool otlp_validate_scope(struct str envelope, struct err *e)
{
    return validate(M_SCOPE_ENVELOPE, envelope, e);
}
