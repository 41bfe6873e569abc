/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Substitution: ${scheme:opaque}, ${NAME} and $$ in values, as the Collector does it.
 *
 * A value is searched for its first '}' and the last "${" before it: so references nest, and inner
 * ones go first. An odd number of further '$' in front of "${" escapes it, and ends the search:
 * what follows an escaped reference stays as it is, which is the Collector's way, too. What comes
 * in is searched again. Two forms:
 *
 *   the whole value is one reference    read as YAML: number, list, mapping; for options that want
 * a string the text stays as it was ("0123", "1e3") the reference is part of a text     put in as
 * text
 *
 * When nothing is left to replace, "$$" becomes "$", also in what came in. Keys are left alone.
 * References may come round in a circle: replacements in one value are counted through all that
 * they brought in, and its length is bounded.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/pipeline/config_tree.h"
#include "common/pipeline/option_value.h"

enum { EXPAND_MAX = 1000 };

struct expander {
    struct yaml_ctx *c;
    unsigned count; /* replacements within the present top value */
    unsigned depth; /* trees that came in, one inside the other */
};

/* Innermost unescaped reference, "${" to "}" inclusive; {NULL, 0} if there is none. */
static struct str find_reference(const char *text)
{
    for (const char *from = text;;) {
        const char *close = strchr(from, '}');
        if (!close)
            return (struct str){0};
        const char *open = close;
        while (open > from && !(open[0] == '$' && open[1] == '{'))
            open--;
        if (open[0] == '$' && open[1] == '{' && open < close) {
            const char *first = open;
            while (first > from && first[-1] == '$')
                first--;
            if ((open - first) % 2)
                return (struct str){0};
            return str_make(open, (size_t)(close - open) + 1);
        }
        from = close + 1;
    }
}

/* "${x}" without its brackets into scheme and opaque, heap text both in one. */
static int split_reference(struct expander *x, struct str ref, const struct yaml_mark *at,
                           char **scheme, char **opaque)
{
    char *inner = xstrndup(ref.p + 2, ref.n - 3);
    char *colon = strchr(inner, ':');
    if (!colon) {
        *scheme = xstrdup("env");
        *opaque = inner;
        return 0;
    }
    if (colon[1] == '-') {
        *colon = 0;
        report_error(x->c->report, at, NULL, "a default wants the scheme: ${env:%s:-%s}", inner,
                     colon + 2);
        free(inner);
        return -EINVAL;
    }
    if (strchr(colon, '$')) {
        report_error(x->c->report, at, NULL, "'$' inside of ${%s}", inner);
        free(inner);
        return -EINVAL;
    }
    *scheme = xstrndup(inner, (size_t)(colon - inner));
    *opaque = xstrdup(colon + 1);
    free(inner);
    return 0;
}

static int read_reference(struct expander *x, struct str ref, const struct yaml_mark *at,
                          struct str *text)
{
    char *scheme, *opaque;
    int rc = split_reference(x, ref, at, &scheme, &opaque);
    if (rc < 0)
        return rc;
    *text = STR("");
    rc = source_read(x->c, scheme, opaque, at, text);
    if (rc == 0) { /* opaque goes away: keep what points into it */
        *text = arena_dup(x->c->arena, text->n ? *text : STR(""));
        if (!text->p)
            rc = report_nomem(x->c->report);
    }
    if (rc == 0 && text->p && memchr(text->p, 0, text->n)) {
        report_error(x->c->report, at, NULL, STR_FMT " holds a NUL character", STR_ARG(ref));
        rc = -EINVAL;
    }
    free(scheme);
    free(opaque);
    return rc;
}

/*
 * What came in for a whole value: a tree if it reads as one, else a string of exactly these bytes.
 * What is no YAML is a string, too, without a word.
 */
static struct yaml_node *typed_value(struct expander *x, struct str text, struct str ref,
                                     const struct yaml_mark *at)
{
    struct buf silent;
    struct report quiet = {.out = &silent};
    struct yaml_ctx c = {.arena = x->c->arena, .report = &quiet, .nodes = x->c->nodes};
    struct yaml_node *n = NULL, *plain = yaml_scalar_new(x->c, text, true, at);
    struct str name = arena_dup(x->c->arena, ref);
    if (!plain || !name.p)
        return NULL;
    char *file = arena_alloc(x->c->arena, name.n + 1);
    if (!file)
        return NULL;
    memcpy(file, name.p, name.n);
    file[name.n] = 0;

    buf_init(&silent);
    int rc = yaml_parse(&c, text, file, &n);
    buf_fini(&silent);
    x->c->nodes = c.nodes;
    if (quiet.nomem || c.nodes > YAML_MAX_NODES) {
        report_error(x->c->report, at, NULL, STR_FMT " is too large", STR_ARG(ref));
        return NULL;
    }
    bool string =
        rc < 0 || (n->kind == YAML_SCALAR && (n->quoted || value_kind(n->text) == VALUE_STRING));
    if (string)
        return plain;
    n->orig = plain->text;
    if (n->kind == YAML_SCALAR || n->kind == YAML_NULL)
        n->mark = *at;
    return n;
}

