/* SPDX-License-Identifier: Apache-2.0 */
/*
 * service: pipelines, extensions, telemetry. Checks every name against what is configured, that a
 * component takes or makes the signal of the pipeline it stands in, that connectors join pipelines
 * on both sides and never in a circle.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/pipeline/config_load.h"
#include "common/pipeline/option_value.h"

enum { MAX_CANDIDATES = 256 };

struct service_section {
    const struct yaml_node *pipelines, *telemetry, *extensions;
    uint64_t shutdown_timeout_ns;
};

#define S(f) offsetof(struct service_section, f)
static const struct option service_options[] = {
    {.key = "extensions", .type = OPT_TREE, .offset = S(extensions)},
    {.key = "pipelines", .type = OPT_TREE, .offset = S(pipelines)},
    {.key = "telemetry", .type = OPT_TREE, .offset = S(telemetry)},
    {.key = "shutdown_timeout",
     .type = OPT_DURATION,
     .offset = S(shutdown_timeout_ns),
     .def = "15s",
     .min = (double)NS_PER_MS},
    OPTION_END,
};

/* A pipeline may name these kinds under one key. */
struct role {
    const char *key;
    enum component_kind kind;
    size_t list; /* offset in struct config_pipeline */
    bool connectors;
};

#define L(f) offsetof(struct config_pipeline, f)
static const struct role roles[] = {
    {"receivers", KIND_RECEIVER, L(receivers), true},
    {"processors", KIND_PROCESSOR, L(processors), false},
    {"exporters", KIND_EXPORTER, L(exporters), true},
};

static const struct option pipeline_options[] = {
    {.key = "receivers", .type = OPT_TREE, .offset = 0},
    {.key = "processors", .type = OPT_TREE, .offset = sizeof(void *)},
    {.key = "exporters", .type = OPT_TREE, .offset = 2 * sizeof(void *)},
    OPTION_END,
};

/* ---- references ---- */

/* Ids that are configured and could stand here, for "did you mean". */
static const char *id_hint(const struct loader *l, const struct role *r, const char *id, char *out,
                           size_t n)
{
    const char *names[MAX_CANDIDATES];
    size_t count = 0;
    const struct config_component *all = l->config->components.items;
    for (size_t i = 0; i < l->config->components.n && count < MAX_CANDIDATES; i++) {
        enum component_kind k = all[i].component->kind;
        if (k == r->kind || (r->connectors && k == KIND_CONNECTOR))
            names[count++] = all[i].id;
    }
    return option_hint(id, names, count, out, n);
}

static bool section_has(const struct loader *l, enum component_kind kind, const char *id)
{
    return yaml_get(yaml_get(l->root, kind_section(kind)), id) != NULL;
}

/* The component an item of a list refers to; NULL when reported (here or in its own section). */
static struct config_component *resolve(struct loader *l, const struct role *r,
                                        const struct yaml_node *item)
{
    char hint[160];
    if (item->kind != YAML_SCALAR || !*item->text) {
        option_error(&l->opt, item, "expected the id of a component");
        return NULL;
    }
    struct config_component *c = loader_component(l, r->kind, item->text);
    if (!c && r->connectors)
        c = loader_component(l, KIND_CONNECTOR, item->text);
    if (!c && !section_has(l, r->kind, item->text) &&
        !(r->connectors && section_has(l, KIND_CONNECTOR, item->text)))
        option_error(&l->opt, item, "%s '%s' is not defined%s", kind_word(r->kind), item->text,
                     id_hint(l, r, item->text, hint, sizeof(hint)));
    return c;
}

/* Whether the component can stand in that place of a pipeline of that signal. */
static bool fits(const struct component *c, const struct role *r, enum signal s)
{
    unsigned bits = c->signals;
    if (c->kind == KIND_CONNECTOR && r->kind == KIND_RECEIVER && c->makes)
        bits = c->makes;
    return (bits & SIGNAL_BIT(s)) != 0;
}

static bool listed_before(const struct yaml_node *list, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (list->items[k]->kind == YAML_SCALAR &&
            strcmp(list->items[k]->text, list->items[i]->text) == 0)
            return true;
    return false;
}

static void add_reference(struct loader *l, struct config_pipeline *p, const struct role *r,
                          const struct yaml_node *list, size_t i)
{
    const struct yaml_node *item = list->items[i];
    struct option_list *out = (struct option_list *)(void *)((char *)p + r->list);
    struct config_component *c = resolve(l, r, item);
    if (!c)
        return;
    c->used = true;
    if (listed_before(list, i)) {
        if (r->kind == KIND_PROCESSOR)
            option_error(&l->opt, item, "processor '%s' stands twice in this pipeline", item->text);
        else
            option_warning(&l->opt, item, "'%s' stands twice in this pipeline", item->text);
        return;
    }
    if (!fits(c->component, r, p->signal)) {
        option_error(&l->opt, item, "%s '%s' does not %s %s", kind_word(c->component->kind),
                     item->text, r->kind == KIND_RECEIVER ? "make" : "take",
                     signal_info[p->signal].name);
        return;
    }
    ((const char **)out->items)[out->n++] = c->id;
}

