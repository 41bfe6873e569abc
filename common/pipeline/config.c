/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_load: sources to tree (config_source.c), merged and expanded; then sections to configured
 * components, here; then service: to pipelines and telemetry (config_service.c). A problem never
 * stops the search for further ones, except where nothing sensible could follow.
 */
#include "common/pipeline/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/pipeline/config_load.h"
#include "common/pipeline/option_value.h"

enum { MAX_CANDIDATES = 256 };

static const struct {
    const char *word, *section;
} kinds[KIND_COUNT] = {
    [KIND_RECEIVER] = {"receiver", "receivers"},    [KIND_PROCESSOR] = {"processor", "processors"},
    [KIND_EXPORTER] = {"exporter", "exporters"},    [KIND_CONNECTOR] = {"connector", "connectors"},
    [KIND_EXTENSION] = {"extension", "extensions"},
};

const char *kind_word(enum component_kind k)
{
    return kinds[k].word;
}

const char *kind_section(enum component_kind k)
{
    return kinds[k].section;
}

/* ---- registry ---- */

static bool has_alias(const struct component *c, struct str type)
{
    for (const char *const *a = c->aliases; a && *a; a++)
        if (str_is(type, *a))
            return true;
    return false;
}

const struct component *registry_find(const struct component *const *registry,
                                      enum component_kind kind, struct str type)
{
    for (; *registry; registry++) {
        const struct component *c = *registry;
        if (c->kind == kind && (str_is(type, c->name) || has_alias(c, type)))
            return c;
    }
    return NULL;
}

bool config_connects(const struct component *c, enum signal from, enum signal to)
{
    if (!(c->signals & SIGNAL_BIT(from)))
        return false;
    return c->makes ? (c->makes & SIGNAL_BIT(to)) != 0 : from == to;
}

/* Tells that no component of that type is linked in, and what might have been meant. */
static void report_missing(struct loader *l, enum component_kind kind, const struct yaml_node *key)
{
    struct str type = value_id_type(key->text);
    const char *names[MAX_CANDIDATES];
    size_t n = 0;
    char hint[160], word[80];

    snprintf(word, sizeof(word), STR_FMT, STR_ARG(type));
    for (enum component_kind k = 0; k < KIND_COUNT; k++) {
        if (k != kind && registry_find(l->registry, k, type)) {
            option_error(&l->opt, key, "no such %s in this build ('%s' is %s %s)", kind_word(kind),
                         word, k == KIND_EXPORTER || k == KIND_EXTENSION ? "an" : "a",
                         kind_word(k));
            return;
        }
    }
    for (const struct component *const *c = l->registry; *c && n < MAX_CANDIDATES; c++)
        if ((*c)->kind == kind)
            names[n++] = (*c)->name;
    option_hint(word, names, n, hint, sizeof(hint));
    option_error(&l->opt, key, "no such %s in this build%s", kind_word(kind), hint);
}

/* ---- sections ---- */

struct config_component *loader_component(const struct loader *l, enum component_kind kind,
                                          const char *id)
{
    struct config_component *all = l->config->components.items;
    for (size_t i = 0; i < l->config->components.n; i++)
        if (all[i].component->kind == kind && strcmp(all[i].id, id) == 0)
            return &all[i];
    return NULL;
}

static void run_validate(struct loader *l, const struct component *c, const void *config,
                         const struct yaml_node *at)
{
    struct err e = {{0}};
    if (c->validate && c->validate(config, &e) < 0)
        option_error(&l->opt, at, "%s", e.text);
}

/* Reads one component's options into its slot. False: reported, the slot is not used. */
static bool load_component(struct loader *l, enum component_kind kind, const struct yaml_pair *p,
                           struct config_component *slot)
{
    const char *fault = value_id_fault(p->key->text);
    if (fault) {
        option_error(&l->opt, p->key, "%s", fault);
        return false;
    }
    struct str type = value_id_type(p->key->text);
    const struct component *c = registry_find(l->registry, kind, type);
    if (!c) {
        report_missing(l, kind, p->key);
        return false;
    }
    if (!str_is(type, c->name))
        option_warning(&l->opt, p->key, "'" STR_FMT "' is an old name of the %s '%s'",
                       STR_ARG(type), kind_word(kind), c->name);
    unsigned before = l->report.errors;
    void *config = option_alloc(&l->opt, c->config_size);
    if (!config)
        return false;
    l->opt.at = &p->key->mark;
    option_fill(&l->opt, config, c->options, p->value, false);
    if (l->report.errors == before)
        run_validate(l, c, config, p->key);
    *slot = (struct config_component){
        .component = c, .id = p->key->text, .config = config, .mark = p->key->mark};
    return true;
}

