/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.x exchanges, as parser_http1 makes them. */
#ifndef AGENT_HTTP1_H
#define AGENT_HTTP1_H

#include "agent/ebpf/parsers/http1_head.h"
#include "agent/ebpf/parsers/parser.h"

struct http1_exchange {
    struct exchange base;
    /* Copies, cut where a stranger made them absurdly long; they live behind this struct. */
    struct str method, target;
    struct str fields[HTTP1_FIELD_COUNT]; /* of the request */
    unsigned request_minor, response_minor;
    unsigned status;       /* 0 = none seen */
    bool certain;          /* order alone tells its answer */
    uint64_t head_end;     /* position in the request flow */
    uint64_t response_pos; /* of the response flow when the request's head was sent or received */
};

#endif
