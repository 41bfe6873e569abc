/* SPDX-License-Identifier: Apache-2.0 */
#include "common/otlp/view.h"

#include <inttypes.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/text.h"

enum {
    SPAN_NAME = 5,
    SPAN_TRACE_STATE = 3,
    SCOPE_NAME = 1,
    SCOPE_VERSION = 2,
    ENVELOPE_MESSAGE = 1,
    MAX_TEXT_DEPTH = 16
};

struct any any_read(struct str value)
{
    struct any v = {.type = ANY_EMPTY};
    struct wire w = wire_of(value);
    struct field f;
    int r;
    while ((r = wire_next(&w, &f)) == 1) { /* a oneof: the last one wins */
        switch (f.number << 3 | f.type) {
        case 1 << 3 | WIRE_LEN:
            v = (struct any){.type = ANY_STRING, .s = f.bytes};
            break;
        case 2 << 3 | WIRE_VARINT:
            v = (struct any){.type = ANY_BOOL, .b = f.value != 0};
            break;
        case 3 << 3 | WIRE_VARINT:
            v = (struct any){.type = ANY_INT, .i = (int64_t)f.value};
            break;
        case 4 << 3 | WIRE_I64:
            v.type = ANY_DOUBLE;
            memcpy(&v.d, &f.value, sizeof(v.d));
            break;
        case 5 << 3 | WIRE_LEN:
            v = (struct any){.type = ANY_ARRAY, .s = f.bytes};
            break;
        case 6 << 3 | WIRE_LEN:
            v = (struct any){.type = ANY_MAP, .s = f.bytes};
            break;
        case 7 << 3 | WIRE_LEN:
            v = (struct any){.type = ANY_BYTES, .s = f.bytes};
            break;
        default:
            break;
        }
    }
    if (r < 0)
        v = (struct any){.type = ANY_EMPTY};
    return v;
}

/* ---- text ---- */

