/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/regex.h"

#include <errno.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <pthread.h>
#include <stdlib.h>

enum {
    MATCH_LIMIT =
        100000, /* steps of the matcher; a sane pattern on an attribute needs some hundreds */
    HEAP_LIMIT_KIB = 1024,
};

struct regex {
    pcre2_code *code;
    pcre2_match_context *limits;
    unsigned n_groups;
    const char *names[REGEX_MAX_GROUPS + 1];
};

/* What is allowed after "(?": flags, non-capturing and named groups. */
static const char *check_group(const char *p)
{
    if (p[0] == 'P' && p[1] == '<')
        return NULL;
    if (p[0] == '<')
        return p[1] == '=' || p[1] == '!' ? "look-behind" : NULL;
    if (p[0] == '=' || p[0] == '!')
        return "look-ahead";
    while (*p && strchr("imsU-", *p))
        p++;
    return *p == ':' || *p == ')' ? NULL : "this kind of group";
}

static const char *check_escape(char c)
{
    if (c >= '1' && c <= '9')
        return "a back-reference";
    if (c && strchr("kgGKRXZ", c))
        return "this escape";
    return NULL;
}

/* Names what RE2 does not know at *at, or NULL. Character classes hold no groups or quantifiers. */
static const char *check_re2(const char *pattern, size_t *at)
{
    bool in_class = false;
    char before = 0; /* the last character if it was a quantifier */
    for (const char *p = pattern; *p; p++) {
        const char *bad = NULL;
        char quantifier = 0;
        *at = (size_t)(p - pattern);
        if (*p == '\\') {
            if (p[1] == 'Q') { /* literal text up to \E */
                const char *end = strstr(p, "\\E");
                if (!end)
                    return NULL;
                p = end + 1;
            } else if (p[1]) {
                bad = check_escape(*++p);
            }
        } else if (in_class) {
            in_class = *p != ']';
        } else if (*p == '[') {
            in_class = true;
            if (p[1] == '^')
                p++;
            if (p[1] == ']')
                p++;
        } else if (*p == '(' && p[1] == '?') {
            bad = check_group(p + 2);
            p++;
        } else if (*p == '(' && p[1] == '*') {
            bad = "a verb";
        } else if (strchr("*+?}", *p)) {
            if (*p == '+' && before)
                bad = "a possessive quantifier";
            quantifier = before ? 0 : *p; /* a second one makes the first lazy */
        }
        if (bad)
            return bad;
        before = quantifier;
    }
    return NULL;
}

static void collect_names(struct regex *r)
{
    uint32_t count = 0, entry = 0, groups = 0;
    PCRE2_SPTR table = NULL;
    pcre2_pattern_info(r->code, PCRE2_INFO_CAPTURECOUNT, &groups);
    pcre2_pattern_info(r->code, PCRE2_INFO_NAMECOUNT, &count);
    pcre2_pattern_info(r->code, PCRE2_INFO_NAMEENTRYSIZE, &entry);
    pcre2_pattern_info(r->code, PCRE2_INFO_NAMETABLE, &table);
    r->n_groups = groups;
    for (uint32_t i = 0; i < count; i++, table += entry) {
        unsigned group = (unsigned)table[0] << 8 | table[1];
        if (group <= REGEX_MAX_GROUPS)
            r->names[group] = (const char *)table + 2;
    }
}

int regex_new(struct regex **out, const char *pattern, struct err *e)
{
    size_t at = 0;
    const char *bad = check_re2(pattern, &at);
    if (bad)
        return err_set(e, -EINVAL, "offset %zu: RE2 does not know %s", at, bad);
    int code = 0;
    PCRE2_SIZE offset = 0;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                         PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C,
                                         &code, &offset, NULL);
    if (!compiled) {
        PCRE2_UCHAR text[128] = "";
        pcre2_get_error_message(code, text, sizeof(text));
        return err_set(e, -EINVAL, "offset %zu: %s", (size_t)offset, (char *)text);
    }
    struct regex *r = xcalloc(1, sizeof(*r));
    r->code = compiled;
    r->limits = pcre2_match_context_create(NULL);
    ASSERT(r->limits);
    pcre2_set_match_limit(r->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(r->limits, HEAP_LIMIT_KIB);
    collect_names(r);
    if (r->n_groups > REGEX_MAX_GROUPS) {
        err_set(e, -EINVAL, "more than %d groups", REGEX_MAX_GROUPS);
        regex_free(&r);
        return -EINVAL;
    }
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE); /* without it the interpreter serves */
    *out = r;
    return 0;
}

void regex_free(struct regex **r)
{
    if (!*r)
        return;
    pcre2_match_context_free((*r)->limits);
    pcre2_code_free((*r)->code);
    free(*r);
    *r = NULL;
}

static pthread_key_t match_data_key;
static pthread_once_t match_data_once = PTHREAD_ONCE_INIT;

static void free_match_data(void *data)
{
    pcre2_match_data_free(data);
}

static void make_key(void)
{
    ASSERT(pthread_key_create(&match_data_key, free_match_data) == 0);
}

/* One for each thread, freed at its end: what a match writes. */
static pcre2_match_data *thread_match_data(void)
{
    static _Thread_local pcre2_match_data *data;
    if (!data) {
        pthread_once(&match_data_once, make_key);
        data = pcre2_match_data_create(REGEX_MAX_GROUPS + 1, NULL);
        ASSERT(data);
        pthread_setspecific(match_data_key, data);
    }
    return data;
}

static int run(const struct regex *r, struct str subject)
{
    return pcre2_match(r->code, (PCRE2_SPTR)(subject.p ? subject.p : ""), subject.n, 0, 0,
                       thread_match_data(), r->limits);
}

bool regex_match(const struct regex *r, struct str subject)
{
    return run(r, subject) >= 0;
}

unsigned regex_groups(const struct regex *r, struct str subject, struct str *groups, unsigned n)
{
    int found = run(r, subject);
    if (found <= 0)
        return 0;
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(thread_match_data());
    unsigned filled = MIN(n, r->n_groups + 1);
    for (size_t i = 0; i < filled; i++) {
        bool set = i < (size_t)found && at[2 * i] != PCRE2_UNSET;
        groups[i] = set ? str_make(subject.p + at[2 * i], at[2 * i + 1] - at[2 * i])
                        : (struct str){NULL, 0};
    }
    return filled;
}

const char *regex_group_name(const struct regex *r, unsigned i)
{
    return i <= REGEX_MAX_GROUPS ? r->names[i] : NULL;
}

unsigned regex_group_count(const struct regex *r)
{
    return r->n_groups;
}
