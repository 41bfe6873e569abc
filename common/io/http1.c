/* SPDX-License-Identifier: Apache-2.0 */
#include "common/io/http1.h"

#include <errno.h>

#include "common/base/mem.h"

static bool is_token_char(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!is_token_char((unsigned char)s.p[i]))
            return false;
    return s.n > 0;
}

static bool has_control(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (((unsigned char)s.p[i] < 0x20 && s.p[i] != '\t') || s.p[i] == 0x7f)
            return true;
    return false;
}

/* Next line without CRLF (a bare LF ends one too, RFC 9112 §2.2). False when it is not complete. */
static bool next_line(const char **p, const char *end, struct str *out)
{
    const char *nl = memchr(*p, '\n', (size_t)(end - *p));
    if (!nl)
        return false;
    size_t n = (size_t)(nl - *p);
    if (n && (*p)[n - 1] == '\r')
        n--;
    *out = str_make(*p, n);
    *p = nl + 1;
    return true;
}

static struct str take_word(struct str *line)
{
    const char *space = memchr(line->p, ' ', line->n);
    size_t n = space ? (size_t)(space - line->p) : line->n;
    struct str word = str_make(line->p, n);
    line->p += n + (space != NULL);
    line->n -= n + (space != NULL);
    return word;
}

static int parse_version(struct str v, struct http1_head *out)
{
    if (v.n != 8 || !str_has_prefix(v, STR("HTTP/1.")) || v.p[7] < '0' || v.p[7] > '1')
        return -EBADMSG;
    out->minor = v.p[7] - '0';
    return 0;
}

static int parse_first_line(struct str line, struct http1_head *out)
{
    if (!out->is_response) {
        out->method = take_word(&line);
        out->path = take_word(&line);
        if (!is_token(out->method) || out->path.n == 0 || has_control(out->path))
            return -EBADMSG;
        return parse_version(line, out);
    }
    struct str version = take_word(&line), code = take_word(&line);
    uint64_t status;
    if (code.n != 3 || str_to_u64(code, &status) || status < 100)
        return -EBADMSG;
    out->status = (int)status;
    return parse_version(version, out);
}

static bool list_has(struct str list, struct str word)
{
    while (list.n) {
        const char *comma = memchr(list.p, ',', list.n);
        size_t n = comma ? (size_t)(comma - list.p) : list.n;
        if (str_ieq(str_trim(str_make(list.p, n)), word))
            return true;
        list.p += n + (comma != NULL);
        list.n -= n + (comma != NULL);
    }
    return false;
}

/* Two lengths, or a length beside a transfer coding, are how requests are smuggled: refused. */
static int note_field(struct http1_head *out, const struct http1_field *f)
{
    uint64_t length;
    if (str_ieq(f->name, STR("content-length"))) {
        if (str_to_u64(f->value, &length) || out->has_length || out->is_chunked)
            return -EBADMSG;
        out->has_length = true;
        out->content_length = length;
    } else if (str_ieq(f->name, STR("transfer-encoding"))) {
        if (!str_ieq(f->value, STR("chunked")) || out->has_length || out->is_chunked)
            return -EBADMSG;
        out->is_chunked = true;
    } else if (str_ieq(f->name, STR("connection"))) {
        if (list_has(f->value, STR("close")))
            out->keep_alive = false;
        else if (list_has(f->value, STR("keep-alive")))
            out->keep_alive = true;
    } else if (str_ieq(f->name, STR("expect"))) {
        out->expects_continue = str_ieq(f->value, STR("100-continue"));
    }
    return 0;
}

static int parse_field(struct str line, struct http1_head *out)
{
    const char *colon = memchr(line.p, ':', line.n);
    if (!colon || out->n_fields == HTTP1_MAX_FIELDS)
        return colon ? -E2BIG : -EBADMSG;
    struct http1_field *f = &out->fields[out->n_fields++];
    f->name = str_make(line.p, (size_t)(colon - line.p));
    f->value = str_trim(str_make(colon + 1, line.n - f->name.n - 1));
    if (!is_token(f->name) || has_control(f->value))
        return -EBADMSG;
    return note_field(out, f);
}

