/* SPDX-License-Identifier: Apache-2.0 */
#include "common/components/exporters/prometheus_naming.h"

#include <ctype.h>

#include "common/base/mem.h"

enum { MAX_TOKENS = 64 };

static const struct {
    const char *unit, *word;
} units[] =
    {
        {"d", "days"},
        {"h", "hours"},
        {"min", "minutes"},
        {"s", "seconds"},
        {"ms", "milliseconds"},
        {"us", "microseconds"},
        {"ns", "nanoseconds"},
        {"By", "bytes"},
        {"KiBy", "kibibytes"},
        {"MiBy", "mebibytes"},
        {"GiBy", "gibibytes"},
        {"TiBy", "tibibytes"},
        {"KBy", "kilobytes"},
        {"MBy", "megabytes"},
        {"GBy", "gigabytes"},
        {"TBy", "terabytes"},
        {"m", "meters"},
        {"V", "volts"},
        {"A", "amperes"},
        {"J", "joules"},
        {"W", "watts"},
        {"g", "grams"},
        {"Cel", "celsius"},
        {"Hz", "hertz"},
        {"1", ""},
        {"%", "percent"},
},
  per_units[] = {
      {"s", "second"}, {"m", "minute"}, {"h", "hour"}, {"d", "day"},
      {"w", "week"},   {"mo", "month"}, {"y", "year"},
};

struct tokens {
    struct str v[MAX_TOKENS];
    unsigned n;
};

static bool is_name_char(char c)
{
    return isalnum((unsigned char)c) || c == ':';
}

static void add_token(struct tokens *t, struct str s)
{
    if (s.n && t->n < MAX_TOKENS)
        t->v[t->n++] = s;
}

static void split(struct tokens *t, struct str s)
{
    size_t from = 0;
    for (size_t i = 0; i <= s.n; i++) {
        if (i < s.n && is_name_char(s.p[i]))
            continue;
        add_token(t, str_make(s.p + from, i - from));
        from = i + 1;
    }
}

static bool has_token(const struct tokens *t, const char *word)
{
    for (unsigned i = 0; i < t->n; i++)
        if (str_is(t->v[i], word))
            return true;
    return false;
}

static void drop_token(struct tokens *t, const char *word)
{
    unsigned n = 0;
    for (unsigned i = 0; i < t->n; i++)
        if (!str_is(t->v[i], word))
            t->v[n++] = t->v[i];
    t->n = n;
}

/* Units in braces are annotations. */
static bool is_plain_unit(struct str u)
{
    return u.n && !memchr(u.p, '{', u.n) && !memchr(u.p, '}', u.n);
}

static void add_unit(struct tokens *t, struct str unit)
{
    struct str main_part = unit, per = {NULL, 0};
    const char *slash = unit.n ? memchr(unit.p, '/', unit.n) : NULL;
    if (slash) {
        main_part.n = (size_t)(slash - unit.p);
        per = str_make(slash + 1, unit.n - main_part.n - 1);
    }
    main_part = str_trim(main_part);
    per = str_trim(per);
    if (is_plain_unit(main_part)) {
        const char *word = NULL;
        for (size_t i = 0; i < ARRAY_LEN(units); i++)
            if (str_is(main_part, units[i].unit))
                word = units[i].word;
        if (word && word[0] && !has_token(t, word))
            add_token(t, str_of(word));
        else if (!word)
            split(t, main_part);
    }
    if (is_plain_unit(per)) {
        const char *word = NULL;
        for (size_t i = 0; i < ARRAY_LEN(per_units); i++)
            if (str_is(per, per_units[i].unit))
                word = per_units[i].word;
        struct str s = word ? str_of(word) : per;
        if (word && !has_token(t, word)) {
            add_token(t, STR("per"));
            add_token(t, s);
        }
    }
}

void prometheus_metric_name(struct buf *out, const struct prometheus_name *n)
{
    struct tokens t = {.n = 0};
    size_t begin = out->n;
    split(&t, n->name);
    if (n->with_suffixes) {
        add_unit(&t, n->unit);
        if (n->is_monotonic_sum) {
            drop_token(&t, "total");
            add_token(&t, STR("total"));
        }
        if (n->is_gauge && str_is(n->unit, "1")) {
            drop_token(&t, "ratio");
            add_token(&t, STR("ratio"));
        }
    }
    if (n->namespace.n) {
        buf_add_str(out, n->namespace);
        buf_add_byte(out, '_');
    } else if (t.n && isdigit((unsigned char)t.v[0].p[0])) {
        buf_add_byte(out, '_');
    }
    for (unsigned i = 0; i < t.n; i++) {
        if (i)
            buf_add_byte(out, '_');
        buf_add_str(out, t.v[i]);
    }
    if (out->n == begin)
        buf_add_byte(out, '_');
}

void prometheus_label_name(struct buf *out, struct str key)
{
    if (key.n && isdigit((unsigned char)key.p[0]))
        buf_add_cstr(out, "key_");
    else if (key.n && key.p[0] == '_' && !(key.n > 1 && key.p[1] == '_'))
        buf_add_cstr(out, "key");
    for (size_t i = 0; i < key.n; i++)
        buf_add_byte(out, isalnum((unsigned char)key.p[i]) ? (uint8_t)key.p[i] : '_');
    if (key.n == 0)
        buf_add_byte(out, '_');
}

void prometheus_label_value(struct buf *out, struct str value)
{
    for (size_t i = 0; i < value.n; i++) {
        char c = value.p[i];
        if (c == '"' || c == '\\')
            buf_add_byte(out, '\\');
        if (c == '\n')
            buf_add_cstr(out, "\\n");
        else
            buf_add_byte(out, (uint8_t)c);
    }
}
