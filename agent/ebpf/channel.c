/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/channel.h"

#include <stdlib.h>
#include <sys/socket.h>

enum {
    BROKEN_MAX = 16, /* in a row, without an exchange between: not worth parsing */
    REQUEST_HEAD = 16 << 10,
    RESPONSE_HEAD = 4 << 10,
    RESPONSE_TAIL = 16,
    BEGINNING = 256,     /* a request's line, mostly */
    ROLE_CALLS_MAX = 32, /* calls of unknown role without a request before less is looked at */
    LAYOUTS_MAX = 4,     /* that the kernel is told of a connection; after that answers differ */
};

static enum flow flow_of(const struct conn *c, enum direction dir)
{
    bool to_server = (dir == DIR_SEND) == (c->role == ROLE_CLIENT);

    return to_server ? FLOW_REQUEST : FLOW_RESPONSE;
}

enum direction conn_dir_of(const struct conn *c, enum flow flow)
{
    return flow_of(c, DIR_SEND) == flow ? DIR_SEND : DIR_RECEIVE;
}

/* ---- verdicts ---- */

static void add_verdict(struct connections *cs, struct conn *c, enum capture_mode mode,
                        enum parser_depth depth)
{
    struct capture_verdict *v;

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
    v->head[conn_dir_of(c, FLOW_REQUEST)] = REQUEST_HEAD;
    v->head[conn_dir_of(c, FLOW_RESPONSE)] = depth == DEPTH_ALL ? REQUEST_HEAD : RESPONSE_HEAD;
    v->tail[conn_dir_of(c, FLOW_RESPONSE)] = RESPONSE_TAIL;
    v->answer_head = depth == DEPTH_HEADS ? c->layout.head : UINT16_MAX;
    v->answer_length = c->layout.length_at;
    if (!c->opened || c->open.family == AF_UNIX || c->layers[LAYER_TLS].used)
        return;
    v->role = c->role;
    v->family = c->open.family;
    v->netns = c->open.netns;
    v->server = c->role == ROLE_SERVER ? c->open.local : c->open.peer;
}

void conn_verdict(struct connections *cs, struct conn *c, enum capture_mode mode,
                  enum parser_depth depth)
{
    if (c->cookie && (c->mode != mode || c->depth != depth))
        add_verdict(cs, c, mode, depth);
}

/*
 * Tells the kernel how answers are laid out, once that may be of use: most connections that carry
 * one exchange carry no second one.
 */
static void tell_layout(struct connections *cs, struct conn *c, struct answer_layout a)
{
    if (!c->cookie || c->exchanges < 2 || c->n_layouts >= LAYOUTS_MAX || c->mode != CAPTURE_BYTES ||
        c->depth != DEPTH_HEADS || (a.head == c->layout.head && a.length_at == c->layout.length_at))
        return;
    c->layout = a;
    c->n_layouts++;
    add_verdict(cs, c, c->mode, c->depth);
}

/* ---- what reads it ---- */

void channel_end(struct connections *cs, struct conn *c, enum layer layer)
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
static void channel_skip(struct connections *cs, struct conn *c, enum layer layer)
{
    struct channel *ch = &c->layers[layer];

    channel_end(cs, c, layer);
    ch->state = CHANNEL_SKIPPING;
    /* A verdict is about the socket as a whole: not while the other layer is of use. */
    if (c->mode != CAPTURE_NOTHING && (layer == LAYER_TLS || !c->layers[LAYER_TLS].used))
        conn_verdict(cs, c, CAPTURE_LENGTHS, DEPTH_HEADS);
}

static bool is_tls_record(const struct data_record *r)
{
    return r->head >= 2 && r->bytes[0] >= 0x14 && r->bytes[0] <= 0x17 && r->bytes[1] == 3;
}

/* What a joined parser did not see: that these responses were before its first request. */
static void tell_what_was(const struct lane *l)
{
    struct channel *ch = &l->c->layers[l->layer];
    const struct stream_state *st = &ch->dir[conn_dir_of(l->c, FLOW_RESPONSE)];
    struct segment s = {
        .len = st->next, .end_ns = st->end_ns, .flags = SEGMENT_LOST | SEGMENT_FORCE};
    uint64_t used = 0;

    if (st->started && st->next > 0 && conn_dir_of(l->c, FLOW_RESPONSE) != l->dir)
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
            conn_verdict(l->cs, c, CAPTURE_BYTES,
                         DEPTH_HEADS); /* before the response, if we were woken */
        return true;
    }
    return false;
}

