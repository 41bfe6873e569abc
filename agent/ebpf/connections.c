/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/connections.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/clock.h"

enum {
    HELD_MAX_BYTES = 8 << 20, /* copies of records that wait, all connections together */
    CONNS_MAX = 200000,
    BROKEN_MAX = 16, /* in a row, without an exchange between: not worth parsing */
    REQUEST_HEAD = 16 << 10,
    RESPONSE_HEAD = 4 << 10,
    RESPONSE_TAIL = 16,
    BEGINNING = 256,     /* a request's line, mostly */
    ROLE_CALLS_MAX = 32, /* calls of unknown role without a request before less is looked at */
};
#define WAIT_NS (40 * NS_PER_MS)      /* between two epochs of waiting, however often is drained */
#define UNUSED_TLS_NS (60 * NS_PER_S) /* plaintext without a socket has no close */

const char *const hole_names[HOLE_COUNT] = {
    "none",   "ring_full", "no_user_buffer",     "fault",     "truncated",
    "unseen", "limit",     "connection_unknown", "no_memory",
};

/* A record on its way to a parser. */
struct delivery {
    struct data_record r;
    uint64_t since;   /* drain in which it came */
    bool starts_call; /* its first byte is the call's */
};

struct held {
    struct list link;
    struct delivery d;
    uint8_t bytes[];
};

/* Where a record belongs. */
struct lane {
    struct connections *cs;
    struct conn *c;
    enum layer layer;
    enum direction dir;
};

struct conn_key {
    uint64_t cookie, ssl;
    uint32_t tgid; /* with ssl */
};

static bool conn_eq(const void *value, const void *key)
{
    const struct conn *c = value;
    const struct conn_key *k = key;

    return c->cookie == k->cookie && (k->cookie || (c->ssl == k->ssl && c->tgid == k->tgid));
}

static uint64_t key_hash(const struct conn_key *k)
{
    uint64_t v[3] = {k->cookie, k->cookie ? 0 : k->ssl, k->cookie ? 0 : k->tgid};

    return hash_bytes(v, sizeof(v));
}

static struct conn *conn_find(const struct connections *cs, const struct conn_key *k)
{
    return hashmap_find(&cs->by_key, key_hash(k), conn_eq, k);
}

static void close_conn(struct connections *cs, struct conn *c);

static struct conn *conn_new(struct connections *cs, const struct conn_key *k)
{
    struct conn *c;

    if (cs->n >= CONNS_MAX) { /* the longest unused one: its close was lost, most likely */
        cs->ledger.lost_closes++;
        close_conn(cs, LIST_ENTRY(cs->all.next, struct conn, link));
    }
    c = try_alloc(sizeof(*c));
    if (!c)
        return NULL;
    memset(c, 0, sizeof(*c));
    SET_MAGIC(c, CONN_MAGIC);
    c->cookie = k->cookie;
    c->ssl = k->cookie ? 0 : k->ssl;
    c->tgid = k->tgid;
    c->alive = true;
    list_init(&c->link);
    list_init(&c->waiting);
    for (unsigned l = 0; l < LAYER_COUNT; l++)
        for (unsigned d = 0; d < DIR_COUNT; d++)
            list_init(&c->layers[l].dir[d].held);
    if (hashmap_add(&cs->by_key, key_hash(k), c)) {
        free(c);
        return NULL;
    }
    list_push(&cs->all, &c->link);
    cs->n++;
    return c;
}

static struct capture_account *account(const struct lane *l)
{
    return &l->cs->ledger.layers[l->layer][l->dir];
}

static struct stream_state *lane_stream(const struct lane *l)
{
    return &l->c->layers[l->layer].dir[l->dir];
}

static enum flow flow_of(const struct conn *c, enum direction dir)
{
    bool to_server = (dir == DIR_SEND) == (c->role == ROLE_CLIENT);

    return to_server ? FLOW_REQUEST : FLOW_RESPONSE;
}

static enum direction dir_of(const struct conn *c, enum flow flow)
{
    return flow_of(c, DIR_SEND) == flow ? DIR_SEND : DIR_RECEIVE;
}

