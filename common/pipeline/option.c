/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables to structs: walks a table and a mapping side by side. Every key of the table is read or
 * defaulted, every key of the mapping is known or reported; all problems are collected.
 */
#include "common/pipeline/option.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/pipeline/option_parse.h"
#include "common/pipeline/option_value.h"

enum { MAX_NAMES = 128 }; /* keys looked at for a suggestion */

/* ---- path and reports ---- */

size_t option_enter(struct option_ctx *x, const char *key)
{
    size_t mark = x->path.n;
    if (mark)
        buf_add_cstr(&x->path, "::");
    buf_add_cstr(&x->path, key);
    return mark;
}

size_t option_enter_index(struct option_ctx *x, size_t index)
{
    size_t mark = x->path.n;
    buf_addf(&x->path, "[%zu]", index);
    return mark;
}

void option_leave(struct option_ctx *x, size_t mark)
{
    if (!buf_error(&x->path))
        x->path.n = mark;
}

void option_error(struct option_ctx *x, const struct yaml_node *n, const char *fmt, ...)
{
    char text[900];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    report_error(x->yaml->report, n ? &n->mark : x->at, buf_cstr(&x->path), "%s", text);
}

void option_warning(struct option_ctx *x, const struct yaml_node *n, const char *fmt, ...)
{
    char text[900];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    report_warning(x->yaml->report, n ? &n->mark : x->at, buf_cstr(&x->path), "%s", text);
}

void *option_alloc(struct option_ctx *x, size_t n)
{
    void *p = arena_zalloc(x->yaml->arena, n ? n : 1);
    if (!p)
        report_nomem(x->yaml->report);
    return p;
}

const char *option_hint(const char *word, const char *const *names, size_t n_names, char *out,
                        size_t n)
{
    const char *near = str_nearest(str_of(word), names, n_names);
    out[0] = 0;
    if (near)
        snprintf(out, n, " (did you mean '%s'?)", near);
    return out;
}

/* ---- finding keys ---- */

static const struct option *find_option(const struct option *table, const char *key)
{
    for (; table && table->key; table++)
        if (strcmp(table->key, key) == 0)
            return table;
    return NULL;
}

static const struct yaml_pair *find_pair(const struct yaml_node *node, const char *key)
{
    if (!node || node->kind != YAML_MAPPING)
        return NULL;
    for (size_t i = 0; i < node->n; i++)
        if (strcmp(node->pairs[i].key->text, key) == 0)
            return &node->pairs[i];
    return NULL;
}

static void warn_flags(struct option_ctx *x, const struct option *o, const struct yaml_pair *p)
{
    size_t mark = option_enter(x, o->key);
    if (o->flags & OPT_DEPRECATED)
        option_warning(x, p->key, "deprecated: %s", o->help ? o->help : "use another key");
    if (o->flags & OPT_NO_EFFECT)
        option_warning(x, p->key, "accepted for compatibility, but does nothing here");
    option_leave(x, mark);
}

/* The pair that gives option o its value, under its own key or one of the aliases that follow it.
 */
static const struct yaml_pair *pair_of(struct option_ctx *x, const struct option *o,
                                       const struct yaml_node *node)
{
    const struct yaml_pair *found = find_pair(node, o->key);
    if (found)
        warn_flags(x, o, found);
    for (const struct option *a = o + 1; a->key && (a->flags & OPT_ALIAS); a++) {
        const struct yaml_pair *p = find_pair(node, a->key);
        if (!p)
            continue;
        if (found)
            option_error(x, p->key, "'%s' is another spelling of '%s': give one of them", a->key,
                         o->key);
        warn_flags(x, a, p);
        found = p;
    }
    return found;
}

static void check_unknown(struct option_ctx *x, const struct option *table,
                          const struct yaml_node *node, bool has_enabled)
{
    const char *names[MAX_NAMES];
    size_t n = 0;
    char hint[160];

    for (const struct option *o = table; o && o->key && n < MAX_NAMES - 1; o++)
        if (!(o->flags & (OPT_ALIAS | OPT_UNSUPPORTED)))
            names[n++] = o->key;
    if (has_enabled)
        names[n++] = "enabled";
    for (size_t i = 0; i < node->n; i++) {
        const struct yaml_node *key = node->pairs[i].key;
        if (has_enabled && strcmp(key->text, "enabled") == 0)
            continue;
        if (!find_option(table, key->text))
            option_error(x, key, "unknown key '%s'%s", key->text,
                         option_hint(key->text, names, n, hint, sizeof(hint)));
    }
}

/* ---- structs and lists of structs ---- */

/* `enabled` of an optional block. Leaves *on alone when it is not there. */
static void read_enabled(struct option_ctx *x, const struct yaml_node *node, bool *on)
{
    const struct yaml_pair *p = find_pair(node, "enabled");
    if (!p)
        return;
    size_t mark = option_enter(x, "enabled");
    const struct yaml_node *v = p->value;
    if (v->kind != YAML_SCALAR || v->quoted || value_bool(v->text, on) < 0)
        option_error(x, v, "expected true or false");
    option_leave(x, mark);
}

