/* SPDX-License-Identifier: Apache-2.0 */
/* What else comes out of option tables: YAML of a filled struct, and the schema. */
#ifndef PIPELINE_OPTION_PRINT_H
#define PIPELINE_OPTION_PRINT_H

#include "common/pipeline/config_tree.h"

/* The struct as YAML mapping, defaults included. */
void options_print(const struct option *table, const void *base, unsigned indent, bool redact,
                   struct buf *out);
/* The configuration as it is in force. */
void config_print(const struct config *c, bool redact, struct buf *out);
/* Lists the Collector's way: `components`. */
void components_print(const char *program, const char *description, const char *version,
                      const struct component *const *components, struct buf *out);
/* JSON schema (draft 7) of this program's configuration, for the chart's values. */
void components_schema(const struct component *const *components, struct buf *out);
/* "stable" ... */
const char *stability_word(enum stability s);

#endif
