/* SPDX-License-Identifier: Apache-2.0 */
/* One function a type: a node of the tree to the field of a struct, checked, or a problem reported.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "common/base/clock.h"
#include "common/pipeline/option_parse.h"
#include "common/pipeline/option_value.h"

typedef void read_fn(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                     void *field);

static const char *found_word(const struct yaml_node *n)
{
    switch (n->kind) {
    case YAML_LIST:
        return "a list";
    case YAML_MAPPING:
        return "a mapping";
    case YAML_NULL:
        return "nothing";
    default:
        return n->quoted ? "a text" : "another value";
    }
}

static void expected(struct option_ctx *x, const struct yaml_node *n, const char *what)
{
    if (n->kind == YAML_SCALAR && strlen(n->text) <= 80)
        option_error(x, n, "expected %s, found %s'%s'", what, n->quoted ? "the text " : "",
                     n->text);
    else
        option_error(x, n, "expected %s, found %s", what, found_word(n));
}

/* ---- numbers ---- */

static bool has_max(const struct option *o)
{
    return o->max > o->min || o->max < 0;
}

static void bound_text(const struct option *o, double v, char *out, size_t n)
{
    if (o->type == OPT_DURATION || o->type == OPT_DURATIONS)
        value_duration_text((uint64_t)v, out, n);
    else
        snprintf(out, n, "%.15g", v);
}

/* Both bounds 0: none. Only a lower one: max is 0 or below min. */
static bool in_range(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                     double v)
{
    if (o->min == 0 && o->max == 0)
        return true;
    if (v >= o->min && (!has_max(o) || v <= o->max))
        return true;
    char lo[48], hi[48];
    bound_text(o, o->min, lo, sizeof(lo));
    bound_text(o, o->max, hi, sizeof(hi));
    if (has_max(o))
        option_error(x, n, "%s is not in the range from %s to %s", n->text, lo, hi);
    else
        option_error(x, n, "%s is less than the least value %s", n->text, lo);
    return false;
}

static bool is_plain(const struct yaml_node *n)
{
    return n->kind == YAML_SCALAR && !n->quoted;
}

static void read_bool(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                      void *field)
{
    if (!is_plain(n) || value_bool(n->text, field) < 0)
        expected(x, n, "true or false");
}

static void read_int(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                     void *field)
{
    int64_t v;
    int rc = is_plain(n) ? value_int(n->text, &v) : -EINVAL;
    if (rc < 0)
        expected(x, n, rc == -ERANGE ? "an integer of 64 bits" : "an integer");
    else if (in_range(x, o, n, (double)v))
        *(int64_t *)field = v;
}

static void read_uint(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                      void *field)
{
    uint64_t v;
    int rc = is_plain(n) ? value_uint(n->text, &v) : -EINVAL;
    if (rc < 0)
        expected(x, n,
                 rc == -ERANGE ? "an integer that is not negative and fits 64 bits" : "an integer");
    else if (in_range(x, o, n, (double)v))
        *(uint64_t *)field = v;
}

static void read_double(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                        void *field)
{
    double v;
    if (!is_plain(n) || value_double(n->text, &v) < 0 || isnan(v))
        expected(x, n, "a number");
    else if (in_range(x, o, n, v))
        *(double *)field = v;
}

static void read_duration(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                          void *field)
{
    uint64_t v;
    int64_t bare;
    int rc = n->kind == YAML_SCALAR ? value_duration(n->text, &v) : -EINVAL;
    if (rc < 0) {
        expected(x, n,
                 rc == -ERANGE ? "a duration from 0 to 292 years"
                               : "a duration such as 200ms, 5s or 1m30s");
        return;
    }
    if (!in_range(x, o, n, (double)v))
        return;
    if (n->mark.line && v > 0 && v < NS_PER_MS && value_int(n->text, &bare) == 0)
        option_warning(x, n, "%s without a unit is %s nanoseconds; %ss are seconds", n->text,
                       n->text, n->text);
    *(uint64_t *)field = v;
}

/* ---- texts ---- */

/* The text of a scalar as it was written, before YAML made a number of it; NULL after reporting. */
static const char *text_of(struct option_ctx *x, const struct yaml_node *n, const char *what)
{
    if (n->orig)
        return n->orig;
    if (n->kind == YAML_SCALAR)
        return n->text;
    if (n->kind == YAML_NULL)
        return "";
    expected(x, n, what);
    return NULL;
}

