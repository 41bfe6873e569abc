/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/url.h"

/* Signatures and credentials of well-known signed URLs (OpenTelemetry semantic conventions,
 * url.query). */
const char *const query_sensitive_keys[] = {
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Goog-Signature",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    NULL,
};

static struct str after(struct str s, size_t n)
{
    return str_make(s.p + n, s.n - n);
}

static bool cut_at(struct str *head, struct str *tail, char c)
{
    const char *p = head->n ? memchr(head->p, c, head->n) : NULL;

    if (!p)
        return false;
    *tail = after(*head, (size_t)(p - head->p) + 1);
    head->n = (size_t)(p - head->p);
    return true;
}

void target_split(struct str target, bool connect, struct target *out)
{
    struct str fragment;
    const char *p;

    memset(out, 0, sizeof(*out));
    if (connect) {
        out->authority = target;
        return;
    }
    if (target.n && target.p[0] != '/' && (p = memmem(target.p, target.n, "://", 3))) {
        size_t i = (size_t)(p - target.p);

        out->scheme = str_make(target.p, i);
        target = after(target, i + 3);
        for (i = 0; i < target.n && target.p[i] != '/' && target.p[i] != '?'; i++)
            continue;
        out->authority = str_make(target.p, i);
        target = after(target, i);
    }
    cut_at(&target, &fragment, '#');
    out->path = target;
    out->has_query = cut_at(&out->path, &out->query, '?');
    if (out->path.n == 0)
        out->path = STR("/");
}

struct str authority_host(struct str a, uint16_t *port)
{
    const char *at = a.n ? memrchr(a.p, '@', a.n) : NULL;
    struct str host, digits = {NULL, 0};
    uint64_t n;

    *port = 0;
    if (at)
        a = after(a, (size_t)(at - a.p) + 1);
    host = a;
    if (a.n && a.p[0] == '[') {
        const char *end = memchr(a.p, ']', a.n);

        if (!end)
            return a;
        host = str_make(a.p + 1, (size_t)(end - a.p) - 1);
        a = after(a, (size_t)(end - a.p) + 1);
        if (a.n && a.p[0] == ':')
            digits = after(a, 1);
    } else {
        cut_at(&host, &digits, ':');
    }
    if (digits.n && !str_to_u64(digits, &n) && n > 0 && n <= UINT16_MAX)
        *port = (uint16_t)n;
    return host;
}

void query_redact(struct buf *out, struct str query, const char *const *keys)
{
    while (query.n) {
        struct str pair = query, value, rest = {NULL, 0};
        bool more = cut_at(&pair, &rest, '&'), hidden = false;
        struct str key = pair;

        if (cut_at(&key, &value, '='))
            for (unsigned i = 0; keys[i] && !hidden; i++)
                hidden = str_is(key, keys[i]);
        buf_add_str(out, hidden ? key : pair);
        if (hidden)
            buf_add_cstr(out, "=REDACTED");
        if (more)
            buf_add_byte(out, '&');
        query = rest;
    }
}

struct str forwarded_first(struct str list)
{
    struct str rest;

    cut_at(&list, &rest, ',');
    return str_trim(list);
}

struct str forwarded_param(struct str forwarded, struct str name)
{
    struct str element = forwarded_first(forwarded);

    while (element.n) {
        struct str pair = element, value = {NULL, 0}, rest = {NULL, 0};

        cut_at(&pair, &rest, ';');
        element = rest;
        if (!cut_at(&pair, &value, '=') || !str_ieq(str_trim(pair), name))
            continue;
        value = str_trim(value);
        if (value.n >= 2 && value.p[0] == '"' && value.p[value.n - 1] == '"')
            value = str_make(value.p + 1, value.n - 2);
        return value;
    }
    return (struct str){NULL, 0};
}