/* ---- verdicts ---- */

static void verdict(struct connections *cs, struct conn *c, enum capture_mode mode,
                    enum parser_depth depth)
{
    struct capture_verdict *v;

    if (!c->cookie || (c->mode == mode && c->depth == depth))
        return;
    if (cs->n_verdicts == cs->cap_verdicts) {
        size_t cap = cs->cap_verdicts ? cs->cap_verdicts * 2 : 64;
        struct capture_verdict *p = try_realloc(cs->verdicts, cap * sizeof(*p));

        if (!p)
            return; /* the kernel stays undecided: dearer, not wrong */
        cs->verdicts = p;
        cs->cap_verdicts = cap;
    }
    c->mode = mode;
    c->depth = depth;
    v = &cs->verdicts[cs->n_verdicts++];
    *v = (struct capture_verdict){.cookie = c->cookie,
                                  .mode = mode,
                                  .layer = c->layers[LAYER_TLS].used ? LAYER_TLS : LAYER_SOCKET};
    if (mode != CAPTURE_BYTES)
        return;
    if (depth == DEPTH_BEGINNINGS) { /* the role may be unknown */
        v->head[DIR_SEND] = v->head[DIR_RECEIVE] = BEGINNING;
        return;
    }
    v->head[dir_of(c, FLOW_REQUEST)] = REQUEST_HEAD;
    v->head[dir_of(c, FLOW_RESPONSE)] = depth == DEPTH_ALL ? REQUEST_HEAD : RESPONSE_HEAD;
    v->tail[dir_of(c, FLOW_RESPONSE)] = RESPONSE_TAIL;
    if (!c->opened || c->open.family == AF_UNIX || c->layers[LAYER_TLS].used)
        return;
    v->role = c->role;
    v->family = c->open.family;
    v->netns = c->open.netns;
    v->server = c->role == ROLE_SERVER ? c->open.local : c->open.peer;
}

/* ---- parsing ---- */

static void channel_end(struct connections *cs, struct conn *c, enum layer layer)
{
    struct channel *ch = &c->layers[layer];
    struct exchange *x;

    if (!ch->parser_state)
        return;
    ch->parser->end(ch->parser_state);
    while ((x = ch->parser->take(ch->parser_state)))
        cs->ops.exchange(cs->ops.arg, c, layer, ch->parser, x);
    ch->parser->fini(ch->parser_state);
    free(ch->parser_state);
    ch->parser_state = NULL;
}

/* No bytes of this layer are wanted any more. */
static void skip_channel(struct connections *cs, struct conn *c, enum layer layer)
{
    struct channel *ch = &c->layers[layer];

    channel_end(cs, c, layer);
    ch->state = CHANNEL_SKIPPING;
    /* A verdict is about the socket as a whole: not while the other layer is of use. */
    if (c->mode != CAPTURE_NOTHING && (layer == LAYER_TLS || !c->layers[LAYER_TLS].used))
        verdict(cs, c, CAPTURE_LENGTHS, DEPTH_HEADS);
}

static bool is_tls_record(const struct data_record *r)
{
    return r->head >= 2 && r->bytes[0] >= 0x14 && r->bytes[0] <= 0x17 && r->bytes[1] == 3;
}

/* What a joined parser did not see: that these responses were before its first request. */
static void tell_what_was(const struct lane *l)
{
    struct channel *ch = &l->c->layers[l->layer];
    const struct stream_state *st = &ch->dir[dir_of(l->c, FLOW_RESPONSE)];
    struct segment s = {
        .len = st->next, .end_ns = st->end_ns, .flags = SEGMENT_LOST | SEGMENT_FORCE};
    uint64_t used = 0;

    if (st->started && st->next > 0 && dir_of(l->c, FLOW_RESPONSE) != l->dir)
        ch->parser->feed(ch->parser_state, FLOW_RESPONSE, &s, &used);
}

