/* SPDX-License-Identifier: Apache-2.0 */
#include "common/io/grpc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/text.h"

int grpc_message(const struct http_request *r, struct str *out, bool *is_compressed)
{
    if (!r->body || r->body->len < HTTP_BODY_HEADROOM + GRPC_PREFIX)
        return -EBADMSG;
    const uint8_t *p = r->body->data + HTTP_BODY_HEADROOM;
    size_t have = r->body->len - HTTP_BODY_HEADROOM - GRPC_PREFIX;
    size_t n = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    if (p[0] > 1 || n != have)
        return -EBADMSG;
    *is_compressed = p[0] == 1;
    *out = str_make(p + GRPC_PREFIX, n);
    return 0;
}

void grpc_prefix(uint8_t p[GRPC_PREFIX], bool is_compressed, size_t n)
{
    p[0] = is_compressed;
    p[1] = (uint8_t)(n >> 24);
    p[2] = (uint8_t)(n >> 16);
    p[3] = (uint8_t)(n >> 8);
    p[4] = (uint8_t)n;
}

static const struct http_header content_type = {
    "content-type", {"application/grpc", sizeof("application/grpc") - 1}};

void grpc_respond(struct http_request *r, struct str message)
{
    static const struct http_header ok = {"grpc-status", {"0", 1}};
    uint8_t small[64 + GRPC_PREFIX];
    uint8_t *p = message.n <= 64 ? small : xalloc(message.n + GRPC_PREFIX);
    grpc_prefix(p, false, message.n);
    if (message.n)
        memcpy(p + GRPC_PREFIX, message.p, message.n);
    struct http_response resp = {.status = 200,
                                 .headers = &content_type,
                                 .n_headers = 1,
                                 .body = str_make(p, message.n + GRPC_PREFIX),
                                 .trailers = &ok,
                                 .n_trailers = 1};
    http_respond(r, &resp);
    if (p != small)
        free(p);
}

/* grpc-message: printable ASCII but %, the rest percent-encoded. */
static void add_message(struct buf *b, const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c < 0x20 || c > 0x7e || c == '%')
            buf_addf(b, "%%%02X", c);
        else
            buf_add_byte(b, c);
    }
}

void grpc_respond_status(struct http_request *r, int code, const char *message, struct str details)
{
    struct buf text, bin;
    char number[12];
    buf_init(&text);
    buf_init(&bin);
    snprintf(number, sizeof(number), "%d", code);
    add_message(&text, message ? message : "");
    text_add_base64(&bin, details, false);
    /* Trailers-only: the status stands in the one header block. */
    struct http_header headers[] = {content_type,
                                    {"grpc-status", str_of(number)},
                                    {"grpc-message", buf_str(&text)},
                                    {"grpc-status-details-bin", buf_str(&bin)}};
    struct http_response resp = {.status = 200, .headers = headers, .n_headers = details.n ? 4 : 3};
    http_respond(r, &resp);
    buf_fini(&text);
    buf_fini(&bin);
}
