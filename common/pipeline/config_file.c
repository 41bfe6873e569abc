/* SPDX-License-Identifier: Apache-2.0 */
#include "common/pipeline/config_file.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/pipeline/config_tree.h"

enum { FILE_MAX_BYTES = 1 << 20 };

/* What libcyaml says of one failure: a line with what, then a backtrace, innermost first. */
struct complaint {
    char what[300];
    unsigned line, column; /* 0: not told yet */
};

PRINTF_LIKE(3, 0)
static void on_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
    static const char prefix[] = "Load: ";
    struct complaint *c = ctx;
    char text[300], *at;

    (void)level;
    vsnprintf(text, sizeof(text), fmt, args);
    text[strcspn(text, "\n")] = 0;
    if (!c->what[0] && strncmp(text, prefix, sizeof(prefix) - 1) == 0)
        snprintf(c->what, sizeof(c->what), "%s", text + sizeof(prefix) - 1);
    at = c->line ? NULL : strstr(text, "(line: ");
    if (at && sscanf(at, "(line: %u, column: %u)", &c->line, &c->column) != 2)
        c->line = 0;
}

static bool is_key_at(const char *p, const char *key, size_t n)
{
    if (strncmp(p, key, n) != 0)
        return false;
    p += n;
    p += *p == '"' || *p == '\'';
    p += strspn(p, " \t");
    return *p == ':';
}

/* libcyaml tells the place of the key before the unexpected one: the next such key is meant. */
static void find_key(struct complaint *c, const char *text)
{
    static const char unexpected[] = "Unexpected key: ";
    const char *key = c->what + sizeof(unexpected) - 1, *p = text;
    unsigned line = 1, column = 1;
    bool is_behind = c->line == 0;
    size_t n;

    if (strncmp(c->what, unexpected, sizeof(unexpected) - 1) != 0 || !(n = strlen(key)))
        return;
    for (; *p; p++) {
        is_behind = is_behind || (line == c->line && column == c->column);
        if (is_behind && is_key_at(p, key, n)) {
            c->line = line;
            c->column = column;
            return;
        }
        line += *p == '\n';
        column = *p == '\n' ? 1 : column + 1;
    }
}

static char *read_text(const char *path, struct err *e)
{
    FILE *f = fopen(path, "re");
    char *text;
    size_t n;
    int failed;

    if (!f) {
        err_set(e, -errno, "cannot read %s: %s", path, strerror(errno));
        return NULL;
    }
    text = xalloc(FILE_MAX_BYTES + 2);
    n = fread(text, 1, FILE_MAX_BYTES + 1, f);
    failed = ferror(f) ? errno : n > FILE_MAX_BYTES ? EFBIG : 0;
    fclose(f);
    if (failed) {
        free(text);
        err_set(e, -failed, "cannot read %s: %s", path, strerror(failed));
        return NULL;
    }
    text[n] = 0;
    return xrealloc(text, n + 1);
}

static const cyaml_config_t *cyaml_config(struct complaint *c)
{
    static _Thread_local cyaml_config_t config;
    config = (cyaml_config_t){.log_fn = c ? on_log : NULL,
                              .log_ctx = c,
                              .mem_fn = cyaml_mem,
                              .log_level = CYAML_LOG_ERROR};
    return &config;
}

int config_file_load(const char *path, const struct cyaml_schema_value *schema, void **out,
                     char **text, struct err *e)
{
    struct complaint c = {.what = ""};
    cyaml_data_t *data = NULL;
    cyaml_err_t failed;

    *out = NULL;
    *text = read_text(path, e);
    if (!*text)
        return -EINVAL;
    failed = cyaml_load_data((const uint8_t *)*text, strlen(*text), cyaml_config(&c), schema, &data,
                             NULL);
    if (!failed && data) {
        *out = data;
        return 0;
    }
    find_key(&c, *text);
    if (failed)
        err_set(e, -EINVAL, "%s:%u:%u: %s", path, MAX(c.line, 1u), MAX(c.column, 1u),
                c.what[0] ? c.what : cyaml_strerror(failed));
    else
        err_set(e, -EINVAL, "%s:1:1: the file is empty", path);
    free(*text);
    *text = NULL;
    return -EINVAL;
}

void config_file_free(const struct cyaml_schema_value *schema, void **data)
{
    cyaml_free(cyaml_config(NULL), schema, *data, 0);
    *data = NULL;
}

void config_file_place(const char *path, const char *text, const char *key, size_t i, struct err *e)
{
    struct arena arena;
    struct buf problems;
    struct report report = {.out = &problems};
    struct yaml_ctx ctx = {.arena = &arena, .report = &report};
    struct yaml_node *root = NULL;
    const struct yaml_node *list = NULL;
    struct yaml_mark mark = {path, 1, 1};

    arena_init(&arena);
    buf_init(&problems);
    if (yaml_parse(&ctx, str_of(text), path, &root) == 0 && root)
        list = yaml_get(root, key);
    if (list && list->kind == YAML_LIST && i < list->n)
        mark = list->items[i]->mark;
    err_prefix(e, "%s:%u:%u: ", path, mark.line, mark.column);
    buf_fini(&problems);
    arena_fini(&arena);
}