/* Chooses a parser by the first request bytes. False: nothing here is for us. */
static bool choose_parser(const struct lane *l, const struct data_record *r)
{
    struct conn *c = l->c;
    enum layer layer = l->layer;
    struct channel *ch = &c->layers[layer];

    for (unsigned i = 0; parsers[i]; i++) {
        enum parse_result what = parsers[i]->detect(str_make(r->bytes, r->head));
        bool mine = what != PARSE_NOT_MINE;
        /* TLS libraries are often found after their first call: the plaintext is joined, then. */
        bool joined = c->joined || (c->cookie && !c->opened) || (layer == LAYER_TLS && !mine);

        if (!mine && !joined)
            continue;
        ch->parser_state = try_alloc(parsers[i]->state_size);
        if (!ch->parser_state)
            return false;
        ch->parser = parsers[i];
        ch->parser->init(ch->parser_state, joined);
        ch->state = CHANNEL_PARSING;
        if (joined)
            tell_what_was(l);
        if (what == PARSE_DONE && !joined)
            verdict(l->cs, c, CAPTURE_BYTES,
                    DEPTH_HEADS); /* before the response, if we were woken */
        return true;
    }
    return false;
}

static void take_exchanges(const struct lane *l)
{
    struct channel *ch = &l->c->layers[l->layer];
    struct exchange *x;

    while ((x = ch->parser->take(ch->parser_state))) {
        l->c->exchanges++;
        l->c->broken = 0;
        verdict(l->cs, l->c, CAPTURE_BYTES, ch->parser->depth(ch->parser_state));
        l->cs->ops.exchange(l->cs->ops.arg, l->c, l->layer, ch->parser, x);
    }
}

/* Of a connection met in mid-life: no message for long, or one has begun at last. */
static void look_closer_or_less(const struct lane *l)
{
    const struct channel *ch = &l->c->layers[l->layer];
    enum parser_depth depth = ch->parser->depth(ch->parser_state);

    if ((depth == DEPTH_BEGINNINGS) != (l->c->depth == DEPTH_BEGINNINGS))
        verdict(l->cs, l->c, CAPTURE_BYTES, depth);
}

/* Gives one segment to the parser. Returns the bytes used. */
static uint64_t parse_segment(const struct lane *l, const struct segment *s)
{
    struct conn *c = l->c;
    struct channel *ch = &c->layers[l->layer];
    uint64_t used = 0;

    while (used < s->len && ch->state == CHANNEL_PARSING) {
        enum parse_result res = ch->parser->feed(ch->parser_state, flow_of(c, l->dir), s, &used);
        /* What we lost ourselves says nothing about the protocol. */
        bool is_broken = res == PARSE_BROKEN && !(s->flags & SEGMENT_LOST);

        take_exchanges(l);
        look_closer_or_less(l);
        if (res == PARSE_NEED_MORE)
            return used;
        if (res == PARSE_BROKEN && !s->p)
            l->cs->ledger.unseen_head_possible += s->len;
        if (res == PARSE_NOT_MINE || (is_broken && ++c->broken >= BROKEN_MAX)) {
            skip_channel(l->cs, c, l->layer);
            return s->len;
        }
    }
    return used;
}

/* The n bytes of part [0..3): head, what was not captured, tail. */
static void part_segment(const struct data_record *r, unsigned part, struct segment *s)
{
    uint32_t middle = r->len - r->head - r->tail;
    uint64_t off = part == 0 ? 0 : part == 1 ? r->head : (uint64_t)r->head + middle;

    s->p = part == 0 ? r->bytes : part == 1 ? NULL : r->bytes + r->head;
    s->len = part == 0 ? r->head : part == 1 ? middle : r->tail;
    s->pos = r->pos + off;
    s->flags &= SEGMENT_FORCE;
}

static void count_part(const struct lane *l, const struct data_record *r, unsigned part, uint64_t n,
                       bool parsing)
{
    struct capture_account *a = account(l);

    a->passed += n;
    if (part == 1 && r->hole != HOLE_NONE)
        a->holes[r->hole] += n;
    else if (part == 1 || !parsing)
        a->skipped += n;
    else
        a->parsed += n;
}

