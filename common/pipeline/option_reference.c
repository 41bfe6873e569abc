/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text for users out of tables: the reference page of a component (Markdown) and the list of
 * components, as the Collector prints it.
 */
#include <stdio.h>

#include "common/pipeline/config_load.h"
#include "common/pipeline/option_print.h"
#include "common/pipeline/option_value.h"

enum { MAX_NESTING = 8 };

/* Where a walk through nested tables is. */
struct page {
    struct buf *out;
    struct buf path;
    const struct option *open[MAX_NESTING]; /* tables begun: one that contains itself ends there */
    unsigned depth;
    struct buf unsupported;
};

static const char *const stabilities[] = {
    [STABILITY_DEVELOPMENT] = "development",
    [STABILITY_ALPHA] = "alpha",
    [STABILITY_BETA] = "beta",
    [STABILITY_STABLE] = "stable",
};

const char *stability_word(enum stability s)
{
    return stabilities[s];
}

static void add_signals(unsigned bits, struct buf *out)
{
    const char *sep = "";
    for (unsigned s = 0; s < SIGNAL_COUNT; s++) {
        if (!(bits & SIGNAL_BIT(s)))
            continue;
        buf_addf(out, "%s%s", sep, signal_info[s].name);
        sep = ", ";
    }
}

/* ---- one row ---- */

/* Text inside a table cell: '|' would end it. */
static void add_cell(const char *s, struct buf *out)
{
    for (; s && *s; s++) {
        if (*s == '|')
            buf_add_byte(out, '\\');
        buf_add_byte(out, *s == '\n' ? ' ' : (uint8_t)*s);
    }
}

static void add_type(const struct option *o, struct buf *out)
{
    if (o->type != OPT_ENUM && o->type != OPT_ENUMS) {
        buf_add_cstr(out, option_type_word(o->type));
        return;
    }
    buf_add_cstr(out, o->type == OPT_ENUM ? "one of " : "list of ");
    for (int i = 0; o->names[i]; i++)
        buf_addf(out, "%s`%s`", i ? ", " : "", *o->names[i] ? o->names[i] : "\"\"");
}

static void add_default(const struct option *o, struct buf *out)
{
    if (o->flags & OPT_REQUIRED)
        buf_add_cstr(out, "required");
    else if (o->type == OPT_STRUCT && o->presence == OPT_ON)
        buf_add_cstr(out, "on");
    else if (o->type == OPT_STRUCT && o->presence != OPT_PLAIN)
        buf_add_cstr(out, "off");
    else if (o->def)
        buf_addf(out, "`%s`", *o->def ? o->def : "\"\"");
    else if (o->type == OPT_BOOL)
        buf_add_cstr(out, "`false`");
    else if (o->type <= OPT_DOUBLE)
        buf_add_cstr(out, "`0`");
    else if (o->type == OPT_DURATION)
        buf_add_cstr(out, "`0s`");
    else if (o->type == OPT_ENUM)
        buf_addf(out, "`%s`", *o->names[0] ? o->names[0] : "\"\"");
}

static void add_bound(const struct option *o, double v, struct buf *out)
{
    char text[48];
    if (o->type == OPT_DURATION || o->type == OPT_DURATIONS)
        value_duration_text((uint64_t)v, text, sizeof(text));
    else
        snprintf(text, sizeof(text), "%.15g", v);
    buf_add_cstr(out, text);
}

static void add_help(const struct option *o, struct buf *out)
{
    add_cell(o->help, out);
    if (o->min != 0 || o->max != 0) {
        bool both = o->max > o->min || o->max < 0;
        buf_add_cstr(out, both ? " From " : " At least ");
        add_bound(o, o->min, out);
        if (both) {
            buf_add_cstr(out, " to ");
            add_bound(o, o->max, out);
        }
        buf_add_byte(out, '.');
    }
    if (o->type == OPT_STRUCT && o->presence != OPT_PLAIN)
        buf_add_cstr(out, " `enabled: false` switches it off.");
    for (const struct option *a = o + 1; a->key && (a->flags & OPT_ALIAS); a++)
        buf_addf(out, " Also written `%s`.", a->key);
    if (o->flags & OPT_DEPRECATED)
        buf_add_cstr(out, " Deprecated.");
    if (o->flags & OPT_NO_EFFECT)
        buf_add_cstr(out, " Accepted, does nothing.");
}

/* ---- tables ---- */

static void add_rows(struct page *p, const struct option *table);

