/* SPDX-License-Identifier: Apache-2.0 */
/* Requests into spans, and spans of many processes into batches. */
#ifndef AGENT_SPANS_H
#define AGENT_SPANS_H

#include "agent/ebpf/processes.h"
#include "agent/ebpf/requests.h"
#include "common/otlp/batch.h"
#include "common/otlp/encode.h"

enum {
    SPANS_MAX_BYTES = 4 << 20, /* that wait for an open exit */
    SPANS_MAX_CHUNKS = 128,    /* that hold them, none less than half full but the last one */
    SPAN_ENDS = 64,            /* connections whose encoded attributes are kept */
    ENDS_TEXT_MAX = 46,
};

/* Encoded attributes of both ends of a connection, and what they were made of. */
struct span_ends {
    const char *version; /* a constant */
    uint16_t server_port, peer_port, n_key, n;
    char key[3 * (ENDS_TEXT_MAX + 1)];
    char bytes[384];
};

struct span_ref {
    uint64_t group; /* of its resource */
    uint32_t order;
    struct record record; /* in chunks */
    struct span_key key;
};

struct spans {
    struct chunk *chunks[SPANS_MAX_CHUNKS]; /* Span fields, as the batch will hold them */
    unsigned n_chunks;
    size_t bytes;         /* of them */
    struct buf resources; /* envelopes of this batch, one a group */
    struct span_resource {
        uint64_t group;
        uint32_t at, len;
    } * groups;
    struct span_ref *refs;
    size_t n, cap, n_groups, cap_groups;
    uint64_t dropped; /* no room: counted by the caller as it sees it grow */
    struct buf scope; /* envelope */
    struct buf attrs; /* scratch */
    struct span_ends ends[SPAN_ENDS];
};

void spans_init(struct spans *s, const char *version);
void spans_fini(struct spans *s);
/* wall_offset: wall time = monotonic + offset. resource: of the process, group its identity. */
void spans_add(struct spans *s, const struct request *r, struct str resource, uint64_t group,
               int64_t wall_offset_ns);
/* All collected spans as one batch, or NULL when there are none (or memory is out: *lost counts).
 */
struct batch *spans_take(struct spans *s, uint64_t *lost);

#endif
