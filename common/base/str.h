/* SPDX-License-Identifier: Apache-2.0 */
/* A borrowed run of bytes: not terminated, not owned. The field's empty value is {NULL, 0}. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(lit) ((struct str){"" lit "", sizeof(lit) - 1})
#define STR_FMT "%.*s"
#define STR_ARG(s) (int)(s).n, (s).p

static inline struct str str_of(const char *s)
{
    return (struct str){s, s ? strlen(s) : 0};
}

static inline struct str str_make(const void *p, size_t n)
{
    return (struct str){p, n};
}

static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool str_is(struct str a, const char *s)
{
    return str_eq(a, str_of(s));
}

/* ASCII case is ignored, as header names want it. */
bool str_ieq(struct str a, struct str b);
bool str_has_prefix(struct str a, struct str prefix);
bool str_has_suffix(struct str a, struct str suffix);
int str_cmp(struct str a, struct str b);
/* Without leading and trailing blanks and tabs. */
static inline struct str str_trim(struct str a)
{
    while (a.n && (a.p[0] == ' ' || a.p[0] == '\t'))
        a.p++, a.n--;
    while (a.n && (a.p[a.n - 1] == ' ' || a.p[a.n - 1] == '\t'))
        a.n--;
    return a;
}
/* Decimal digits only. -EINVAL for anything else, -ERANGE past UINT64_MAX. */
int str_to_u64(struct str a, uint64_t *out);
/* True when the bytes are well-formed UTF-8 (RFC 3629: no surrogates, no overlong form). */
bool str_is_utf8(const void *p, size_t n);
/* The nearest of names[0..n) by edit distance, or NULL when none is near. For "did you mean". */
const char *str_nearest(struct str word, const char *const *names, size_t n);

#endif
