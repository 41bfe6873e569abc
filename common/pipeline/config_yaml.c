/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML text to a tree with marks, over libyaml's events.
 *
 * Read as the Collector's parser reads it: one document, anchors and aliases (each alias becomes a
 * copy, so that later steps may edit in place), `<<` merge keys, scalars that stay text until an
 * option asks for a type. Refused with their place: a second document, a key twice, keys that are
 * not scalars, tags of our own invention, an alias inside its own anchor, too deep, too much.
 */
#include <errno.h>
#include <stdlib.h>
#include <yaml.h>

#include "common/pipeline/config_tree.h"

#define TAG_PREFIX "tag:yaml.org,2002:"

struct anchor {
    const char *name;
    struct yaml_node *node;
    bool open; /* its node has not ended: an alias here would contain itself */
};

/* A list or mapping that has begun. Children are collected on the heap and copied at its end. */
struct frame {
    struct yaml_node *node;
    struct yaml_node **kids; /* mapping: key, value, key, value ... */
    size_t n, cap;
    size_t anchor; /* 1 + index into anchors, 0 = none */
};

struct reader {
    yaml_parser_t parser;
    struct yaml_ctx *c;
    const char *file;
    struct str text;
    struct yaml_node *root;
    struct frame stack[YAML_MAX_DEPTH];
    unsigned depth;
    struct anchor *anchors;
    size_t n_anchors, cap_anchors;
    unsigned documents;
};

static struct yaml_mark mark_of(const struct reader *r, const yaml_mark_t *m)
{
    return (struct yaml_mark){r->file, (uint32_t)m->line + 1, (uint32_t)m->column + 1};
}

static int refuse(struct reader *r, const yaml_mark_t *at, const char *what)
{
    struct yaml_mark m = mark_of(r, at);
    report_error(r->c->report, &m, NULL, "%s", what);
    return -EINVAL;
}

/* Bytes that are no characters: libyaml tells where they are in the text, not in which line. */
static struct yaml_mark mark_of_byte(const struct reader *r, size_t offset)
{
    struct yaml_mark m = {r->file, 1, 1};
    for (size_t i = 0; i < MIN(offset, r->text.n); i++) {
        unsigned char c = (unsigned char)r->text.p[i];
        if (c == '\n') {
            m.line++;
            m.column = 1;
        } else if ((c & 0xc0) != 0x80) { /* columns are characters */
            m.column++;
        }
    }
    return m;
}

/* What libyaml says, with the place it means. */
static int syntax_error(struct reader *r)
{
    yaml_parser_t *p = &r->parser;
    struct yaml_mark m = mark_of(r, &p->problem_mark);

    if (p->error == YAML_MEMORY_ERROR)
        return report_nomem(r->c->report);
    if (p->error == YAML_READER_ERROR)
        m = mark_of_byte(r, p->problem_offset);
    if (p->context)
        report_error(r->c->report, &m, NULL, "not YAML: %s %s (line %zu)", p->problem, p->context,
                     p->context_mark.line + 1);
    else
        report_error(r->c->report, &m, NULL, "not YAML: %s",
                     p->problem ? p->problem : "unknown error");
    return -EINVAL;
}

static int grow(void **p, size_t *cap, size_t elem)
{
    size_t n = *cap ? *cap * 2 : 8;
    void *q = try_realloc(*p, n * elem);
    if (!q)
        return -ENOMEM;
    *p = q;
    *cap = n;
    return 0;
}

/* Hangs a finished or begun node under the innermost open one. */
static int attach(struct reader *r, struct yaml_node *n)
{
    if (r->depth == 0) {
        r->root = n;
        return 0;
    }
    struct frame *f = &r->stack[r->depth - 1];
    if (f->n == f->cap && grow((void **)&f->kids, &f->cap, sizeof(struct yaml_node *)) < 0)
        return report_nomem(r->c->report);
    f->kids[f->n++] = n;
    return 0;
}

