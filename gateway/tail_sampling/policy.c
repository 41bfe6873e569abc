/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies are compiled once into a flat list; an `and` holds its own. The summary in the trace
 * record (times, statuses, counts) answers most of them; string_attribute walks the stored spans.
 */
#include "gateway/tail_sampling/policy.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/regex.h"
#include "common/otlp/view.h"

enum { SPAN_START = 7, SPAN_END = 8 };
enum policy_type { ALWAYS_SAMPLE, LATENCY, PROBABILISTIC, STATUS_CODE, STRING_ATTRIBUTE, AND };
static const char *const type_names[] = {
    "always_sample", "latency", "probabilistic", "status_code", "string_attribute", "and", NULL};
static const char *const status_names[] = {"UNSET", "OK", "ERROR", NULL};

#define AT(field) offsetof(struct policy_config, field)
#define IN(block, field) (AT(block.field) - AT(block))

static const struct option latency_options[] = {
    {.key = "threshold_ms",
     .type = OPT_UINT,
     .offset = IN(latency, threshold_ms),
     .def = "0",
     .help = "Longer traces are kept."},
    {.key = "upper_threshold_ms",
     .type = OPT_UINT,
     .offset = IN(latency, upper_threshold_ms),
     .def = "0",
     .help = "Traces longer than this are not; 0 = no bound."},
    OPTION_END,
};
static const struct option probabilistic_options[] = {
    {.key = "sampling_percentage",
     .type = OPT_DOUBLE,
     .offset = IN(probabilistic, percentage),
     .def = "0",
     .help = "Share of traces that is kept, in percent."},
    {.key = "hash_salt",
     .type = OPT_STRING,
     .offset = IN(probabilistic, hash_salt),
     .help = "Salt of the hash; the same everywhere that shall decide alike."},
    OPTION_END,
};
static const struct option status_options[] = {
    {.key = "status_codes",
     .type = OPT_ENUMS,
     .offset = IN(status_code, codes),
     .names = status_names,
     .flags = OPT_REQUIRED,
     .help = "OK, ERROR, UNSET: any span with one."},
    OPTION_END,
};
static const struct option string_options[] = {
    {.key = "key",
     .type = OPT_STRING,
     .offset = IN(string_attribute, key),
     .flags = OPT_REQUIRED,
     .help = "Attribute of the resource or of a span."},
    {.key = "values",
     .type = OPT_STRINGS,
     .offset = IN(string_attribute, values),
     .flags = OPT_REQUIRED,
     .help = "Values, any of which matches."},
    {.key = "enabled_regex_matching",
     .type = OPT_BOOL,
     .offset = IN(string_attribute, is_regex),
     .def = "false",
     .help = "Values are regular expressions."},
    {.key = "cache_max_size",
     .type = OPT_TREE,
     .flags = OPT_NO_EFFECT,
     .help = "Expressions are compiled; there is no cache."},
    {.key = "invert_match",
     .type = OPT_BOOL,
     .offset = IN(string_attribute, invert),
     .def = "false",
     .help = "Keep traces that do not match."},
    OPTION_END,
};