/* Feeds a record that is next in its stream. Returns the bytes done with: all but what waits. */
static uint64_t feed_record(const struct lane *l, const struct delivery *d, bool force)
{
    const struct data_record *r = &d->r;
    struct channel *ch = &l->c->layers[l->layer];
    struct segment s = {.other_pos = r->other_pos,
                        .first_ns = r->first_ns,
                        .end_ns = r->end_ns,
                        .tgid = r->tgid,
                        .tid = r->tid,
                        .flags = force ? SEGMENT_FORCE : 0};
    uint64_t done = 0;

    for (unsigned part = 0; part < 3; part++) {
        bool parsing = ch->state == CHANNEL_PARSING;
        uint64_t used;

        part_segment(r, part, &s);
        if (s.len == 0)
            continue;
        if (d->starts_call && done == 0)
            s.flags |= SEGMENT_CALL_START;
        if (done + s.len == r->len)
            s.flags |= SEGMENT_CALL_END;
        if (part == 1 && r->hole != HOLE_NONE && r->hole != HOLE_NO_BUFFER && r->hole != HOLE_LIMIT)
            s.flags |= SEGMENT_LOST;
        used = parsing ? parse_segment(l, &s) : s.len;
        count_part(l, r, part, used, parsing && ch->state == CHANNEL_PARSING);
        done += used;
        if (used < s.len)
            break;
    }
    return done;
}

/* n bytes that no record brought; HOLE_NONE: that none was to bring. */
static void feed_hole(const struct lane *l, uint64_t n, enum hole why, const struct data_record *r)
{
    struct stream_state *st = lane_stream(l);
    struct segment s = {.len = n, .pos = st->next, .flags = SEGMENT_LOST | SEGMENT_FORCE};
    struct capture_account *a = account(l);

    if (r) {
        s.other_pos = r->other_pos;
        s.first_ns = r->first_ns;
        s.end_ns = r->end_ns;
    }
    a->passed += n;
    if (why == HOLE_NONE)
        a->skipped += n;
    else
        a->holes[why] += n;
    if (l->c->layers[l->layer].state == CHANNEL_PARSING)
        parse_segment(l, &s);
    st->next += n;
}

/* ---- waiting ---- */

/* Cuts n bytes off the beginning of a record. */
static void record_advance(struct delivery *d, uint64_t n)
{
    struct data_record *r = &d->r;
    uint32_t cut = (uint32_t)n, middle = r->len - r->head - r->tail, k = MIN(cut, r->head);

    r->pos += n;
    r->len -= cut;
    r->bytes += k;
    r->head -= k;
    cut -= k;
    k = MIN(cut, middle);
    cut -= k;
    r->bytes += cut;
    r->tail -= cut;
    r->lost_before = false;
    if (n > 0)
        d->starts_call = false;
}

static bool hold(const struct lane *l, const struct delivery *d)
{
    struct connections *cs = l->cs;
    struct stream_state *st = lane_stream(l);
    size_t n = d->r.head + d->r.tail;
    struct held *h = cs->held_bytes + n < HELD_MAX_BYTES ? try_alloc(sizeof(*h) + n) : NULL;
    struct list *at = &st->held;

    if (!h) {
        cs->ledger.held_overflow++;
        return false;
    }
    h->d = *d;
    h->d.r.bytes = h->bytes;
    if (n)
        memcpy(h->bytes, d->r.bytes, n);
    cs->held_bytes += n;
    while (at->prev != &st->held && LIST_ENTRY(at->prev, struct held, link)->d.r.pos > d->r.pos)
        at = at->prev;
    list_insert_before(at, &h->link);
    if (!l->c->listed) {
        l->c->listed = true;
        list_push(&cs->waiting, &l->c->waiting);
    }
    return true;
}

static void held_free(struct connections *cs, struct held *h)
{
    list_remove(&h->link);
    cs->held_bytes -= h->d.r.head + h->d.r.tail;
    free(h);
}

/* ---- one record in its stream ---- */

/* No state and no listener told the role: who sends a request is the client. */
static void guess_role(struct conn *c, const struct data_record *r)
{
    for (unsigned i = 0; parsers[i]; i++)
        if (parsers[i]->detect(str_make(r->bytes, r->head)) == PARSE_DONE)
            c->role = r->dir == DIR_SEND ? ROLE_CLIENT : ROLE_SERVER;
}