/* Keys are scalars; whatever else stands in a key's place is refused at once. */
static bool in_key_place(const struct reader *r)
{
    if (r->depth == 0)
        return false;
    const struct frame *f = &r->stack[r->depth - 1];
    return f->node->kind == YAML_MAPPING && f->n % 2 == 0;
}

/* ---- anchors ---- */

static int anchor_add(struct reader *r, const yaml_char_t *name, struct yaml_node *node, bool open)
{
    if (r->n_anchors == r->cap_anchors &&
        grow((void **)&r->anchors, &r->cap_anchors, sizeof(struct anchor)) < 0)
        return report_nomem(r->c->report);
    struct str s = arena_dup(r->c->arena, str_of((const char *)name));
    if (!s.p)
        return report_nomem(r->c->report);
    r->anchors[r->n_anchors++] = (struct anchor){s.p, node, open};
    return 0;
}

static int on_alias(struct reader *r, const yaml_event_t *ev)
{
    const char *name = (const char *)ev->data.alias.anchor;
    for (size_t i = r->n_anchors; i-- > 0;) {
        if (strcmp(r->anchors[i].name, name) != 0)
            continue;
        if (r->anchors[i].open)
            return refuse(r, &ev->start_mark, "alias inside its own anchor");
        if (in_key_place(r) && r->anchors[i].node->kind != YAML_SCALAR)
            return refuse(r, &ev->start_mark, "a key must be a scalar");
        struct yaml_node *copy = yaml_dup(r->c, r->anchors[i].node);
        return copy ? attach(r, copy) : -EINVAL;
    }
    return refuse(r, &ev->start_mark, "alias of an anchor that does not exist");
}

/* ---- scalars ---- */

static bool is_null_word(struct str s)
{
    return s.n == 0 || str_is(s, "~") || str_is(s, "null") || str_is(s, "Null") ||
           str_is(s, "NULL");
}

/* Whether the tag makes the scalar a string. -EINVAL for tags that mean nothing here. */
static int scalar_quoted(const yaml_event_t *ev)
{
    const char *tag = (const char *)ev->data.scalar.tag;
    if (!tag)
        return ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    if (strcmp(tag, "!") == 0 || strcmp(tag, TAG_PREFIX "str") == 0)
        return 1;
    static const char *const typed[] = {"int", "float", "bool", "null"};
    for (size_t i = 0; i < ARRAY_LEN(typed); i++)
        if (strncmp(tag, TAG_PREFIX, strlen(TAG_PREFIX)) == 0 &&
            strcmp(tag + strlen(TAG_PREFIX), typed[i]) == 0)
            return 0;
    return -EINVAL;
}

static int on_scalar(struct reader *r, const yaml_event_t *ev)
{
    struct str text = str_make(ev->data.scalar.value, ev->data.scalar.length);
    int quoted = scalar_quoted(ev);
    bool key = in_key_place(r);

    if (quoted < 0)
        return refuse(r, &ev->start_mark, "this tag is not supported");
    if (text.n && memchr(text.p, 0, text.n))
        return refuse(r, &ev->start_mark, "a text may not hold a NUL character");
    if (key && !quoted && is_null_word(text))
        return refuse(r, &ev->start_mark, "a key may not be empty");

    struct yaml_mark m = mark_of(r, &ev->start_mark);
    struct yaml_node *n;
    if (!quoted && !key && is_null_word(text))
        n = yaml_node_new(r->c, YAML_NULL, &m);
    else
        n = yaml_scalar_new(r->c, text, quoted, &m);
    if (!n)
        return -EINVAL;
    if (ev->data.scalar.anchor) {
        int rc = anchor_add(r, ev->data.scalar.anchor, n, false);
        if (rc < 0)
            return rc;
    }
    return attach(r, n);
}

/* ---- lists and mappings ---- */