#define LEAVES                                                                                     \
    {.key = "name",                                                                                \
     .type = OPT_STRING,                                                                           \
     .offset = AT(name),                                                                           \
     .flags = OPT_REQUIRED,                                                                        \
     .help = "Name in metrics; unique."},                                                          \
        {.key = "type",                                                                            \
         .type = OPT_ENUM,                                                                         \
         .offset = AT(type),                                                                       \
         .names = type_names,                                                                      \
         .flags = OPT_REQUIRED,                                                                    \
         .help = "What the policy looks at."},                                                     \
        {.key = "latency",                                                                         \
         .type = OPT_STRUCT,                                                                       \
         .offset = AT(latency),                                                                    \
         .sub = latency_options,                                                                   \
         .presence = OPT_OFF_DEFAULT,                                                              \
         .on_offset = AT(latency.on),                                                              \
         .help = "For type latency."},                                                             \
        {.key = "probabilistic",                                                                   \
         .type = OPT_STRUCT,                                                                       \
         .offset = AT(probabilistic),                                                              \
         .sub = probabilistic_options,                                                             \
         .presence = OPT_OFF_DEFAULT,                                                              \
         .on_offset = AT(probabilistic.on),                                                        \
         .help = "For type probabilistic."},                                                       \
        {.key = "status_code",                                                                     \
         .type = OPT_STRUCT,                                                                       \
         .offset = AT(status_code),                                                                \
         .sub = status_options,                                                                    \
         .presence = OPT_OFF_DEFAULT,                                                              \
         .on_offset = AT(status_code.on),                                                          \
         .help = "For type status_code."},                                                         \
        {.key = "string_attribute",                                                                \
         .type = OPT_STRUCT,                                                                       \
         .offset = AT(string_attribute),                                                           \
         .sub = string_options,                                                                    \
         .presence = OPT_OFF_DEFAULT,                                                              \
         .on_offset = AT(string_attribute.on),                                                     \
         .help = "For type string_attribute."},                                                    \
    {                                                                                              \
        .key = "always_sample", .type = OPT_STRUCT, .help = "Has no keys."                         \
    }

static const struct option sub_policy_options[] = {LEAVES, OPTION_END};

static const struct option and_options[] = {
    {.key = "and_sub_policy",
     .type = OPT_LIST,
     .offset = IN(and_block, subs),
     .sub = sub_policy_options,
     .elem_size = sizeof(struct policy_config),
     .flags = OPT_REQUIRED,
     .help = "Policies all of which must keep the trace."},
    OPTION_END,
};

const struct option policy_options[] = {
    LEAVES,
    {.key = "and",
     .type = OPT_STRUCT,
     .offset = AT(and_block),
     .sub = and_options,
     .presence = OPT_OFF_DEFAULT,
     .on_offset = AT(and_block.on),
     .help = "For type and."},
    OPTION_END,
};

/* ---- compiling ---- */

struct policy {
    enum policy_type type;
    uint64_t threshold_ms, upper_ms; /* latency */
    uint64_t most;                   /* probabilistic: largest hash that is kept */
    bool keeps_all, keeps_none;
    struct str salt;
    uint8_t status_mask;
    struct str key; /* string_attribute */
    struct str *values;
    struct regex **regexes;
    size_t n_values;
    bool invert;
    struct policy *subs;
    size_t n_subs;
    struct series *kept, *not_kept;
};

struct policies {
    struct policy *v;
    size_t n;
    bool first_match;
    struct series *kept, *not_kept;
};

static const struct metric_desc by_policy = {"processor_tail_sampling_count_traces_sampled",
                                             "Traces that a policy voted to keep or not.",
                                             "{traces}",
                                             METRIC_KIND_COUNTER,
                                             LEVEL_NORMAL,
                                             NULL,
                                             0};
static const struct metric_desc global = {"processor_tail_sampling_global_count_traces_sampled",
                                          "Traces that were kept or not.",
                                          "{traces}",
                                          METRIC_KIND_COUNTER,
                                          LEVEL_NORMAL,
                                          NULL,
                                          0};

static int compile_strings(struct policy *p, const struct policy_config *c, struct err *e)
{
    const char *const *values = c->string_attribute.values.items;
    size_t n = c->string_attribute.values.n;
    p->key = str_of(c->string_attribute.key);
    p->invert = c->string_attribute.invert;
    p->values = xcalloc(n + 1, sizeof(*p->values));
    p->regexes = xcalloc(n + 1, sizeof(struct regex *));
    for (size_t i = 0; i < n; i++) {
        if (values[i][0] == '\0' && !c->string_attribute.is_regex)
            continue; /* as in the Collector; an empty expression matches every value there is */
        p->values[p->n_values] = str_of(values[i]);
        if (c->string_attribute.is_regex) {
            int r = regex_new(&p->regexes[p->n_values], values[i], e);
            if (r) {
                err_prefix(e, "string_attribute: values[%zu] '%s': ", i, values[i]);
                return r;
            }
        }
        p->n_values++;
    }
    return 0;
}