static void load_section(struct loader *l, enum component_kind kind)
{
    const struct yaml_node *section = yaml_get(l->root, kind_section(kind));
    struct option_list *all = &l->config->components;
    struct config_component *slots = all->items;

    if (!section || section->kind == YAML_NULL)
        return;
    size_t outer = option_enter(&l->opt, kind_section(kind));
    if (section->kind != YAML_MAPPING) {
        option_error(&l->opt, section, "expected a mapping of component ids");
        option_leave(&l->opt, outer);
        return;
    }
    for (size_t i = 0; i < section->n && !l->report.nomem; i++) {
        size_t inner = option_enter(&l->opt, section->pairs[i].key->text);
        if (load_component(l, kind, &section->pairs[i], &slots[all->n]))
            all->n++;
        option_leave(&l->opt, inner);
    }
    option_leave(&l->opt, outer);
}

static void check_top_keys(struct loader *l)
{
    const char *names[KIND_COUNT + 1];
    char hint[160];
    size_t n = 0;
    for (; n < KIND_COUNT; n++)
        names[n] = kind_section(n);
    names[n++] = "service";
    for (size_t i = 0; i < l->root->n; i++) {
        const struct yaml_node *key = l->root->pairs[i].key;
        bool known = false;
        for (size_t k = 0; k < n; k++)
            known = known || strcmp(names[k], key->text) == 0;
        if (!known)
            option_error(&l->opt, key, "unknown key '%s'%s", key->text,
                         option_hint(key->text, names, n, hint, sizeof(hint)));
    }
}

static void load_components(struct loader *l)
{
    size_t n = 0;
    for (enum component_kind k = 0; k < KIND_COUNT; k++) {
        const struct yaml_node *section = yaml_get(l->root, kind_section(k));
        n += section && section->kind == YAML_MAPPING ? section->n : 0;
    }
    l->config->components.items = option_alloc(&l->opt, n * sizeof(struct config_component));
    if (!l->config->components.items)
        return;
    for (enum component_kind k = 0; k < KIND_COUNT; k++)
        load_section(l, k);
}

/* ---- all of it ---- */

static int load_tree(struct loader *l, const struct config_source *src, size_t n)
{
    struct yaml_mark top = {"", 1, 1};
    l->root = yaml_node_new(&l->yaml, YAML_MAPPING, &top);
    if (!l->root)
        return -ENOMEM;
    int rc = 0;
    for (size_t i = 0; i < n; i++) {
        struct yaml_node *one;
        int r = source_load(&l->yaml, &src[i], &one);
        if (r == 0 && !*l->root->mark.file)
            l->root->mark.file = one->mark.file; /* for what is missing as a whole */
        if (r == 0)
            r = yaml_merge(&l->yaml, l->root, one);
        rc = r < 0 ? r : rc;
    }
    return rc < 0 ? rc : yaml_expand(&l->yaml, l->root);
}

int config_load(struct config **out, const struct config_source *src, size_t n,
                const struct component *const *components, struct buf *problems)
{
    struct config *c = xcalloc(1, sizeof(*c));
    struct loader l = {
        .config = c, .registry = components, .report = {.out = problems, .is_sorted = true}};

    arena_init(&c->arena);
    l.yaml = (struct yaml_ctx){.arena = &c->arena, .report = &l.report};
    l.opt = (struct option_ctx){.yaml = &l.yaml};
    buf_init(&l.opt.path);
    int rc = load_tree(&l, src, n);
    if (rc == 0) {
        check_top_keys(&l);
        load_components(&l);
        loader_service(&l);
    }
    buf_fini(&l.opt.path);
    report_sort(&l.report);
    if (l.report.errors)
        rc = l.report.nomem ? -ENOMEM : -EINVAL;
    if (rc < 0)
        config_free(&c);
    *out = c;
    return rc;
}

void config_free(struct config **c)
{
    if (!*c)
        return;
    arena_fini(&(*c)->arena);
    free(*c);
    *c = NULL;
}
