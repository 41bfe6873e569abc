/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON schema (draft 7) of a program's configuration out of its tables: the chart refuses a wrong
 * value before a pod sees it. A ${reference} may stand for any value, null for any default.
 */
#include <stdio.h>

#include "common/pipeline/config_load.h"
#include "common/pipeline/config_telemetry.h"
#include "common/pipeline/option_print.h"

enum { MAX_NESTING = 8 };

struct schema {
    struct buf *out;
    const struct option *open[MAX_NESTING];
    unsigned depth;
    unsigned indent;
};

static void add_string(const char *s, struct buf *out)
{
    buf_add_byte(out, '"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            buf_addf(out, "\\%c", c);
        else if (c < 0x20)
            buf_addf(out, "\\u%04x", c);
        else
            buf_add_byte(out, c);
    }
    buf_add_byte(out, '"');
}

static void line(struct schema *s)
{
    buf_add_byte(s->out, '\n');
    for (unsigned i = 0; i < s->indent; i++)
        buf_add_cstr(s->out, "  ");
}

/* `"key": ` on a line of its own, after a comma unless it is the first. */
static void key(struct schema *s, const char *name, bool *first)
{
    buf_add_cstr(s->out, *first ? "" : ",");
    *first = false;
    line(s);
    add_string(name, s->out);
    buf_add_cstr(s->out, ": ");
}

#define REFERENCE "\"pattern\": \"[$][{].*[}]\""

static void add_scalar(const struct option *o, struct buf *out)
{
    switch (o->type) {
    case OPT_BOOL:
        buf_add_cstr(out, "\"type\": [\"boolean\", \"string\", \"null\"], " REFERENCE);
        break;
    case OPT_INT:
        buf_add_cstr(out, "\"type\": [\"integer\", \"string\", \"null\"], " REFERENCE);
        break;
    case OPT_UINT:
        buf_add_cstr(out,
                     "\"type\": [\"integer\", \"string\", \"null\"], \"minimum\": 0, " REFERENCE);
        break;
    case OPT_DOUBLE:
        buf_add_cstr(out, "\"type\": [\"number\", \"string\", \"null\"], " REFERENCE);
        break;
    case OPT_DURATION:
        buf_add_cstr(out, "\"type\": [\"string\", \"integer\", \"null\"]");
        break;
    case OPT_ENUM:
        buf_add_cstr(out, "\"anyOf\": [{\"enum\": [null");
        for (int i = 0; o->names[i]; i++) {
            buf_add_cstr(out, ", ");
            add_string(o->names[i], out);
        }
        buf_add_cstr(out, "]}, {\"type\": \"string\", " REFERENCE "}]");
        break;
    case OPT_STRING:
    case OPT_SECRET:
    case OPT_ENDPOINT:
    case OPT_ID:
        buf_add_cstr(out, "\"type\": [\"string\", \"number\", \"boolean\", \"null\"]");
        break;
    case OPT_STRINGS:
    case OPT_DOUBLES:
    case OPT_DURATIONS:
    case OPT_ENUMS:
        buf_add_cstr(out, "\"type\": [\"array\", \"string\", \"null\"]");
        break;
    case OPT_MAP:
        buf_add_cstr(out, "\"type\": [\"object\", \"string\", \"null\"]");
        break;
    case OPT_HEADERS:
        buf_add_cstr(out, "\"type\": [\"object\", \"array\", \"string\", \"null\"]");
        break;
    default:
        break; /* OPT_ANY, OPT_TREE: whatever */
    }
}

static void add_object(struct schema *s, const struct option *table, bool has_enabled);

static void add_option(struct schema *s, const struct option *o)
{
    bool nested = (o->type == OPT_STRUCT || o->type == OPT_LIST);
    struct schema inner = *s;

    buf_add_byte(s->out, '{');
    if (o->help && *o->help) {
        buf_add_cstr(s->out, "\"description\": ");
        add_string(o->help, s->out);
        if (nested || (o->type != OPT_ANY && o->type != OPT_TREE))
            buf_add_cstr(s->out, ", ");
    }
    if (o->type == OPT_LIST) {
        buf_add_cstr(s->out, "\"type\": [\"array\", \"string\", \"null\"], \"items\": {");
        add_object(&inner, o->sub, false);
        buf_add_byte(s->out, '}');
    } else if (o->type == OPT_STRUCT) {
        add_object(&inner, o->sub, o->presence != OPT_PLAIN);
    } else {
        add_scalar(o, s->out);
    }
    buf_add_byte(s->out, '}');
}

