/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attributes: inserts, updates, deletes, hashes, extracts and converts attributes of spans and log
 * records, in the order in which the actions are written, as the Collector's processor does.
 *
 * No state between batches: the compiled actions are read-only, consume may run on every loop.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>

#include "common/base/regex.h"
#include "common/components/processors/attributes_match.h"
#include "common/io/digest.h"
#include "common/otlp/edit.h"
#include "common/otlp/encode.h"
#include "common/pipeline/node.h"

enum action_kind {
    ACT_INSERT,
    ACT_UPDATE,
    ACT_UPSERT,
    ACT_DELETE,
    ACT_HASH,
    ACT_EXTRACT,
    ACT_CONVERT
};
static const char *const action_names[] = {"insert", "update",  "upsert",  "delete",
                                           "hash",   "extract", "convert", NULL};
enum converted_type { TO_NONE, TO_INT, TO_DOUBLE, TO_STRING };
static const char *const converted_types[] = {"", "int", "double", "string", NULL};

struct action_config {
    const char *key, *from_attribute, *pattern;
    struct option_any value, default_value;
    int action, converted_type;
};

struct attributes_config {
    struct option_list actions; /* struct action_config */
    struct match_config include, exclude;
};

static const struct option action_options[] = {
    {.key = "key",
     .type = OPT_STRING,
     .offset = offsetof(struct action_config, key),
     .help = "Attribute to act upon."},
    {.key = "action",
     .type = OPT_ENUM,
     .offset = offsetof(struct action_config, action),
     .names = action_names,
     .flags = OPT_REQUIRED,
     .help = "insert adds where the key is missing, update changes where it is there, upsert does "
             "both; delete; hash replaces the value by its SHA-256; extract sets one attribute per "
             "named group of pattern; convert changes the type."},
    {.key = "value",
     .type = OPT_ANY,
     .offset = offsetof(struct action_config, value),
     .help = "Value for insert, update and upsert."},
    {.key = "from_attribute",
     .type = OPT_STRING,
     .offset = offsetof(struct action_config, from_attribute),
     .help = "Attribute whose value is taken; nothing happens where it is missing."},
    {.key = "default_value",
     .type = OPT_ANY,
     .offset = offsetof(struct action_config, default_value),
     .help = "Value where from_attribute is missing."},
    {.key = "pattern",
     .type = OPT_STRING,
     .offset = offsetof(struct action_config, pattern),
     .help = "Regular expression: of keys for delete and hash, of the value for extract."},
    {.key = "converted_type",
     .type = OPT_ENUM,
     .offset = offsetof(struct action_config, converted_type),
     .names = converted_types,
     .help = "Type for convert."},
    OPTION_UNSUPPORTED("from_context"),
    OPTION_END,
};

static const struct option attributes_options[] = {
    {.key = "actions",
     .type = OPT_LIST,
     .offset = offsetof(struct attributes_config, actions),
     .sub = action_options,
     .elem_size = sizeof(struct action_config),
     .flags = OPT_REQUIRED,
     .help = "What is done, in this order."},
    {.key = "include",
     .type = OPT_STRUCT,
     .offset = offsetof(struct attributes_config, include),
     .sub = match_options,
     .presence = OPT_OFF_NONE,
     .on_offset = offsetof(struct attributes_config, include) + offsetof(struct match_config, on),
     .help = "Only what matches is touched."},
    {.key = "exclude",
     .type = OPT_STRUCT,
     .offset = offsetof(struct attributes_config, exclude),
     .sub = match_options,
     .presence = OPT_OFF_NONE,
     .on_offset = offsetof(struct attributes_config, exclude) + offsetof(struct match_config, on),
     .help = "What matches is left alone; looked at after include."},
    OPTION_END,
};

struct action {
    enum action_kind kind;
    enum converted_type to;
    struct str key, from;
    struct any value, fallback;
    struct regex *pattern;
};

#define ATTRIBUTES_MAGIC 0x41545452u
#define TWO_TO_63 9223372036854775808.0

struct attributes {
    unsigned magic;
    struct action *actions;
    size_t n;
    struct matcher *include, *exclude;
};

/* ---- configuration ---- */

