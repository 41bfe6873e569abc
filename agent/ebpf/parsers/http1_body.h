/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where in its messages one flow of HTTP/1.x is, and what frames their bodies (RFC 9112 6 and 7).
 * It knows neither the other flow nor exchanges: http1.c joins them.
 */
#ifndef AGENT_HTTP1_BODY_H
#define AGENT_HTTP1_BODY_H

#include "agent/ebpf/parsers/http1_head.h"
#include "agent/ebpf/parsers/parser.h"
#include "common/base/buf.h"

enum http1_state {
    AT_HEAD,     /* a message begins here, or is in its head */
    IN_BODY,     /* `left` bytes of a body of known length */
    CHUNK_SIZE,  /* in the line that begins a chunk */
    CHUNK_DATA,  /* `left` bytes of it */
    CHUNK_END,   /* the line end after it */
    TRAILER,     /* after the last chunk, up to an empty line */
    TO_CLOSE,    /* a body that the end of the connection ends */
    CHUNKS_LOST, /* chunks whose sizes were in a hole: the end shows by its look */
    END_UNSEEN,  /* a response whose head ends in a hole: up to what answers the next request */
    LOST,        /* waits for a call that begins with a head */
};

enum { HTTP1_TAIL_SEEN = 7 }; /* "\r\n0\r\n\r\n" */

struct http1_exchange;

struct http1_stream {
    enum http1_state state;
    struct buf head; /* a head in pieces */
    size_t scanned;
    uint64_t left, body, message_first_ns;
    unsigned line; /* bytes of the present chunk or trailer line */
    bool extension, any_digit, size_known;
    bool size_told; /* END_UNSEEN: `body` is what the head says, true if all of it came */
    uint8_t tail[HTTP1_TAIL_SEEN]; /* CHUNKS_LOST: the last bytes seen in a row */
    unsigned tail_n;
    struct http1_exchange *x; /* whose message this is, while in its body */
    uint64_t end, end_ns;     /* of what was fed, holes too */
};

enum http1_framing { FRAMING_GOES_ON, FRAMING_ENDS, FRAMING_BROKEN };

void http1_stream_init(struct http1_stream *f, enum http1_state state);
void http1_stream_fini(struct http1_stream *f);
/* A message may begin here: all of the one before is forgotten. */
void http1_at_head(struct http1_stream *f);

/* Behind a head. False: there is no body, the message is over. */
bool http1_begin_request_body(struct http1_stream *f, const struct http1_head *head);
bool http1_begin_response_body(struct http1_stream *f, const struct http1_head *head, bool to_head);
/* Behind a response's head that goes on in a hole: nobody knows where the body begins. */
void http1_begin_unseen_end(struct http1_stream *f, const struct http1_head *head, bool to_head);
/* Behind a hole in the framing of chunks. */
void http1_lose_chunks(struct http1_stream *f);

/* One byte of framing between chunks or after them. */
enum http1_framing http1_framing_byte(struct http1_stream *f, uint8_t c);
/* Body bytes from *at on, seen or not: they are only counted. True: the body ends with them. */
bool http1_count_body(struct http1_stream *f, const struct segment *s, uint64_t *at);
/* CHUNKS_LOST: remembers the last bytes; true when they are the end of a chunked body. */
bool http1_tail_is_end(struct http1_stream *f, const struct segment *s, uint64_t at);

#endif
