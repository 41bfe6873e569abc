/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The HTTP/1.1 message syntax (RFC 9112), strictly: heads and chunked bodies. Borrowed bytes in,
 * borrowed slices out; no allocation. What could be read in two ways (request smuggling) is an
 * error.
 */
#ifndef IO_HTTP1_H
#define IO_HTTP1_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/str.h"

#define HTTP1_MAX_HEAD (64 << 10)
#define HTTP1_MAX_FIELDS 100

struct http1_field {
    struct str name, value;
};

struct http1_head {
    bool is_response;
    struct str method, path; /* requests */
    int status;              /* responses */
    int minor;               /* HTTP/1.minor */
    bool has_length, is_chunked, keep_alive, expects_continue;
    uint64_t content_length;
    unsigned n_fields;
    struct http1_field fields[HTTP1_MAX_FIELDS];
};

/*
 * Parses a head that ends in an empty line. Returns its length, 0 when more bytes are needed,
 * -EBADMSG, -E2BIG when it is longer than HTTP1_MAX_HEAD or has too many fields.
 */
int http1_parse_head(const char *p, size_t n, bool is_response, struct http1_head *out);
/* Value of a field (name in any case), {NULL,0} if missing. */
struct str http1_field(const struct http1_head *h, const char *name);

/* Chunked bodies (RFC 9112 §7.1): feed bytes, get data runs. */
struct http1_chunked {
    uint64_t left;
    uint8_t state, digits;
    bool at_line_start;
    uint32_t trailer;
};
void http1_chunked_init(struct http1_chunked *c);
/*
 * Takes bytes from *p: returns 1 with a run of body data in *data, 0 when the input is used up, 2
 * at the end of the body (*p stands behind it), -EBADMSG.
 */
int http1_chunked_next(struct http1_chunked *c, const uint8_t **p, const uint8_t *end,
                       struct str *data);

#endif
