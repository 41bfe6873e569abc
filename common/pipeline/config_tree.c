/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes of the configuration tree: making, finding, copying, laying one over another, printing. */
#include <errno.h>

#include "common/pipeline/config_tree.h"
#include "common/pipeline/option_value.h"

/* ---- nodes ---- */

struct yaml_node *yaml_node_new(struct yaml_ctx *c, enum yaml_kind kind,
                                const struct yaml_mark *mark)
{
    if (c->nodes >= YAML_MAX_NODES) {
        if (c->nodes++ == YAML_MAX_NODES)
            report_error(c->report, mark, NULL,
                         "more than %d values, aliases and references counted where they are used",
                         YAML_MAX_NODES);
        return NULL;
    }
    struct yaml_node *n = arena_zalloc(c->arena, sizeof(*n));
    if (!n) {
        report_nomem(c->report);
        return NULL;
    }
    c->nodes++;
    n->kind = kind;
    n->mark = *mark;
    n->text = "";
    return n;
}

struct yaml_node *yaml_scalar_new(struct yaml_ctx *c, struct str text, bool quoted,
                                  const struct yaml_mark *mark)
{
    struct yaml_node *n = yaml_node_new(c, YAML_SCALAR, mark);
    if (!n)
        return NULL;
    char *p = arena_alloc(c->arena, text.n + 1);
    if (!p) {
        report_nomem(c->report);
        return NULL;
    }
    if (text.n)
        memcpy(p, text.p, text.n);
    p[text.n] = 0;
    n->text = p;
    n->quoted = quoted;
    return n;
}

const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key)
{
    if (!map || map->kind != YAML_MAPPING)
        return NULL;
    for (size_t i = 0; i < map->n; i++)
        if (strcmp(map->pairs[i].key->text, key) == 0)
            return map->pairs[i].value;
    return NULL;
}

struct yaml_node *yaml_dup(struct yaml_ctx *c, const struct yaml_node *n)
{
    struct yaml_node *d = yaml_node_new(c, n->kind, &n->mark);
    if (!d)
        return NULL;
    d->quoted = n->quoted;
    d->text = n->text;
    d->orig = n->orig;
    size_t bytes =
        n->kind == YAML_LIST ? n->n * sizeof(*d->items) : yaml_pairs_room(n->n) * sizeof(*d->pairs);
    void *kids = n->n ? arena_alloc(c->arena, bytes) : NULL;
    if (n->n && !kids) {
        report_nomem(c->report);
        return NULL;
    }
    if (n->kind == YAML_LIST)
        d->items = kids;
    else
        d->pairs = kids;
    for (size_t i = 0; i < n->n; i++) {
        struct yaml_node *v = yaml_dup(c, n->kind == YAML_LIST ? n->items[i] : n->pairs[i].value);
        if (!v)
            return NULL;
        if (n->kind == YAML_LIST)
            d->items[i] = v;
        else
            d->pairs[i] = (struct yaml_pair){n->pairs[i].key, v};
    }
    d->n = n->n;
    return d;
}

int yaml_set(struct yaml_ctx *c, struct yaml_node *map, struct yaml_node *key,
             struct yaml_node *value)
{
    for (size_t i = 0; i < map->n; i++) {
        if (strcmp(map->pairs[i].key->text, key->text) == 0) {
            map->pairs[i] = (struct yaml_pair){key, value};
            return 0;
        }
    }
    if (map->n == 0 || map->n == yaml_pairs_room(map->n)) {
        struct yaml_pair *p = arena_alloc(c->arena, yaml_pairs_room(map->n + 1) * sizeof(*p));
        if (!p)
            return report_nomem(c->report);
        if (map->n)
            memcpy(p, map->pairs, map->n * sizeof(*p));
        map->pairs = p;
    }
    map->pairs[map->n++] = (struct yaml_pair){key, value};
    return 0;
}

