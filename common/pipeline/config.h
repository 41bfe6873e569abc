/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration: the Collector's YAML into a tree with marks, substitution, and from there by the
 * option tables into components' structs.
 *
 *   sources (--config, --set) ─► yaml_node tree ─ merge ─ expand ${} ─► struct config ─► graph
 */
#ifndef PIPELINE_CONFIG_H
#define PIPELINE_CONFIG_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/pipeline/component.h"

enum yaml_kind { YAML_NULL, YAML_SCALAR, YAML_LIST, YAML_MAPPING };

struct yaml_mark {
    const char *file;      /* as given on the command line */
    uint32_t line, column; /* from 1 */
};

struct yaml_pair {
    struct yaml_node *key, *value;
};

struct yaml_node {
    enum yaml_kind kind;
    struct yaml_mark mark;
    bool quoted;      /* scalar in quotes: a string whatever it looks like */
    const char *text; /* scalar: after expansion */
    const char *orig; /* what stood in ${...} before it was read as YAML, for strings; or NULL */
    struct yaml_node **items; /* list */
    struct yaml_pair *pairs;  /* mapping */
    size_t n;
};

/* Value of a mapping's key, or NULL. */
const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key);

/* One configured component: parsed and validated, not created. */
struct config_component {
    const struct component *component;
    const char *id;
    const void *config; /* config_size bytes in the arena */
    struct yaml_mark mark;
    bool used; /* named by a pipeline or service.extensions */
};

struct config_pipeline {
    enum signal signal;
    const char *id;                                      /* "traces/errors" */
    struct option_list receivers, processors, exporters; /* const char * ids */
    struct yaml_mark mark;
};

struct config_telemetry {
    int logs_level; /* enum log_level */
    bool logs_json;
    int metrics_level;        /* enum metric_level */
    const char *metrics_host; /* Prometheus reader */
    uint64_t metrics_port;
    bool metrics_on;
    bool without_type_suffix, without_units,
        without_scope_info;      /* as the Collector: default true */
    struct option_list resource; /* struct option_pair */
};

struct config {
    struct arena arena;
    struct option_list components; /* struct config_component */
    struct option_list pipelines;  /* struct config_pipeline */
    struct option_list extensions; /* const char * ids, in order */
    struct config_telemetry telemetry;
    uint64_t shutdown_timeout_ns; /* 15 s; service.shutdown_timeout is ours */
};

/* Registered components of this program, NULL-ended (from components.def). */
typedef const struct component *const component_list[];

struct config_source {
    const char *text; /* of --config or --set, a URI or a path; or "yaml:..." for embedded ones */
    bool is_set;
};

/*
 * Loads, merges, expands, checks names and references, parses every component's options. All
 * problems found are reported, one a line, each "file:line:column: path: what (did you mean x?)".
 * Warnings are lines there, too, marked "warning: " after the place: they alone do not make it
 * fail. -EINVAL for problems, -ENOMEM.
 */
int config_load(struct config **out, const struct config_source *src, size_t n,
                const struct component *const *components, struct buf *problems) MUSTCHECK;
void config_free(struct config **c);

/* "receivers", "exporters": the key of the section that such components stand in. */
const char *kind_section(enum component_kind k);

/* Whether connector c joins a pipeline of `from` to one of `to`. makes == 0: the signal it takes.
 */
bool config_connects(const struct component *c, enum signal from, enum signal to);

/* Fills `out` (config_size bytes, zeroed) from the node by the table; used by config_load and
 * tests. */
int options_parse(void *out, const struct option *table, const struct yaml_node *node,
                  struct arena *a, struct buf *problems);
/* --help text and the reference page (Markdown) of one component. */
void options_reference(const struct component *c, struct buf *out);

#endif
