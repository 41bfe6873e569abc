/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/parsers/http1_head.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "common/base/mem.h"

static const struct {
    struct str name;
} kept[HTTP1_FIELD_COUNT] = {
    [HTTP1_HOST] = {{"host", 4}},
    [HTTP1_USER_AGENT] = {{"user-agent", 10}},
    [HTTP1_TRACEPARENT] = {{"traceparent", 11}},
    [HTTP1_TRACESTATE] = {{"tracestate", 10}},
    [HTTP1_FORWARDED] = {{"forwarded", 9}},
    [HTTP1_X_FORWARDED_FOR] = {{"x-forwarded-for", 15}},
    [HTTP1_X_FORWARDED_PROTO] = {{"x-forwarded-proto", 17}},
};

/* RFC 9110 5.6.2: tchar: letters, digits and !#$%&'*+-.^_`|~ as bits. */
static bool is_tchar(unsigned char c)
{
    static const uint32_t set[4] = {0, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff};

    return c < 128 && set[c / 32] >> c % 32 & 1;
}

/* How many characters at p may stand in a target: visible ones, and what is no ASCII. */
static size_t visible(const char *p, size_t n)
{
    const uint64_t ones = UINT64_MAX / 255, highs = ones << 7;
    size_t i = 0;

    for (uint64_t w; n - i >= 8; i += 8) {
        memcpy(&w, p + i, 8);
        uint64_t del = w ^ ones * 0x7f;
        /* Any byte below 0x21, or zero in del: subtracting sets the high bit that was not set. */
        if (((w - ones * 0x21) & ~w & highs) | ((del - ones) & ~del & highs))
            break;
    }
    while (i < n && (unsigned char)p[i] > 0x20 && p[i] != 0x7f)
        i++;
    return i;
}

size_t http1_head_end(struct str s, size_t *scanned)
{
    size_t i = *scanned;

    while (i < s.n) {
        const char *lf = memchr(s.p + i, '\n', s.n - i);
        size_t at;

        if (!lf)
            break;
        at = (size_t)(lf - s.p) + 1;
        if (at < s.n && s.p[at] == '\n')
            return at + 1;
        if (at + 1 < s.n && s.p[at] == '\r' && s.p[at + 1] == '\n')
            return at + 2;
        /* The answer may lie in bytes that are not here yet: come back to this line end. */
        if (at >= s.n || (s.p[at] == '\r' && at + 1 >= s.n)) {
            *scanned = at - 1;
            return 0;
        }
        i = at;
    }
    *scanned = s.n;
    return 0;
}

/* Length of the line without its end; *next is where the following one begins. */
static struct str line_at(struct str s, size_t at, size_t *next)
{
    const char *lf = at < s.n ? memchr(s.p + at, '\n', s.n - at) : NULL;
    size_t end = lf ? (size_t)(lf - s.p) : s.n;

    *next = lf ? end + 1 : s.n;
    if (end > at && s.p[end - 1] == '\r')
        end--;
    return str_make(s.p + at, end - at);
}

/* "HTTP/1.1" at p[0..n): 1 yes, 0 so far, -1 no. */
static int version_prefix(const char *p, size_t n)
{
    static const char want[] = "HTTP/1.";
    size_t i;

    for (i = 0; i < n && i < 7; i++)
        if (p[i] != want[i])
            return -1;
    if (n < 8)
        return 0;
    return p[7] == '0' || p[7] == '1' ? 1 : -1;
}

int http1_is_request(struct str s)
{
    size_t i = 0, target;

    while (i < s.n && (s.p[i] == '\r' || s.p[i] == '\n') && i < 4)
        i++; /* RFC 9112 2.2: an empty line before the request line is to be ignored */
    target = i;
    while (target < s.n && is_tchar((unsigned char)s.p[target]))
        target++;
    if (target - i > HTTP1_METHOD_MAX)
        return -1;
    if (target >= s.n)
        return 0;
    if (target == i || s.p[target] != ' ')
        return -1;
    i = target + 1 + visible(s.p + target + 1, s.n - target - 1);
    if (i - target > HTTP1_HEAD_MAX)
        return -1;
    if (i >= s.n)
        return 0;
    if (i == target + 1 || s.p[i] != ' ')
        return -1;
    return version_prefix(s.p + i + 1, s.n - i - 1);
}

int http1_is_response(struct str s)
{
    int v = version_prefix(s.p, s.n);
    size_t i;

    if (v <= 0)
        return v;
    for (i = 8; i < 12; i++) {
        if (i >= s.n)
            return 0;
        if (i == 8 ? s.p[i] != ' ' : s.p[i] < '0' || s.p[i] > '9')
            return -1;
    }
    return 1;
}

/* transfer-encoding: only a final "chunked" frames a message; RFC 9112 6.1. */
static void read_coding(struct http1_head *h, struct str v)
{
    struct str last = v;
    size_t i;

    for (i = 0; i < v.n; i++)
        if (v.p[i] == ',')
            last = str_make(v.p + i + 1, v.n - i - 1);
    last = str_trim(last);
    h->chunked = str_ieq(last, STR("chunked"));
    h->other_coding = !h->chunked && !str_ieq(last, STR("identity")) && last.n > 0;
}

