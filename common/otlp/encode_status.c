/* SPDX-License-Identifier: Apache-2.0 */
/* The export protocol's small messages: google.rpc.Status with RetryInfo, Export*ServiceResponse.
 */
#include <errno.h>
#include <stdio.h>

#include "common/otlp/encode.h"

#define RETRY_INFO STR("type.googleapis.com/google.rpc.RetryInfo")

void encode_rpc_status(struct buf *out, int code, const char *message, uint64_t retry_after_ms)
{
    if (code)
        wire_put_u64(out, 1, (uint64_t)code);
    if (message && message[0])
        wire_put_bytes(out, 2, str_of(message));
    if (retry_after_ms == 0)
        return;
    size_t any = wire_begin(out, 3);
    wire_put_bytes(out, 1, RETRY_INFO);
    size_t info = wire_begin(out, 2);
    size_t delay = wire_begin(out, 1); /* google.protobuf.Duration */
    if (retry_after_ms / 1000)
        wire_put_u64(out, 1, retry_after_ms / 1000);
    if (retry_after_ms % 1000)
        wire_put_u64(out, 2, retry_after_ms % 1000 * 1000000);
    wire_end(out, delay);
    wire_end(out, info);
    wire_end(out, any);
}

static void copy_text(char *to, size_t n, struct str from)
{
    snprintf(to, n, STR_FMT, STR_ARG(from));
}

static uint64_t retry_delay_ms(struct str any)
{
    if (!str_eq(message_bytes(any, 1), RETRY_INFO))
        return 0;
    struct str delay = message_bytes(message_bytes(any, 2), 1);
    uint64_t s = message_u64(delay, 1, 0), ns = message_u64(delay, 2, 0);
    if (s > 365 * 86400 || ns >= 1000000000) /* negative or absurd: no hint */
        return 0;
    return s * 1000 + ns / 1000000;
}

int decode_rpc_status(struct str s, int *code, char *msg, size_t n, uint64_t *retry_after_ms)
{
    struct wire w = wire_of(s);
    struct field f;
    int r;
    *code = 0;
    *retry_after_ms = 0;
    copy_text(msg, n, STR(""));
    while ((r = wire_next(&w, &f)) == 1) {
        if (f.number == 1 && f.type == WIRE_VARINT)
            *code = (int)(int32_t)f.value;
        else if (f.number == 2 && f.type == WIRE_LEN)
            copy_text(msg, n, f.bytes);
        else if (f.number == 3 && f.type == WIRE_LEN && retry_delay_ms(f.bytes))
            *retry_after_ms = retry_delay_ms(f.bytes);
    }
    return r < 0 ? -EBADMSG : 0;
}

int decode_export_response(struct str s, int64_t *rejected, char *msg, size_t n)
{
    struct wire w = wire_of(s);
    struct field f;
    int r;
    *rejected = 0;
    copy_text(msg, n, STR(""));
    while ((r = wire_next(&w, &f)) == 1) {
        if (f.number != 1 || f.type != WIRE_LEN)
            continue;
        *rejected = (int64_t)message_u64(f.bytes, 1, 0);
        copy_text(msg, n, message_bytes(f.bytes, 2));
    }
    return r < 0 ? -EBADMSG : 0;
}
