/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/parsers/http1_body.h"

#include <string.h>

enum {
    CHUNK_LINE_MAX = 4096, /* chunk extensions */
    TRAILER_MAX = 64 << 10,
    HEAD_MEMORY_KEPT = 1024, /* between messages */
};

static void head_memory(struct http1_stream *f)
{
    buf_init(&f->head);
    f->head.max = HTTP1_HEAD_MAX;
}

void http1_stream_init(struct http1_stream *f, enum http1_state state)
{
    memset(f, 0, sizeof(*f));
    head_memory(f);
    f->state = state;
}

void http1_stream_fini(struct http1_stream *f)
{
    buf_fini(&f->head);
}

void http1_at_head(struct http1_stream *f)
{
    f->state = AT_HEAD;
    f->x = NULL;
    f->scanned = 0;
    f->body = f->left = 0;
    if (f->head.cap > HEAD_MEMORY_KEPT) {
        buf_fini(&f->head);
        head_memory(f);
    }
    buf_reset(&f->head);
}

/* ---- what frames a body ---- */

static void begin_chunks(struct http1_stream *f)
{
    f->state = CHUNK_SIZE;
    f->left = f->line = 0;
    f->extension = f->any_digit = false;
}

static bool begin_length(struct http1_stream *f, uint64_t n)
{
    if (n == 0)
        return false;
    f->state = IN_BODY;
    f->left = n;
    return true;
}

bool http1_begin_request_body(struct http1_stream *f, const struct http1_head *head)
{
    if (!head->chunked)
        return head->has_length && begin_length(f, head->length);
    begin_chunks(f);
    return true;
}

static bool has_no_body(const struct http1_head *head, bool to_head)
{
    return to_head || head->status == 204 || head->status == 304;
}

/* RFC 9112 6.3 */
bool http1_begin_response_body(struct http1_stream *f, const struct http1_head *head, bool to_head)
{
    if (has_no_body(head, to_head))
        return false;
    if (head->chunked)
        begin_chunks(f);
    else if (head->other_coding || !head->has_length)
        f->state = TO_CLOSE;
    else
        return begin_length(f, head->length);
    return true;
}

void http1_begin_unseen_end(struct http1_stream *f, const struct http1_head *head, bool to_head)
{
    bool none = has_no_body(head, to_head);

    f->state = head->chunked && !none ? CHUNKS_LOST : END_UNSEEN;
    f->size_known = none;
    f->size_told = !none && head->has_length && !head->chunked && !head->other_coding;
    f->body = f->size_told ? head->length : 0;
    f->tail_n = 0;
}

void http1_lose_chunks(struct http1_stream *f)
{
    f->state = CHUNKS_LOST;
    f->size_known = false;
    f->tail_n = 0;
}

/* ---- its bytes ---- */

static int hex(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One byte of a chunk's size line. False when it is none. */
static bool chunk_size_byte(struct http1_stream *f, uint8_t c)
{
    int d = hex(c);

    if (c == '\n') {
        if (!f->any_digit)
            return false;
        f->state = f->left ? CHUNK_DATA : TRAILER;
        f->line = 0;
        return true;
    }
    if (++f->line > CHUNK_LINE_MAX)
        return false;
    if (f->extension || c == '\r')
        return true;
    if (c == ';' || c == ' ' || c == '\t') {
        f->extension = true;
        return f->any_digit;
    }
    if (d < 0 || f->left > UINT64_MAX >> 8)
        return false;
    f->left = f->left << 4 | (uint64_t)d;
    f->any_digit = true;
    return true;
}

enum http1_framing http1_framing_byte(struct http1_stream *f, uint8_t c)
{
    bool ok = true;

    switch (f->state) {
    case CHUNK_SIZE:
        ok = chunk_size_byte(f, c);
        break;
    case CHUNK_END:
        if (c == '\n')
            begin_chunks(f);
        ok = c == '\n' || c == '\r';
        break;
    default: /* TRAILER: field lines up to an empty one */
        if (c == '\n' && f->line == 0)
            return FRAMING_ENDS;
        if (c == '\n')
            f->line = 0;
        else if (c != '\r')
            ok = ++f->line <= TRAILER_MAX;
        break;
    }
    return ok ? FRAMING_GOES_ON : FRAMING_BROKEN;
}

bool http1_count_body(struct http1_stream *f, const struct segment *s, uint64_t *at)
{
    uint64_t n = s->len - *at;

    if (f->state != TO_CLOSE)
        n = MIN(n, f->left);
    *at += n;
    f->body += n;
    if (f->state == TO_CLOSE)
        return false;
    f->left -= n;
    if (f->left > 0)
        return false;
    if (f->state == IN_BODY)
        return true;
    f->state = CHUNK_END;
    return false;
}

bool http1_tail_is_end(struct http1_stream *f, const struct segment *s, uint64_t at)
{
    static const char end[] = "\r\n0\r\n\r\n";
    uint64_t n = s->len - at, put = MIN(n, HTTP1_TAIL_SEEN), old;

    if (s->flags & SEGMENT_CALL_START && at == 0)
        f->tail_n = 0;
    old = MIN(f->tail_n, HTTP1_TAIL_SEEN - put);
    memmove(f->tail, f->tail + f->tail_n - old, old);
    memcpy(f->tail + old, s->p + s->len - put, put);
    f->tail_n = (unsigned)(old + put);
    if (!(s->flags & SEGMENT_CALL_END))
        return false;
    if (f->tail_n == HTTP1_TAIL_SEEN)
        return memcmp(f->tail, end, HTTP1_TAIL_SEEN) == 0;
    return f->tail_n == 5 && memcmp(f->tail, end + 2, 5) == 0; /* the last chunk in its own call */
}
