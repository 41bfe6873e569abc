/* SPDX-License-Identifier: Apache-2.0 */
#include "common/components/processors/attributes_match.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/regex.h"
#include "common/otlp/encode.h"

enum match_type { MATCH_NONE, MATCH_STRICT, MATCH_REGEXP };
static const char *const match_types[] = {"", "strict", "regexp", NULL};

enum { SPAN_KIND_FIELD = 6, SPAN_NAME_FIELD = 5, LOG_SEVERITY_TEXT = 3, LOG_BODY = 5 };

static const struct option attribute_options[] = {
    {.key = "key",
     .type = OPT_STRING,
     .offset = offsetof(struct match_attribute, key),
     .flags = OPT_REQUIRED,
     .help = "Attribute to look at."},
    {.key = "value",
     .type = OPT_ANY,
     .offset = offsetof(struct match_attribute, value),
     .help = "Value it must have; without it the key's presence is enough."},
    OPTION_END,
};

static const struct option library_options[] = {
    {.key = "name",
     .type = OPT_STRING,
     .offset = offsetof(struct match_library, name),
     .flags = OPT_REQUIRED,
     .help = "Name of the instrumentation scope."},
    {.key = "version",
     .type = OPT_ANY,
     .offset = offsetof(struct match_library, version),
     .help = "Its version; without it any version matches."},
    OPTION_END,
};

#define LISTED(k, field, text)                                                                     \
    {                                                                                              \
        .key = k, .type = OPT_STRINGS, .offset = offsetof(struct match_config, field),             \
        .help = text                                                                               \
    }

const struct option match_options[] = {
    {.key = "match_type",
     .type = OPT_ENUM,
     .offset = offsetof(struct match_config, match_type),
     .names = match_types,
     .flags = OPT_REQUIRED,
     .help = "strict compares whole values, regexp searches with a regular expression."},
    LISTED("services", services, "Values of the resource attribute service.name."),
    LISTED("span_names", span_names, "Names of spans."),
    LISTED("span_kinds", span_kinds, "Kinds of spans: SPAN_KIND_SERVER and so on."),
    LISTED("log_bodies", log_bodies, "Bodies of log records, as text."),
    LISTED("log_severity_texts", log_severity_texts, "Severity texts of log records."),
    {.key = "attributes",
     .type = OPT_LIST,
     .offset = offsetof(struct match_config, attributes),
     .sub = attribute_options,
     .elem_size = sizeof(struct match_attribute),
     .help = "Attributes of the span or log record; all must match."},
    {.key = "resources",
     .type = OPT_LIST,
     .offset = offsetof(struct match_config, resources),
     .sub = attribute_options,
     .elem_size = sizeof(struct match_attribute),
     .help = "Attributes of the resource; all must match."},
    {.key = "libraries",
     .type = OPT_LIST,
     .offset = offsetof(struct match_config, libraries),
     .sub = library_options,
     .elem_size = sizeof(struct match_library),
     .help = "Instrumentation scopes, alternatives of each other."},
    OPTION_NO_EFFECT("regexp", "Results of expressions are not cached."),
    OPTION_UNSUPPORTED("log_severity_number"),
    OPTION_UNSUPPORTED("metric_names"),
    OPTION_END,
};

/* One value: compared as text, or a regular expression. */
struct pattern {
    struct str text;
    struct regex *regex;
};

/* Alternatives of one property; n 0: not listed, matches anything. */
struct patterns {
    struct pattern *v;
    size_t n;
};

struct wanted {
    struct str key;
    bool any_value;
    struct any exact;
    struct pattern pattern; /* regexp */
};

struct matcher {
    bool regexp;
    enum signal signal;
    struct patterns services, span_names, span_kinds, log_bodies, log_severity_texts;
    struct wanted *attributes, *resources, *libraries;
    size_t n_attributes, n_resources, n_libraries;
};

static int pattern_init(struct pattern *p, bool regexp, const char *text, struct err *e)
{
    p->text = str_of(text);
    if (!regexp)
        return 0;
    int r = regex_new(&p->regex, text, e);
    if (r)
        err_prefix(e, "'%s': ", text);
    return r;
}

static bool pattern_test(const struct pattern *p, struct str s)
{
    return p->regex ? regex_match(p->regex, s) : str_eq(p->text, s);
}

static int patterns_init(struct patterns *p, bool regexp, const struct option_list *l,
                         struct err *e)
{
    const char *const *texts = l->items;
    p->v = xcalloc(l->n + 1, sizeof(*p->v));
    for (; p->n < l->n; p->n++) {
        int r = pattern_init(&p->v[p->n], regexp, texts[p->n], e);
        if (r)
            return r;
    }
    return 0;
}