/* The members of an object schema; a table inside itself is left open. */
static void add_object(struct schema *s, const struct option *table, bool has_enabled)
{
    bool first = true;
    for (unsigned i = 0; i < s->depth; i++)
        if (s->open[i] == table)
            return;
    if (s->depth == MAX_NESTING)
        return;
    s->open[s->depth++] = table;
    buf_add_cstr(s->out, "\"type\": [\"object\", \"string\", \"null\"], \"additionalProperties\": "
                         "false, \"properties\": {");
    s->indent++;
    for (const struct option *o = table; o && o->key; o++) {
        if (o->flags & OPT_UNSUPPORTED)
            continue;
        key(s, o->key, &first);
        add_option(s, o);
    }
    if (has_enabled) {
        key(s, "enabled", &first);
        buf_add_cstr(s->out, "{\"type\": [\"boolean\", \"string\"], " REFERENCE "}");
    }
    s->indent--;
    if (!first)
        line(s);
    buf_add_byte(s->out, '}');
    s->depth--;
}

/* One section: ids of each registered type, under its name or an old one. */
static void add_section(struct schema *s, enum component_kind kind,
                        const struct component *const *components)
{
    bool first = true;
    buf_add_cstr(s->out, "{\"type\": [\"object\", \"string\", \"null\"], \"additionalProperties\": "
                         "false, \"patternProperties\": {");
    s->indent++;
    for (; *components; components++) {
        const struct component *c = *components;
        struct buf pattern;
        if (c->kind != kind)
            continue;
        buf_init(&pattern);
        buf_addf(&pattern, "^(%s", c->name);
        for (const char *const *a = c->aliases; a && *a; a++)
            buf_addf(&pattern, "|%s", *a);
        buf_add_cstr(&pattern, ")(/.+)?$");
        key(s, buf_cstr(&pattern), &first);
        buf_fini(&pattern);
        buf_add_byte(s->out, '{');
        add_object(s, c->options, false);
        buf_add_byte(s->out, '}');
    }
    s->indent--;
    if (!first)
        line(s);
    buf_add_cstr(s->out, "}}");
}

static const char ids_schema[] = "{\"type\": [\"array\", \"string\", \"null\"]}";

static void add_service(struct schema *s)
{
    bool first = true;
    buf_add_cstr(s->out,
                 "{\"type\": \"object\", \"additionalProperties\": false, \"properties\": {");
    s->indent++;
    key(s, "extensions", &first);
    buf_add_cstr(s->out, ids_schema);
    key(s, "pipelines", &first);
    buf_addf(s->out,
             "{\"type\": \"object\", \"additionalProperties\": false, \"patternProperties\": "
             "{\"^(traces|metrics|logs)(/.+)?$\": {\"type\": \"object\", \"additionalProperties\": "
             "false, \"properties\": {\"receivers\": %s, \"processors\": %s, \"exporters\": %s}}}}",
             ids_schema, ids_schema, ids_schema);
    key(s, "shutdown_timeout", &first);
    buf_add_cstr(s->out, "{\"type\": [\"string\", \"integer\", \"null\"]}");
    key(s, "telemetry", &first);
    buf_add_byte(s->out, '{');
    add_object(s, telemetry_options, false);
    buf_add_byte(s->out, '}');
    s->indent--;
    line(s);
    buf_add_cstr(s->out, "}}");
}

void components_schema(const struct component *const *components, struct buf *out)
{
    struct schema s = {.out = out, .indent = 1};
    bool first = true;

    buf_add_cstr(out, "{\"$schema\": \"http://json-schema.org/draft-07/schema#\", \"type\": "
                      "\"object\", \"additionalProperties\": false, \"properties\": {");
    for (enum component_kind k = 0; k < KIND_COUNT; k++) {
        key(&s, kind_section(k), &first);
        add_section(&s, k, components);
    }
    key(&s, "service", &first);
    add_service(&s);
    buf_add_cstr(out, "\n}}\n");
}