static int compile(struct policy *p, const struct policy_config *c, struct err *e);

static int compile_and(struct policy *p, const struct policy_config *c, struct err *e)
{
    const struct policy_config *subs = c->and_block.subs.items;
    p->subs = xcalloc(c->and_block.subs.n + 1, sizeof(*p->subs));
    for (; p->n_subs < c->and_block.subs.n; p->n_subs++) {
        if (subs[p->n_subs].type == AND)
            return err_set(e, -EINVAL, "and_sub_policy[%zu]: and cannot hold an and", p->n_subs);
        int r = compile(&p->subs[p->n_subs], &subs[p->n_subs], e);
        if (r) {
            p->n_subs++; /* what it had made is freed with it */
            return r;
        }
    }
    return p->n_subs ? 0 : err_set(e, -EINVAL, "and_sub_policy: at least one is needed");
}

/*
 * The Collector's bound, to the bit: 2^64 - 1 times the share as a product of 64 significant bits,
 * rounded to nearest even, its fraction cut off. A double's 53 bits would differ in the last 11.
 */
static uint64_t bound_of(double share)
{
    int exponent;
    uint64_t mantissa = (uint64_t)ldexp(frexp(share, &exponent), 53);
    unsigned __int128 product = (unsigned __int128)mantissa * UINT64_MAX; /* share * 2^(53-exp) */
    int shift = 0;
    while (product >> shift >> 64)
        shift++;
    unsigned __int128 half = shift ? (unsigned __int128)1 << (shift - 1) : 0;
    unsigned __int128 rest = product & (((unsigned __int128)1 << shift) - 1),
                      kept = product >> shift;
    if (rest > half || (shift && rest == half && (kept & 1)))
        kept++; /* may need a 65th bit: kept is wide enough */
    int down = 53 - exponent - shift;
    return down < 128 ? (uint64_t)(kept >> down) : 0;
}

static void set_share(struct policy *p, const struct policy_config *c)
{
    double share = c->probabilistic.percentage / 100;
    const char *salt = c->probabilistic.hash_salt;
    p->salt = str_of(salt && salt[0] ? salt : "default-hash-seed");
    p->keeps_all = share >= 1;
    p->keeps_none = share <= 0;
    p->most = p->keeps_all || p->keeps_none ? 0 : bound_of(share);
}

static int compile(struct policy *p, const struct policy_config *c, struct err *e)
{
    const int *codes = c->status_code.codes.items;
    p->type = (enum policy_type)c->type;
    switch (p->type) {
    case ALWAYS_SAMPLE:
        return 0;
    case LATENCY:
        p->threshold_ms = c->latency.threshold_ms;
        p->upper_ms = c->latency.upper_threshold_ms;
        return 0;
    case PROBABILISTIC:
        set_share(p, c);
        return 0;
    case STATUS_CODE:
        if (c->status_code.codes.n == 0)
            return err_set(e, -EINVAL, "status_code: status_codes must not be empty");
        for (size_t i = 0; i < c->status_code.codes.n; i++)
            p->status_mask |= (uint8_t)(1u << codes[i]);
        return 0;
    case STRING_ATTRIBUTE:
        if (!c->string_attribute.on)
            return err_set(e, -EINVAL, "string_attribute: key and values are needed");
        return compile_strings(p, c, e);
    case AND:
        return compile_and(p, c, e);
    }
    return err_set(e, -EINVAL, "unknown type");
}

static void policy_fini(struct policy *p)
{
    for (size_t i = 0; i < p->n_values; i++)
        regex_free(&p->regexes[i]);
    for (size_t i = 0; i < p->n_subs; i++)
        policy_fini(&p->subs[i]);
    free(p->values);
    free(p->regexes);
    free(p->subs);
}