/*
 * An optional block of the Collector is off, off with defaults at hand, or on; null, {} or content
 * turn it on as the kind says, `enabled: false` turns it off and drops the rest.
 */
static void read_struct(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                        char *base)
{
    bool on = o->presence == OPT_PLAIN || o->presence == OPT_ON ||
              (o->presence == OPT_OFF_DEFAULT && n) ||
              (o->presence == OPT_OFF_NONE && n && n->kind != YAML_NULL);
    bool optional = o->presence != OPT_PLAIN, outer = x->defaults;

    if (optional)
        read_enabled(x, n, &on);
    x->defaults = outer || !on || (o->flags & OPT_TEMPLATE);
    option_fill(x, base + o->offset, o->sub, on ? n : NULL, optional);
    x->defaults = outer;
    if (optional)
        *(bool *)(base + o->on_offset) = on;
}

static void read_list(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                      struct option_list *out)
{
    if (!n || n->kind == YAML_NULL)
        return;
    if (n->kind != YAML_LIST) {
        option_error(x, n, "expected a list");
        return;
    }
    char *items = option_alloc(x, n->n * o->elem_size);
    if (!items)
        return;
    const struct yaml_mark *outer = x->at;
    for (size_t i = 0; i < n->n; i++) {
        size_t mark = option_enter_index(x, i);
        x->at = &n->items[i]->mark;
        option_fill(x, items + i * o->elem_size, o->sub, n->items[i], false);
        option_leave(x, mark);
    }
    x->at = outer;
    *out = (struct option_list){items, n->n};
}

/* ---- one key ---- */

static void read_default(struct option_ctx *x, const struct option *o, void *field)
{
    if (!o->def) {
        if (o->type == OPT_STRING || o->type == OPT_SECRET || o->type == OPT_ENDPOINT ||
            o->type == OPT_ID)
            *(const char **)field = "";
        return;
    }
    struct yaml_node scalar = {.kind = YAML_SCALAR, .text = o->def};
    struct yaml_node *n = &scalar;
    unsigned before = x->yaml->report->errors;
    bool is_list = o->type >= OPT_STRINGS && o->type <= OPT_HEADERS;
    if (is_list && yaml_parse(x->yaml, str_of(o->def), "default", &n) < 0)
        return;
    option_read_value(x, o, n, field);
    /* A default that its own table refuses is our mistake. */
    ASSERT(x->yaml->report->errors == before || x->yaml->report->nomem);
}

static void read_option(struct option_ctx *x, const struct option *o, const struct yaml_node *node,
                        char *base)
{
    const struct yaml_pair *p = pair_of(x, o, node);
    const struct yaml_node *n = p ? p->value : NULL;

    if ((o->flags & OPT_UNSUPPORTED) && p) {
        option_error(x, p->key, "the Collector's key '%s' is not supported here%s%s", o->key,
                     o->help ? ": " : "", o->help ? o->help : "");
        return;
    }
    /* A key without effect has no field, unless it has a type to be checked. */
    if ((o->flags & OPT_UNSUPPORTED) || ((o->flags & OPT_NO_EFFECT) && o->type == OPT_TREE))
        return;
    if ((o->flags & OPT_REQUIRED) && !x->defaults &&
        (!n || (n->kind == YAML_NULL && !n->orig && o->type != OPT_STRUCT))) {
        option_error(x, n, "key '%s' is required", o->key);
        return;
    }
    size_t mark = option_enter(x, o->key);
    const struct yaml_mark *outer = x->at;
    x->at = p ? &p->key->mark : outer;
    if (o->type == OPT_STRUCT)
        read_struct(x, o, n, base);
    else if (o->type == OPT_LIST)
        read_list(x, o, n, (struct option_list *)(void *)(base + o->offset));
    else if (n && (n->kind != YAML_NULL || n->orig))
        option_read_value(x, o, n, base + o->offset);
    else
        read_default(x, o, base + o->offset);
    x->at = outer;
    option_leave(x, mark);
}

void option_fill(struct option_ctx *x, void *base, const struct option *table,
                 const struct yaml_node *node, bool has_enabled)
{
    if (node && (node->kind == YAML_SCALAR || node->kind == YAML_LIST)) {
        option_error(x, node, "expected a mapping of keys, found a %s",
                     node->kind == YAML_LIST ? "list" : "single value");
        return;
    }
    for (const struct option *o = table; o && o->key; o++)
        if (!(o->flags & OPT_ALIAS))
            read_option(x, o, node, base);
    if (node && node->kind == YAML_MAPPING)
        check_unknown(x, table, node, has_enabled);
}

int options_parse(void *out, const struct option *table, const struct yaml_node *node,
                  struct arena *a, struct buf *problems)
{
    struct report report = {.out = problems};
    struct yaml_ctx yaml = {.arena = a, .report = &report};
    struct option_ctx x = {.yaml = &yaml, .at = node ? &node->mark : NULL};

    buf_init(&x.path);
    option_fill(&x, out, table, node, false);
    buf_fini(&x.path);
    if (report.nomem)
        return -ENOMEM;
    return report.errors ? -EINVAL : 0;
}