static void add_row(struct page *p, const struct option *o)
{
    size_t mark = p->path.n;
    buf_addf(&p->path, "%s%s", mark ? "::" : "", o->key);
    if (o->flags & OPT_UNSUPPORTED) {
        buf_addf(&p->unsupported, "%s`%s`", p->unsupported.n ? ", " : "", buf_cstr(&p->path));
    } else {
        buf_addf(p->out, "| `%s` | ", buf_cstr(&p->path));
        add_type(o, p->out);
        buf_add_cstr(p->out, " | ");
        add_default(o, p->out);
        buf_add_cstr(p->out, " | ");
        add_help(o, p->out);
        buf_add_cstr(p->out, " |\n");
        if (o->type == OPT_LIST)
            buf_add_cstr(&p->path, "[]");
        if (o->sub)
            add_rows(p, o->sub);
    }
    p->path.n = mark;
}

static void add_rows(struct page *p, const struct option *table)
{
    for (unsigned i = 0; i < p->depth; i++)
        if (p->open[i] == table)
            return;
    if (p->depth == MAX_NESTING)
        return;
    p->open[p->depth++] = table;
    for (const struct option *o = table; o && o->key; o++)
        if (!(o->flags & OPT_ALIAS))
            add_row(p, o);
    p->depth--;
}

static void add_title(const struct component *c, struct buf *out)
{
    buf_addf(out, "## %s\n\n", c->name);
    if (c->help)
        buf_addf(out, "%s\n\n", c->help);
    buf_addf(out, "%s", stability_word(c->stability));
    if (c->kind != KIND_EXTENSION) {
        buf_add_cstr(out, "; ");
        add_signals(c->signals, out);
        if (c->kind == KIND_CONNECTOR) {
            buf_add_cstr(out, " to ");
            if (c->makes)
                add_signals(c->makes, out);
            else
                buf_add_cstr(out, "the same");
        }
    }
    for (const char *const *a = c->aliases; a && *a; a++)
        buf_addf(out, "%s`%s`", a == c->aliases ? "; old names: " : ", ", *a);
    buf_add_cstr(out, ".\n\n");
}

void options_reference(const struct component *c, struct buf *out)
{
    struct page p = {.out = out};

    buf_init(&p.path);
    buf_init(&p.unsupported);
    add_title(c, out);
    if (c->options && c->options->key) {
        buf_add_cstr(out, "| key | type | default | meaning |\n|---|---|---|---|\n");
        add_rows(&p, c->options);
    } else {
        buf_add_cstr(out, "It has no keys.\n");
    }
    if (p.unsupported.n)
        buf_addf(out, "\nKeys of the Collector that are refused: %s.\n", buf_cstr(&p.unsupported));
    buf_add_byte(out, '\n');
    buf_fini(&p.path);
    buf_fini(&p.unsupported);
}

/* ---- `components` ---- */

static void add_stability(const char *name, enum stability s, struct buf *out)
{
    const char *w = stability_word(s);
    buf_addf(out, "        %s: %c%s\n", name, w[0] - 'a' + 'A', w + 1);
}

static void add_connections(const struct component *c, struct buf *out)
{
    char name[64];
    for (unsigned from = 0; from < SIGNAL_COUNT; from++) {
        for (unsigned to = 0; to < SIGNAL_COUNT; to++) {
            if (!config_connects(c, from, to))
                continue;
            snprintf(name, sizeof(name), "%s-to-%s", signal_info[from].name, signal_info[to].name);
            add_stability(name, c->stability, out);
        }
    }
}

static void add_component(const struct component *c, struct buf *out)
{
    buf_addf(out, "    - name: %s\n      stability:\n", c->name);
    if (c->kind == KIND_EXTENSION)
        add_stability("extension", c->stability, out);
    else if (c->kind == KIND_CONNECTOR)
        add_connections(c, out);
    else
        for (unsigned s = 0; s < SIGNAL_COUNT; s++)
            if (c->signals & SIGNAL_BIT(s))
                add_stability(signal_info[s].name, c->stability, out);
}

void components_print(const char *program, const char *description, const char *version,
                      const struct component *const *components, struct buf *out)
{
    buf_addf(out, "buildinfo:\n    command: %s\n    description: ", program);
    yaml_print_text(description, out);
    buf_add_cstr(out, "\n    version: ");
    yaml_print_text(version, out);
    buf_add_byte(out, '\n');
    for (enum component_kind k = 0; k < KIND_COUNT; k++) {
        bool any = false;
        for (const struct component *const *c = components; *c; c++)
            any = any || (*c)->kind == k;
        buf_addf(out, "%s:%s\n", kind_section(k), any ? "" : " []");
        for (const struct component *const *c = components; *c; c++)
            if ((*c)->kind == k)
                add_component(*c, out);
    }
    buf_add_cstr(out, "providers:\n    - scheme: env\n    - scheme: file\n    - scheme: yaml\n");
}