/*
 * Bytes of a connection whose role is not known yet. One that was met in mid-life may be anywhere:
 * what comes before its next request is nobody's. One that has just begun waits for its beginning.
 */
static bool unknown_is_done_with(const struct lane *l, bool force)
{
    struct conn *c = l->c;

    if (!c->cookie || c->mode == CAPTURE_NOTHING)
        return true;
    if (!c->joined && c->opened && !force)
        return false;
    if (c->opened && !c->joined)
        skip_channel(l->cs, c, l->layer);
    else if (c->opened && ++c->role_calls >= ROLE_CALLS_MAX)
        verdict(l->cs, c, CAPTURE_BYTES, DEPTH_BEGINNINGS);
    return true;
}

/* Sets up the channel at first sight; false when its bytes wait for something. */
static bool channel_ready(const struct lane *l, const struct data_record *r, bool force)
{
    struct conn *c = l->c;
    struct channel *ch = &c->layers[l->layer];

    if (ch->state != CHANNEL_NEW)
        return true;
    if (!c->opened && c->cookie && !force)
        return false; /* the open record is under way */
    if (l->layer == LAYER_SOCKET && is_tls_record(r) && !c->joined) {
        ch->state = CHANNEL_SKIPPING; /* its plaintext is the other layer */
        return true;
    }
    if (c->role == ROLE_UNKNOWN && c->mode != CAPTURE_NOTHING)
        guess_role(c, r);
    if (c->role == ROLE_UNKNOWN)
        return unknown_is_done_with(l, force);
    if (flow_of(c, r->dir) == FLOW_RESPONSE && !c->joined && l->layer == LAYER_SOCKET) {
        if (force)
            skip_channel(l->cs, c, l->layer); /* the server speaks first: no protocol of ours */
        return force;
    }
    if (!choose_parser(l, r))
        skip_channel(l->cs, c, l->layer);
    return true;
}

/* Brings the record to its stream's place: false when it has to wait for what comes before it. */
static bool place(const struct lane *l, struct delivery *d, bool force)
{
    struct stream_state *st = lane_stream(l);

    if (d->r.pos < st->next) {
        uint64_t twice = MIN(st->next - d->r.pos, d->r.len);

        l->cs->ledger.overlaps += twice;
        record_advance(d, twice);
    }
    if (d->r.len == 0 || d->r.pos == st->next)
        return true;
    if (!d->r.lost_before && !force && hold(l, d))
        return false;
    if (l->c->layers[l->layer].state == CHANNEL_NEW)
        l->c->joined = true; /* its beginning is lost */
    feed_hole(l, d->r.pos - st->next, d->r.lost_before ? HOLE_RING_FULL : HOLE_UNSEEN, &d->r);
    return true;
}

static bool deliver_held(const struct lane *l, struct held *h, bool force);

static struct held *first_held(const struct lane *l)
{
    struct list *held = &lane_stream(l)->held;

    return list_is_empty(held) ? NULL : LIST_ENTRY(held->next, struct held, link);
}

/*
 * r is next in the requests, so whoever asked before it is known or lost: a response that is older
 * than r and still waits for its request waits for nothing.
 */
static void release_older(const struct lane *l, const struct data_record *r)
{
    struct lane a = {l->cs, l->c, l->layer, dir_of(l->c, FLOW_RESPONSE)};
    struct held *h;

    if (a.dir == l->dir || l->c->layers[l->layer].state != CHANNEL_PARSING)
        return;
    while ((h = first_held(&a)) && h->d.r.pos <= lane_stream(&a)->next &&
           h->d.r.end_ns < r->first_ns && deliver_held(&a, h, true))
        continue;
}