/* NULL, or what is missing or too much, as the Collector demands it. */
static const char *check_action(const struct action_config *a)
{
    bool has_value = a->value.type != OPTION_NONE, has_from = a->from_attribute[0] != '\0';
    bool has_key = a->key[0] != '\0', has_pattern = a->pattern[0] != '\0';
    bool is_set = a->action == ACT_INSERT || a->action == ACT_UPDATE || a->action == ACT_UPSERT;
    bool is_by_pattern = a->action == ACT_DELETE || a->action == ACT_HASH;
    bool is_extract = a->action == ACT_EXTRACT, is_convert = a->action == ACT_CONVERT;
    if (!has_key && !is_by_pattern)
        return "needs key";
    if (!has_key && !has_pattern)
        return "needs key or pattern";
    if (is_set && has_value == has_from)
        return "needs either value or from_attribute";
    if (!is_set && (has_value || has_from))
        return "takes neither value nor from_attribute";
    if (a->default_value.type != OPTION_NONE && !has_from)
        return "takes default_value only with from_attribute";
    if (has_pattern && !is_by_pattern && !is_extract)
        return "takes no pattern: that is for delete, hash and extract";
    if (is_extract && !has_pattern)
        return "needs pattern";
    if (is_convert != (a->converted_type != TO_NONE))
        return is_convert ? "needs converted_type" : "takes no converted_type";
    return NULL;
}

static int attributes_validate(const void *config, struct err *e)
{
    const struct attributes_config *c = config;
    const struct action_config *a = c->actions.items;
    if (c->actions.n == 0)
        return err_set(e, -EINVAL, "actions: at least one is needed");
    for (size_t i = 0; i < c->actions.n; i++) {
        const char *bad = check_action(&a[i]);
        if (bad)
            return err_set(e, -EINVAL, "actions[%zu]: %s %s", i, action_names[a[i].action], bad);
    }
    return 0;
}

static struct any option_value(const struct option_any *v)
{
    switch (v->type) {
    case OPTION_BOOL:
        return (struct any){.type = ANY_BOOL, .b = v->b};
    case OPTION_INT:
        return any_int(v->i);
    case OPTION_DOUBLE:
        return (struct any){.type = ANY_DOUBLE, .d = v->d};
    case OPTION_STRING:
        return any_str(str_of(v->s));
    default:
        return (struct any){.type = ANY_EMPTY};
    }
}

static int action_init(struct action *a, const struct action_config *c, struct err *e)
{
    *a = (struct action){
        .kind = (enum action_kind)c->action,
        .to = (enum converted_type)c->converted_type,
        .key = str_of(c->key),
        .from = str_of(c->from_attribute),
        .value = option_value(&c->value),
        .fallback = option_value(&c->default_value),
    };
    if (c->pattern[0] == '\0')
        return 0;
    int r = regex_new(&a->pattern, c->pattern, e);
    if (r) {
        err_prefix(e, "pattern '%s': ", c->pattern);
        return r;
    }
    if (a->kind != ACT_EXTRACT)
        return 0;
    for (unsigned i = 1; i <= regex_group_count(a->pattern); i++)
        if (!regex_group_name(a->pattern, i))
            return err_set(e, -EINVAL, "pattern '%s': every group needs a name", c->pattern);
    if (regex_group_count(a->pattern) == 0)
        return err_set(e, -EINVAL, "pattern '%s': has no named group", c->pattern);
    return 0;
}

static void attributes_free(struct instance *in)
{
    struct attributes *self = in->self;
    if (!self)
        return;
    CHECK_OBJ(self, ATTRIBUTES_MAGIC);
    for (size_t i = 0; i < self->n; i++)
        regex_free(&self->actions[i].pattern);
    matcher_free(&self->include);
    matcher_free(&self->exclude);
    free(self->actions);
    CLEAR_MAGIC(self);
    free(self);
    in->self = NULL;
}

static int attributes_create(struct instance *in, struct err *e)
{
    const struct attributes_config *c = in->config;
    const struct action_config *actions = c->actions.items;
    struct attributes *self = xcalloc(1, sizeof(*self));
    int r = 0;
    SET_MAGIC(self, ATTRIBUTES_MAGIC);
    in->self = self;
    self->actions = xcalloc(c->actions.n, sizeof(*self->actions));
    for (; self->n < c->actions.n && r == 0; self->n++) {
        r = action_init(&self->actions[self->n], &actions[self->n], e);
        if (r)
            err_prefix(e, "actions[%zu]: ", self->n);
    }
    if (r == 0 && c->include.on && (r = matcher_new(&self->include, &c->include, in->signal, e)))
        err_prefix(e, "include: ");
    if (r == 0 && c->exclude.on && (r = matcher_new(&self->exclude, &c->exclude, in->signal, e)))
        err_prefix(e, "exclude: ");
    if (r)
        attributes_free(in);
    return r;
}

