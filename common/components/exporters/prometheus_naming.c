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

static bool has_token(const struct tokens *t, struct str word)
{
    for (unsigned i = 0; i < t->n; i++)
        if (str_eq(t->v[i], word))
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

/* A unit of unknown spelling may be several words; it is left out when it stands in the name. */
static void add_words(struct tokens *t, struct str unit, const char *before)
{
    struct tokens words = {.n = 0};
    split(&words, unit);
    if (words.n == 0 || (words.n == 1 && has_token(t, words.v[0])))
        return;
    if (before)
        add_token(t, str_of(before));
    for (unsigned i = 0; i < words.n; i++)
        add_token(t, words.v[i]);
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
    if (is_plain_unit(main_part))
        for (size_t i = 0; i < ARRAY_LEN(units); i++)
            if (str_is(main_part, units[i].unit))
                main_part = str_of(units[i].word);
    if (is_plain_unit(per))
        for (size_t i = 0; i < ARRAY_LEN(per_units); i++)
            if (str_is(per, per_units[i].unit))
                per = str_of(per_units[i].word);
    if (is_plain_unit(main_part))
        add_words(t, main_part, NULL);
    if (is_plain_unit(per))
        add_words(t, per, "per");
}

/* Without suffixes a name keeps its underscores; what is no name's character parts it. */
static void add_plain(struct buf *out, struct str name)
{
    bool is_gap = false;
    size_t begin = out->n;
    for (size_t i = 0; i < name.n; i++) {
        bool is_part = is_name_char(name.p[i]) || name.p[i] == '_';
        if (is_part && is_gap && out->n > begin)
            buf_add_byte(out, '_');
        if (is_part)
            buf_add_byte(out, (uint8_t)name.p[i]);
        is_gap = !is_part;
    }
}

static void add_tokens(struct buf *out, const struct prometheus_name *n)
{
    struct tokens t = {.n = 0};
    split(&t, n->name);
    add_unit(&t, n->unit);
    if (n->is_monotonic_sum) {
        drop_token(&t, "total");
        add_token(&t, STR("total"));
    }
    if (n->is_gauge && str_is(n->unit, "1")) {
        drop_token(&t, "ratio");
        add_token(&t, STR("ratio"));
    }
    for (unsigned i = 0; i < t.n; i++) {
        if (i)
            buf_add_byte(out, '_');
        buf_add_str(out, t.v[i]);
    }
}

void prometheus_metric_name(struct buf *out, const struct prometheus_name *n)
{
    struct buf name;
    buf_init(&name);
    if (n->namespace.n) {
        add_plain(&name, n->namespace);
        buf_add_byte(&name, '_');
    }
    if (n->with_suffixes)
        add_tokens(&name, n);
    else
        add_plain(&name, n->name);
    if (name.n == 0 || isdigit((unsigned char)name.p[0]))
        buf_add_byte(out, '_');
    buf_add_str(out, buf_str(&name));
    buf_fini(&name);
}

/* One underscore for each character (of UTF-8, not byte) that a label's name may not have. */
void prometheus_label_name(struct buf *out, struct str key)
{
    struct buf name;
    buf_init(&name);
    for (size_t i = 0; i < key.n; i++) {
        unsigned char c = (unsigned char)key.p[i];
        if (c < 0x80 || c >= 0xc0)
            buf_add_byte(&name, c < 0x80 && isalnum(c) ? c : '_');
    }
    struct str s = buf_str(&name);
    if (s.n == 0 || isdigit((unsigned char)s.p[0]))
        buf_add_cstr(out, s.n ? "key_" : "_");
    else if (s.p[0] == '_' && !str_has_prefix(s, STR("__")))
        buf_add_cstr(out, "key");
    buf_add_str(out, s);
    buf_fini(&name);
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
