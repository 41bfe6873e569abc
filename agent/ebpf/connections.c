/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/connections.h"

#include <stdlib.h>
#include <string.h>

#include "agent/ebpf/channel.h"
#include "common/base/clock.h"

enum {
    HELD_MAX_BYTES = 8 << 20, /* copies of records that wait, all connections together */
    CONNS_MAX = 200000,
};
#define WAIT_NS (40 * NS_PER_MS)      /* between two epochs of waiting, however often is drained */
#define UNUSED_TLS_NS (60 * NS_PER_S) /* plaintext without a socket has no close */

const char *const hole_names[HOLE_COUNT] = {
    "none",   "ring_full", "no_user_buffer",     "fault",     "truncated",
    "unseen", "limit",     "connection_unknown", "no_memory",
};

struct held {
    struct list link;
    struct delivery d;
    uint8_t bytes[];
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
    uint64_t v[3] = {k->cookie, k->ssl, k->tgid};

    return hash_bytes(v, k->cookie ? sizeof(k->cookie) : sizeof(v));
}

/* Mostly the one that was asked for last: a response follows its request. */
static struct conn *conn_find(struct connections *cs, const struct conn_key *k)
{
    if (cs->last && k->cookie && cs->last->cookie == k->cookie)
        return cs->last;
    cs->last = hashmap_find(&cs->by_key, key_hash(k), conn_eq, k);
    return cs->last;
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
    c->used = cs->drain;
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
    channel_feed_hole(l, d->r.pos - st->next, d->r.lost_before ? HOLE_RING_FULL : HOLE_UNSEEN,
                      &d->r);
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
    struct lane a = {l->cs, l->c, l->layer, DIR_SEND};
    struct held *h;

    if (!l->c->listed)
        return;
    a.dir = conn_dir_of(l->c, FLOW_RESPONSE);
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
    used = channel_feed(l, &d, force);
    st->next += used;
    st->end_ns = d.r.end_ns;
    if (used == d.r.len)
        return true;
    record_advance(&d, used);
    if (hold(l, &d))
        return used > 0;
    st->next += channel_feed(l, &d, true);
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
    struct lane q = {cs, c, layer, conn_dir_of(c, FLOW_REQUEST)};
    struct lane a = {cs, c, layer, conn_dir_of(c, FLOW_RESPONSE)};
    const struct held *request = first_held(&q), *response = first_held(&a);

    if (!request || (response && response->d.r.end_ns < request->d.r.first_ns))
        return a.dir;
    return q.dir;
}

/* What waited for a stream of that layer to move on. */
static void retry(struct connections *cs, struct conn *c, enum layer layer)
{
    bool progress = c->listed; /* nothing is held else */

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
        lane_account(&l)->passed += r->len;
        lane_account(&l)->holes[HOLE_NO_MEMORY] += r->len;
        return;
    }
    c->last_ns = r->end_ns;
    if (c->cookie)
        c->tgid = r->tgid;
    if (c->used != cs->drain) { /* the order of use is kept by drains: no need to be finer */
        c->used = cs->drain;
        list_remove(&c->link);
        list_push(&cs->all, &c->link);
    }
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
        conn_verdict(cs, c, CAPTURE_NOTHING, DEPTH_HEADS);
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
    if (c->is_tls && !c->layers[LAYER_TLS].used)
        cs->ledger.tls_without_plaintext++;
    hashmap_take(&cs->by_key, key_hash(&k), conn_eq, &k);
    if (cs->last == c)
        cs->last = NULL;
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
        channel_feed_hole(l, end - st->next, asked && !opaque ? HOLE_RING_FULL : HOLE_NONE, NULL);
}

void connections_close(struct connections *cs, const struct close_record *r)
{
    struct conn_key k = {.cookie = r->cookie};
    struct conn *c = r->cookie ? conn_find(cs, &k) : NULL;

    cs->ledger.closes++;
    if (!c)
        return;
    force_held(cs, c, UINT64_MAX);
    for (unsigned d = 0; d < DIR_COUNT && r->has_pos; d++) {
        struct lane l = {cs, c, LAYER_SOCKET, (enum direction)d};

        close_stream(&l, r->pos[d]);
    }
    close_conn(cs, c);
}

static void tick(struct connections *cs, uint64_t now_ns)
{
    LIST_EACH_SAFE (it, tmp, &cs->all) {
        struct conn *c = LIST_ENTRY(it, struct conn, link);

        for (unsigned i = 0; i < LAYER_COUNT; i++)
            channel_tick(&(struct lane){cs, c, (enum layer)i, DIR_SEND}, now_ns);
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