/* ---- actions ---- */

/* The value to set: the configured one, or another attribute's. False when there is none. */
static bool source_value(const struct action *a, const struct edit *e, struct edit_at at,
                         struct any *out)
{
    if (a->from.n == 0) {
        *out = a->value;
        return true;
    }
    if (edit_attr_get(e, at, a->from, out))
        return true;
    *out = a->fallback;
    return a->fallback.type != ANY_EMPTY;
}

static void act_set(const struct action *a, struct edit *e, struct edit_at at)
{
    struct any old, v;
    bool there = edit_attr_get(e, at, a->key, &old);
    if ((a->kind == ACT_INSERT && there) || (a->kind == ACT_UPDATE && !there))
        return;
    if (source_value(a, e, at, &v))
        edit_attr_set(e, at, a->key, v);
}

/* Hex of the SHA-256 of the value's bytes: numbers as 8 bytes little-endian; "" for other types. */
static void hash_one(struct edit *e, struct edit_at at, struct str key, const struct any *v)
{
    char hex[DIGEST_SHA256_HEX + 1] = "";
    uint8_t flag;
    switch (v->type) {
    case ANY_STRING:
        if (v->s.n)
            digest_sha256_hex(v->s.p, v->s.n, hex);
        break;
    case ANY_BOOL:
        flag = v->b;
        digest_sha256_hex(&flag, 1, hex);
        break;
    case ANY_INT:
        digest_sha256_hex(&v->i, sizeof(v->i), hex);
        break;
    case ANY_DOUBLE:
        digest_sha256_hex(&v->d, sizeof(v->d), hex);
        break;
    default:
        break;
    }
    edit_attr_set(e, at, key, any_str(str_of(hex)));
}

static void act_hash(const struct action *a, struct edit *e, struct edit_at at)
{
    struct any v;
    if (a->key.n && edit_attr_get(e, at, a->key, &v))
        hash_one(e, at, a->key, &v);
    if (!a->pattern)
        return;
    size_t pos = 0;
    struct attr attr;
    while (edit_attr_next(e, at, &pos, &attr)) {
        /* A key that the pattern matches, too, is hashed twice, as in the Collector. */
        if (!regex_match(a->pattern, attr.key))
            continue;
        v = any_read(attr.value);
        hash_one(e, at, attr.key, &v);
    }
}

static void act_delete(const struct action *a, struct edit *e, struct edit_at at)
{
    if (a->key.n)
        edit_attr_delete(e, at, a->key);
    if (!a->pattern)
        return;
    /* Positions move when an attribute goes: start again after each. */
    size_t pos = 0;
    struct attr attr;
    while (edit_attr_next(e, at, &pos, &attr)) {
        if (!regex_match(a->pattern, attr.key))
            continue;
        edit_attr_delete(e, at, attr.key);
        pos = 0;
    }
}

static void act_extract(const struct action *a, struct edit *e, struct edit_at at)
{
    struct any v;
    struct str groups[REGEX_MAX_GROUPS + 1];
    if (!edit_attr_get(e, at, a->key, &v) || v.type != ANY_STRING)
        return;
    unsigned n = regex_groups(a->pattern, v.s, groups, ARRAY_LEN(groups));
    for (unsigned i = 1; i < n; i++)
        edit_attr_set(e, at, str_of(regex_group_name(a->pattern, i)), any_str(groups[i]));
}

/* The number's text with an end, or false where Go's strconv would not read on: blanks. */
static bool number_text(struct str s, char *text, size_t n)
{
    if (s.n == 0 || s.n >= n || !str_eq(str_trim(s), s) || memchr(s.p, '\0', s.n))
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return true;
}

/* strtod reads more than Go does: hexadecimals without an exponent, nan(...), signed nan. */
static bool is_go_float(const char *text)
{
    const char *at = text + (*text == '+' || *text == '-');
    bool is_hex = at[0] == '0' && (at[1] == 'x' || at[1] == 'X');
    bool is_nan = strncasecmp(at, "nan", 3) == 0;
    return !strchr(text, '(') && !(is_hex && !strpbrk(at, "pP")) && !(is_nan && at != text);
}