/* text with each `ref` replaced by `with`, in the arena. */
static int replace_all(struct expander *x, struct yaml_node *n, struct str ref, struct str with)
{
    struct buf b;
    buf_init(&b);
    b.max = EXPAND_MAX_BYTES;
    char *needle = xstrndup(ref.p, ref.n);
    const char *p = n->text;
    for (const char *hit; (hit = strstr(p, needle)); p = hit + ref.n) {
        buf_add(&b, p, (size_t)(hit - p));
        buf_add_str(&b, with);
    }
    buf_add_cstr(&b, p);
    free(needle);
    int rc = buf_error(&b);
    if (rc == 0) {
        struct str s = arena_dup(x->c->arena, str_make(buf_cstr(&b), b.n + 1));
        rc = s.p ? 0 : report_nomem(x->c->report);
        n->text = s.p ? s.p : "";
        n->quoted = true;
    } else {
        report_error(x->c->report, &n->mark, NULL, "longer than %d bytes after substitution",
                     EXPAND_MAX_BYTES);
    }
    buf_fini(&b);
    return rc;
}

static int expand_node(struct expander *x, struct yaml_node *n);

/* A list or mapping, and its text, which an option that wants a string would take. */
static int expand_tree_that_came_in(struct expander *x, struct yaml_node *n)
{
    struct yaml_node text = {.kind = YAML_SCALAR, .mark = n->mark, .quoted = true, .text = n->orig};
    int rc = expand_node(x, n);
    /* The text begins or ends with a bracket or key: no reference is all of it. */
    if (rc == 0 && n->orig && strchr(n->orig, '$'))
        rc = expand_node(x, &text);
    n->orig = text.text;
    return rc;
}

static int expand_scalar(struct expander *x, struct yaml_node *n)
{
    for (;;) {
        struct str ref = find_reference(n->text), text;
        if (!ref.p)
            return 0;
        if (++x->count > EXPAND_MAX) {
            report_error(x->c->report, &n->mark, NULL,
                         "more than %d substitutions: do they refer to each other?", EXPAND_MAX);
            return -EINVAL;
        }
        int rc = read_reference(x, ref, &n->mark, &text);
        if (rc < 0)
            return rc;
        if (ref.n < strlen(n->text)) {
            rc = replace_all(x, n, ref, text);
            if (rc < 0)
                return rc;
            continue;
        }
        struct yaml_node *v = typed_value(x, text, ref, &n->mark);
        if (!v)
            return -EINVAL;
        *n = *v;
        if (n->kind != YAML_SCALAR)
            return expand_tree_that_came_in(x, n);
    }
}

static int expand_children(struct expander *x, struct yaml_node *n)
{
    int rc = 0;
    if (++x->depth > YAML_MAX_DEPTH) {
        report_error(x->c->report, &n->mark, NULL, "nested too deeply after substitution");
        return -EINVAL;
    }
    for (size_t i = 0; i < n->n; i++) {
        int r = expand_node(x, n->kind == YAML_LIST ? n->items[i] : n->pairs[i].value);
        if (r < 0)
            rc = r;
        if (x->count > EXPAND_MAX || r == -ENOMEM)
            break;
    }
    x->depth--;
    return rc;
}

static int expand_node(struct expander *x, struct yaml_node *n)
{
    if (n->kind == YAML_NULL)
        return 0;
    return n->kind == YAML_SCALAR ? expand_scalar(x, n) : expand_children(x, n);
}

/* Text with each "$$" made "$"; the same pointer when there is none. */
static const char *unescape(struct yaml_ctx *c, const char *text)
{
    if (!text || !strstr(text, "$$"))
        return text;
    char *out = arena_alloc(c->arena, strlen(text) + 1), *q = out;
    if (!out) {
        report_nomem(c->report);
        return text;
    }
    for (const char *p = text; *p; p++) {
        *q++ = *p;
        if (p[0] == '$' && p[1] == '$')
            p++;
    }
    *q = 0;
    return out;
}

static void unescape_tree(struct yaml_ctx *c, struct yaml_node *n)
{
    n->orig = unescape(c, n->orig);
    if (n->kind == YAML_SCALAR)
        n->text = unescape(c, n->text);
    for (size_t i = 0; i < n->n; i++)
        unescape_tree(c, n->kind == YAML_LIST ? n->items[i] : n->pairs[i].value);
}

/* Each scalar of the sources has its own count; what comes in through it shares that. */
static int expand_tree(struct yaml_ctx *c, struct yaml_node *n)
{
    if (n->kind == YAML_SCALAR) {
        struct expander x = {.c = c};
        return expand_node(&x, n);
    }
    int rc = 0;
    for (size_t i = 0; i < n->n; i++) {
        int r = expand_tree(c, n->kind == YAML_LIST ? n->items[i] : n->pairs[i].value);
        if (r < 0)
            rc = r;
        if (r == -ENOMEM)
            break;
    }
    return rc;
}

int yaml_expand(struct yaml_ctx *c, struct yaml_node *root)
{
    int rc = expand_tree(c, root);
    if (rc == 0)
        unescape_tree(c, root);
    return c->report->nomem ? -ENOMEM : rc;
}
