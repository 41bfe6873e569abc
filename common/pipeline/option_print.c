/* SPDX-License-Identifier: Apache-2.0 */
/* A filled struct back to YAML by its table, secrets as [REDACTED]: print-config. */
#include <stdio.h>

#include "common/pipeline/option_print.h"
#include "common/pipeline/option_value.h"

static void indent_by(unsigned indent, struct buf *out)
{
    for (unsigned i = 0; i < indent; i++)
        buf_add_cstr(out, "  ");
}

static void print_secret(const char *s, bool redact, struct buf *out)
{
    yaml_print_text(redact && *s ? "[REDACTED]" : s, out);
}

static void print_double(double v, struct buf *out)
{
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        double back;
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (value_double(text, &back) == 0 && back == v)
            break;
    }
    buf_add_cstr(out, text);
}

static void print_any(const struct option_any *v, struct buf *out)
{
    if (v->type == OPTION_NONE)
        buf_add_cstr(out, "null");
    else if (v->type == OPTION_STRING)
        yaml_print_text(v->s, out);
    else
        buf_add_cstr(out, v->s);
}

/* A scalar of type t at p. */
static void print_scalar(const struct option *o, enum option_type t, const void *p, bool redact,
                         struct buf *out)
{
    char text[48];
    switch (t) {
    case OPT_BOOL:
        buf_add_cstr(out, *(const bool *)p ? "true" : "false");
        break;
    case OPT_INT:
        buf_addf(out, "%lld", (long long)*(const int64_t *)p);
        break;
    case OPT_UINT:
        buf_addf(out, "%llu", (unsigned long long)*(const uint64_t *)p);
        break;
    case OPT_DOUBLE:
        print_double(*(const double *)p, out);
        break;
    case OPT_DURATION:
        value_duration_text(*(const uint64_t *)p, text, sizeof(text));
        buf_add_cstr(out, text);
        break;
    case OPT_ENUM:
        yaml_print_text(o->names[*(const int *)p], out);
        break;
    case OPT_SECRET:
        print_secret(*(const char *const *)p, redact, out);
        break;
    case OPT_ANY:
        print_any(p, out);
        break;
    default:
        yaml_print_text(*(const char *const *)p, out);
    }
}

static void print_list(const struct option *o, const struct option_list *l, struct buf *out)
{
    static const struct {
        enum option_type type;
        size_t size;
    } of[] = {
        [OPT_STRINGS] = {OPT_STRING, sizeof(const char *)},
        [OPT_DOUBLES] = {OPT_DOUBLE, sizeof(double)},
        [OPT_DURATIONS] = {OPT_DURATION, sizeof(uint64_t)},
        [OPT_ENUMS] = {OPT_ENUM, sizeof(int)},
    };
    buf_add_cstr(out, " [");
    for (size_t i = 0; i < l->n; i++) {
        buf_add_cstr(out, i ? ", " : "");
        print_scalar(o, of[o->type].type, (const char *)l->items + i * of[o->type].size, false,
                     out);
    }
    buf_add_cstr(out, "]\n");
}

static void print_map(const struct option *o, const struct option_list *l, unsigned indent,
                      bool redact, struct buf *out)
{
    const struct option_pair *p = l->items;
    if (l->n == 0) {
        buf_add_cstr(out, " {}\n");
        return;
    }
    buf_add_byte(out, '\n');
    for (size_t i = 0; i < l->n; i++) {
        indent_by(indent, out);
        yaml_print_key(p[i].key, out);
        buf_add_cstr(out, ": ");
        print_secret(p[i].value, redact && o->type == OPT_HEADERS, out);
        buf_add_byte(out, '\n');
    }
}

static void print_structs(const struct option *o, const struct option_list *l, unsigned indent,
                          bool redact, struct buf *out)
{
    if (l->n == 0) {
        buf_add_cstr(out, " []\n");
        return;
    }
    buf_add_byte(out, '\n');
    for (size_t i = 0; i < l->n; i++) {
        size_t at = out->n + 2 * (size_t)indent;
        options_print(o->sub, (const char *)l->items + i * o->elem_size, indent + 1, redact, out);
        if (!buf_error(out) && at < out->n)
            out->p[at] = '-'; /* over the first key's indentation */
    }
}

static void print_struct(const struct option *o, const char *base, unsigned indent, bool redact,
                         struct buf *out)
{
    bool on = o->presence == OPT_PLAIN || *(const bool *)(base + o->on_offset);
    if (!on && o->presence != OPT_OFF_NONE) {
        buf_add_byte(out, '\n');
        indent_by(indent, out);
        buf_add_cstr(out, "enabled: false\n");
    } else if (!on) {
        buf_add_cstr(out, " null\n");
    } else if (!o->sub || !o->sub->key) {
        buf_add_cstr(out, " {}\n");
    } else {
        buf_add_byte(out, '\n');
        options_print(o->sub, base + o->offset, indent, redact, out);
    }
}

void options_print(const struct option *table, const void *base, unsigned indent, bool redact,
                   struct buf *out)
{
    for (const struct option *o = table; o && o->key; o++) {
        if (o->flags & (OPT_ALIAS | OPT_UNSUPPORTED | OPT_NO_EFFECT | OPT_DEPRECATED))
            continue;
        const char *field = (const char *)base + o->offset;
        const struct yaml_node *tree;
        indent_by(indent, out);
        buf_addf(out, "%s:", o->key);
        switch (o->type) {
        case OPT_STRUCT:
            print_struct(o, base, indent + 1, redact, out);
            break;
        case OPT_LIST:
            print_structs(o, (const void *)field, indent + 1, redact, out);
            break;
        case OPT_MAP:
        case OPT_HEADERS:
            print_map(o, (const void *)field, indent + 1, redact, out);
            break;
        case OPT_STRINGS:
        case OPT_DOUBLES:
        case OPT_DURATIONS:
        case OPT_ENUMS:
            print_list(o, (const void *)field, out);
            break;
        case OPT_TREE:
            tree = *(const struct yaml_node *const *)(const void *)field;
            yaml_print_value(tree, indent + 1, out);
            break;
        default:
            buf_add_byte(out, ' ');
            print_scalar(o, o->type, field, redact, out);
            buf_add_byte(out, '\n');
        }
    }
}
