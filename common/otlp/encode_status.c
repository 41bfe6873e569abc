/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The export protocol's small messages, by nanopb: google.rpc.Status with RetryInfo, and
 * Export*ServiceResponse. They are written once a failure and read once an answer, never once a
 * span.
 *
 * nanopb hands a callback's field over whatever its wire type was: a number where a text belongs
 * arrives as its bytes. That only garbles a text, and a detail that is none is passed over.
 */
#include <errno.h>
#include <pb_decode.h>
#include <pb_encode.h>

#include "common/otlp/encode.h"
#include "proto/export.pb.h"
#include "proto/rpc_status.pb.h"

#define RETRY_INFO STR("type.googleapis.com/google.rpc.RetryInfo")
enum { TYPE_URL_MAX = 64, RETRY_SECONDS_MAX = 365 * 86400, NS_PER_MILLI = 1000000 };

/* ---- writing ---- */

static bool write_bytes(pb_ostream_t *stream, const pb_byte_t *p, size_t n)
{
    buf_add(stream->state, p, n);
    return true; /* the buf is latched */
}

static bool put_text(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct str *s = *arg;
    return pb_encode_tag_for_field(stream, field) &&
           pb_encode_string(stream, (const pb_byte_t *)s->p, s->n);
}

static bool put_detail(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    return pb_encode_tag_for_field(stream, field) &&
           pb_encode_submessage(stream, google_protobuf_Any_fields, *arg);
}

void encode_rpc_status(struct buf *out, int code, const char *message, uint64_t retry_after_ms)
{
    google_rpc_Status status = google_rpc_Status_init_zero;
    google_rpc_RetryInfo info = google_rpc_RetryInfo_init_zero;
    google_protobuf_Any detail = google_protobuf_Any_init_zero;
    struct str text = str_of(message), type = RETRY_INFO, value;
    pb_byte_t bytes[google_rpc_RetryInfo_size];
    pb_ostream_t inner = pb_ostream_from_buffer(bytes, sizeof(bytes));
    pb_ostream_t stream = {.callback = write_bytes, .state = out, .max_size = SIZE_MAX};
    bool ok = true;

    status.code = code;
    if (text.n) {
        status.message.funcs.encode = put_text;
        status.message.arg = &text;
    }
    if (retry_after_ms) {
        info.has_retry_delay = true;
        info.retry_delay.seconds = (int64_t)(retry_after_ms / 1000);
        info.retry_delay.nanos = (int32_t)(retry_after_ms % 1000) * NS_PER_MILLI;
        ok = pb_encode(&inner, google_rpc_RetryInfo_fields, &info);
        value = str_make(bytes, inner.bytes_written);
        detail.type_url.funcs.encode = detail.value.funcs.encode = put_text;
        detail.type_url.arg = &type;
        detail.value.arg = &value;
        status.details.funcs.encode = put_detail;
        status.details.arg = &detail;
    }
    ok = ok && pb_encode(&stream, google_rpc_Status_fields, &status);
    ASSERT(ok); /* no message of these depends on what a peer sent */
}

/* ---- reading ---- */

struct text {
    char *p;
    size_t n; /* room, with the ending NUL */
};

/* The beginning of a text, as far as there is room; the last one wins. */
static bool take_text(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    struct text *t = *arg;
    size_t n = MIN(stream->bytes_left, t->n - 1);
    (void)field;
    t->p[n] = 0;
    return pb_read(stream, (pb_byte_t *)t->p, n) && pb_read(stream, NULL, stream->bytes_left);
}

/* The value of an Any as a RetryInfo, before it is known to be one: the type may stand behind it.
 */
static bool take_retry_info(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    google_rpc_RetryInfo *info = *arg;
    (void)field;
    if (!pb_decode(stream, google_rpc_RetryInfo_fields, info))
        info->has_retry_delay = false;
    return pb_read(stream, NULL, stream->bytes_left);
}

static uint64_t delay_ms(const google_rpc_RetryInfo *info)
{
    const google_protobuf_Duration *d = &info->retry_delay;
    if (!info->has_retry_delay || d->seconds < 0 || d->seconds > RETRY_SECONDS_MAX ||
        d->nanos < 0 || d->nanos >= 1000 * NS_PER_MILLI) /* negative or absurd: no hint */
        return 0;
    return (uint64_t)d->seconds * 1000 + (uint64_t)(d->nanos / NS_PER_MILLI);
}

static bool take_detail(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    struct retry_hint *hint = *arg;
    google_protobuf_Any any = google_protobuf_Any_init_zero;
    google_rpc_RetryInfo info = google_rpc_RetryInfo_init_zero;
    char type[TYPE_URL_MAX] = "";
    struct text type_text = {type, sizeof(type)};

    (void)field;
    any.type_url.funcs.decode = take_text;
    any.type_url.arg = &type_text;
    any.value.funcs.decode = take_retry_info;
    any.value.arg = &info;
    if (!pb_decode(stream, google_protobuf_Any_fields, &any))
        return false;
    if (str_eq(str_of(type), RETRY_INFO))
        *hint = (struct retry_hint){true, delay_ms(&info)};
    return true;
}

int decode_rpc_status(struct str s, int *code, char *msg, size_t n, struct retry_hint *hint)
{
    google_rpc_Status status = google_rpc_Status_init_zero;
    pb_istream_t stream = pb_istream_from_buffer((const pb_byte_t *)s.p, s.n);
    struct text text = {msg, n};
    bool ok;

    msg[0] = 0;
    *hint = (struct retry_hint){0};
    status.message.funcs.decode = take_text;
    status.message.arg = &text;
    status.details.funcs.decode = take_detail;
    status.details.arg = hint;
    ok = pb_decode(&stream, google_rpc_Status_fields, &status);
    *code = status.code;
    return ok ? 0 : -EBADMSG;
}

int decode_export_response(struct str s, int64_t *rejected, char *msg, size_t n)
{
    opentelemetry_proto_collector_ExportServiceResponse r =
        opentelemetry_proto_collector_ExportServiceResponse_init_zero;
    pb_istream_t stream = pb_istream_from_buffer((const pb_byte_t *)s.p, s.n);
    struct text text = {msg, n};
    bool ok;

    msg[0] = 0;
    r.partial_success.error_message.funcs.decode = take_text;
    r.partial_success.error_message.arg = &text;
    ok = pb_decode(&stream, opentelemetry_proto_collector_ExportServiceResponse_fields, &r);
    *rejected = r.partial_success.rejected;
    return ok ? 0 : -EBADMSG;
}