/* True when the stream moved on; false when the record (or its rest) waits now. */
static bool deliver(const struct lane *l, const struct delivery *given, bool force)
{
    struct stream_state *st = lane_stream(l);
    struct delivery d = *given;
    bool is_announced =
        l->c->opened || !l->c->cookie || l->c->layers[l->layer].state != CHANNEL_NEW;
    uint64_t used;

    if (is_announced && !place(l, &d, force))
        return false;
    if (d.r.len == 0)
        return true;
    if (!channel_ready(l, &d.r, force)) {
        if (hold(l, &d))
            return false;
        force = channel_ready(l, &d.r, true);
    }
    if (!is_announced)
        place(l, &d, true);
    release_older(l, &d.r);
    used = feed_record(l, &d, force);
    st->next += used;
    st->end_ns = d.r.end_ns;
    if (used == d.r.len)
        return true;
    record_advance(&d, used);
    if (hold(l, &d))
        return used > 0;
    st->next += feed_record(l, &d, true);
    return true;
}

/* Takes the held record out and delivers it. True when its stream moved on. */
static bool deliver_held(const struct lane *l, struct held *h, bool force)
{
    bool moved;

    list_remove(&h->link);
    moved = deliver(l, &h->d, force);
    held_free(l->cs, h);
    return moved;
}

/*
 * Whose held record comes first: a request that was begun when a response was there, else the
 * response. All requests before all responses would look like pipelining.
 */
static enum direction earlier(struct connections *cs, struct conn *c, enum layer layer)
{
    struct lane q = {cs, c, layer, dir_of(c, FLOW_REQUEST)};
    struct lane a = {cs, c, layer, dir_of(c, FLOW_RESPONSE)};
    const struct held *request = first_held(&q), *response = first_held(&a);

    if (!request || (response && response->d.r.end_ns < request->d.r.first_ns))
        return a.dir;
    return q.dir;
}

/* What waited for a stream of that layer to move on. */
static void retry(struct connections *cs, struct conn *c, enum layer layer)
{
    bool progress = true;

    while (progress) {
        enum direction first = earlier(cs, c, layer);

        progress = false;
        for (unsigned i = 0; i < DIR_COUNT && !progress; i++) {
            struct lane l = {cs, c, layer, i ? !first : first};
            struct held *h = first_held(&l);

            if (h && (h->d.r.lost_before || h->d.r.pos <= lane_stream(&l)->next))
                progress = deliver_held(&l, h, false);
        }
    }
}

/* ---- records ---- */

static void start_generation(struct connections *cs, struct conn *c, const struct data_record *r)
{
    struct channel *ch = &c->layers[r->layer];

    if (ch->used && ch->generation != r->generation) {
        /* Another SSL object, or this one for another peer: new streams from their beginnings. */
        channel_end(cs, c, r->layer);
        ch->state = CHANNEL_NEW;
        for (unsigned d = 0; d < DIR_COUNT; d++) {
            while (!list_is_empty(&ch->dir[d].held))
                held_free(cs, LIST_ENTRY(ch->dir[d].held.next, struct held, link));
            ch->dir[d].started = false;
        }
    }
    ch->generation = r->generation;
    if (r->layer == LAYER_TLS && !ch->used) {
        channel_end(cs, c, LAYER_SOCKET); /* plaintext silences the socket layer */
        if (c->mode != CAPTURE_NOTHING)
            c->mode = CAPTURE_UNDECIDED; /* what was judged of that is not about the plaintext */
    }
    if (r->layer == LAYER_TLS)
        c->layers[LAYER_SOCKET].state = CHANNEL_SKIPPING;
    ch->used = true;
}

static void stream_start(const struct lane *l, const struct data_record *r)
{
    struct stream_state *st = lane_stream(l);

    if (st->started)
        return;
    st->started = true;
    st->next = r ? r->pos : 0;
    if (l->c->opened && l->layer == LAYER_SOCKET)
        st->next = l->c->open.first_pos[l->dir];
    else if (r && r->lost_before)
        st->next = 0;
}

