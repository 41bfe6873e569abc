/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gRPC of strangers: the frame around a message, and the status of an answer. Statuses that we
 * write are read back as they were meant, whatever their text; what back ends say never passes the
 * room that it is given.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/io/grpc.h"
#include "common/otlp/encode.h"

#define http_respond stub_respond
void stub_respond(struct http_request *r, const struct http_response *resp);
#include "common/io/grpc.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct buf last_message, last_details;

static struct str header_of(const struct http_response *resp, const char *name)
{
    for (unsigned i = 0; i < resp->n_headers; i++)
        if (strcmp(resp->headers[i].name, name) == 0)
            return resp->headers[i].value;
    return (struct str){NULL, 0};
}

void stub_respond(struct http_request *r, const struct http_response *resp)
{
    struct str message = header_of(resp, "grpc-message");
    struct str details = header_of(resp, "grpc-status-details-bin");

    buf_reset(&last_message);
    buf_reset(&last_details);
    if (message.n)
        buf_add_str(&last_message, message);
    if (details.n)
        buf_add_str(&last_details, details);
}

static void unescape(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned v = (unsigned char)s.p[i];
        if (v < 0x20 || v > 0x7e) /* such a header breaks the connection */
            abort();
        if (v == '%') {
            if (i + 2 >= s.n || sscanf(s.p + i + 1, "%2x", &v) != 1)
                abort();
            i += 2;
        }
        buf_add_byte(out, (uint8_t)v);
    }
}

static void unbase64(struct buf *out, struct str s)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned v = 0, bits = 0;
    for (size_t i = 0; i < s.n; i++) {
        const char *d = s.p[i] ? strchr(digits, s.p[i]) : NULL;
        if (!d)
            abort();
        v = v << 6 | (unsigned)(d - digits);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            buf_add_byte(out, (uint8_t)(v >> bits));
        }
    }
}

static void frame(const uint8_t *data, size_t size)
{
    struct http_request r = {0};
    struct chunk *k = chunk_new(HTTP_BODY_HEADROOM + size);
    struct str message;
    uint8_t again[GRPC_PREFIX];
    bool is_compressed;

    if (!k)
        abort();
    memcpy(k->data + HTTP_BODY_HEADROOM, data, size);
    k->len = HTTP_BODY_HEADROOM + size;
    r.body = k;
    if (grpc_message(&r, &message, &is_compressed) == 0) {
        grpc_prefix(again, is_compressed, message.n);
        if (message.n + GRPC_PREFIX != size || memcmp(again, data, GRPC_PREFIX) != 0)
            abort();
    }
    chunk_unref(&k);
}

static void our_status(const uint8_t *data, size_t size)
{
    struct http_request r = {0};
    struct buf text, back;
    char read[64];
    int code;
    uint64_t asked = size ? data[0] * 37 : 0;
    struct retry_hint hint;

    buf_init(&text);
    buf_init(&back);
    buf_add(&text, data, strnlen((const char *)data, size));
    const char *message = buf_cstr(&text);
    struct buf status;
    buf_init(&status);
    encode_rpc_status(&status, 14, message, asked);
    grpc_respond_status(&r, 14, message, buf_str(&status));
    unescape(&back, buf_str(&last_message));
    if (!str_eq(buf_str(&back), str_of(message)))
        abort();
    buf_reset(&back);
    unbase64(&back, buf_str(&last_details));
    if (!str_eq(buf_str(&back), buf_str(&status)))
        abort();
    if (decode_rpc_status(buf_str(&status), &code, read, sizeof(read), &hint) || code != 14 ||
        hint.is_there != (asked > 0) || hint.delay_ms != asked ||
        strncmp(read, message, sizeof(read) - 1) != 0)
        abort();
    buf_fini(&status);
    buf_fini(&text);
    buf_fini(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[16];
    int code;
    int64_t rejected;
    struct retry_hint hint;

    if (size == 0)
        return 0;
    frame(data, size);
    (void)decode_rpc_status(str_make(data, size), &code, text, sizeof(text), &hint);
    (void)decode_export_response(str_make(data, size), &rejected, text, sizeof(text));
    our_status(data, size);
    return 0;
}
