/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON schema (draft 7) of a program's configuration out of its tables: the chart refuses a wrong
 * value before a pod sees it. A ${reference} may stand for any value, null for any default.
 */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/pipeline/config_load.h"
#include "common/pipeline/config_telemetry.h"
#include "common/pipeline/option_print.h"

enum { MAX_NESTING = 8 };
#define REFERENCE "[$][{].*[}]"

/* The tables that are being written, outermost first: a table inside itself is left open. */
struct nesting {
    const struct option *open[MAX_NESTING];
    unsigned depth;
};

/* "type": the words of a space-separated list, a lone one as a string. */
static void add_types(cJSON *to, const char *words)
{
    cJSON *list = strchr(words, ' ') ? cJSON_AddArrayToObject(to, "type") : NULL;
    if (!list)
        cJSON_AddStringToObject(to, "type", words);
    while (list && *words) {
        char word[16];
        size_t n = strcspn(words, " ");
        snprintf(word, sizeof(word), "%.*s", (int)n, words);
        cJSON_AddItemToArray(list, cJSON_CreateString(word));
        words += n + (words[n] == ' ');
    }
}

/* An object of its own under a key. */
static cJSON *add_typed(cJSON *to, const char *key, const char *types)
{
    cJSON *o = cJSON_AddObjectToObject(to, key);
    add_types(o, types);
    return o;
}

/* Makes `to` the schema of an object that has no other members than those added to the result. */
static cJSON *close_object(cJSON *to, const char *types, const char *members)
{
    add_types(to, types);
    cJSON_AddFalseToObject(to, "additionalProperties");
    return cJSON_AddObjectToObject(to, members);
}

static void add_enum(cJSON *to, const char *const *names)
{
    cJSON *any = cJSON_AddArrayToObject(to, "anyOf"), *one = cJSON_CreateObject();
    cJSON *values = cJSON_AddArrayToObject(one, "enum"), *reference = cJSON_CreateObject();
    cJSON_AddItemToArray(values, cJSON_CreateNull());
    for (; *names; names++)
        cJSON_AddItemToArray(values, cJSON_CreateString(*names));
    add_types(reference, "string");
    cJSON_AddStringToObject(reference, "pattern", REFERENCE);
    cJSON_AddItemToArray(any, one);
    cJSON_AddItemToArray(any, reference);
}

static void add_scalar(cJSON *to, const struct option *o)
{
    static const char *const types[OPT_TREE + 1] = {
        [OPT_BOOL] = "boolean string null",          [OPT_INT] = "integer string null",
        [OPT_UINT] = "integer string null",          [OPT_DOUBLE] = "number string null",
        [OPT_DURATION] = "string integer null",      [OPT_STRING] = "string number boolean null",
        [OPT_SECRET] = "string number boolean null", [OPT_ENDPOINT] = "string number boolean null",
        [OPT_ID] = "string number boolean null",     [OPT_STRINGS] = "array string null",
        [OPT_DOUBLES] = "array string null",         [OPT_DURATIONS] = "array string null",
        [OPT_ENUMS] = "array string null",           [OPT_MAP] = "object string null",
        [OPT_HEADERS] = "object array string null",
    }; /* OPT_ANY, OPT_TREE: whatever */
    bool is_number = o->type == OPT_INT || o->type == OPT_UINT || o->type == OPT_DOUBLE;
    if (o->type == OPT_ENUM)
        add_enum(to, o->names);
    else if (types[o->type])
        add_types(to, types[o->type]);
    if (o->type == OPT_UINT)
        cJSON_AddNumberToObject(to, "minimum", 0);
    if (is_number || o->type == OPT_BOOL)
        cJSON_AddStringToObject(to, "pattern", REFERENCE);
}

static void add_object(cJSON *to, struct nesting *s, const struct option *table, bool has_enabled);

static void add_option(cJSON *to, struct nesting *s, const struct option *o)
{
    if (o->help && *o->help)
        cJSON_AddStringToObject(to, "description", o->help);
    if (o->type == OPT_LIST) {
        add_types(to, "array string null");
        add_object(cJSON_AddObjectToObject(to, "items"), s, o->sub, false);
    } else if (o->type == OPT_STRUCT) {
        add_object(to, s, o->sub, o->presence != OPT_PLAIN);
    } else {
        add_scalar(to, o);
    }
}

static void add_object(cJSON *to, struct nesting *s, const struct option *table, bool has_enabled)
{
    cJSON *properties;
    for (unsigned i = 0; i < s->depth; i++)
        if (s->open[i] == table)
            return;
    if (s->depth == MAX_NESTING)
        return;
    s->open[s->depth++] = table;
    properties = close_object(to, "object string null", "properties");
    for (const struct option *o = table; o && o->key; o++)
        if (!(o->flags & OPT_UNSUPPORTED))
            add_option(cJSON_AddObjectToObject(properties, o->key), s, o);
    if (has_enabled)
        cJSON_AddStringToObject(add_typed(properties, "enabled", "boolean string"), "pattern",
                                REFERENCE);
    s->depth--;
}

/* One section: ids of each registered type, under its name or an old one. */
static void add_section(cJSON *to, enum component_kind kind,
                        const struct component *const *components)
{
    cJSON *ids = close_object(to, "object string null", "patternProperties");
    for (; *components; components++) {
        const struct component *c = *components;
        struct nesting nesting = {.depth = 0};
        struct buf pattern;
        if (c->kind != kind)
            continue;
        buf_init(&pattern);
        buf_addf(&pattern, "^(%s", c->name);
        for (const char *const *a = c->aliases; a && *a; a++)
            buf_addf(&pattern, "|%s", *a);
        buf_add_cstr(&pattern, ")(/.+)?$");
        add_object(cJSON_AddObjectToObject(ids, buf_cstr(&pattern)), &nesting, c->options, false);
        buf_fini(&pattern);
    }
}

static void add_service(cJSON *to)
{
    cJSON *service = close_object(to, "object", "properties"), *signals, *pipeline;
    struct nesting nesting = {.depth = 0};
    add_typed(service, "extensions", "array string null");
    signals =
        close_object(cJSON_AddObjectToObject(service, "pipelines"), "object", "patternProperties");
    pipeline = close_object(cJSON_AddObjectToObject(signals, "^(traces|metrics|logs)(/.+)?$"),
                            "object", "properties");
    add_typed(pipeline, "receivers", "array string null");
    add_typed(pipeline, "processors", "array string null");
    add_typed(pipeline, "exporters", "array string null");
    add_typed(service, "shutdown_timeout", "string integer null");
    add_object(cJSON_AddObjectToObject(service, "telemetry"), &nesting, telemetry_options, false);
}

void components_schema(const struct component *const *components, struct buf *out)
{
    cJSON *root = cJSON_CreateObject(), *sections;
    char *text;

    cJSON_AddStringToObject(root, "$schema", "http://json-schema.org/draft-07/schema#");
    sections = close_object(root, "object", "properties");
    for (enum component_kind k = 0; k < KIND_COUNT; k++)
        add_section(cJSON_AddObjectToObject(sections, kind_section(k)), k, components);
    add_service(cJSON_AddObjectToObject(sections, "service"));
    text = cJSON_Print(root);
    buf_add_cstr(out, text ? text : "");
    buf_add_byte(out, '\n');
    cJSON_free(text);
    cJSON_Delete(root);
}