static int on_begin(struct reader *r, const yaml_event_t *ev, enum yaml_kind kind)
{
    const yaml_char_t *anchor =
        kind == YAML_LIST ? ev->data.sequence_start.anchor : ev->data.mapping_start.anchor;
    const yaml_char_t *tag =
        kind == YAML_LIST ? ev->data.sequence_start.tag : ev->data.mapping_start.tag;
    const char *own = kind == YAML_LIST ? TAG_PREFIX "seq" : TAG_PREFIX "map";

    if (tag && strcmp((const char *)tag, own) != 0 && strcmp((const char *)tag, "!") != 0)
        return refuse(r, &ev->start_mark, "this tag is not supported");
    if (in_key_place(r))
        return refuse(r, &ev->start_mark, "a key must be a scalar");
    if (r->depth == YAML_MAX_DEPTH)
        return refuse(r, &ev->start_mark, "nested too deeply");

    struct yaml_mark m = mark_of(r, &ev->start_mark);
    struct yaml_node *n = yaml_node_new(r->c, kind, &m);
    if (!n)
        return -EINVAL;
    int rc = attach(r, n);
    if (rc < 0)
        return rc;
    struct frame *f = &r->stack[r->depth++];
    *f = (struct frame){.node = n};
    if (anchor) {
        rc = anchor_add(r, anchor, n, true);
        f->anchor = r->n_anchors;
    }
    return rc;
}

static bool is_merge_key(const struct yaml_node *k)
{
    return !k->quoted && strcmp(k->text, "<<") == 0;
}

static int pair_cmp(const void *a, const void *b)
{
    const struct yaml_pair *x = a, *y = b;
    int d = strcmp(x->key->text, y->key->text);
    if (d)
        return d;
    const struct yaml_mark *m = &x->key->mark, *n = &y->key->mark;
    if (m->line != n->line)
        return m->line < n->line ? -1 : 1;
    return m->column < n->column ? -1 : m->column > n->column;
}

/* Reports each key that stands twice, at its second place. */
static int check_duplicates(struct reader *r, const struct yaml_node *map)
{
    if (map->n < 2)
        return 0;
    struct yaml_pair *sorted = try_alloc(map->n * sizeof(*sorted));
    if (!sorted)
        return report_nomem(r->c->report);
    memcpy(sorted, map->pairs, map->n * sizeof(*sorted));
    qsort(sorted, map->n, sizeof(*sorted), pair_cmp);
    int rc = 0;
    for (size_t i = 1; i < map->n; i++) {
        if (strcmp(sorted[i].key->text, sorted[i - 1].key->text) != 0)
            continue;
        report_error(r->c->report, &sorted[i].key->mark, NULL,
                     "key '%s' stands twice in this mapping (first at line %u)",
                     sorted[i].key->text, sorted[i - 1].key->mark.line);
        rc = -EINVAL;
    }
    free(sorted);
    return rc;
}

