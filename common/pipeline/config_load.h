/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of config_load share; private to config.c, config_service.c, config_telemetry.c.
 */
#ifndef PIPELINE_CONFIG_LOAD_H
#define PIPELINE_CONFIG_LOAD_H

#include "common/pipeline/option_parse.h"

struct loader {
    struct config *config;
    struct yaml_ctx yaml;
    struct report report;
    struct option_ctx opt;
    const struct component *const *registry;
    struct yaml_node *root;
};

/* Name of a kind for messages: "exporter". */
const char *kind_word(enum component_kind k);

/* The registered component of a type, by name or by an old name; NULL. */
const struct component *registry_find(const struct component *const *registry,
                                      enum component_kind kind, struct str type);
/* The configured component with that id, or NULL. */
struct config_component *loader_component(const struct loader *l, enum component_kind kind,
                                          const char *id);
/* service: extensions, pipelines, telemetry; references and connectors. */
void loader_service(struct loader *l);
/* service.telemetry. node may be NULL. */
void loader_telemetry(struct loader *l, const struct yaml_node *node);

#endif