static void patterns_fini(struct patterns *p)
{
    for (size_t i = 0; i < p->n; i++)
        regex_free(&p->v[i].regex);
    free(p->v);
}

static bool patterns_test(const struct patterns *p, struct str s)
{
    for (size_t i = 0; i < p->n; i++)
        if (pattern_test(&p->v[i], s))
            return true;
    return p->n == 0;
}

static struct any any_of_option(const struct option_any *v)
{
    switch (v->type) {
    case OPTION_BOOL:
        return (struct any){.type = ANY_BOOL, .b = v->b};
    case OPTION_INT:
        return (struct any){.type = ANY_INT, .i = v->i};
    case OPTION_DOUBLE:
        return (struct any){.type = ANY_DOUBLE, .d = v->d};
    case OPTION_STRING:
        return (struct any){.type = ANY_STRING, .s = str_of(v->s)};
    default:
        return (struct any){.type = ANY_EMPTY};
    }
}

static int wanted_init(struct wanted *w, bool regexp, const char *key, const struct option_any *v,
                       struct err *e)
{
    w->key = str_of(key);
    w->any_value = v->type == OPTION_NONE;
    w->exact = any_of_option(v);
    if (w->any_value || !regexp)
        return 0;
    if (v->type != OPTION_STRING)
        return err_set(e, -EINVAL, "'%s': match_type regexp needs a string value", key);
    return pattern_init(&w->pattern, true, v->s, e);
}

static int wanted_list(struct wanted **out, size_t *n, bool regexp, const struct option_list *l,
                       struct err *e)
{
    const struct match_attribute *items = l->items;
    *out = xcalloc(l->n + 1, sizeof(**out));
    for (; *n < l->n; (*n)++) {
        int r = wanted_init(&(*out)[*n], regexp, items[*n].key, &items[*n].value, e);
        if (r)
            return r;
    }
    return 0;
}

static void wanted_free(struct wanted *w, size_t n)
{
    for (size_t i = 0; i < n; i++)
        regex_free(&w[i].pattern.regex);
    free(w);
}

static int libraries_init(struct matcher *m, const struct option_list *l, struct err *e)
{
    const struct match_library *items = l->items;
    m->libraries = xcalloc(l->n + 1, sizeof(*m->libraries));
    for (; m->n_libraries < l->n; m->n_libraries++) {
        const struct match_library *in = &items[m->n_libraries];
        struct wanted *w = &m->libraries[m->n_libraries];
        w->key = str_of(in->name);
        w->any_value = in->version.type == OPTION_NONE;
        w->exact = any_str(str_of(w->any_value ? "" : in->version.s));
        if (m->regexp) {
            int r = pattern_init(&w->pattern, true, in->name, e);
            if (r)
                return r;
        }
    }
    return 0;
}

/* A block that lists what the signal does not have would never match as its writer thinks. */
static int check_signal(const struct match_config *c, enum signal signal, struct err *e)
{
    if (signal != SIGNAL_TRACES && (c->span_names.n || c->span_kinds.n))
        return err_set(e, -EINVAL, "span_names and span_kinds need a pipeline of traces");
    if (signal != SIGNAL_LOGS && (c->log_bodies.n || c->log_severity_texts.n))
        return err_set(e, -EINVAL, "log_bodies and log_severity_texts need a pipeline of logs");
    size_t listed = c->services.n + c->span_names.n + c->span_kinds.n + c->log_bodies.n +
                    c->log_severity_texts.n + c->attributes.n + c->resources.n + c->libraries.n;
    if (listed == 0)
        return err_set(e, -EINVAL, "at least one property to match is needed");
    return 0;
}

int matcher_new(struct matcher **out, const struct match_config *c, enum signal signal,
                struct err *e)
{
    int r = check_signal(c, signal, e);
    if (r)
        return r;
    struct matcher *m = xcalloc(1, sizeof(*m));
    m->regexp = c->match_type == MATCH_REGEXP;
    m->signal = signal;
    if ((r = patterns_init(&m->services, m->regexp, &c->services, e)) ||
        (r = patterns_init(&m->span_names, m->regexp, &c->span_names, e)) ||
        (r = patterns_init(&m->span_kinds, m->regexp, &c->span_kinds, e)) ||
        (r = patterns_init(&m->log_bodies, m->regexp, &c->log_bodies, e)) ||
        (r = patterns_init(&m->log_severity_texts, m->regexp, &c->log_severity_texts, e)) ||
        (r = wanted_list(&m->attributes, &m->n_attributes, m->regexp, &c->attributes, e)) ||
        (r = wanted_list(&m->resources, &m->n_resources, m->regexp, &c->resources, e)) ||
        (r = libraries_init(m, &c->libraries, e))) {
        matcher_free(&m);
        return r;
    }
    *out = m;
    return 0;
}

