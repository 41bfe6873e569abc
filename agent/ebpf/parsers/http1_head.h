/* SPDX-License-Identifier: Apache-2.0 */
/* The head of an HTTP/1.x message (RFC 9112): where it ends, and what we ask of it. No state. */
#ifndef AGENT_HTTP1_HEAD_H
#define AGENT_HTTP1_HEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/str.h"

enum {
    HTTP1_HEAD_MAX = 64 << 10, /* a longer head is given up */
    HTTP1_METHOD_MAX = 32,
};

/* Field values that we keep, in the order of the table in http1_head.c. */
enum http1_field {
    HTTP1_HOST,
    HTTP1_USER_AGENT,
    HTTP1_TRACEPARENT,
    HTTP1_TRACESTATE,
    HTTP1_FORWARDED,
    HTTP1_X_FORWARDED_FOR,
    HTTP1_X_FORWARDED_PROTO,
    HTTP1_FIELD_COUNT,
};

struct http1_head {
    struct str method, target; /* requests */
    unsigned status;           /* responses */
    unsigned minor;            /* HTTP/1.minor */
    bool has_length, chunked, other_coding;
    bool repeated_traceparent; /* more than one: none counts (W3C Trace Context 3.2) */
    uint64_t length;
    size_t length_at;                     /* of the line end before its field, the first one */
    struct str fields[HTTP1_FIELD_COUNT]; /* first value of each */
};

/*
 * Looks for the empty line that ends a head. Returns the length of the head with it, 0 when it is
 * not there yet. *scanned keeps the place between calls (0 at first), so that a head in pieces of
 * two bytes is read once. Lines may end in LF alone.
 */
size_t http1_head_end(struct str s, size_t *scanned);
/* What a beginning says: 1 it is a request (response) line, 0 too short to tell, -1 it is none. */
int http1_is_request(struct str s);
int http1_is_response(struct str s);
/* RFC 9110 9.3 and RFC 5789. None of them is the end of another. */
bool http1_is_known_method(struct str method);
/* Reads a whole head. False when it is malformed, or its framing contradicts itself. */
bool http1_read_request(struct str head, struct http1_head *out);
bool http1_read_response(struct str head, struct http1_head *out);
/*
 * The length of the head that s begins with, read as http1_read_request (_response) reads it, in
 * one pass. 0: it is not whole, or there is anything unusual about it; then the others tell.
 */
size_t http1_read_at_once(struct str s, bool is_request, struct http1_head *out);

#endif
