/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/spans.h"

#include <stdlib.h>

enum { KIND_OF_SERVER = 2, KIND_OF_CLIENT = 3, STATUS_ERROR = 2, GROUPS_LOOKED_AT = 16 };
enum { FIRST_CHUNK = 16 << 10, CHUNK = 64 << 10 };

enum {
    FLAGS_SAMPLED = 1,
    FLAGS_HAS_IS_REMOTE = 0x100, /* OTLP SpanFlags */
    FLAGS_IS_REMOTE = 0x200,
};

void spans_init(struct spans *s, const char *version)
{
    memset(s, 0, sizeof(*s));
    buf_init(&s->resources);
    buf_init(&s->scope);
    buf_init(&s->attrs);
    encode_scope_envelope(&s->scope, STR("tailrace/ebpf/http"), str_of(version),
                          (struct str){NULL, 0});
}

static void free_chunks(struct spans *s)
{
    while (s->n_chunks)
        chunk_unref(&s->chunks[--s->n_chunks]);
    s->bytes = 0;
}

void spans_fini(struct spans *s)
{
    free_chunks(s);
    buf_fini(&s->resources);
    buf_fini(&s->scope);
    buf_fini(&s->attrs);
    free(s->groups);
    free(s->refs);
}

/* Strangers' bytes: what is no UTF-8 becomes '?', or a back end refuses the whole batch. */
static void put_mended(struct buf *b, struct str key, struct str value)
{
    char *copy = try_alloc(value.n);

    for (size_t i = 0; copy && i < value.n; i++)
        copy[i] = value.p[i] & 0x80 ? '?' : value.p[i];
    if (copy)
        encode_attr(b, SPAN_ATTRIBUTES, key, any_str(str_make(copy, value.n)));
    free(copy);
}

static ALWAYS_INLINE void put(struct buf *b, struct str key, struct str value)
{
    if (!value.n)
        return;
    if (str_is_utf8(value.p, value.n))
        encode_text(b, SPAN_ATTRIBUTES, key, value);
    else
        put_mended(b, key, value);
}

/* A text of ours. */
static ALWAYS_INLINE void put_own(struct buf *b, struct str key, struct str value)
{
    encode_text(b, SPAN_ATTRIBUTES, key, value);
}

static ALWAYS_INLINE void put_int(struct buf *b, struct str key, uint64_t v)
{
    encode_number(b, SPAN_ATTRIBUTES, key, v);
}

static void put_true(struct buf *b, struct str key)
{
    encode_attr(b, SPAN_ATTRIBUTES, key, (struct any){.type = ANY_BOOL, .b = true});
}

/* ---- who spoke with whom: the same for the requests of a connection ---- */

static void put_ends(struct buf *b, const struct request *r)
{
    put(b, STR("server.address"), r->server_address);
    if (r->server_port)
        put_int(b, STR("server.port"), r->server_port);
    put(b, STR("client.address"), r->client_address);
    put(b, STR("network.peer.address"), r->peer_address);
    if (r->peer_port)
        put_int(b, STR("network.peer.port"), r->peer_port);
    put_own(b, STR("network.protocol.name"), STR("http"));
    put_own(b, STR("network.protocol.version"), str_of(r->version));
}

/* The texts that tell entries apart, in one piece. 0: too long to be kept. */
static size_t ends_key(char *out, const struct request *r)
{
    const struct str texts[] = {r->server_address, r->client_address, r->peer_address};
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (texts[i].n > ENDS_TEXT_MAX)
            return 0;
        out[n++] = (char)texts[i].n;
        if (texts[i].n)
            memcpy(out + n, texts[i].p, texts[i].n);
        n += texts[i].n;
    }
    return n;
}

static void put_ends_once(struct spans *s, const struct request *r)
{
    struct span_ends *e = &s->ends[r->peer_port % SPAN_ENDS];
    char key[sizeof(e->key)];
    size_t n = ends_key(key, r), before = s->attrs.n;

    if (n && e->n_key == n && memcmp(e->key, key, n) == 0 && e->server_port == r->server_port &&
        e->peer_port == r->peer_port && e->version == r->version) {
        buf_add(&s->attrs, e->bytes, e->n);
        return;
    }
    put_ends(&s->attrs, r);
    if (n == 0 || buf_error(&s->attrs) || s->attrs.n - before > sizeof(e->bytes))
        return;
    e->server_port = r->server_port;
    e->peer_port = r->peer_port;
    e->version = r->version;
    e->n_key = (uint16_t)n;
    memcpy(e->key, key, n);
    e->n = (uint16_t)(s->attrs.n - before);
    memcpy(e->bytes, s->attrs.p + before, e->n);
}

