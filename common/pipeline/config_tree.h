/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree between YAML text and option tables, and what reads, merges and expands it. Private to
 * common/pipeline/config*.c, option*.c and their tests; components see `struct yaml_node` only.
 *
 * All nodes and texts live in the arena of the configuration. A function that fails has reported
 * why through the report, with its place.
 */
#ifndef PIPELINE_CONFIG_TREE_H
#define PIPELINE_CONFIG_TREE_H

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/pipeline/config.h"

enum {
    YAML_MAX_BYTES = 4 << 20,     /* one source */
    YAML_MAX_NODES = 200000,      /* all sources of a configuration, aliases copied out */
    YAML_MAX_DEPTH = 100,         /* of lists and mappings */
    EXPAND_MAX_BYTES = 256 << 10, /* one value after substitution */
};

/* Collects problems as lines; the callers test `errors` at the end. */
struct report_line;
struct report {
    struct buf *out;
    unsigned errors, warnings;
    bool nomem;
    bool is_sorted; /* report_sort will be called */
    struct report_line *lines;
    size_t n_lines;
};

struct yaml_ctx {
    struct arena *arena;
    struct report *report;
    size_t nodes; /* made so far, against YAML_MAX_NODES */
};

/* One line "file:line:column: path: text". mark, path may be NULL. */
void report_error(struct report *r, const struct yaml_mark *mark, const char *path, const char *fmt,
                  ...) PRINTF_LIKE(4, 5);
void report_warning(struct report *r, const struct yaml_mark *mark, const char *path,
                    const char *fmt, ...) PRINTF_LIKE(4, 5);
/* Puts the lines in the order of files (as they first appear), lines and columns. */
void report_sort(struct report *r);
/* Memory was refused: one line, once. Returns -ENOMEM. */
int report_nomem(struct report *r);

/* Reads one document (an empty text is a null node). -EINVAL or -ENOMEM, reported. */
int yaml_parse(struct yaml_ctx *c, struct str text, const char *file, struct yaml_node **out);

/* A zeroed node; NULL (reported) when the count or memory is used up. */
struct yaml_node *yaml_node_new(struct yaml_ctx *c, enum yaml_kind kind,
                                const struct yaml_mark *mark);
struct yaml_node *yaml_scalar_new(struct yaml_ctx *c, struct str text, bool quoted,
                                  const struct yaml_mark *mark);
/* Room that the pairs of a mapping of n have: so that yaml_set moves them seldom. */
static inline size_t yaml_pairs_room(size_t n)
{
    size_t room = 4;
    while (room < n)
        room *= 2;
    return room;
}
/* A copy that shares texts only. */
struct yaml_node *yaml_dup(struct yaml_ctx *c, const struct yaml_node *n);
/* Adds or replaces a pair of a mapping. */
int yaml_set(struct yaml_ctx *c, struct yaml_node *map, struct yaml_node *key,
             struct yaml_node *value);
/* Lays src over dst: mappings deeply, everything else (lists, null) replaces. src is consumed. */
int yaml_merge(struct yaml_ctx *c, struct yaml_node *dst, struct yaml_node *src);
/* "a::b: v" at the top level becomes "a: {b: v}", as the Collector reads it. */
int yaml_unflatten(struct yaml_ctx *c, struct yaml_node **root);
/* Replaces ${...} and $$ everywhere in the tree. */
int yaml_expand(struct yaml_ctx *c, struct yaml_node *root);
/* YAML text of a tree (block style), for print-config. */
void yaml_print(const struct yaml_node *n, unsigned indent, struct buf *out);
/* A value after its "key:" or "-", on the same line when it fits there; NULL is null. */
void yaml_print_value(const struct yaml_node *n, unsigned indent, struct buf *out);
/* A key as YAML text, quoted when it would read as something else. */
void yaml_print_key(const char *text, struct buf *out);
/* The same for a value: what would be substituted when it is read again is escaped. */
void yaml_print_text(const char *text, struct buf *out);

/* The text of a source or of ${scheme:...}: file, env, yaml. *file is the name for marks. */
int source_read(struct yaml_ctx *c, const char *scheme, const char *opaque,
                const struct yaml_mark *at, struct str *text);
/* A whole --config or --set argument to its tree. */
int source_load(struct yaml_ctx *c, const struct config_source *s, struct yaml_node **out);

#endif