int http1_parse_head(const char *p, size_t n, bool is_response, struct http1_head *out)
{
    const char *at = p, *end = p + MIN(n, (size_t)HTTP1_MAX_HEAD);
    struct str line;
    int r;
    out->is_response = is_response;
    out->has_length = out->is_chunked = out->expects_continue = false;
    out->content_length = out->n_fields = 0;
    while (at < end && !is_response && (*at == '\r' || *at == '\n'))
        at++; /* empty lines before a request are skipped (RFC 9112 §2.2) */
    if (!next_line(&at, end, &line))
        return n >= HTTP1_MAX_HEAD ? -E2BIG : 0;
    r = parse_first_line(line, out);
    if (r)
        return r;
    out->keep_alive = out->minor == 1;
    for (;;) {
        if (!next_line(&at, end, &line))
            return n >= HTTP1_MAX_HEAD ? -E2BIG : 0;
        if (line.n == 0) /* HTTP/1.0 knows no chunks: what comes after is read in two ways */
            return out->is_chunked && out->minor == 0 && !is_response ? -EBADMSG : (int)(at - p);
        r = parse_field(line, out);
        if (r)
            return r;
    }
}

struct str http1_field(const struct http1_head *h, const char *name)
{
    for (unsigned i = 0; i < h->n_fields; i++)
        if (str_ieq(h->fields[i].name, str_of(name)))
            return h->fields[i].value;
    return (struct str){NULL, 0};
}

/* ---- chunked ---- */

enum { SIZE, SIZE_BLANK, SIZE_CR, EXTENSION, DATA, DATA_CR, DATA_LF, TRAILER, END };
enum { MAX_TRAILER = 8 << 10 };

void http1_chunked_init(struct http1_chunked *c)
{
    *c = (struct http1_chunked){.at_line_start = true};
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int end_size_line(struct http1_chunked *c)
{
    c->state = c->left ? DATA : TRAILER;
    c->digits = 0;
    c->at_line_start = true;
    return 0;
}

/* What may follow the digits: no digit any more, or "1 0" would be 16 here and 1 elsewhere. */
static int behind_size(struct http1_chunked *c, uint8_t b)
{
    switch (b) {
    case '\n':
        return end_size_line(c);
    case '\r':
        c->state = SIZE_CR;
        return 0;
    case ';':
        c->state = EXTENSION;
        return 0;
    case ' ':
    case '\t':
        c->state = SIZE_BLANK;
        return ++c->trailer > MAX_TRAILER ? -EBADMSG : 0;
    default:
        return -EBADMSG;
    }
}

/* One byte outside of data. 2 = the body has ended. */
static int step(struct http1_chunked *c, uint8_t b)
{
    int digit;
    switch (c->state) {
    case SIZE:
        digit = hex_digit(b);
        if (digit >= 0) {
            c->left = c->left * 16 + (unsigned)digit;
            return ++c->digits > 15 ? -EBADMSG : 0;
        }
        return c->digits ? behind_size(c, b) : -EBADMSG;
    case SIZE_BLANK:
        return behind_size(c, b);
    case SIZE_CR: /* a bare CR is read as a line's end by some and not by others */
        return b == '\n' ? end_size_line(c) : -EBADMSG;
    case EXTENSION:
        if (++c->trailer > MAX_TRAILER)
            return -EBADMSG;
        return b == '\n' || b == '\r' ? behind_size(c, b) : 0;
    case DATA_CR:
        c->state = DATA_LF;
        return b == '\r' ? 0 : -EBADMSG;
    case DATA_LF:
        c->state = SIZE;
        return b == '\n' ? 0 : -EBADMSG;
    default: /* TRAILER: fields are skipped up to an empty line */
        if (++c->trailer > MAX_TRAILER)
            return -EBADMSG;
        if (b == '\n') {
            if (c->at_line_start)
                return 2;
            c->at_line_start = true;
        } else if (b != '\r') {
            c->at_line_start = false;
        }
        return 0;
    }
}

int http1_chunked_next(struct http1_chunked *c, const uint8_t **p, const uint8_t *end,
                       struct str *data)
{
    while (*p < end) {
        if (c->state == DATA) {
            size_t n = (size_t)MIN((uint64_t)(end - *p), c->left);
            *data = str_make(*p, n);
            *p += n;
            c->left -= n;
            if (c->left == 0)
                c->state = DATA_CR;
            return 1;
        }
        int r = step(c, *(*p)++);
        if (r)
            return r;
    }
    return 0;
}