static void add_double(struct buf *out, double d)
{
    char text[64];
    if (!isfinite(d)) {
        buf_add_cstr(out, isnan(d) ? "NaN" : d > 0 ? "+Inf" : "-Inf");
        return;
    }
    /* The shortest text that reads back the same; plain digits where JSON has them so, and
     * exponents of one digit where Go's JSON has them so. */
    bool plain = d == 0 || (fabs(d) >= 1e-6 && fabs(d) < 1e21);
    for (int digits = 0; digits <= 24; digits++) {
        snprintf(text, sizeof(text), plain ? "%.*f" : "%.*g", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
    size_t n = strlen(text);
    if (n > 4 && memcmp(text + n - 4, "e-0", 3) == 0) {
        text[n - 2] = text[n - 1];
        text[n - 1] = '\0';
    }
    buf_add_cstr(out, text);
}

static void add_json(struct any v, struct buf *out, int depth);

struct json_member {
    struct str key, value;
    uint32_t place;
};

static int by_key(const void *a, const void *b)
{
    const struct json_member *x = a, *y = b;
    int order = str_cmp(x->key, y->key);
    return order ? order : (x->place > y->place) - (x->place < y->place);
}

static struct json_member read_member(struct str pair, uint32_t place)
{
    struct json_member m = {.place = place};
    struct wire w = wire_of(pair);
    struct field f;
    while (wire_next(&w, &f) == 1) {
        if (f.number == 1)
            m.key = f.bytes;
        else if (f.number == 2)
            m.value = f.bytes;
    }
    return m;
}

/* Keys are sorted, as Go's JSON has them; of one key the last value stands. */
static void add_json_map(struct str fields, struct buf *out, int depth)
{
    struct json_member *v = NULL;
    uint32_t n = 0, cap = 0;
    struct wire w = wire_of(fields);
    struct field f;
    while (wire_next(&w, &f) == 1) {
        if (f.number != 1 || f.type != WIRE_LEN)
            continue;
        if (n == cap) {
            struct json_member *more = try_realloc(v, (cap * 2 + 8) * sizeof(*v));
            if (!more) {
                out->error = -ENOMEM;
                break;
            }
            v = more;
            cap = cap * 2 + 8;
        }
        v[n] = read_member(f.bytes, n);
        n++;
    }
    if (n > 1)
        qsort(v, n, sizeof(*v), by_key);
    buf_add_byte(out, '{');
    bool first = true;
    for (uint32_t i = 0; i < n; i++) {
        if (i + 1 < n && str_eq(v[i].key, v[i + 1].key))
            continue;
        if (!first)
            buf_add_byte(out, ',');
        first = false;
        text_add_json_string(out, v[i].key);
        buf_add_byte(out, ':');
        add_json(any_read(v[i].value), out, depth + 1);
    }
    buf_add_byte(out, '}');
    free(v);
}

static void add_json_array(struct str fields, struct buf *out, int depth)
{
    struct wire w = wire_of(fields);
    struct field f;
    bool first = true;
    buf_add_byte(out, '[');
    while (wire_next(&w, &f) == 1) {
        if (f.number != 1 || f.type != WIRE_LEN)
            continue;
        if (!first)
            buf_add_byte(out, ',');
        first = false;
        add_json(any_read(f.bytes), out, depth + 1);
    }
    buf_add_byte(out, ']');
}

/* Arrays and maps as JSON. Recursion is bounded: deeper values read as null. */
static void add_json(struct any v, struct buf *out, int depth)
{
    if (depth > MAX_TEXT_DEPTH) {
        buf_add_cstr(out, "null");
        return;
    }
    switch (v.type) {
    case ANY_STRING:
        text_add_json_string(out, v.s);
        return;
    case ANY_BYTES:
        buf_add_byte(out, '"');
        text_add_base64(out, v.s, true);
        buf_add_byte(out, '"');
        return;
    case ANY_ARRAY:
        add_json_array(v.s, out, depth);
        return;
    case ANY_MAP:
        add_json_map(v.s, out, depth);
        return;
    case ANY_EMPTY:
        buf_add_cstr(out, "null");
        return;
    default:
        any_to_text(v, out);
    }
}

void any_to_text(struct any v, struct buf *out)
{
    switch (v.type) {
    case ANY_EMPTY:
        break;
    case ANY_STRING:
        buf_add_str(out, v.s);
        break;
    case ANY_BOOL:
        buf_add_cstr(out, v.b ? "true" : "false");
        break;
    case ANY_INT:
        buf_addf(out, "%" PRId64, v.i);
        break;
    case ANY_DOUBLE:
        add_double(out, v.d);
        break;
    case ANY_BYTES:
        text_add_base64(out, v.s, true);
        break;
    default:
        add_json(v, out, 0);
    }
}

bool any_eq(struct any a, struct any b)
{
    if (a.type != b.type)
        return false;
    switch (a.type) {
    case ANY_EMPTY:
        return true;
    case ANY_BOOL:
        return a.b == b.b;
    case ANY_INT:
        return a.i == b.i;
    case ANY_DOUBLE:
        return a.d == b.d;
    default:
        return str_eq(a.s, b.s);
    }
}

/* ---- attributes ---- */

static bool read_attr(struct str kv, struct attr *out)
{
    struct wire w = wire_of(kv);
    struct field f;
    int r;
    *out = (struct attr){0};
    while ((r = wire_next(&w, &f)) == 1) {
        if (f.number == 1 && f.type == WIRE_LEN)
            out->key = f.bytes;
        else if (f.number == 2 && f.type == WIRE_LEN)
            out->value = f.bytes;
    }
    return r == 0;
}

bool attr_next(struct wire *w, uint32_t number, struct attr *out)
{
    struct field f;
    while (wire_next(w, &f) == 1)
        if (f.number == number && f.type == WIRE_LEN && read_attr(f.bytes, out))
            return true;
    return false;
}

bool attr_find(struct str message, uint32_t number, struct str key, struct any *out)
{
    struct wire w = wire_of(message);
    struct field f;
    struct attr a;
    while (wire_next(&w, &f) == 1) {
        if (f.number != number || f.type != WIRE_LEN || !str_eq(attr_key(f.bytes), key))
            continue;
        if (read_attr(f.bytes, &a)) {
            *out = any_read(a.value);
            return true;
        }
    }
    return false;
}

void envelope_attrs(struct envelope_iter *it, struct str envelope)
{
    *it = (struct envelope_iter){.outer = wire_of(envelope)};
}

/* Next piece of the Resource or Scope message within the envelope. */
static bool next_piece(struct wire *outer, struct str *out)
{
    struct field f;
    while (wire_next(outer, &f) == 1) {
        if (f.number == ENVELOPE_MESSAGE && f.type == WIRE_LEN) {
            *out = f.bytes;
            return true;
        }
    }
    return false;
}

bool envelope_attr_next(struct envelope_iter *it, uint32_t number, struct attr *out)
{
    struct str piece;
    for (;;) {
        if (it->open && attr_next(&it->inner, number, out))
            return true;
        it->open = next_piece(&it->outer, &piece);
        if (!it->open)
            return false;
        it->inner = wire_of(piece);
    }
}

bool envelope_attr_find(struct str envelope, uint32_t number, struct str key, struct any *out)
{
    struct wire outer = wire_of(envelope);
    struct str piece;
    while (next_piece(&outer, &piece))
        if (attr_find(piece, number, key, out))
            return true;
    return false;
}

static struct str envelope_string(struct str envelope, uint32_t number)
{
    struct wire outer = wire_of(envelope);
    struct str piece, last = {NULL, 0};
    while (next_piece(&outer, &piece)) {
        struct str s = message_bytes(piece, number);
        if (s.p)
            last = s;
    }
    return last;
}

struct str scope_name(struct str envelope)
{
    return envelope_string(envelope, SCOPE_NAME);
}

struct str scope_version(struct str envelope)
{
    return envelope_string(envelope, SCOPE_VERSION);
}

struct str resource_service_name(struct str envelope)
{
    struct any v;
    if (envelope_attr_find(envelope, RESOURCE_ATTRIBUTES, STR("service.name"), &v) &&
        v.type == ANY_STRING)
        return v.s;
    return (struct str){NULL, 0};
}

/* ---- fields ---- */

uint64_t message_u64(struct str message, uint32_t number, uint64_t fallback)
{
    struct wire w = wire_of(message);
    struct field f;
    while (wire_next(&w, &f) == 1)
        if (f.number == number && f.type != WIRE_LEN && f.type != WIRE_SGROUP)
            fallback = f.value;
    return fallback;
}

struct str message_bytes(struct str message, uint32_t number)
{
    struct wire w = wire_of(message);
    struct str last = {NULL, 0};
    struct field f;
    while (wire_next(&w, &f) == 1)
        if (f.number == number && f.type == WIRE_LEN)
            last = f.bytes;
    return last;
}

struct str span_name(const struct record *r)
{
    return message_bytes(record_body(r), SPAN_NAME);
}

struct str span_trace_state(const struct record *r)
{
    return message_bytes(record_body(r), SPAN_TRACE_STATE);
}