/* Adds the pairs of `from` whose keys the mapping does not have. */
static int merge_missing(struct reader *r, struct yaml_node *map, const struct yaml_node *from)
{
    if (from->kind != YAML_MAPPING) {
        report_error(r->c->report, &from->mark, NULL, "'<<' wants a mapping or a list of mappings");
        return -EINVAL;
    }
    for (size_t i = 0; i < from->n; i++) {
        if (yaml_get(map, from->pairs[i].key->text))
            continue;
        int rc = yaml_set(r->c, map, from->pairs[i].key, from->pairs[i].value);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Takes `<<` out of the mapping and fills in what it refers to: own keys win, then earlier ones. */
static int apply_merge_key(struct reader *r, struct yaml_node *map)
{
    for (size_t i = 0; i < map->n; i++) {
        if (!is_merge_key(map->pairs[i].key))
            continue;
        const struct yaml_node *from = map->pairs[i].value;
        memmove(&map->pairs[i], &map->pairs[i + 1], (map->n - i - 1) * sizeof(map->pairs[0]));
        map->n--;
        if (from->kind != YAML_LIST)
            return merge_missing(r, map, from);
        for (size_t k = 0; k < from->n; k++) {
            int rc = merge_missing(r, map, from->items[k]);
            if (rc < 0)
                return rc;
        }
        return 0;
    }
    return 0;
}

static int finish_mapping(struct reader *r, struct frame *f)
{
    struct yaml_node *n = f->node;
    size_t count = f->n / 2;
    if (count) {
        n->pairs = arena_alloc(r->c->arena, yaml_pairs_room(count) * sizeof(*n->pairs));
        if (!n->pairs)
            return report_nomem(r->c->report);
    }
    n->n = count;
    for (size_t i = 0; i < count; i++)
        n->pairs[i] = (struct yaml_pair){f->kids[2 * i], f->kids[2 * i + 1]};
    int rc = check_duplicates(r, n);
    return rc < 0 ? rc : apply_merge_key(r, n);
}

static int finish_list(struct reader *r, struct frame *f)
{
    if (f->n == 0)
        return 0;
    f->node->items = arena_alloc(r->c->arena, f->n * sizeof(*f->node->items));
    if (!f->node->items)
        return report_nomem(r->c->report);
    memcpy(f->node->items, f->kids, f->n * sizeof(*f->kids));
    f->node->n = f->n;
    return 0;
}

static int on_end(struct reader *r)
{
    ASSERT(r->depth > 0);
    struct frame *f = &r->stack[--r->depth];
    int rc = f->node->kind == YAML_MAPPING ? finish_mapping(r, f) : finish_list(r, f);
    if (f->anchor)
        r->anchors[f->anchor - 1].open = false;
    free(f->kids);
    return rc;
}

/* ---- events ---- */

static int on_event(struct reader *r, const yaml_event_t *ev)
{
    switch (ev->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (r->documents++)
            return refuse(r, &ev->start_mark, "a second document in one file");
        return 0;
    case YAML_ALIAS_EVENT:
        return on_alias(r, ev);
    case YAML_SCALAR_EVENT:
        return on_scalar(r, ev);
    case YAML_SEQUENCE_START_EVENT:
        return on_begin(r, ev, YAML_LIST);
    case YAML_MAPPING_START_EVENT:
        return on_begin(r, ev, YAML_MAPPING);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_end(r);
    default:
        return 0;
    }
}

static int read_events(struct reader *r)
{
    for (;;) {
        yaml_event_t ev;
        if (!yaml_parser_parse(&r->parser, &ev))
            return syntax_error(r);
        bool end = ev.type == YAML_STREAM_END_EVENT;
        int rc = on_event(r, &ev);
        yaml_event_delete(&ev);
        if (rc < 0 || end)
            return rc;
    }
}

int yaml_parse(struct yaml_ctx *c, struct str text, const char *file, struct yaml_node **out)
{
    struct yaml_mark top = {file, 1, 1};

    if (text.n > YAML_MAX_BYTES) {
        report_error(c->report, &top, NULL, "larger than %d bytes", YAML_MAX_BYTES);
        return -EINVAL;
    }
    struct reader *r = try_alloc(sizeof(*r));
    if (!r)
        return report_nomem(c->report);
    memset(r, 0, sizeof(*r));
    r->c = c;
    r->file = file;
    r->text = text;
    int rc;
    if (!yaml_parser_initialize(&r->parser)) {
        rc = report_nomem(c->report);
    } else {
        yaml_parser_set_input_string(&r->parser, (const unsigned char *)text.p, text.n);
        rc = read_events(r);
        yaml_parser_delete(&r->parser);
    }
    while (r->depth)
        free(r->stack[--r->depth].kids);
    free(r->anchors);
    if (rc == 0 && !r->root) {
        r->root = yaml_node_new(c, YAML_NULL, &top);
        rc = r->root ? 0 : -EINVAL;
    }
    *out = rc < 0 ? NULL : r->root;
    free(r);
    return rc;
}