int yaml_merge(struct yaml_ctx *c, struct yaml_node *dst, struct yaml_node *src)
{
    for (size_t i = 0; i < src->n; i++) {
        struct yaml_node *old = (struct yaml_node *)yaml_get(dst, src->pairs[i].key->text);
        struct yaml_node *new = src->pairs[i].value;
        int rc;
        if (old && old->kind == YAML_MAPPING && new->kind == YAML_MAPPING)
            rc = yaml_merge(c, old, new);
        else
            rc = yaml_set(c, dst, src->pairs[i].key, new);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* {first: {second: ... value}} of a key "first::second". NULL when reported. */
static struct yaml_node *nest(struct yaml_ctx *c, const struct yaml_pair *p)
{
    const char *key = p->key->text;
    struct yaml_node *root = yaml_node_new(c, YAML_MAPPING, &p->key->mark), *map = root;
    while (map) {
        const char *sep = strstr(key, "::");
        struct str part = sep ? str_make(key, (size_t)(sep - key)) : str_of(key);
        struct yaml_node *k = yaml_scalar_new(c, part, p->key->quoted, &p->key->mark);
        struct yaml_node *v = sep ? yaml_node_new(c, YAML_MAPPING, &p->key->mark) : p->value;
        if (!k || !v || yaml_set(c, map, k, v) < 0)
            return NULL;
        if (!sep)
            return root;
        key = sep + 2;
        map = v;
    }
    return NULL;
}

int yaml_unflatten(struct yaml_ctx *c, struct yaml_node **root)
{
    bool flat = false;
    for (size_t i = 0; i < (*root)->n; i++)
        flat = flat || strstr((*root)->pairs[i].key->text, "::");
    if (!flat)
        return 0;
    struct yaml_node *out = yaml_node_new(c, YAML_MAPPING, &(*root)->mark);
    if (!out)
        return -EINVAL;
    for (size_t i = 0; i < (*root)->n; i++) {
        struct yaml_node *one = nest(c, &(*root)->pairs[i]);
        if (!one)
            return -EINVAL;
        int rc = yaml_merge(c, out, one);
        if (rc < 0)
            return rc;
    }
    *root = out;
    return 0;
}

/* ---- printing ---- */

/* Bytes that force double quotes wherever they stand. */
static bool needs_escape(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return true;
    return false;
}

static bool is_plain_safe(const char *s)
{
    size_t n = strlen(s);
    if (n == 0 || strchr("-?:,[]{}#&*!|>'\"%@` ~", s[0]) || s[n - 1] == ' ' || s[n - 1] == ':')
        return false;
    if (strstr(s, ": ") || strstr(s, " #") || strcmp(s, "<<") == 0)
        return false;
    return value_kind(s) == VALUE_STRING;
}

void yaml_print_key(const char *s, struct buf *out)
{
    if (is_plain_safe(s) && !needs_escape(s)) {
        buf_add_cstr(out, s);
        return;
    }
    buf_add_byte(out, '"');
    for (; *s; s++) {
        unsigned char ch = (unsigned char)*s;
        if (ch == '"' || ch == '\\')
            buf_addf(out, "\\%c", ch);
        else if (ch == '\n')
            buf_add_cstr(out, "\\n");
        else if (ch == '\t')
            buf_add_cstr(out, "\\t");
        else if (ch < 0x20 || ch == 0x7f)
            buf_addf(out, "\\x%02x", ch);
        else
            buf_add_byte(out, ch);
    }
    buf_add_byte(out, '"');
}

void yaml_print_text(const char *s, struct buf *out)
{
    struct buf escaped;
    if (!strstr(s, "$$") && !strstr(s, "${")) {
        yaml_print_key(s, out);
        return;
    }
    buf_init(&escaped);
    for (; *s; s++) {
        if (*s == '$')
            buf_add_byte(&escaped, '$');
        buf_add_byte(&escaped, (uint8_t)*s);
    }
    yaml_print_key(buf_cstr(&escaped), out);
    buf_fini(&escaped);
}

static void print_indent(unsigned indent, struct buf *out)
{
    for (unsigned i = 0; i < indent; i++)
        buf_add_cstr(out, "  ");
}

static void print_scalar(const struct yaml_node *n, struct buf *out)
{
    if (!n || n->kind == YAML_NULL)
        buf_add_cstr(out, "null");
    else if (n->quoted || value_kind(n->text) == VALUE_STRING)
        yaml_print_text(n->text, out);
    else
        buf_add_cstr(out, n->text);
    buf_add_byte(out, '\n');
}

void yaml_print_value(const struct yaml_node *n, unsigned indent, struct buf *out)
{
    if (!n || n->kind == YAML_NULL || n->kind == YAML_SCALAR) {
        buf_add_byte(out, ' ');
        print_scalar(n, out);
    } else if (n->n == 0) {
        buf_add_cstr(out, n->kind == YAML_LIST ? " []\n" : " {}\n");
    } else {
        buf_add_byte(out, '\n');
        yaml_print(n, indent, out);
    }
}

void yaml_print(const struct yaml_node *n, unsigned indent, struct buf *out)
{
    if (n->kind == YAML_MAPPING) {
        for (size_t i = 0; i < n->n; i++) {
            print_indent(indent, out);
            yaml_print_key(n->pairs[i].key->text, out);
            buf_add_byte(out, ':');
            yaml_print_value(n->pairs[i].value, indent + 1, out);
        }
    } else if (n->kind == YAML_LIST) {
        for (size_t i = 0; i < n->n; i++) {
            print_indent(indent, out);
            buf_add_byte(out, '-');
            yaml_print_value(n->items[i], indent + 1, out);
        }
    } else {
        print_indent(indent, out);
        print_scalar(n, out);
    }
}