static bool read_one_length(struct http1_head *h, struct str v)
{
    uint64_t n;

    if (str_to_u64(v, &n) || n > INT64_MAX || (h->has_length && n != h->length))
        return false;
    h->length = n;
    h->has_length = true;
    return true;
}

/* RFC 9112 6.3: equal values may be repeated, also as a list; different ones are an attack. */
static bool read_length(struct http1_head *h, struct str v)
{
    if (read_one_length(h, v))
        return true;
    while (v.n > 0) {
        const char *comma = memchr(v.p, ',', v.n);

        if (!read_one_length(h, str_trim(str_make(v.p, comma ? (size_t)(comma - v.p) : v.n))))
            return false;
        v = comma ? str_make(comma + 1, v.n - (size_t)(comma + 1 - v.p)) : str_make(NULL, 0);
    }
    return h->has_length;
}

/* Which of kept[] a field of that name is; HTTP1_FIELD_COUNT: none. */
static unsigned find_kept(struct str name)
{
    static const uint8_t by_length[] = {
        [4] = HTTP1_HOST,         [9] = HTTP1_FORWARDED,        [10] = HTTP1_USER_AGENT,
        [11] = HTTP1_TRACEPARENT, [15] = HTTP1_X_FORWARDED_FOR, [17] = HTTP1_X_FORWARDED_PROTO};
    unsigned i = name.n < ARRAY_LEN(by_length) ? by_length[name.n] : 0;

    if (i == HTTP1_USER_AGENT && (name.p[0] | 0x20) == 't')
        i = HTTP1_TRACESTATE; /* as long */
    return str_ieq(name, kept[i].name) ? i : HTTP1_FIELD_COUNT;
}

static bool read_field(struct http1_head *h, struct str name, struct str value, size_t at)
{
    unsigned i;

    if (name.n == 14 && str_ieq(name, STR("content-length"))) {
        if (!h->length_at)
            h->length_at = at - 1;
        return read_length(h, value);
    }
    if (name.n == 17 && str_ieq(name, STR("transfer-encoding"))) {
        read_coding(h, value);
        return true;
    }
    i = find_kept(name);
    if (i == HTTP1_FIELD_COUNT)
        return true;
    if (!h->fields[i].p)
        h->fields[i] = value;
    else if (i == HTTP1_TRACEPARENT)
        h->repeated_traceparent = true;
    return true;
}

/* Most fields are none of ours: lengths and first letters of names tell. */
static bool may_be_kept(struct str name)
{
    static const uint32_t lengths = 1u << 4 | 1u << 9 | 1u << 10 | 1u << 11 | 1u << 14 | 1u << 15 |
                                    1u << 17; /* of the names in read_field() and kept[] */
    static const uint32_t letters = 1u << ('c' & 31) | 1u << ('f' & 31) | 1u << ('h' & 31) |
                                    1u << ('t' & 31) | 1u << ('u' & 31) | 1u << ('x' & 31);

    return name.n < 32 && (lengths >> name.n & 1) && (letters >> (name.p[0] & 31) & 1);
}

static bool read_fields(struct str head, size_t at, struct http1_head *h)
{
    while (at < head.n) {
        struct str line = line_at(head, at, &at), name, value;
        const char *colon;

        if (line.n == 0)
            break;
        if (line.p[0] == ' ' || line.p[0] == '\t')
            continue; /* obs-fold: the value goes on; none that we keep is ever folded */
        colon = memchr(line.p, ':', line.n);
        if (!colon)
            return false;
        name = str_make(line.p, (size_t)(colon - line.p));
        if (name.n && (unsigned char)name.p[name.n - 1] <= ' ')
            name = str_trim(name);
        if (!may_be_kept(name))
            continue;
        value = str_trim(str_make(colon + 1, line.n - (size_t)(colon + 1 - line.p)));
        if (!read_field(h, name, value, (size_t)(line.p - head.p)))
            return false;
    }
    return true;
}

bool http1_is_known_method(struct str method)
{
    static const char *const known[] = {"GET",     "POST",    "PUT",   "DELETE", "HEAD",
                                        "OPTIONS", "CONNECT", "TRACE", "PATCH",  NULL};

    for (unsigned i = 0; known[i]; i++)
        if (str_is(method, known[i]))
            return true;
    return false;
}

bool http1_read_request(struct str head, struct http1_head *out)
{
    size_t next = 0, i;
    struct str line;
    const char *sp;

    memset(out, 0, sizeof(*out));
    if (http1_is_request(head) != 1)
        return false;
    do
        line = line_at(head, next, &next);
    while (line.n == 0 && next < head.n);
    sp = memchr(line.p, ' ', line.n);
    if (!sp)
        return false;
    out->method = str_make(line.p, (size_t)(sp - line.p));
    i = out->method.n + 1;
    sp = memchr(line.p + i, ' ', line.n - i);
    if (!sp || line.n - (size_t)(sp + 1 - line.p) != 8)
        return false;
    out->target = str_make(line.p + i, (size_t)(sp - line.p) - i);
    out->minor = (unsigned)(line.p[line.n - 1] - '0');
    return read_fields(head, next, out);
}