static void put_attributes(struct spans *s, const struct request *r)
{
    struct buf *b = &s->attrs;

    put_own(b, STR("http.request.method"), r->method);
    put(b, STR("http.request.method_original"), r->method_original);
    put(b, STR("url.path"), r->path);
    put(b, STR("url.query"), r->query);
    put(b, STR("url.full"), r->full);
    put_own(b, STR("url.scheme"), r->scheme);
    if (r->status)
        put_int(b, STR("http.response.status_code"), r->status);
    put(b, STR("error.type"), r->error_type);
    put_ends_once(s, r);
    if (r->is_unix)
        put_own(b, STR("network.transport"), STR("unix"));
    put(b, STR("user_agent.original"), r->user_agent);
    if (r->has_request_size)
        put_int(b, STR("http.request.body.size"), r->request_size);
    if (r->has_response_size)
        put_int(b, STR("http.response.body.size"), r->response_size);
    if (r->incomplete)
        put_true(b, STR("tailrace.incomplete"));
    if (r->unbound)
        put_true(b, STR("tailrace.peer_unknown"));
}

/* Puts the ids and times in, for the message and for the batch's table alike. */
static void draft(struct span_draft *d, const struct request *r, int64_t offset)
{
    bool is_known = !r->method_original.n;

    *d = (struct span_draft){.flags = FLAGS_SAMPLED,
                             .name = is_known ? r->method : STR("HTTP"),
                             .kind = r->role == ROLE_SERVER ? KIND_OF_SERVER : KIND_OF_CLIENT,
                             .status = r->error_type.n ? STATUS_ERROR : 0,
                             .start_ns = r->start_ns + (uint64_t)offset,
                             .end_ns = r->end_ns + (uint64_t)offset};
    random_id(d->span_id, sizeof(d->span_id));
    if (!r->has_parent) {
        random_id(d->trace_id, sizeof(d->trace_id));
        return;
    }
    memcpy(d->trace_id, r->parent.trace_id, sizeof(d->trace_id));
    memcpy(d->parent_span_id, r->parent.span_id, sizeof(d->parent_span_id));
    d->has_parent = true;
    d->flags = r->parent.flags | FLAGS_HAS_IS_REMOTE | FLAGS_IS_REMOTE;
    if (str_is_utf8(r->trace_state.p, r->trace_state.n))
        d->trace_state = r->trace_state;
}

static bool add_group(struct spans *s, struct str resource, uint64_t group)
{
    struct span_resource *g;

    for (size_t i = s->n_groups, looked = 0; i-- > 0 && looked < GROUPS_LOOKED_AT; looked++)
        if (s->groups[i].group == group)
            return true;
    if (s->n_groups == s->cap_groups) {
        size_t cap = s->cap_groups ? s->cap_groups * 2 : 16;

        g = try_realloc(s->groups, cap * sizeof(*g));
        if (!g)
            return false;
        s->groups = g;
        s->cap_groups = cap;
    }
    g = &s->groups[s->n_groups++];
    *g = (struct span_resource){group, (uint32_t)s->resources.n, (uint32_t)resource.n};
    buf_add_str(&s->resources, resource);
    return true;
}

static struct span_ref *add_ref(struct spans *s)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 256;
        struct span_ref *p = try_realloc(s->refs, cap * sizeof(*p));

        if (!p)
            return NULL;
        s->refs = p;
        s->cap = cap;
    }
    return &s->refs[s->n];
}

static void fill_key(struct span_key *k, const struct span_draft *d)
{
    memset(k, 0, sizeof(*k));
    memcpy(k->trace_id, d->trace_id, sizeof(k->trace_id));
    memcpy(k->span_id, d->span_id, sizeof(k->span_id));
    memcpy(k->parent_span_id, d->parent_span_id, sizeof(k->parent_span_id));
    k->start_ns = d->start_ns;
    k->end_ns = d->end_ns;
    k->flags = d->flags;
    k->status = d->status;
    k->kind = d->kind;
    k->key_flags = d->has_parent ? SPAN_HAS_PARENT : 0;
}