static void read_string(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                        void *field)
{
    const char *s = text_of(x, n, "a text");
    *(const char **)field = s ? s : "";
    if (s && *s == 0 && (o->flags & OPT_REQUIRED) && !x->defaults)
        option_error(x, n, "must not be empty");
}

static void read_endpoint(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                          void *field)
{
    const char *s = text_of(x, n, "host:port");
    const char *fault = s && *s ? value_endpoint_fault(s) : NULL;
    *(const char **)field = s ? s : "";
    if (fault)
        option_error(x, n, "'%s' is no endpoint: %s", s, fault);
    else if (s && *s == 0 && (o->flags & OPT_REQUIRED) && !x->defaults)
        option_error(x, n, "must not be empty");
}

static void read_id(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                    void *field)
{
    const char *s = text_of(x, n, "the id of a component");
    const char *fault = s && *s ? value_id_fault(s) : NULL;
    *(const char **)field = s ? s : "";
    if (fault)
        option_error(x, n, "'%s' is no component id: %s", s, fault);
}

static int find_name(const char *const *names, const char *word)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], word) == 0)
            return i;
    for (int i = 0; names[i]; i++)
        if (str_ieq(str_of(names[i]), str_of(word)))
            return i;
    return -EINVAL;
}

static void read_enum(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                      void *field)
{
    const char *s = text_of(x, n, "one of its words");
    int i = s ? find_name(o->names, s) : 0;
    if (i >= 0) {
        *(int *)field = i;
        return;
    }
    char hint[160], all[400];
    size_t count = 0, at = 0;
    for (; o->names[count] && at < sizeof(all) - 1; count++) {
        int k = snprintf(all + at, sizeof(all) - at, "%s%s", count ? ", " : "",
                         *o->names[count] ? o->names[count] : "\"\"");
        at += (size_t)k;
    }
    option_error(x, n, "'%s' is none of %s%s", s, all,
                 option_hint(s, o->names, count, hint, sizeof(hint)));
}

static void read_any(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                     void *field)
{
    struct option_any *v = field;
    if (n->kind != YAML_SCALAR && n->kind != YAML_NULL) {
        expected(x, n, "a single value");
        return;
    }
    v->s = n->text;
    switch (n->quoted ? VALUE_STRING : value_kind(n->text)) {
    case VALUE_NULL:
        v->type = OPTION_NONE;
        break;
    case VALUE_BOOL:
        v->type = OPTION_BOOL;
        (void)value_bool(n->text, &v->b);
        break;
    case VALUE_INT:
        v->type = OPTION_INT;
        (void)value_int(n->text, &v->i);
        v->d = (double)v->i;
        break;
    case VALUE_FLOAT:
        v->type = OPTION_DOUBLE;
        (void)value_double(n->text, &v->d);
        break;
    case VALUE_STRING:
        v->type = OPTION_STRING;
        break;
    }
}

static void read_tree(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                      void *field)
{
    *(const struct yaml_node **)field = n;
}

/* ---- lists of scalars ---- */

static const struct element {
    size_t size;
    enum option_type type;
} elements[] = {
    [OPT_STRINGS] = {sizeof(const char *), OPT_STRING},
    [OPT_DOUBLES] = {sizeof(double), OPT_DOUBLE},
    [OPT_DURATIONS] = {sizeof(uint64_t), OPT_DURATION},
    [OPT_ENUMS] = {sizeof(int), OPT_ENUM},
};

const struct yaml_node *option_split(struct option_ctx *x, const struct yaml_node *n)
{
    const char *s = n->orig ? n->orig : n->text;
    size_t count = *s ? 1 : 0;
    for (const char *p = s; *p; p++)
        count += *p == ',';
    struct yaml_node *list = yaml_node_new(x->yaml, YAML_LIST, &n->mark);
    if (!list)
        return NULL;
    list->items = option_alloc(x, count * sizeof(*list->items));
    if (!list->items)
        return NULL;
    for (; list->n < count; list->n++) {
        size_t len = strcspn(s, ",");
        struct yaml_node *item = yaml_scalar_new(x->yaml, str_make(s, len), n->quoted, &n->mark);
        if (!item)
            return NULL;
        list->items[list->n] = item;
        s += len + (s[len] == ',');
    }
    return list;
}

