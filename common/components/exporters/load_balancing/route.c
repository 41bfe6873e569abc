/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routing keys, byte for byte as the Collector's load_balancing exporter (0.158) makes them, so
 * that ours and its balancers in front of the same backends agree:
 *
 *   traces, traceID    the 16 bytes of the trace id
 *   traces, service    "service.name=" value "|"; looked up in resource, scope, span; value empty
 * if it is nowhere. The value is its text form. logs, traceID      the trace id as 32 hex digits; a
 * record without one goes anywhere logs, service      service.name of the resource if it is a
 * string, else "" metrics, service   the same; a resource without service.name has no owner and is
 * dropped there
 *
 * One difference: for traces by service the Collector looks at the first span of a trace and scope
 * only, where neither resource nor scope have the attribute; here each span is looked at.
 */
#include "common/components/exporters/load_balancing/route.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "common/otlp/view.h"

enum { LOG_TRACE_ID = 9, TRACE_ID_BYTES = 16 };

#define NO_OWNER UINT32_MAX

enum route_key route_key_of(enum route_key configured, enum signal signal)
{
    if (configured != ROUTE_DEFAULT)
        return configured;
    return signal == SIGNAL_TRACES ? ROUTE_TRACE_ID : ROUTE_SERVICE;
}

/* ---- traces ---- */

static void traces_by_id(const struct batch *b, const struct ring *ring, uint32_t *owner)
{
    for (uint32_t i = 0; i < b->n_records; i++) {
        const uint8_t *id = b->keys[i].trace_id;
        /* Spans of a trace mostly stand together. */
        if (i && memcmp(id, b->keys[i - 1].trace_id, TRACE_ID_BYTES) == 0)
            owner[i] = owner[i - 1];
        else
            owner[i] = ring_owner(ring, id, TRACE_ID_BYTES);
    }
}

static uint32_t owner_of_service(const struct ring *ring, const struct any *name)
{
    struct buf key;
    buf_init(&key);
    buf_add_cstr(&key, "service.name=");
    if (name)
        any_to_text(*name, &key);
    buf_add_cstr(&key, "|");
    uint32_t owner = ring_owner(ring, key.p, key.n);
    buf_fini(&key);
    return owner;
}

/* Spans of one scope, whose resource has no service.name. */
static void spans_by_own_service(const struct batch *b, const struct ring *ring,
                                 const struct scope_group *s, uint32_t *owner)
{
    struct any name;
    bool shared = envelope_attr_find(s->envelope, SCOPE_ATTRIBUTES, STR("service.name"), &name);
    uint32_t all = shared ? owner_of_service(ring, &name) : NO_OWNER;

    for (uint32_t i = s->first_record; i < s->first_record + s->n_records; i++) {
        bool own = !shared && attr_find(record_body(&b->records[i]), SPAN_ATTRIBUTES,
                                        STR("service.name"), &name);
        if (own)
            owner[i] = owner_of_service(ring, &name);
        else if (all == NO_OWNER)
            owner[i] = all = owner_of_service(ring, NULL);
        else
            owner[i] = all;
    }
}

static void fill_owner(const struct scope_group *s, uint32_t *owner, uint32_t value)
{
    for (uint32_t i = s->first_record; i < s->first_record + s->n_records; i++)
        owner[i] = value;
}

static void traces_by_service(const struct batch *b, const struct ring *ring, uint32_t *owner)
{
    for (uint32_t r = 0; r < b->n_resources; r++) {
        const struct resource_group *g = &b->resources[r];
        struct any name;
        bool found =
            envelope_attr_find(g->envelope, RESOURCE_ATTRIBUTES, STR("service.name"), &name);
        uint32_t all = found ? owner_of_service(ring, &name) : NO_OWNER;
        for (uint32_t s = g->first_scope; s < g->first_scope + g->n_scopes; s++) {
            if (found)
                fill_owner(&b->scopes[s], owner, all);
            else
                spans_by_own_service(b, ring, &b->scopes[s], owner);
        }
    }
}

/* ---- logs and metrics ---- */

