/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The batch: one request's worth of one signal, as it lies on the wire.
 *
 *   chunks     refcounted byte buffers with serialized OTLP
 *   resources  envelope bytes ── scopes: envelope bytes ── records: slices of a chunk
 *   keys       traces only, parallel to records: what sampling, sharding and metrics ask of a span
 *
 * Lifetime:  batch_read() or batch_builder_seal() ─► sealed, immutable, refs 1
 *            ─ batch_ref/batch_unref from any thread ─► last unref frees tables, chunks lose a ref.
 * Nothing changes a sealed batch. To change one: edit.h, or a builder that shares its chunks.
 */
#ifndef OTLP_BATCH_H
#define OTLP_BATCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/chunk.h"
#include "common/base/err.h"
#include "common/base/str.h"
#include "common/otlp/signal.h"

#define BATCH_MAGIC 0x42415443u

/* A span, metric or log record: the whole field with tag and length, so that re-framing is a copy.
 */
struct record {
    const uint8_t *field; /* first byte of the tag */
    uint32_t len;         /* of the whole field */
    uint32_t hdr : 8;     /* bytes of tag and length: the message begins at field + hdr */
    uint32_t items : 24;  /* 1 for spans and log records; number of data points for a metric */
};

/*
 * Envelope bytes of a Scope* message: all its fields but the records (scope, schema_url, unknown
 * ones), concatenated in wire order with their tags. If a scope was split over several fields the
 * bytes are too, and protobuf's merge rule gives the right answer.
 */
struct scope_group {
    struct str envelope;
    uint32_t first_record, n_records;
};

/* The same for a Resource* message: all fields but the scopes. */
struct resource_group {
    struct str envelope;
    uint32_t first_scope, n_scopes;
};

enum span_key_flag {
    SPAN_HAS_PARENT = 1, /* parent span id is present and not all zero */
    SPAN_BAD_ID = 2,     /* trace id not 16 or span id not 8 bytes: kept as zeros here */
};

/* Last-wins values of the span's scalar fields. 64 bytes: one cache line. */
struct span_key {
    uint8_t trace_id[16];
    uint8_t span_id[8];
    uint8_t parent_span_id[8];
    uint64_t start_ns, end_ns; /* Unix time */
    uint32_t flags;            /* Span.flags: W3C trace flags in the low 8 bits */
    uint8_t status;            /* 0 unset, 1 ok, 2 error */
    uint8_t kind;              /* SpanKind, 0..5 */
    uint8_t key_flags;         /* enum span_key_flag */
    uint8_t pad;
    uint32_t scope;    /* index of its scope group */
    uint32_t resource; /* index of its resource group */
};

struct batch {
    unsigned magic;
    _Atomic uint32_t refs;
    enum signal signal;
    uint32_t n_resources, n_scopes, n_records, n_chunks;
    uint64_t items;       /* sum over records */
    uint64_t bytes;       /* sum of record field lengths and envelopes */
    uint64_t received_ns; /* monotonic; 0 if unknown */
    struct resource_group *resources;
    struct scope_group *scopes;
    struct record *records;
    struct span_key *keys; /* traces: n_records of them; else NULL */
    struct chunk **chunks; /* each holds a reference */
    /*
     * The request exactly as received while nothing was changed or selected, so that untouched
     * forwarding sends it as it is; {NULL, 0} otherwise. Points into chunks[0].
     */
    struct str raw;
    struct arena arena; /* tables, and envelopes that had to be made contiguous */
};

enum batch_read_flag {
    /*
     * Walk every record to the leaf: wire types, lengths, depth at most 100, UTF-8 of strings, id
     * lengths. Needed wherever records are merged with another sender's.
     */
    BATCH_VALIDATE = 1,
};

/*
 * Walks an Export*ServiceRequest of `len` bytes at chunk->data + off. Takes one reference to the
 * chunk on success. Not recursive. -EBADMSG with the path in e ("resource_spans[2].scope_spans[0].
 * spans[17].attributes[3].value: bad UTF-8"), -ENOMEM.
 */