bool http1_read_response(struct str head, struct http1_head *out)
{
    size_t next;
    struct str line = line_at(head, 0, &next);

    memset(out, 0, sizeof(*out));
    if (http1_is_response(line) != 1 || (line.n > 12 && line.p[12] != ' '))
        return false;
    out->minor = (unsigned)(line.p[7] - '0');
    out->status = (unsigned)((line.p[9] - '0') * 100 + (line.p[10] - '0') * 10 + line.p[11] - '0');
    return out->status >= 100 && read_fields(head, next, out);
}

/* ---- the same in one pass ---- */

/* Behind "HTTP/1.1" and what has to follow it; NULL: something else is there. */
static const char *after_version(const char *p, char next)
{
    return memcmp(p, "HTTP/1.", 7) == 0 && (p[7] == '0' || p[7] == '1') && p[8] == next ? p + 9
                                                                                        : NULL;
}

/* Where the fields begin, 0: not an ordinary request line. */
static size_t request_line(struct str s, struct http1_head *out)
{
    size_t method = 0, target;
    const char *p;

    while (method < s.n && is_tchar((unsigned char)s.p[method]))
        method++;
    if (method == 0 || method > HTTP1_METHOD_MAX || method >= s.n || s.p[method] != ' ')
        return 0;
    target = visible(s.p + method + 1, s.n - method - 1);
    p = s.p + method + 1 + target;
    if (target == 0 || s.p + s.n - p < 11 || *p != ' ' || !(p = after_version(p + 1, '\r')) ||
        *p != '\n')
        return 0;
    out->method = str_make(s.p, method);
    out->target = str_make(s.p + method + 1, target);
    out->minor = (unsigned)(p[-2] - '0');
    return (size_t)(p + 1 - s.p);
}

static size_t status_line(struct str s, struct http1_head *out)
{
    const char *p = s.n >= 15 ? after_version(s.p, ' ') : NULL, *lf;

    if (!p || (p[3] != ' ' && (p[3] != '\r' || p[4] != '\n')))
        return 0;
    for (unsigned i = 0; i < 3; i++) {
        if (p[i] < '0' || p[i] > '9')
            return 0;
        out->status = out->status * 10 + (unsigned)(p[i] - '0');
    }
    lf = memchr(p + 3, '\n', s.n - 12);
    if (out->status < 100 || !lf)
        return 0;
    out->minor = (unsigned)(s.p[7] - '0');
    return (size_t)(lf + 1 - s.p);
}

/* Bytes before the '\n' in p[0..n), n: there is none. *colon: where the first ':' is, n: none. */
static size_t line_length(const char *p, size_t n, size_t *colon)
{
    size_t i = 0;

    *colon = n;
#ifdef __SSE2__
    const __m128i colons = _mm_set1_epi8(':'), lfs = _mm_set1_epi8('\n');

    for (; n - i >= 16; i += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        unsigned lf = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, lfs));
        unsigned c = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, colons));

        c &= (lf & -lf) - 1; /* those before the end; no end: all */
        if (c && *colon == n)
            *colon = i + (unsigned)__builtin_ctz(c);
        if (lf)
            return i + (unsigned)__builtin_ctz(lf);
    }
#endif
    for (; i < n && p[i] != '\n'; i++)
        if (p[i] == ':' && *colon == n)
            *colon = i;
    return i;
}

static size_t read_fields_to_end(struct str s, size_t at, struct http1_head *out)
{
    while (s.n - at >= 2) {
        const char *p = s.p + at;
        size_t left = s.n - at, colon, n;
        struct str name, value;

        if (p[0] == '\r' && p[1] == '\n')
            return at + 2;
        n = line_length(p, left, &colon);
        if (n == left || colon == left || colon == 0 || (unsigned char)p[0] <= ' ' ||
            (unsigned char)p[colon - 1] <= ' ')
            return 0;
        at += n + 1;
        name = str_make(p, colon);
        if (!may_be_kept(name))
            continue;
        value = str_make(p + colon + 1, n - colon - 1);
        if (value.n && value.p[value.n - 1] == '\r')
            value.n--;
        if (!read_field(out, name, str_trim(value), (size_t)(p - s.p)))
            return 0;
    }
    return 0;
}

size_t http1_read_at_once(struct str s, bool is_request, struct http1_head *out)
{
    size_t at, end;

    memset(out, 0, sizeof(*out));
    at = is_request ? request_line(s, out) : status_line(s, out);
    end = at ? read_fields_to_end(s, at, out) : 0;
    return end <= HTTP1_HEAD_MAX ? end : 0;
}