static void read_role(struct loader *l, struct config_pipeline *p, const struct role *r,
                      const struct yaml_node *list)
{
    size_t mark = option_enter(&l->opt, r->key);
    if (list && list->kind == YAML_SCALAR)
        list = option_split(&l->opt, list);
    size_t n = list && list->kind == YAML_LIST ? list->n : 0;

    if (list && list->kind != YAML_LIST && list->kind != YAML_NULL)
        option_error(&l->opt, list, "expected a list of component ids");
    else if (n == 0 && r->kind != KIND_PROCESSOR)
        option_error(&l->opt, list && list->mark.line ? list : NULL,
                     "a pipeline needs at least one %s", kind_word(r->kind));
    struct option_list *out = (struct option_list *)(void *)((char *)p + r->list);
    out->items = option_alloc(&l->opt, n * sizeof(const char *));
    for (size_t i = 0; i < n && out->items; i++) {
        size_t inner = option_enter_index(&l->opt, i);
        add_reference(l, p, r, list, i);
        option_leave(&l->opt, inner);
    }
    option_leave(&l->opt, mark);
}

/* ---- pipelines ---- */

static bool read_signal(struct loader *l, const struct yaml_node *key, enum signal *out)
{
    struct str type = value_id_type(key->text);
    const char *fault = value_id_fault(key->text);
    const char *names[SIGNAL_COUNT];
    char hint[160], word[80];

    if (fault) {
        option_error(&l->opt, key, "%s", fault);
        return false;
    }
    if (signal_parse(type, out) == 0)
        return true;
    for (size_t i = 0; i < SIGNAL_COUNT; i++)
        names[i] = signal_info[i].name;
    snprintf(word, sizeof(word), STR_FMT, STR_ARG(type));
    option_error(&l->opt, key, "'%s' is no signal of this build%s", word,
                 option_hint(word, names, SIGNAL_COUNT, hint, sizeof(hint)));
    return false;
}

static void read_pipeline(struct loader *l, const struct yaml_pair *pair)
{
    struct option_list *all = &l->config->pipelines;
    struct config_pipeline *p = (struct config_pipeline *)all->items + all->n;
    const struct yaml_node *lists[ARRAY_LEN(roles)] = {0};

    if (!read_signal(l, pair->key, &p->signal))
        return;
    p->id = pair->key->text;
    p->mark = pair->key->mark;
    l->opt.at = &p->mark;
    option_fill(&l->opt, (void *)lists, pipeline_options, pair->value, false);
    if (pair->value->kind == YAML_MAPPING || pair->value->kind == YAML_NULL)
        for (size_t i = 0; i < ARRAY_LEN(roles); i++)
            read_role(l, p, &roles[i], lists[i]);
    all->n++;
}

static void read_pipelines(struct loader *l, const struct yaml_node *node)
{
    size_t mark = option_enter(&l->opt, "pipelines");
    size_t n = node && node->kind == YAML_MAPPING ? node->n : 0;

    if (node && node->kind != YAML_MAPPING && node->kind != YAML_NULL)
        option_error(&l->opt, node, "expected a mapping of pipelines");
    else if (n == 0)
        option_error(&l->opt, NULL, "at least one pipeline is needed");
    l->config->pipelines.items = option_alloc(&l->opt, n * sizeof(struct config_pipeline));
    for (size_t i = 0; i < n && l->config->pipelines.items; i++) {
        size_t inner = option_enter(&l->opt, node->pairs[i].key->text);
        read_pipeline(l, &node->pairs[i]);
        option_leave(&l->opt, inner);
    }
    option_leave(&l->opt, mark);
}

static void read_extensions(struct loader *l, const struct yaml_node *list)
{
    static const struct role role = {"extensions", KIND_EXTENSION, 0, false};
    struct option_list *out = &l->config->extensions;
    size_t mark = option_enter(&l->opt, "extensions");
    if (list && list->kind == YAML_SCALAR)
        list = option_split(&l->opt, list);
    size_t n = list && list->kind == YAML_LIST ? list->n : 0;

    if (list && list->kind != YAML_LIST && list->kind != YAML_NULL)
        option_error(&l->opt, list, "expected a list of component ids");
    out->items = option_alloc(&l->opt, n * sizeof(const char *));
    for (size_t i = 0; i < n && out->items; i++) {
        size_t inner = option_enter_index(&l->opt, i);
        struct config_component *c = resolve(l, &role, list->items[i]);
        if (c && listed_before(list, i))
            option_error(&l->opt, list->items[i], "extension '%s' stands twice", c->id);
        else if (c)
            ((const char **)out->items)[out->n++] = c->id;
        if (c)
            c->used = true;
        option_leave(&l->opt, inner);
    }
    option_leave(&l->opt, mark);
}

/* ---- connectors ---- */

static bool list_has(const struct option_list *ids, const char *id)
{
    for (size_t i = 0; i < ids->n; i++)
        if (strcmp(((const char **)ids->items)[i], id) == 0)
            return true;
    return false;
}

/* One connector's two sides: each pipeline that feeds it must reach one that it can feed, and back.
 */