static void make_series(struct policy *p, const char *prefix, const char *name)
{
    char *label = xasprintf("%s%s", prefix, name);
    struct label kept[] = {{"policy", label}, {"sampled", "true"}, {"decision", "sampled"}};
    struct label not [] = {{"policy", label}, {"sampled", "false"}, {"decision", "not_sampled"}};
    p->kept = telemetry_series(&by_policy, kept, 3);
    p->not_kept = telemetry_series(&by_policy, not, 3);
    free(label);
}

static int check_names(const struct policy_config *c, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (c[i].name[0] == '\0')
            return err_set(e, -EINVAL, "policies[%zu]: name must not be empty", i);
        for (size_t k = 0; k < i; k++)
            if (strcmp(c[k].name, c[i].name) == 0)
                return err_set(e, -EINVAL, "policies[%zu]: duplicate name '%s'", i, c[i].name);
    }
    return n ? 0 : err_set(e, -EINVAL, "policies: at least one is needed");
}

int policies_new(struct policies **out, const struct option_list *configs, bool first_match,
                 const char *prefix, struct err *e)
{
    const struct policy_config *c = configs->items;
    struct label kept[] = {{"sampled", "true"}, {"decision", "sampled"}};
    struct label not [] = {{"sampled", "false"}, {"decision", "not_sampled"}};
    int r = check_names(c, configs->n, e);
    if (r)
        return r;
    struct policies *p = xcalloc(1, sizeof(*p));
    p->v = xcalloc(configs->n, sizeof(*p->v));
    p->first_match = first_match;
    p->kept = telemetry_series(&global, kept, 2);
    p->not_kept = telemetry_series(&global, not, 2);
    for (; p->n < configs->n; p->n++) {
        r = compile(&p->v[p->n], &c[p->n], e);
        if (r) {
            err_prefix(e, "policies[%zu] '%s': ", p->n, c[p->n].name);
            p->n++;
            policies_free(&p);
            return r;
        }
        make_series(&p->v[p->n], prefix, c[p->n].name);
    }
    *out = p;
    return 0;
}

void policies_free(struct policies **pp)
{
    struct policies *p = *pp;
    if (!p)
        return;
    for (size_t i = 0; i < p->n; i++)
        policy_fini(&p->v[i]);
    free(p->v);
    free(p);
    *pp = NULL;
}

/* ---- deciding ---- */

static uint64_t fnv1a64(uint64_t h, const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3ULL;
    return h;
}

static bool value_matches(const struct policy *p, const struct any *v)
{
    if (v->type != ANY_STRING || v->s.n == 0)
        return false;
    for (size_t i = 0; i < p->n_values; i++)
        if (p->regexes[i] ? regex_match(p->regexes[i], v->s) : str_eq(p->values[i], v->s))
            return true;
    return false;
}

static struct str stored_body(const struct stored_span *s)
{
    const uint8_t *field = (const uint8_t *)(s + 1), *p = field, *end = field + s->len;
    while (*p & 0x80) /* tag */
        p++;
    p++;
    while (*p & 0x80) /* length */
        p++;
    p++;
    return str_make(p, (size_t)(end - p));
}

static bool any_attribute_matches(const struct policy *p, struct trace *t)
{
    struct run *runs = trace_runs(t);
    struct any v;
    for (unsigned i = 0; i < t->n_runs; i++) {
        uint32_t last_resource = 0;
        for (uint32_t at = runs[i].last; at; at = run_span(&runs[i], at)->prev) {
            const struct stored_span *s = run_span(&runs[i], at);
            if (s->resource != last_resource) {
                last_resource = s->resource;
                if (envelope_attr_find(block_bytes(runs[i].block, s->resource), RESOURCE_ATTRIBUTES,
                                       p->key, &v) &&
                    value_matches(p, &v))
                    return true;
            }
            if (attr_find(stored_body(s), SPAN_ATTRIBUTES, p->key, &v) && value_matches(p, &v))
                return true;
        }
    }
    return false;
}