static bool text_to_double(struct str s, double *out)
{
    char text[1024], *end; /* longer ones are no numbers that anybody writes */
    if (!number_text(s, text, sizeof(text)) || !is_go_float(text))
        return false;
    *out = strtod(text, &end);
    bool overflows = isinf(*out) && !strpbrk(text, "iI");
    return *end == '\0' && !overflows;
}

static bool text_to_int(struct str s, int64_t *out)
{
    char text[256], *end;
    if (!number_text(s, text, sizeof(text)))
        return false;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return *end == '\0' && errno == 0;
}

static bool to_int(const struct any *v, struct any *out)
{
    out->type = ANY_INT;
    if (v->type == ANY_STRING)
        return text_to_int(v->s, &out->i);
    if (v->type == ANY_DOUBLE) {
        out->i = (int64_t)v->d;
        return v->d >= -TWO_TO_63 && v->d < TWO_TO_63;
    }
    out->i = v->b;
    return v->type == ANY_BOOL;
}

static bool to_double(const struct any *v, struct any *out)
{
    out->type = ANY_DOUBLE;
    if (v->type == ANY_STRING)
        return text_to_double(v->s, &out->d);
    out->d = v->type == ANY_INT ? (double)v->i : v->b;
    return v->type == ANY_INT || v->type == ANY_BOOL;
}

static void act_convert(const struct action *a, struct edit *e, struct edit_at at)
{
    struct any v, out = {.type = ANY_EMPTY};
    struct buf text;
    if (!edit_attr_get(e, at, a->key, &v))
        return;
    if (a->to == TO_INT && to_int(&v, &out))
        edit_attr_set(e, at, a->key, out);
    if (a->to == TO_DOUBLE && to_double(&v, &out))
        edit_attr_set(e, at, a->key, out);
    if (a->to != TO_STRING || v.type == ANY_STRING)
        return;
    buf_init(&text);
    any_to_text(v, &text);
    if (buf_error(&text) == 0)
        edit_attr_set(e, at, a->key, any_str(buf_str(&text)));
    buf_fini(&text);
}

typedef void action_fn(const struct action *a, struct edit *e, struct edit_at at);
static action_fn *const action_fns[] = {
    [ACT_INSERT] = act_set,      [ACT_UPDATE] = act_set, [ACT_UPSERT] = act_set,
    [ACT_DELETE] = act_delete,   [ACT_HASH] = act_hash,  [ACT_EXTRACT] = act_extract,
    [ACT_CONVERT] = act_convert,
};

static bool is_touched(const struct attributes *self, const struct batch *b, uint32_t record)
{
    return (!self->include || matcher_test(self->include, b, record)) &&
           (!self->exclude || !matcher_test(self->exclude, b, record));
}

static void attributes_consume(struct instance *in, struct batch *b, struct ack *a)
{
    struct attributes *self = CAST_OBJ(struct attributes, in->self, ATTRIBUTES_MAGIC);
    bool choosy = self->include || self->exclude;
    struct edit *e;
    struct batch *out = NULL;
    int r = batch_edit(&e, b);
    if (r == 0) {
        for (uint32_t i = 0; i < b->n_records; i++) {
            struct edit_at at = {EDIT_RECORD, i};
            if (choosy && !is_touched(self, b, i))
                continue;
            for (size_t k = 0; k < self->n; k++)
                action_fns[self->actions[k].kind](&self->actions[k], e, at);
        }
        r = edit_seal(&e, &out);
    }
    if (r == 0) {
        node_emit(in, out, a);
    } else {
        ledger_dropped(in, b->signal, b->items, "out_of_memory");
        ack_settle(a, &VERDICT_RETRY("out of memory"));
    }
    batch_unref(&b);
}

const struct component attributes_component = {
    .kind = KIND_PROCESSOR,
    .name = "attributes",
    .help = "Inserts, updates, deletes, hashes, extracts and converts attributes.",
    .signals = SIGNAL_BIT(SIGNAL_TRACES) | SIGNAL_BIT(SIGNAL_LOGS),
    .stability = STABILITY_BETA,
    .affinity = AFFINITY_NONE,
    .mutates = true,
    .options = attributes_options,
    .config_size = sizeof(struct attributes_config),
    .validate = attributes_validate,
    .create = attributes_create,
    .consume = attributes_consume,
    .free = attributes_free,
};