/* ---- whose it is ---- */

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
        channel_skip(l->cs, c, l->layer);
    else if (c->opened && ++c->role_calls >= ROLE_CALLS_MAX)
        conn_verdict(l->cs, c, CAPTURE_BYTES, DEPTH_BEGINNINGS);
    return true;
}

bool channel_ready(const struct lane *l, const struct data_record *r, bool force)
{
    struct conn *c = l->c;
    struct channel *ch = &c->layers[l->layer];

    if (ch->state != CHANNEL_NEW)
        return true;
    if (!c->opened && c->cookie && !force)
        return false; /* the open record is under way */
    if (l->layer == LAYER_SOCKET && is_tls_record(r) && !c->joined) {
        ch->state = CHANNEL_SKIPPING; /* its plaintext is the other layer */
        c->is_tls = true;
        return true;
    }
    if (c->role == ROLE_UNKNOWN && c->mode != CAPTURE_NOTHING)
        guess_role(c, r);
    if (c->role == ROLE_UNKNOWN)
        return unknown_is_done_with(l, force);
    if (flow_of(c, r->dir) == FLOW_RESPONSE && !c->joined && l->layer == LAYER_SOCKET) {
        if (force)
            channel_skip(l->cs, c, l->layer); /* the server speaks first: no protocol of ours */
        return force;
    }
    if (!choose_parser(l, r))
        channel_skip(l->cs, c, l->layer);
    return true;
}

/* ---- its bytes ---- */

static void take_exchanges(const struct lane *l)
{
    struct channel *ch = &l->c->layers[l->layer];
    struct exchange *x;

    while ((x = ch->parser->take(ch->parser_state))) {
        l->c->exchanges++;
        l->c->broken = 0;
        conn_verdict(l->cs, l->c, CAPTURE_BYTES, ch->parser->depth(ch->parser_state));
        tell_layout(l->cs, l->c, ch->parser->layout(ch->parser_state));
        l->cs->ops.exchange(l->cs->ops.arg, l->c, l->layer, ch->parser, x);
    }
}

/* Of a connection met in mid-life: no message for long, or one has begun at last. */
static void look_closer_or_less(const struct lane *l)
{
    const struct channel *ch = &l->c->layers[l->layer];
    enum parser_depth depth = ch->parser->depth(ch->parser_state);

    if ((depth == DEPTH_BEGINNINGS) != (l->c->depth == DEPTH_BEGINNINGS))
        conn_verdict(l->cs, l->c, CAPTURE_BYTES, depth);
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
        if (is_broken && ++c->broken >= BROKEN_MAX) {
            l->cs->ledger.given_up++;
            res = PARSE_NOT_MINE;
        }
        if (res == PARSE_NOT_MINE) {
            channel_skip(l->cs, c, l->layer);
            return s->len;
        }
    }
    return used;
}

static void count_part(const struct lane *l, const struct data_record *r, unsigned part, uint64_t n,
                       bool parsing)
{
    struct capture_account *a = lane_account(l);

    a->passed += n;
    if (part == 1 && r->hole != HOLE_NONE)
        a->holes[r->hole] += n;
    else if (part == 1 || !parsing)
        a->skipped += n;
    else
        a->parsed += n;
}

/* In three parts: head, what was not captured, tail. */
uint64_t channel_feed(const struct lane *l, const struct delivery *d, bool force)
{
    const struct data_record *r = &d->r;
    const uint32_t lens[] = {r->head, r->len - r->head - r->tail, r->tail};
    const struct channel *ch = &l->c->layers[l->layer];
    struct segment s = {.other_pos = r->other_pos,
                        .first_ns = r->first_ns,
                        .end_ns = r->end_ns,
                        .tgid = r->tgid,
                        .tid = r->tid};
    uint64_t done = 0;

    for (unsigned part = 0; done < r->len; part++) {
        bool parsing = ch->state == CHANNEL_PARSING;
        uint64_t used;

        if (lens[part] == 0)
            continue;
        s.p = part == 0 ? r->bytes : part == 1 ? NULL : r->bytes + r->head;
        s.len = lens[part];
        s.pos = r->pos + done;
        s.flags = force ? SEGMENT_FORCE : 0;
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

void channel_feed_hole(const struct lane *l, uint64_t n, enum hole why, const struct data_record *r)
{
    struct stream_state *st = lane_stream(l);
    struct segment s = {.len = n, .pos = st->next, .flags = SEGMENT_LOST | SEGMENT_FORCE};
    struct capture_account *a = lane_account(l);

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

void channel_tick(const struct lane *l, uint64_t now_ns)
{
    const struct channel *ch = &l->c->layers[l->layer];

    if (!ch->parser_state)
        return;
    ch->parser->tick(ch->parser_state, now_ns);
    take_exchanges(l);
}