void matcher_free(struct matcher **mp)
{
    struct matcher *m = *mp;
    if (!m)
        return;
    patterns_fini(&m->services);
    patterns_fini(&m->span_names);
    patterns_fini(&m->span_kinds);
    patterns_fini(&m->log_bodies);
    patterns_fini(&m->log_severity_texts);
    wanted_free(m->attributes, m->n_attributes);
    wanted_free(m->resources, m->n_resources);
    wanted_free(m->libraries, m->n_libraries);
    free(m);
    *mp = NULL;
}

/* Numbers and bools have a text to search in, too; bytes, lists and mappings have none. */
static bool regexp_test(const struct wanted *w, const struct any *v)
{
    struct buf text;
    if (v->type == ANY_STRING)
        return regex_match(w->pattern.regex, v->s);
    if (v->type != ANY_BOOL && v->type != ANY_INT && v->type != ANY_DOUBLE)
        return false;
    buf_init(&text);
    any_to_text(*v, &text);
    bool matches = regex_match(w->pattern.regex, buf_str(&text));
    buf_fini(&text);
    return matches;
}

static bool value_test(const struct wanted *w, bool regexp, const struct any *v)
{
    if (w->any_value)
        return true;
    return regexp ? regexp_test(w, v) : any_eq(w->exact, *v);
}

static bool resources_test(const struct matcher *m, struct str envelope)
{
    for (size_t i = 0; i < m->n_resources; i++) {
        struct any v;
        if (!envelope_attr_find(envelope, RESOURCE_ATTRIBUTES, m->resources[i].key, &v) ||
            !value_test(&m->resources[i], m->regexp, &v))
            return false;
    }
    return m->services.n == 0 || patterns_test(&m->services, resource_service_name(envelope));
}

static bool libraries_test(const struct matcher *m, struct str envelope)
{
    for (size_t i = 0; i < m->n_libraries; i++) {
        const struct wanted *w = &m->libraries[i];
        struct str name = scope_name(envelope);
        bool named = m->regexp ? regex_match(w->pattern.regex, name) : str_eq(w->key, name);
        if (named && (w->any_value || str_eq(w->exact.s, scope_version(envelope))))
            return true;
    }
    return m->n_libraries == 0;
}

static struct str span_kind_name(uint64_t kind)
{
    static const char *const names[] = {"SPAN_KIND_UNSPECIFIED", "SPAN_KIND_INTERNAL",
                                        "SPAN_KIND_SERVER",      "SPAN_KIND_CLIENT",
                                        "SPAN_KIND_PRODUCER",    "SPAN_KIND_CONSUMER"};
    return str_of(kind < ARRAY_LEN(names) ? names[kind] : "");
}

static bool own_fields_test(const struct matcher *m, struct str body)
{
    if (m->signal == SIGNAL_TRACES)
        return patterns_test(&m->span_names, message_bytes(body, SPAN_NAME_FIELD)) &&
               patterns_test(&m->span_kinds, span_kind_name(message_u64(body, SPAN_KIND_FIELD, 0)));
    if (!patterns_test(&m->log_severity_texts, message_bytes(body, LOG_SEVERITY_TEXT)))
        return false;
    if (m->log_bodies.n == 0)
        return true;
    struct any v = any_read(message_bytes(body, LOG_BODY));
    return v.type == ANY_STRING && patterns_test(&m->log_bodies, v.s);
}

bool matcher_test(const struct matcher *m, const struct batch *b, uint32_t record)
{
    uint32_t scope = batch_scope_of_record(b, record);
    uint32_t resource = batch_resource_of_scope(b, scope);
    struct str body = record_body(&b->records[record]);
    if (!resources_test(m, b->resources[resource].envelope) ||
        !libraries_test(m, b->scopes[scope].envelope) || !own_fields_test(m, body))
        return false;
    uint32_t number = m->signal == SIGNAL_LOGS ? LOG_ATTRIBUTES : SPAN_ATTRIBUTES;
    for (size_t i = 0; i < m->n_attributes; i++) {
        struct any v;
        if (!attr_find(body, number, m->attributes[i].key, &v) ||
            !value_test(&m->attributes[i], m->regexp, &v))
            return false;
    }
    return true;
}