void connections_data(struct connections *cs, const struct data_record *r)
{
    struct conn_key k = {.cookie = r->cookie, .ssl = r->ssl, .tgid = r->cookie ? 0 : r->tgid};
    struct conn *c = conn_find(cs, &k);
    struct lane l = {cs, c, r->layer, r->dir};
    struct delivery d = {.r = *r, .since = cs->drain, .starts_call = true};

    cs->ledger.records++;
    if (!c)
        c = l.c = conn_new(cs, &k);
    if (!c || r->len == 0 || r->head > r->len || r->tail > r->len - r->head) {
        account(&l)->passed += r->len;
        account(&l)->holes[HOLE_NO_MEMORY] += r->len;
        return;
    }
    c->last_ns = r->end_ns;
    if (c->cookie)
        c->tgid = r->tgid;
    list_remove(&c->link);
    list_push(&cs->all, &c->link);
    start_generation(cs, c, r);
    stream_start(&l, r);
    if (deliver(&l, &d, false))
        retry(cs, c, r->layer);
}

void connections_open(struct connections *cs, const struct open_record *r)
{
    struct conn_key k = {.cookie = r->cookie};
    struct conn *c = r->cookie ? conn_find(cs, &k) : NULL;

    if (!c && r->cookie)
        c = conn_new(cs, &k);
    if (!c || c->opened)
        return;
    cs->ledger.opens++;
    c->opened = true;
    c->open = *r;
    c->joined = r->joined;
    if (r->role != ROLE_UNKNOWN)
        c->role = r->role;
    c->last_ns = r->time_ns;
    if (!c->tgid)
        c->tgid = r->tgid;
    if (c->role == ROLE_UNKNOWN)
        cs->ledger.unknown_role++;
    if (!cs->ops.wanted(cs->ops.arg, c)) {
        c->role = ROLE_UNKNOWN;
        verdict(cs, c, CAPTURE_NOTHING, DEPTH_HEADS);
    }
    for (unsigned l = 0; l < LAYER_COUNT; l++) {
        if (c->layers[l].state == CHANNEL_SKIPPING && c->role != ROLE_UNKNOWN && !c->exchanges) {
            c->layers[l].state = CHANNEL_NEW; /* skipped for want of this record */
            c->joined = true;
        }
        retry(cs, c, (enum layer)l);
    }
}

/* One held record older than that drain is delivered or given up. */
static bool force_one(struct connections *cs, struct conn *c, enum layer layer, uint64_t before)
{
    enum direction first = earlier(cs, c, layer);

    for (unsigned i = 0; i < DIR_COUNT; i++) {
        struct lane l = {cs, c, layer, i ? !first : first};
        struct held *h = first_held(&l);

        if (!h || h->d.since >= before)
            continue;
        deliver_held(&l, h, true);
        retry(cs, c, layer);
        return true;
    }
    return false;
}

static void force_held(struct connections *cs, struct conn *c, uint64_t before)
{
    for (unsigned l = 0; l < LAYER_COUNT; l++)
        while (force_one(cs, c, (enum layer)l, before))
            continue;
}

static bool has_held(const struct conn *c)
{
    for (unsigned l = 0; l < LAYER_COUNT; l++)
        for (unsigned d = 0; d < DIR_COUNT; d++)
            if (!list_is_empty(&c->layers[l].dir[d].held))
                return true;
    return false;
}

static void close_conn(struct connections *cs, struct conn *c)
{
    struct conn_key k = {.cookie = c->cookie, .ssl = c->ssl, .tgid = c->tgid};

    force_held(cs, c, UINT64_MAX);
    for (unsigned l = 0; l < LAYER_COUNT; l++)
        channel_end(cs, c, (enum layer)l);
    hashmap_take(&cs->by_key, key_hash(&k), conn_eq, &k);
    list_remove(&c->link);
    list_remove(&c->waiting);
    cs->n--;
    CLEAR_MAGIC(c);
    free(c);
}

/* Bytes that the socket counted after the last record of this direction. */
static void close_stream(const struct lane *l, uint64_t end)
{
    struct stream_state *st = lane_stream(l);
    bool asked = l->c->mode == CAPTURE_UNDECIDED || l->c->mode == CAPTURE_BYTES;
    bool opaque = l->c->layers[LAYER_SOCKET].state == CHANNEL_SKIPPING;

    stream_start(l, NULL);
    if (end > st->next)
        feed_hole(l, end - st->next, asked && !opaque ? HOLE_RING_FULL : HOLE_NONE, NULL);
}