static void check_connector(struct loader *l, const struct config_component *c)
{
    const struct config_pipeline *all = l->config->pipelines.items;
    size_t n = l->config->pipelines.n;
    struct yaml_node at = {.mark = c->mark};
    bool as_exporter = false, as_receiver = false;

    for (size_t i = 0; i < n; i++) {
        bool out = list_has(&all[i].exporters, c->id), in = list_has(&all[i].receivers, c->id);
        bool fed = !in, feeds = !out;
        for (size_t k = 0; k < n; k++) {
            fed = fed || (list_has(&all[k].exporters, c->id) &&
                          config_connects(c->component, all[k].signal, all[i].signal));
            feeds = feeds || (list_has(&all[k].receivers, c->id) &&
                              config_connects(c->component, all[i].signal, all[k].signal));
        }
        as_exporter = as_exporter || out;
        as_receiver = as_receiver || in;
        if (!feeds)
            option_error(
                &l->opt, &at,
                "exporter of pipeline '%s', but receiver of no pipeline that it can make %s "
                "into",
                all[i].id, signal_info[all[i].signal].name);
        if (!fed)
            option_error(
                &l->opt, &at,
                "receiver of pipeline '%s', but exporter of no pipeline that it can make %s "
                "from",
                all[i].id, signal_info[all[i].signal].name);
    }
}

static bool pipeline_feeds(const struct loader *l, const struct config_pipeline *a,
                           const struct config_pipeline *b)
{
    for (size_t i = 0; i < a->exporters.n; i++) {
        const char *id = ((const char **)a->exporters.items)[i];
        const struct config_component *c = loader_component(l, KIND_CONNECTOR, id);
        if (c && list_has(&b->receivers, id) && config_connects(c->component, a->signal, b->signal))
            return true;
    }
    return false;
}

/*
 * Pipelines that no pipeline feeds are taken away until none is left; what stays feeds itself.
 * Simple and quadratic: there are a handful of pipelines.
 */
static void check_cycles(struct loader *l)
{
    const struct config_pipeline *all = l->config->pipelines.items;
    size_t n = l->config->pipelines.n, left = n;
    bool *gone = option_alloc(&l->opt, n * sizeof(*gone)), progress = gone != NULL;

    while (progress && left) {
        progress = false;
        for (size_t i = 0; i < n; i++) {
            bool feeds = gone[i];
            for (size_t k = 0; k < n && !feeds; k++)
                feeds = !gone[k] && pipeline_feeds(l, &all[i], &all[k]);
            if (feeds)
                continue;
            gone[i] = progress = true;
            left--;
        }
    }
    for (size_t i = 0; gone && left && i < n; i++) {
        bool in_circle = false; /* not only leading into it: something left feeds it */
        for (size_t k = 0; k < n && !gone[i]; k++)
            in_circle = in_circle || (!gone[k] && pipeline_feeds(l, &all[k], &all[i]));
        if (!in_circle)
            continue;
        struct yaml_node at = {.mark = all[i].mark};
        size_t mark = option_enter(&l->opt, "pipelines");
        option_enter(&l->opt, all[i].id);
        option_error(&l->opt, &at, "its output comes back to it through connectors");
        option_leave(&l->opt, mark);
    }
}

static void check_components(struct loader *l)
{
    const struct config_component *all = l->config->components.items;
    for (size_t i = 0; i < l->config->components.n; i++) {
        const struct config_component *c = &all[i];
        struct yaml_node at = {.mark = c->mark};
        size_t mark = option_enter(&l->opt, kind_section(c->component->kind));
        option_enter(&l->opt, c->id);
        if (c->component->kind == KIND_CONNECTOR) {
            if (section_has(l, KIND_RECEIVER, c->id) || section_has(l, KIND_EXPORTER, c->id))
                option_error(&l->opt, &at, "a %s has the same id",
                             section_has(l, KIND_RECEIVER, c->id) ? "receiver" : "exporter");
            check_connector(l, c);
        }
        if (!c->used)
            option_warning(&l->opt, &at, "defined, but %s names it",
                           c->component->kind == KIND_EXTENSION ? "service::extensions never"
                                                                : "no pipeline");
        option_leave(&l->opt, mark);
    }
}

void loader_service(struct loader *l)
{
    struct service_section s = {0};
    const struct yaml_node *node = yaml_get(l->root, "service");
    struct yaml_mark nowhere = {.file = l->root->mark.file};

    l->opt.at = node ? &node->mark : &nowhere;
    size_t mark = option_enter(&l->opt, "service");
    option_fill(&l->opt, &s, service_options, node, false);
    l->config->shutdown_timeout_ns = s.shutdown_timeout_ns;
    read_extensions(l, s.extensions);
    l->opt.at = node ? &node->mark : &nowhere;
    read_pipelines(l, s.pipelines);
    l->opt.at = node ? &node->mark : &nowhere;
    loader_telemetry(l, s.telemetry);
    unsigned before = l->report.errors;
    if (before == 0)
        check_cycles(l);
    option_leave(&l->opt, mark);
    if (before == 0)
        check_components(l);
}