int batch_read(struct batch **out, enum signal signal, struct chunk *chunk, size_t off, size_t len,
               unsigned flags, struct err *e) MUSTCHECK;

struct batch *batch_ref(struct batch *b);
void batch_unref(struct batch **b);

/* Bytes of all chunks that it keeps from being freed, and of its own tables. */
uint64_t batch_pinned_bytes(const struct batch *b);

/* The record's message, without tag and length. */
static inline struct str record_body(const struct record *r)
{
    return str_make(r->field + r->hdr, r->len - r->hdr);
}

/* The resource group that scope index s belongs to. */
uint32_t batch_resource_of_scope(const struct batch *b, uint32_t scope);
uint32_t batch_scope_of_record(const struct batch *b, uint32_t record);

/*
 * A new batch with the records whose indexes are in idx[0..n), ascending, sharing chunks. Groups
 * that lose all records are left out. -ENOMEM.
 */
int batch_select(struct batch **out, const struct batch *b, const uint32_t *idx,
                 uint32_t n) MUSTCHECK;
/* A new batch with all records of all parts in order, sharing chunks; no merging of equal
 * resources. */
int batch_concat(struct batch **out, struct batch *const *parts, uint32_t n) MUSTCHECK;
/*
 * The same content for a long wait: only `raw`, in a chunk of about its size, and no tables. It can
 * be framed and sent; whoever looks at records unpacks it first. -ENOMEM.
 */
int batch_pack(struct batch **out, const struct batch *b) MUSTCHECK;
int batch_unpack(struct batch **out, const struct batch *packed) MUSTCHECK;
static inline bool batch_is_packed(const struct batch *b)
{
    return b->n_records == 0 && b->raw.n > 0;
}
/*
 * Splits off the first max_items items: *head has at most that many (at least one record; a metric
 * with more points than that is split between its points), *tail the rest or NULL.
 */
int batch_split(struct batch **head, struct batch **tail, const struct batch *b,
                uint64_t max_items) MUSTCHECK;

/* ---- building: for what we make ourselves (spans, metrics, kept traces) ---- */

struct batch_builder {
    struct batch *b;
    int error;
    uint32_t cap_resources, cap_scopes, cap_records, cap_chunks;
    struct chunk *tail; /* where copied bytes go */
};

void batch_builder_init(struct batch_builder *bb, enum signal signal);
/* Starts a resource group, then a scope group. `copy` false: bytes live in a chunk given by share.
 */
void batch_builder_resource(struct batch_builder *bb, struct str envelope, bool copy);
void batch_builder_scope(struct batch_builder *bb, struct str envelope, bool copy);
/*
 * Adds a record: the message without tag and length is framed and copied. The key is computed from
 * the bytes for traces unless given.
 */
void batch_builder_record(struct batch_builder *bb, struct str body, uint32_t items,
                          const struct span_key *key);
/* The same for bytes that already carry their tag and length; copy false: bytes live in a shared
 * chunk. */
void batch_builder_record_field(struct batch_builder *bb, const struct record *r,
                                const struct span_key *key, bool copy);
/* The batch will hold a reference to c, so that slices of it may be added with copy false. */
void batch_builder_share(struct batch_builder *bb, struct chunk *c);
/* Seals. Latched errors come out here (-ENOMEM) and free everything. *out NULL when it has no
 * record. */
int batch_builder_seal(struct batch_builder *bb, struct batch **out) MUSTCHECK;
void batch_builder_fini(struct batch_builder *bb); /* gives up an unsealed one */

/* ---- writing: an Export*ServiceRequest ---- */

/* Exact size of the request that batch_frame writes. */
size_t batch_framed_size(const struct batch *b);
/*
 * The request in one chunk: `headroom` spare bytes (gRPC prefix), then the request; chunk->len
 * counts both. -ENOMEM.
 */
int batch_frame(struct chunk **out, const struct batch *b, size_t headroom) MUSTCHECK;

#endif