/* Whole milliseconds, as the Collector compares them. */
static uint64_t took_ms(uint64_t min_start, uint64_t max_end)
{
    return max_end > min_start ? (max_end - min_start) / 1000000 : 0;
}

static bool is_between(const struct policy *p, uint64_t ms)
{
    return ms > p->threshold_ms && (p->upper_ms == 0 || ms <= p->upper_ms);
}

/* Offsets of the run's spans, oldest first, into at[count]. */
static void list_run(const struct run *r, uint32_t *at)
{
    uint32_t i = r->count;
    for (uint32_t k = r->last; k && i > 0; k = run_span(r, k)->prev)
        at[--i] = k;
}

/*
 * A trace that ended up beyond the upper bound is kept all the same when it lay within the bounds
 * after one of its spans, in the order of their arrival: so the Collector counts up.
 */
static bool was_between(const struct policy *p, struct trace *t)
{
    uint64_t min_start = UINT64_MAX, max_end = 0;
    struct run *runs = trace_runs(t);
    bool found = false;
    for (unsigned i = 0; i < t->n_runs && !found; i++) {
        uint32_t *at = try_alloc(runs[i].count * sizeof(*at));
        if (!at)
            return false;
        list_run(&runs[i], at);
        for (uint32_t k = 0; k < runs[i].count && !found; k++) {
            struct str body = stored_body(run_span(&runs[i], at[k]));
            min_start = MIN(min_start, message_u64(body, SPAN_START, 0));
            max_end = MAX(max_end, message_u64(body, SPAN_END, 0));
            found = is_between(p, took_ms(min_start, max_end));
        }
        free(at);
    }
    return found;
}

static bool latency_vote(const struct policy *p, struct trace *t)
{
    uint64_t ms = took_ms(t->min_start, t->max_end);
    return is_between(p, ms) || (p->upper_ms && ms > p->upper_ms && was_between(p, t));
}

static bool vote(const struct policy *p, struct trace *t)
{
    switch (p->type) {
    case ALWAYS_SAMPLE:
        return true;
    case LATENCY:
        return latency_vote(p, t);
    case PROBABILISTIC:
        if (p->keeps_all || p->keeps_none)
            return p->keeps_all;
        return fnv1a64(fnv1a64(0xcbf29ce484222325ULL, p->salt.p, p->salt.n), t->id, 16) <= p->most;
    case STATUS_CODE:
        return (t->status_mask & p->status_mask) != 0;
    case STRING_ATTRIBUTE:
        return any_attribute_matches(p, t) != p->invert;
    case AND:
        for (size_t i = 0; i < p->n_subs; i++)
            if (!vote(&p->subs[i], t))
                return false;
        return true;
    }
    return false;
}

/* Two for each policy, not kept and kept, and behind them two for the decision. */
uint32_t *policies_votes_new(const struct policies *p)
{
    return xcalloc(2 * p->n + 2, sizeof(uint32_t));
}

bool policies_decide(const struct policies *p, struct trace *t, uint32_t *votes)
{
    bool keep = false;
    for (size_t i = 0; i < p->n && !(keep && p->first_match); i++) {
        bool yes = vote(&p->v[i], t);
        votes[2 * i + yes]++;
        keep |= yes;
    }
    votes[2 * p->n + keep]++;
    return keep;
}

void policies_count(const struct policies *p, const uint32_t *votes)
{
    for (size_t i = 0; i < p->n; i++) {
        series_add(p->v[i].not_kept, votes[2 * i]);
        series_add(p->v[i].kept, votes[2 * i + 1]);
    }
    series_add(p->not_kept, votes[2 * p->n]);
    series_add(p->kept, votes[2 * p->n + 1]);
}
