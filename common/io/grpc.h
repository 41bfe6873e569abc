/* SPDX-License-Identifier: Apache-2.0 */
/* gRPC over HTTP/2: the five-byte frame, status codes, answers. https://github.com/grpc/grpc
 * PROTOCOL-HTTP2 */
#ifndef IO_GRPC_H
#define IO_GRPC_H

#include "common/io/http_server.h"

#define GRPC_PREFIX 5

enum grpc_code {
    GRPC_OK,
    GRPC_CANCELLED,
    GRPC_UNKNOWN,
    GRPC_INVALID_ARGUMENT,
    GRPC_DEADLINE_EXCEEDED,
    GRPC_NOT_FOUND,
    GRPC_ALREADY_EXISTS,
    GRPC_PERMISSION_DENIED,
    GRPC_RESOURCE_EXHAUSTED,
    GRPC_FAILED_PRECONDITION,
    GRPC_ABORTED,
    GRPC_OUT_OF_RANGE,
    GRPC_UNIMPLEMENTED,
    GRPC_INTERNAL,
    GRPC_UNAVAILABLE,
    GRPC_DATA_LOSS,
    GRPC_UNAUTHENTICATED,
};

/* The request's one message: bytes behind the prefix. -EBADMSG when the framing is not one message.
 */
int grpc_message(const struct http_request *r, struct str *out, bool *is_compressed);
/* Writes the prefix of an uncompressed (or compressed) message of n bytes. */
void grpc_prefix(uint8_t p[GRPC_PREFIX], bool is_compressed, size_t n);
/* Answers with a message (status OK). */
void grpc_respond(struct http_request *r, struct str message);
/* Answers with a status; details: bytes of a google.rpc.Status, may be empty. */
void grpc_respond_status(struct http_request *r, int code, const char *message, struct str details);

#endif
