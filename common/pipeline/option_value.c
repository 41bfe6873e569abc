/* SPDX-License-Identifier: Apache-2.0 */
/* Scalar values as YAML and Go read them. */
#include "common/pipeline/option_value.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/clock.h"
#include "common/base/mem.h"

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

static const char *const null_words[] = {"", "~", "null", "Null", "NULL", NULL};
static const char *const true_words[] = {"true", "True", "TRUE", NULL};
static const char *const false_words[] = {"false", "False", "FALSE", NULL};
static const char *const inf_words[] = {".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF", NULL};
static const char *const minus_inf_words[] = {"-.inf", "-.Inf", "-.INF", NULL};
static const char *const nan_words[] = {".nan", ".NaN", ".NAN", NULL};

int value_bool(const char *text, bool *out)
{
    if (is_one_of(text, true_words))
        *out = true;
    else if (is_one_of(text, false_words))
        *out = false;
    else
        return -EINVAL;
    return 0;
}

/* Takes the base prefix off digits: "0x1f" -> 16, "0o17" and "017" -> 8, "0b11" -> 2. */
static unsigned take_base(const char **p)
{
    const char *s = *p;
    if (s[0] != '0' || s[1] == 0)
        return 10;
    char c = (char)tolower((unsigned char)s[1]);
    *p += c == 'x' || c == 'o' || c == 'b' ? 2 : 1;
    return c == 'x' ? 16 : c == 'b' ? 2 : 8;
}

/* Sign and magnitude. -ERANGE when the magnitude passes 64 bits (and it is an integer). */
static int read_integer(const char *text, bool *negative, uint64_t *out)
{
    const char *p = text;
    *negative = *p == '-';
    if (*p == '-' || *p == '+')
        p++;
    if (!isdigit((unsigned char)*p))
        return -EINVAL;
    unsigned base = take_base(&p);
    uint64_t v = 0;
    bool over = false, any = base == 8; /* "0_" is 0 */
    for (; *p; p++) {
        if (*p == '_')
            continue;
        int c = tolower((unsigned char)*p);
        unsigned digit = isdigit(c)    ? (unsigned)(c - '0')
                         : isxdigit(c) ? (unsigned)(c - 'a' + 10)
                                       : 99;
        if (digit >= base)
            return -EINVAL;
        over = over || __builtin_mul_overflow(v, (uint64_t)base, &v) ||
               __builtin_add_overflow(v, (uint64_t)digit, &v);
        any = true;
    }
    *out = v;
    return !any ? -EINVAL : over ? -ERANGE : 0;
}

int value_uint(const char *text, uint64_t *out)
{
    bool negative;
    uint64_t v;
    int rc = read_integer(text, &negative, &v);
    if (rc < 0)
        return rc;
    if (negative && v)
        return -ERANGE;
    *out = v;
    return 0;
}

int value_int(const char *text, int64_t *out)
{
    bool negative;
    uint64_t v;
    int rc = read_integer(text, &negative, &v);
    if (rc < 0)
        return rc;
    if (v > (uint64_t)INT64_MAX + negative)
        return -ERANGE;
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return 0;
}

/* [-+]? ( .digits | digits [.digits?] ) ( [eE] [-+]? digits )? */
static bool looks_like_float(const char *p)
{
    if (*p == '-' || *p == '+')
        p++;
    size_t before = strspn(p, "0123456789");
    p += before;
    if (*p == '.') {
        size_t after = strspn(++p, "0123456789");
        if (!before && !after)
            return false;
        p += after;
    } else if (!before) {
        return false;
    }
    if (*p == 'e' || *p == 'E') {
        p++;
        if (*p == '-' || *p == '+')
            p++;
        size_t digits = strspn(p, "0123456789");
        if (!digits)
            return false;
        p += digits;
    }
    return *p == 0;
}

/* '_' between digits means nothing. Past the range of doubles it is no number. */
static int read_float(const char *text, double *out)
{
    char plain[64];
    size_t n = 0;
    for (; *text && n < sizeof(plain) - 1; text++)
        if (*text != '_' || n == 0)
            plain[n++] = *text;
    plain[n] = 0;
    if (*text || !looks_like_float(plain))
        return -EINVAL;
    double v = strtod(plain, NULL);
    if (isinf(v))
        return -EINVAL;
    *out = v;
    return 0;
}

int value_double(const char *text, double *out)
{
    bool negative;
    uint64_t v;
    if (is_one_of(text, inf_words))
        *out = INFINITY;
    else if (is_one_of(text, minus_inf_words))
        *out = -INFINITY;
    else if (is_one_of(text, nan_words))
        *out = NAN;
    else if (read_integer(text, &negative, &v) == 0)
        *out = negative ? -(double)v : (double)v;
    else
        return read_float(text, out);
    return 0;
}

enum value_kind value_kind(const char *text)
{
    bool b, negative;
    uint64_t u;
    double d;
    if (is_one_of(text, null_words))
        return VALUE_NULL;
    if (value_bool(text, &b) == 0)
        return VALUE_BOOL;
    if (read_integer(text, &negative, &u) == 0 && u <= (uint64_t)INT64_MAX + negative)
        return VALUE_INT;
    return value_double(text, &d) == 0 ? VALUE_FLOAT : VALUE_STRING;
}

/* ---- durations ---- */

struct unit {
    const char *name;
    uint64_t ns;
};

/* Longer names first where one begins another. */
static const struct unit units[] = {
    {"ns", 1},
    {"us", NS_PER_US},
    {"\xc2\xb5s", NS_PER_US}, /* U+00B5 micro sign */
    {"\xce\xbcs", NS_PER_US}, /* U+03BC Greek mu */
    {"ms", NS_PER_MS},
    {"s", NS_PER_S},
    {"m", 60 * NS_PER_S},
    {"h", 3600 * NS_PER_S},
};