static void read_scalars(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                         void *field)
{
    struct option_list *out = field;
    const struct element *e = &elements[o->type];

    if (n->kind == YAML_SCALAR && !(n = option_split(x, n)))
        return;
    if (n->kind != YAML_LIST) {
        if (n->kind != YAML_NULL)
            expected(x, n, "a list");
        return;
    }
    char *items = option_alloc(x, n->n * e->size);
    if (!items)
        return;
    struct option one = *o;
    one.type = e->type;
    one.flags &= ~(unsigned)OPT_REQUIRED;
    for (size_t i = 0; i < n->n; i++) {
        size_t mark = option_enter_index(x, i);
        if (n->items[i]->kind == YAML_NULL && !n->items[i]->orig && e->type != OPT_STRING)
            expected(x, n->items[i], option_type_word(e->type));
        else
            option_read_value(x, &one, n->items[i], items + i * e->size);
        option_leave(x, mark);
    }
    *out = (struct option_list){items, n->n};
}

/* ---- maps ---- */

static void read_map(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                     void *field)
{
    struct option_list *out = field;
    if (n->kind != YAML_MAPPING) {
        if (n->kind != YAML_NULL)
            expected(x, n, "a mapping");
        return;
    }
    struct option_pair *pairs = option_alloc(x, n->n * sizeof(*pairs));
    if (!pairs)
        return;
    for (size_t i = 0; i < n->n; i++) {
        size_t mark = option_enter(x, n->pairs[i].key->text);
        const char *v = text_of(x, n->pairs[i].value, "a text");
        pairs[i] = (struct option_pair){n->pairs[i].key->text, v ? v : ""};
        option_leave(x, mark);
    }
    *out = (struct option_list){pairs, n->n};
}

static const struct option header_options[] = {
    {.key = "name",
     .type = OPT_STRING,
     .offset = offsetof(struct option_pair, key),
     .flags = OPT_REQUIRED},
    {.key = "value", .type = OPT_SECRET, .offset = offsetof(struct option_pair, value)},
    OPTION_END,
};

static void read_headers(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                         void *field)
{
    struct option_list *out = field;
    if (n->kind != YAML_LIST) {
        read_map(x, o, n, field);
        return;
    }
    struct option_pair *pairs = option_alloc(x, n->n * sizeof(*pairs));
    if (!pairs)
        return;
    const struct yaml_mark *outer = x->at;
    for (size_t i = 0; i < n->n; i++) {
        size_t mark = option_enter_index(x, i);
        x->at = &n->items[i]->mark;
        option_fill(x, &pairs[i], header_options, n->items[i], false);
        option_leave(x, mark);
    }
    x->at = outer;
    *out = (struct option_list){pairs, n->n};
}

/* ---- dispatch ---- */

static read_fn *const readers[] = {
    [OPT_BOOL] = read_bool,       [OPT_INT] = read_int,           [OPT_UINT] = read_uint,
    [OPT_DOUBLE] = read_double,   [OPT_DURATION] = read_duration, [OPT_STRING] = read_string,
    [OPT_SECRET] = read_string,   [OPT_ENUM] = read_enum,         [OPT_ENDPOINT] = read_endpoint,
    [OPT_ID] = read_id,           [OPT_ANY] = read_any,           [OPT_STRINGS] = read_scalars,
    [OPT_DOUBLES] = read_scalars, [OPT_DURATIONS] = read_scalars, [OPT_ENUMS] = read_scalars,
    [OPT_MAP] = read_map,         [OPT_HEADERS] = read_headers,   [OPT_TREE] = read_tree,
};

void option_read_value(struct option_ctx *x, const struct option *o, const struct yaml_node *n,
                       void *field)
{
    ASSERT((size_t)o->type < ARRAY_LEN(readers) && readers[o->type]);
    readers[o->type](x, o, n, field);
}

const char *option_type_word(enum option_type t)
{
    static const char *const words[] = {
        [OPT_BOOL] = "bool",
        [OPT_INT] = "integer",
        [OPT_UINT] = "integer ≥ 0",
        [OPT_DOUBLE] = "number",
        [OPT_DURATION] = "duration",
        [OPT_STRING] = "text",
        [OPT_SECRET] = "secret text",
        [OPT_ENUM] = "word",
        [OPT_ENDPOINT] = "host:port",
        [OPT_ID] = "component id",
        [OPT_ANY] = "value",
        [OPT_STRINGS] = "list of texts",
        [OPT_DOUBLES] = "list of numbers",
        [OPT_DURATIONS] = "list of durations",
        [OPT_ENUMS] = "list of words",
        [OPT_MAP] = "mapping of texts",
        [OPT_HEADERS] = "mapping or list of name and value",
        [OPT_STRUCT] = "mapping",
        [OPT_LIST] = "list of mappings",
        [OPT_TREE] = "any",
    };
    ASSERT((size_t)t < ARRAY_LEN(words));
    return words[t];
}