void connections_close(struct connections *cs, const struct close_record *r)
{
    struct conn_key k = {.cookie = r->cookie};
    struct conn *c = r->cookie ? conn_find(cs, &k) : NULL;

    cs->ledger.closes++;
    if (!c)
        return;
    force_held(cs, c, UINT64_MAX);
    for (unsigned d = 0; d < DIR_COUNT && r->has_pos && c->opened; d++) {
        struct lane l = {cs, c, LAYER_SOCKET, (enum direction)d};

        close_stream(&l, r->pos[d]);
    }
    close_conn(cs, c);
}

static void tick(struct connections *cs, uint64_t now_ns)
{
    LIST_EACH_SAFE (it, tmp, &cs->all) {
        struct conn *c = LIST_ENTRY(it, struct conn, link);

        for (unsigned i = 0; i < LAYER_COUNT; i++) {
            struct lane l = {cs, c, (enum layer)i, DIR_SEND};
            struct channel *ch = &c->layers[i];

            if (!ch->parser_state)
                continue;
            ch->parser->tick(ch->parser_state, now_ns);
            take_exchanges(&l);
        }
        if (!c->cookie && c->last_ns + UNUSED_TLS_NS < now_ns)
            close_conn(cs, c);
    }
}

void connections_drained(struct connections *cs, uint64_t now_ns)
{
    /* The kernel may have woken us in between: whom we wait for needs the time of a drain. */
    if (now_ns < cs->epoch_ns + WAIT_NS)
        return;
    cs->epoch_ns = now_ns;
    LIST_EACH_SAFE (it, tmp, &cs->waiting) {
        struct conn *c = LIST_ENTRY(it, struct conn, waiting);

        force_held(cs, c, cs->drain);
        if (!has_held(c)) {
            list_remove(&c->waiting);
            c->listed = false;
        }
    }
    if (now_ns >= cs->ticked_ns + NS_PER_S) {
        cs->ticked_ns = now_ns;
        tick(cs, now_ns);
    }
    cs->drain++;
}

void connections_verdicts_taken(struct connections *cs)
{
    cs->n_verdicts = 0;
}

/* ---- sweeps, life ---- */

void connections_sweep_begin(struct connections *cs)
{
    LIST_EACH (it, &cs->all)
        LIST_ENTRY(it, struct conn, link)->alive = false;
}

void connections_sweep_alive(struct connections *cs, uint64_t cookie)
{
    struct conn_key k = {.cookie = cookie};
    struct conn *c = cookie ? conn_find(cs, &k) : NULL;

    if (c)
        c->alive = true;
}

void connections_sweep_end(struct connections *cs, uint64_t before_ns)
{
    LIST_EACH_SAFE (it, tmp, &cs->all) {
        struct conn *c = LIST_ENTRY(it, struct conn, link);

        if (c->alive || !c->cookie || c->last_ns >= before_ns)
            continue;
        cs->ledger.lost_closes++;
        close_conn(cs, c);
    }
}

uint64_t connections_held(const struct connections *cs, enum layer layer, enum direction dir)
{
    uint64_t n = 0;

    LIST_EACH (it, &cs->waiting) {
        const struct conn *c = CONTAINER_OF(it, struct conn, waiting);

        LIST_EACH (h, &c->layers[layer].dir[dir].held)
            n += CONTAINER_OF(h, struct held, link)->d.r.len;
    }
    return n;
}

void connections_init(struct connections *cs, const struct connections_ops *ops)
{
    memset(cs, 0, sizeof(*cs));
    hashmap_init(&cs->by_key);
    list_init(&cs->all);
    list_init(&cs->waiting);
    cs->ops = *ops;
}

void connections_fini(struct connections *cs)
{
    while (!list_is_empty(&cs->all))
        close_conn(cs, LIST_ENTRY(cs->all.next, struct conn, link));
    hashmap_fini(&cs->by_key);
    free(cs->verdicts);
    cs->verdicts = NULL;
}