/* One that has room for n bytes, NULL when there is no more. */
static struct chunk *chunk_for(struct spans *s, size_t n)
{
    struct chunk *c = s->n_chunks ? s->chunks[s->n_chunks - 1] : NULL;

    if (c && c->cap - c->len >= n)
        return c;
    if (s->n_chunks == SPANS_MAX_CHUNKS)
        return NULL;
    c = chunk_new(MAX(n, s->n_chunks ? (size_t)CHUNK : (size_t)FIRST_CHUNK));
    if (c)
        s->chunks[s->n_chunks++] = c;
    return c;
}

/* The field Span of its scope, written where the batch will hold it. */
static bool write_span(struct spans *s, struct record *out, const struct span_draft *d)
{
    size_t most = encode_span_most(d), head = 1 + wire_varint_size(d->attrs.n + 64), n;
    struct chunk *c = chunk_for(s, most + 16); /* tag and length, guessed or not */
    uint8_t *field, *end;

    if (!c)
        return false;
    field = c->data + c->len;
    end = encode_span(field + head, d);
    n = (size_t)(end - field) - head;
    if (head != 1 + wire_varint_size(n)) { /* the guess fails next to a power of 128 only */
        size_t right = 1 + wire_varint_size(n);

        memmove(field + right, field + head, n);
        head = right;
    }
    wire_write_head(field, OTLP_SCOPE_RECORD, n);
    *out = (struct record){
        .field = field, .len = (uint32_t)(head + n), .hdr = (uint8_t)head, .items = 1};
    c->len += head + n;
    s->bytes += head + n;
    return true;
}

void spans_add(struct spans *s, const struct request *r, struct str resource, uint64_t group,
               int64_t wall_offset_ns)
{
    struct span_ref *ref = s->bytes < SPANS_MAX_BYTES ? add_ref(s) : NULL;
    struct span_draft d;

    if (!ref || !add_group(s, resource, group)) {
        s->dropped++;
        return;
    }
    draft(&d, r, wall_offset_ns);
    buf_reset(&s->attrs);
    put_attributes(s, r);
    d.attrs = buf_str(&s->attrs);
    ref->group = group;
    ref->order = (uint32_t)s->n;
    if (buf_error(&s->attrs) || buf_error(&s->resources) || !write_span(s, &ref->record, &d)) {
        s->dropped++;
        return;
    }
    fill_key(&ref->key, &d);
    s->n++;
}

static int by_group(const void *a, const void *b)
{
    const struct span_ref *x = a, *y = b;

    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

static bool is_grouped(const struct spans *s)
{
    for (size_t i = 1; i < s->n; i++)
        if (s->refs[i].group < s->refs[i - 1].group)
            return false;
    return true;
}

static struct str resource_of(const struct spans *s, uint64_t group)
{
    for (size_t i = 0; i < s->n_groups; i++)
        if (s->groups[i].group == group)
            return str_make(s->resources.p + s->groups[i].at, s->groups[i].len);
    return (struct str){NULL, 0};
}

struct batch *spans_take(struct spans *s, uint64_t *lost)
{
    struct batch_builder bb;
    struct batch *out = NULL;
    size_t n = s->n;

    if (n == 0)
        return NULL;
    if (!is_grouped(s)) /* where one program is observed it is */
        qsort(s->refs, n, sizeof(*s->refs), by_group);
    batch_builder_init(&bb, SIGNAL_TRACES);
    for (unsigned i = 0; i < s->n_chunks; i++)
        batch_builder_share(&bb, s->chunks[i]);
    for (size_t i = 0; i < n; i++) {
        const struct span_ref *r = &s->refs[i];

        if (i == 0 || r->group != r[-1].group) {
            batch_builder_resource(&bb, resource_of(s, r->group), true);
            batch_builder_scope(&bb, buf_str(&s->scope), true);
        }
        batch_builder_record_field(&bb, &r->record, &r->key, false);
    }
    if (batch_builder_seal(&bb, &out)) {
        *lost += n;
        out = NULL;
    }
    s->n = s->n_groups = 0;
    free_chunks(s);
    buf_reset(&s->resources);
    return out;
}