static uint32_t owner_of_log(const struct ring *ring, const struct record *r)
{
    static const char hex[] = "0123456789abcdef";
    struct str id = message_bytes(record_body(r), LOG_TRACE_ID);
    uint8_t any[TRACE_ID_BYTES] = {0};
    char text[2 * TRACE_ID_BYTES];

    if (id.n == TRACE_ID_BYTES)
        memcpy(any, id.p, sizeof(any));
    static const uint8_t zero[TRACE_ID_BYTES];
    if (memcmp(any, zero, sizeof(zero)) == 0 && getrandom(any, sizeof(any), 0) < 0)
        any[0] = 1; /* no entropy: one backend gets it, which is as good as any */
    for (size_t i = 0; i < TRACE_ID_BYTES; i++) {
        text[2 * i] = hex[any[i] >> 4];
        text[2 * i + 1] = hex[any[i] & 15];
    }
    return ring_owner(ring, text, sizeof(text));
}

static void logs_by_id(const struct batch *b, const struct ring *ring, uint32_t *owner)
{
    for (uint32_t i = 0; i < b->n_records; i++)
        owner[i] = owner_of_log(ring, &b->records[i]);
}

static void by_service(const struct batch *b, const struct ring *ring, uint32_t *owner)
{
    for (uint32_t r = 0; r < b->n_resources; r++) {
        const struct resource_group *g = &b->resources[r];
        struct any name;
        bool found =
            envelope_attr_find(g->envelope, RESOURCE_ATTRIBUTES, STR("service.name"), &name);
        struct str key = found && name.type == ANY_STRING ? name.s : STR("");
        uint32_t all =
            found || b->signal == SIGNAL_LOGS ? ring_owner(ring, key.p, key.n) : NO_OWNER;
        for (uint32_t s = g->first_scope; s < g->first_scope + g->n_scopes; s++)
            fill_owner(&b->scopes[s], owner, all);
    }
}

/* ---- sorting ---- */

/* Counting sort of record indexes by owner; strays last. */
static void sort_by_owner(struct route *r, const uint32_t *owner)
{
    uint32_t *begin = r->begin;
    memset(begin, 0, (r->n + 1) * sizeof(*begin));
    for (uint32_t i = 0; i < r->n_records; i++)
        if (owner[i] != NO_OWNER)
            begin[owner[i] + 1]++;
    for (uint32_t o = 0; o < r->n; o++)
        begin[o + 1] += begin[o];
    uint32_t stray = begin[r->n];
    for (uint32_t i = 0; i < r->n_records; i++) {
        if (owner[i] == NO_OWNER)
            r->idx[stray++] = i;
        else
            r->idx[begin[owner[i]]++] = i;
    }
    /* Each begin has moved to its end: shift back. */
    memmove(begin + 1, begin, r->n * sizeof(*begin));
    begin[0] = 0;
}

int route_batch(struct route *out, const struct batch *b, const struct ring *ring,
                enum route_key key)
{
    uint32_t n = ring_size(ring);
    uint32_t *owner = try_alloc(MAX(b->n_records, 1u) * sizeof(*owner));
    *out = (struct route){
        .n = n,
        .begin = try_alloc((n + 1) * sizeof(*out->begin)),
        .idx = try_alloc(MAX(b->n_records, 1u) * sizeof(*out->idx)),
        .n_records = b->n_records,
    };
    if (!owner || !out->begin || !out->idx) {
        free(owner);
        route_fini(out);
        return -ENOMEM;
    }
    if (b->signal == SIGNAL_TRACES && key == ROUTE_TRACE_ID)
        traces_by_id(b, ring, owner);
    else if (b->signal == SIGNAL_TRACES)
        traces_by_service(b, ring, owner);
    else if (key == ROUTE_TRACE_ID)
        logs_by_id(b, ring, owner);
    else
        by_service(b, ring, owner);
    sort_by_owner(out, owner);
    free(owner);
    return 0;
}

void route_fini(struct route *r)
{
    free(r->begin);
    free(r->idx);
    *r = (struct route){0};
}
