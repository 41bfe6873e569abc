/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a table fills a struct; private to option*.c, config*.c and cli.c. The path of the key at
 * hand
 * ("processors::batch::timeout") grows and shrinks as the walk goes down and up.
 */
#ifndef PIPELINE_OPTION_PARSE_H
#define PIPELINE_OPTION_PARSE_H

#include "common/pipeline/config_tree.h"

struct option_ctx {
    struct yaml_ctx *yaml; /* arena and report */
    struct buf path;
    const struct yaml_mark *at; /* place of the enclosing mapping: for keys that are missing */
    bool defaults;              /* nothing was written here: required keys are not asked for */
};

/*
 * Fills the struct at base, zeroed before, from a mapping (NULL or null: all defaults). `enabled`
 * is taken to have been read already when has_enabled is set. Problems go to the report.
 */
void option_fill(struct option_ctx *x, void *base, const struct option *table,
                 const struct yaml_node *node, bool has_enabled);

/* Makes the path one step longer and returns what to hand to option_leave. */
size_t option_enter(struct option_ctx *x, const char *key);
size_t option_enter_index(struct option_ctx *x, size_t index);
void option_leave(struct option_ctx *x, size_t mark);

void option_error(struct option_ctx *x, const struct yaml_node *n, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
void option_warning(struct option_ctx *x, const struct yaml_node *n, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
/* Zeroed arena memory; NULL after reporting. */
void *option_alloc(struct option_ctx *x, size_t n);

/* Reads one value that is neither struct nor list of structs into its field. */
void option_read_value(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                       void *field);
/* A text where a list is wanted is a list with commas, as in the Collector. NULL when reported. */
const struct yaml_node *option_split(struct option_ctx *x, const struct yaml_node *n);
/* " (did you mean 'x'?)" or "". out holds n bytes. */
const char *option_hint(const char *word, const char *const *names, size_t n_names, char *out,
                        size_t n);
/* Words for users: "duration", "list of strings". */
const char *option_type_word(enum option_type t);

#endif