static const struct unit *take_unit(const char **p)
{
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        size_t n = strlen(units[i].name);
        if (strncmp(*p, units[i].name, n) == 0) {
            *p += n;
            return &units[i];
        }
    }
    return NULL;
}

/* One "1.5h": number and unit, added to *total. */
static int take_term(const char **p, uint64_t *total)
{
    uint64_t whole = 0, frac = 0, scale = 1;
    bool any = false, over = false;
    for (; isdigit((unsigned char)**p); (*p)++, any = true)
        over = over || __builtin_mul_overflow(whole, (uint64_t)10, &whole) ||
               __builtin_add_overflow(whole, (uint64_t)(**p - '0'), &whole);
    if (**p == '.') {
        for ((*p)++; isdigit((unsigned char)**p); (*p)++, any = true) {
            if (scale < 1000000000000000ULL) { /* further digits are below a nanosecond */
                frac = frac * 10 + (uint64_t)(**p - '0');
                scale *= 10;
            }
        }
    }
    const struct unit *u = any ? take_unit(p) : NULL;
    if (!u)
        return -EINVAL;
    over = over || __builtin_mul_overflow(whole, u->ns, &whole);
    whole += (uint64_t)((double)frac * ((double)u->ns / (double)scale));
    over = over || __builtin_add_overflow(*total, whole, total) || *total > INT64_MAX;
    return over ? -ERANGE : 0;
}

int value_duration(const char *text, uint64_t *ns)
{
    int64_t bare;
    int rc = value_int(text, &bare);
    if (rc != -EINVAL) {
        if (rc == 0 && bare >= 0)
            *ns = (uint64_t)bare;
        return rc < 0 || bare < 0 ? -ERANGE : 0;
    }
    const char *p = text;
    bool negative = *p == '-';
    if (*p == '-' || *p == '+')
        p++;
    if (*p == 0)
        return -EINVAL;
    uint64_t total = 0;
    while (*p) {
        rc = take_term(&p, &total);
        if (rc < 0)
            return rc;
    }
    if (negative && total)
        return -ERANGE;
    *ns = total;
    return 0;
}

void value_duration_text(uint64_t ns, char *out, size_t n)
{
    if (ns == 0) {
        snprintf(out, n, "0s");
        return;
    }
    if (ns < NS_PER_S) {
        if (ns % NS_PER_MS == 0)
            snprintf(out, n, "%llums", (unsigned long long)(ns / NS_PER_MS));
        else if (ns % NS_PER_US == 0)
            snprintf(out, n, "%lluus", (unsigned long long)(ns / NS_PER_US));
        else
            snprintf(out, n, "%lluns", (unsigned long long)ns);
        return;
    }
    uint64_t h = ns / (3600 * NS_PER_S), m = ns / (60 * NS_PER_S) % 60, rest = ns % (60 * NS_PER_S);
    int at = 0;
    if (h)
        at += snprintf(out + at, n - (size_t)at, "%lluh", (unsigned long long)h);
    if (m)
        at += snprintf(out + at, n - (size_t)at, "%llum", (unsigned long long)m);
    if (!rest)
        return;
    char frac[12];
    snprintf(frac, sizeof(frac), ".%09llu", (unsigned long long)(rest % NS_PER_S));
    size_t end = strlen(frac);
    while (end && (frac[end - 1] == '0' || frac[end - 1] == '.'))
        frac[--end] = 0;
    snprintf(out + at, n - (size_t)at, "%llu%ss", (unsigned long long)(rest / NS_PER_S), frac);
}

/* ---- endpoints and ids ---- */

static const char *port_fault(const char *port)
{
    uint64_t v;
    if (str_to_u64(str_of(port), &v) < 0 || v > 65535)
        return "its port is not a number from 0 to 65535";
    return NULL;
}

const char *value_endpoint_fault(const char *text)
{
    const char *scheme = strstr(text, "://");
    if (scheme)
        return scheme == text || scheme[3] == 0 ? "it is incomplete" : NULL;
    if (strpbrk(text, " \t\r\n"))
        return "it holds a blank";
    if (*text == '[') {
        const char *end = strchr(text, ']');
        if (!end || end[1] != ':')
            return "after an IPv6 address in brackets comes ':port'";
        return port_fault(end + 2);
    }
    const char *colon = strrchr(text, ':');
    if (!colon)
        return "it has no port; write host:port";
    if (memchr(text, ':', (size_t)(colon - text)))
        return "an IPv6 address stands in brackets: [::1]:4317";
    return port_fault(colon + 1);
}

struct str value_id_type(const char *id)
{
    return str_make(id, strcspn(id, "/"));
}

const char *value_id_fault(const char *text)
{
    struct str type = value_id_type(text);
    if (type.n == 0 || type.n > 63 || !isalpha((unsigned char)type.p[0]))
        return "an id is a type ([A-Za-z][0-9A-Za-z_]*), or type/name";
    for (size_t i = 0; i < type.n; i++)
        if (!isalnum((unsigned char)type.p[i]) && type.p[i] != '_')
            return "an id is a type ([A-Za-z][0-9A-Za-z_]*), or type/name";
    if (text[type.n] == 0)
        return NULL;
    const char *name = text + type.n + 1;
    if (*name == 0 || strlen(name) > 1024)
        return "the name after '/' has 1 to 1024 characters";
    for (; *name; name++)
        if ((unsigned char)*name <= ' ' || strchr("$+<=>^`|~\x7f", *name))
            return "the name after '/' may not hold blanks, control characters or symbols";
    return NULL;
}
