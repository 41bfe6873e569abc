/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.x on a connection, RFC 9112, from bytes with holes.
 *
 * Each flow is a small machine: at a head, in a body of known length, in chunks, in a body that
 * ends with the connection, or lost. Heads are read in place when they come whole and are collected
 * when they come in pieces; body bytes are counted and never looked at, so that a hole in a body
 * costs nothing. Requests queue until their responses are done: responses come in the requests'
 * order (RFC 9112 9.3.2), and that is all that joins the two.
 *
 * Losing the place. A hole where a head could be means: there may have been requests or responses
 * that we know nothing of. Then nothing may be paired by order alone. The flow waits for a call
 * that begins with a head (programs write heads at the beginning of a send), and until one exchange
 * is proven the connection is in doubt. In doubt at most one request waits, the youngest, and a
 * response is its answer only if positions of both flows prove it: it begins at or after the place
 * where the responses were when the request was sent (all bytes before that were seen to be older),
 * and when it was sent, the requests ended with this one. All else comes out incomplete, without an
 * answer. One proven exchange ends the doubt.
 *
 * Who was seen to pipeline is never out of doubt again: nothing tells how many requests were in the
 * hole. A connection that pipelines for the first time in a hole cannot be told from another.
 *
 * A response's head that is longer than what the kernel shows of a call is no loss: what was seen
 * of it counts, and the message goes on until a call begins the answer to the next request.
 */
#include "agent/ebpf/parsers/http1.h"

#include <stdlib.h>

#include "agent/ebpf/parsers/http1_body.h"
#include "common/base/clock.h"

enum {
    MAGIC = 0x48545031,
    PENDING_MAX = 4096, /* requests without an answer yet */
    TARGET_KEPT = 8192,
    FIELD_KEPT = 1024,
    JOIN_CALLS_MAX = 32, /* calls without a head before a joined connection is looked at less */
};
#define EARLY_RESPONSE_WAIT_NS NS_PER_S

struct http1 {
    unsigned magic;
    struct http1_stream flows[FLOW_COUNT];
    struct list pending; /* requests in order, the oldest is being answered */
    struct list done;
    unsigned n_pending, calls_looked_at;
    bool ever, over;
    bool doubt, pipelined; /* see above */
    /* Several heads may share a call, or one is long: heads of calls are not enough. */
    bool crowded;
    struct answer_layout layout;
};

static void exchange_free(struct exchange *x)
{
    free(CONTAINER_OF(x, struct http1_exchange, base));
}

static void list_free(struct list *l)
{
    struct list *n;

    while ((n = list_pop(l)))
        exchange_free(LIST_ENTRY(n, struct exchange, link));
}

static void http1_init(void *state, bool joined)
{
    struct http1 *h = state;

    memset(h, 0, sizeof(*h));
    SET_MAGIC(h, MAGIC);
    list_init(&h->pending);
    list_init(&h->done);
    for (unsigned i = 0; i < FLOW_COUNT; i++)
        http1_stream_init(&h->flows[i], joined ? LOST : AT_HEAD);
    h->doubt = joined;
}

static void http1_fini(void *state)
{
    struct http1 *h = CAST_OBJ(struct http1, state, MAGIC);

    list_free(&h->pending);
    list_free(&h->done);
    http1_stream_fini(&h->flows[0]);
    http1_stream_fini(&h->flows[1]);
    CLEAR_MAGIC(h);
}

static struct exchange *http1_take(void *state)
{
    struct http1 *h = CAST_OBJ(struct http1, state, MAGIC);
    struct list *n = list_pop(&h->done);

    return n ? LIST_ENTRY(n, struct exchange, link) : NULL;
}

/* ---- exchanges ---- */

static struct http1_exchange *front(const struct http1 *h)
{
    if (list_is_empty(&h->pending))
        return NULL;
    return CONTAINER_OF(LIST_ENTRY(h->pending.next, struct exchange, link), struct http1_exchange,
                        base);
}

static void finish(struct http1 *h, struct http1_exchange *x, unsigned flags)
{
    x->base.flags |= flags;
    for (unsigned i = 0; i < FLOW_COUNT; i++)
        if (h->flows[i].x == x)
            h->flows[i].x = NULL;
    list_remove(&x->base.link);
    list_push(&h->done, &x->base.link);
    h->n_pending--;
    h->ever = true;
}

static void finish_if_done(struct http1 *h, struct http1_exchange *x)
{
    unsigned both = EXCHANGE_REQUEST_DONE | EXCHANGE_RESPONSE_DONE;

    if ((x->base.flags & both) == both)
        finish(h, x, 0);
}

static struct str keep(char **at, struct str s, size_t max)
{
    struct str out = {*at, MIN(s.n, max)};

    if (!s.p)
        return (struct str){NULL, 0};
    memcpy(*at, s.p, out.n);
    *at += out.n;
    return out;
}

static struct http1_exchange *exchange_new(const struct http1_head *head, const struct segment *s)
{
    size_t n = sizeof(struct http1_exchange) + head->method.n + MIN(head->target.n, TARGET_KEPT);
    struct http1_exchange *x;
    char *at;

    for (unsigned i = 0; i < HTTP1_FIELD_COUNT; i++)
        n += MIN(head->fields[i].n, FIELD_KEPT);
    x = try_alloc(n);
    if (!x)
        return NULL;
    memset(x, 0, sizeof(*x));
    list_init(&x->base.link);
    at = (char *)(x + 1);
    x->method = keep(&at, head->method, HTTP1_METHOD_MAX);
    x->target = keep(&at, head->target, TARGET_KEPT);
    for (unsigned i = 0; i < HTTP1_FIELD_COUNT; i++)
        x->fields[i] = keep(&at, head->fields[i], FIELD_KEPT);
    if (head->repeated_traceparent)
        x->fields[HTTP1_TRACEPARENT] = (struct str){NULL, 0};
    x->request_minor = head->minor;
    x->base.tgid = s->tgid;
    x->base.tid = s->tid;
    return x;
}

/* ---- the ends of messages, and losing the place ---- */

static void message_end(struct http1 *h, enum flow flow)
{
    struct http1_stream *f = &h->flows[flow];
    struct http1_exchange *x = f->x;

    if (x && flow == FLOW_REQUEST) {
        x->base.request_body = f->body;
        x->base.flags |= EXCHANGE_REQUEST_DONE | (f->size_known ? EXCHANGE_REQUEST_SIZE : 0u);
    } else if (x) {
        x->base.response_body = f->body;
        x->base.flags |= EXCHANGE_RESPONSE_DONE | (f->size_known ? EXCHANGE_RESPONSE_SIZE : 0u);
    }
    http1_at_head(f);
    if (x)
        finish_if_done(h, x);
}

static void in_message(struct http1_exchange *x, enum flow flow, const struct segment *s)
{
    if (!x || !s->end_ns)
        return;
    if (flow == FLOW_REQUEST)
        x->base.request_end_ns = s->end_ns;
    else
        x->base.response_end_ns = s->end_ns;
}

/* All that wait for a response. */
static void finish_all(struct http1 *h, unsigned flags)
{
    struct http1_exchange *x;

    while ((x = front(h)))
        finish(h, x, flags);
}

/*
 * Who asked before s was over may have been answered in it. The youngest may have asked later: it
 * is answered behind it.
 */
static void finish_asked_before(struct http1 *h, const struct segment *s)
{
    struct http1_exchange *x;
    uint64_t end = s->pos + s->len;

    while ((x = front(h)) &&
           (h->n_pending > 1 || s->end_ns == 0 || x->base.request_first_ns <= s->end_ns))
        finish(h, x, EXCHANGE_INCOMPLETE);
    if (!x)
        return;
    x->certain &= !h->doubt;
    x->base.min_response_pos = MAX(MAX(x->base.min_response_pos, x->response_pos), end);
}

static void lose(struct http1 *h, enum flow flow, const struct segment *s)
{
    struct http1_stream *f = &h->flows[flow];

    h->doubt = true;
    if (flow == FLOW_REQUEST) {
        /* Its response is still to come and will be the right one; only its size is unknown. */
        if (f->x) {
            f->x->base.flags |= EXCHANGE_REQUEST_DONE;
            finish_if_done(h, f->x);
        }
    } else {
        finish_asked_before(h, s);
    }
    http1_at_head(f);
    f->state = LOST;
}

/* ---- heads ---- */

/*
 * Where the answer to a request may begin that was sent in doubt; UINT64_MAX: no place is proven.
 * The call may have been told after its own answer came (two threads), so what was received before
 * it must be known, and be older than its first byte.
 */
static uint64_t proven_place(const struct http1 *h, const struct segment *s)
{
    const struct http1_stream *responses = &h->flows[FLOW_RESPONSE];
    bool known = s->other_pos <= responses->end;
    bool older = responses->end_ns <= h->flows[FLOW_REQUEST].message_first_ns;

    return known && older && !h->pipelined ? s->other_pos : UINT64_MAX;
}

/* A request begins behind others that have no answer. */
static void look_at_waiting(struct http1 *h, const struct segment *s)
{
    const struct http1_exchange *x = front(h);
    bool known = s->other_pos <= h->flows[FLOW_RESPONSE].end; /* else: an answer is lost or late */

    if (!x || x->base.flags & EXCHANGE_RESPONSE_BEGUN)
        return;
    if (known && s->other_pos == x->response_pos && x->base.min_response_pos != UINT64_MAX)
        h->pipelined = true;
    if (h->doubt)
        finish_all(h, EXCHANGE_INCOMPLETE);
}

/* A request whose head is whole, or goes on in a hole. NULL: it is given up. */
static struct http1_exchange *ask(struct http1 *h, const struct http1_head *head,
                                  const struct segment *s)
{
    struct http1_stream *f = &h->flows[FLOW_REQUEST];
    struct http1_exchange *x;

    if (head->other_coding || h->n_pending >= PENDING_MAX || !(x = exchange_new(head, s)))
        return NULL;
    x->base.request_first_ns = f->message_first_ns;
    x->base.request_end_ns = MAX(s->end_ns, f->message_first_ns);
    look_at_waiting(h, s);
    x->response_pos = s->other_pos;
    x->certain = !h->doubt;
    if (h->doubt)
        x->base.min_response_pos = proven_place(h, s);
    x->head_end = f->end;
    list_push(&h->pending, &x->base.link);
    h->crowded |= h->n_pending++ > 0;
    return x;
}

static enum parse_result begin_request(struct http1 *h, const struct http1_head *head,
                                       const struct segment *s)
{
    struct http1_stream *f = &h->flows[FLOW_REQUEST];
    struct http1_exchange *x = ask(h, head, s);

    if (!x) {
        lose(h, FLOW_REQUEST, s);
        return PARSE_BROKEN;
    }
    http1_at_head(f);
    f->x = x;
    f->size_known = true;
    if (!http1_begin_request_body(f, head))
        message_end(h, FLOW_REQUEST);
    return PARSE_DONE;
}

static enum parse_result begin_response(struct http1 *h, const struct http1_head *head,
                                        const struct segment *s, bool cut)
{
    struct http1_stream *f = &h->flows[FLOW_RESPONSE];
    struct http1_exchange *x = front(h);
    bool tunnel, to_head;

    if (head->status < 200 && head->status != 101) {
        http1_at_head(f); /* interim: the answer is still to come */
        return PARSE_DONE;
    }
    x->status = head->status;
    x->response_minor = head->minor;
    x->base.response_first_ns = f->message_first_ns;
    x->base.response_end_ns = MAX(s->end_ns, f->message_first_ns);
    x->base.flags |= EXCHANGE_RESPONSE_BEGUN;
    if (!x->certain)
        h->doubt = false;
    http1_at_head(f);
    f->x = x;
    f->size_known = true;
    to_head = str_is(x->method, "HEAD");
    tunnel = head->status == 101 || (head->status < 300 && str_is(x->method, "CONNECT"));
    if (!tunnel) {
        if (cut)
            http1_begin_unseen_end(f, head, to_head);
        else if (!http1_begin_response_body(f, head, to_head))
            message_end(h, FLOW_RESPONSE);
        return PARSE_DONE;
    }
    h->over = true;
    x->base.flags |= EXCHANGE_REQUEST_DONE;
    message_end(h, FLOW_RESPONSE);
    finish_all(h, EXCHANGE_INCOMPLETE);
    return PARSE_NOT_MINE;
}

/* A whole head of n bytes. */
static enum parse_result begin_message(struct http1 *h, enum flow flow,
                                       const struct http1_head *head, size_t n,
                                       const struct segment *s)
{
    if (flow == FLOW_REQUEST)
        return begin_request(h, head, s);
    if (head->status == 200 && head->length_at && !head->chunked && n < UINT16_MAX)
        h->layout = (struct answer_layout){(uint16_t)n, (uint16_t)head->length_at};
    return begin_response(h, head, s, false);
}

static enum parse_result read_head(struct http1 *h, enum flow flow, struct str text,
                                   const struct segment *s)
{
    struct http1_head head;
    bool ok =
        flow == FLOW_REQUEST ? http1_read_request(text, &head) : http1_read_response(text, &head);

    if (!ok) {
        lose(h, flow, s);
        return PARSE_BROKEN;
    }
    return begin_message(h, flow, &head, text.n, s);
}

/*
 * A request of which the rest of the head lies in the hole s, perhaps with a trace context. It
 * waits for its response like any other; the next one begins a call.
 */
static bool read_cut_request(struct http1 *h, struct str text, const struct segment *s)
{
    struct http1_stream *f = &h->flows[FLOW_REQUEST];
    struct http1_exchange *x;
    struct http1_head head;

    if (!http1_read_request(text, &head) || !(x = ask(h, &head, s)))
        return false;
    x->base.flags |= EXCHANGE_REQUEST_DONE | EXCHANGE_INCOMPLETE;
    h->ever = true;
    http1_at_head(f);
    f->state = LOST;
    return true;
}

/* A head of which whole lines were seen, the rest lies in the hole s. False: too little. */
static bool read_cut_head(struct http1 *h, enum flow flow, const struct segment *s)
{
    struct str text = buf_str(&h->flows[flow].head);
    const char *end = text.n ? memrchr(text.p, '\n', text.n) : NULL;
    const struct http1_exchange *x = front(h);
    struct http1_head head;

    if (!end)
        return false;
    text.n = (size_t)(end + 1 - text.p);
    if (flow == FLOW_REQUEST)
        return read_cut_request(h, text, s);
    if (!x || x->base.flags & EXCHANGE_RESPONSE_DONE || !x->certain)
        return false; /* in doubt who waits may have asked since */
    if (!http1_read_response(text, &head) || (head.status < 200 && head.status != 101))
        return false;
    h->crowded = true;
    begin_response(h, &head, s, true);
    return true;
}

/* True when the response flow may go on: somebody waits for what begins at pos. */
static bool has_asker(struct http1 *h, const struct segment *s, uint64_t at, bool *older)
{
    const struct http1_stream *requests = &h->flows[FLOW_REQUEST];
    struct http1_exchange *x = front(h);

    *older = false;
    if (!x || x->base.flags & EXCHANGE_RESPONSE_DONE)
        return false;
    if (x->certain)
        return true; /* asked before the loss, and no response was lost: order tells */
    *older = s->pos + at < x->base.min_response_pos || s->other_pos < x->head_end ||
             s->other_pos > requests->end || requests->state == LOST ||
             s->first_ns < x->base.request_first_ns;
    return !*older;
}

/* What is wrong with a beginning that is no head. */
static enum parse_result no_head(struct http1 *h, enum flow flow, const struct segment *s)
{
    if (!h->ever && !h->doubt && flow == FLOW_REQUEST && list_is_empty(&h->pending)) {
        h->over = true;
        return PARSE_NOT_MINE;
    }
    lose(h, flow, s);
    return PARSE_BROKEN;
}

/* A head, or a piece of one, at s->p + *at. */
static enum parse_result feed_head(struct http1 *h, enum flow flow, const struct segment *s,
                                   uint64_t *at)
{
    struct http1_stream *f = &h->flows[flow];
    struct str rest = str_make(s->p + *at, s->len - *at), text = rest;
    size_t before = f->head.n, end;
    int looks;

    while (before == 0 && rest.n > 0 && (rest.p[0] == '\r' || rest.p[0] == '\n')) {
        rest = text = str_make(rest.p + 1, rest.n - 1); /* RFC 9112 2.2 */
        ++*at;
    }
    if (rest.n == 0)
        return PARSE_NEED_MORE;
    if (before == 0) {
        struct http1_head head;

        f->message_first_ns = flow == FLOW_REQUEST ? s->first_ns : s->end_ns;
        end = http1_read_at_once(rest, flow == FLOW_REQUEST, &head);
        if (end > 0) { /* as nearly always */
            *at += end;
            f->end = s->pos + *at;
            return begin_message(h, flow, &head, end, s);
        }
    } else {
        buf_add(&f->head, rest.p, MIN(rest.n, HTTP1_HEAD_MAX - before));
        text = buf_str(&f->head);
    }
    looks = flow == FLOW_REQUEST ? http1_is_request(text) : http1_is_response(text);
    end = looks < 0 ? 0 : http1_head_end(text, &f->scanned);
    if (looks < 0 || text.n >= HTTP1_HEAD_MAX || buf_error(&f->head)) {
        if (end == 0 || end > HTTP1_HEAD_MAX) {
            *at = s->len;
            return no_head(h, flow, s);
        }
    }
    if (end == 0) {
        if (before == 0)
            buf_add(&f->head, rest.p, rest.n);
        *at = s->len;
        return PARSE_NEED_MORE;
    }
    *at += end - before;
    f->end = s->pos + *at;
    return read_head(h, flow, str_make(text.p, end), s);
}

/* ---- the place is lost ---- */

/*
 * A request, or "GET /" of which the rest is not read yet: programs may read a few bytes at a time.
 * Of a method that we do not know the first letters may have been in the hole.
 */
static bool begins_known_request(struct str text)
{
    const char *space = memchr(text.p, ' ', MIN(text.n, (size_t)HTTP1_METHOD_MAX));
    int looks = http1_is_request(text);

    if (!space || looks < 0 || !http1_is_known_method(str_make(text.p, (size_t)(space - text.p))))
        return false;
    return looks == 1 || (space + 1 < text.p + text.n && space[1] == '/');
}

/* A call begins with a head while we are lost, or nearly. */
static bool call_begins_head(struct http1 *h, enum flow flow, const struct segment *s, uint64_t at)
{
    struct str text;
    bool older;
    int looks;

    if (!s->p || at > 0 || !(s->flags & SEGMENT_CALL_START))
        return false;
    text = str_make(s->p, s->len);
    if (flow == FLOW_REQUEST)
        return begins_known_request(text);
    looks = http1_is_response(text);
    if (looks < 0 || !has_asker(h, s, at, &older))
        return false;
    return looks == 1 || s->pos == front(h)->base.min_response_pos; /* the first bytes of one */
}

/*
 * Response bytes that nobody reads: who waits may have got the answer in them. Of those that the
 * end of the connection tells nobody knows when they were sent.
 */
static void pass_over(struct http1 *h, const struct segment *s)
{
    const struct http1_exchange *x = front(h);
    bool possible = x && (x->base.min_response_pos == UINT64_MAX /* any place is */ ||
                          s->pos + s->len > x->base.min_response_pos);

    h->doubt = true;
    if (possible && (s->end_ns == 0 || s->other_pos >= x->head_end))
        finish_all(h, EXCHANGE_INCOMPLETE);
}

/* A response begins a call, and its request may be on its way: it may have to wait for others. */
static bool waits_for_request(const struct http1 *h, const struct segment *s, uint64_t at)
{
    return s->p && at == 0 && s->flags & SEGMENT_CALL_START && !(s->flags & SEGMENT_FORCE) &&
           !front(h) && http1_is_response(str_make(s->p, s->len)) == 1;
}

static enum parse_result feed_lost(struct http1 *h, enum flow flow, const struct segment *s,
                                   uint64_t *at)
{
    struct http1_stream *f = &h->flows[flow];

    if (flow == FLOW_RESPONSE && waits_for_request(h, s, *at))
        return PARSE_NEED_MORE;
    if (call_begins_head(h, flow, s, *at)) {
        h->calls_looked_at = 0;
        http1_at_head(f);
        return feed_head(h, flow, s, at);
    }
    if (flow == FLOW_RESPONSE)
        pass_over(h, s);
    else if (s->flags & SEGMENT_CALL_START)
        h->calls_looked_at++;
    *at = s->len;
    return PARSE_NEED_MORE;
}

/* ---- one segment ---- */

/* A hole at s: proven body, or the place is lost. */
static enum parse_result feed_hole(struct http1 *h, enum flow flow, const struct segment *s,
                                   uint64_t *at)
{
    struct http1_stream *f = &h->flows[flow];

    switch (f->state) {
    case IN_BODY:
    case CHUNK_DATA:
    case TO_CLOSE:
        in_message(f->x, flow, s);
        if (http1_count_body(f, s, at))
            message_end(h, flow);
        return PARSE_NEED_MORE;
    case END_UNSEEN:
        *at = s->len;
        if (s->flags & SEGMENT_LOST)
            break; /* the next responses may be in it, too */
        in_message(f->x, flow, s);
        return PARSE_NEED_MORE;
    case LOST:
        if (flow == FLOW_RESPONSE)
            pass_over(h, s);
        *at = s->len;
        return PARSE_NEED_MORE;
    case CHUNKS_LOST:
        *at = s->len;
        if (s->flags & (SEGMENT_LOST | SEGMENT_CALL_END))
            break; /* the end may be in it, and more messages */
        return PARSE_NEED_MORE;
    case CHUNK_SIZE:
    case CHUNK_END:
    case TRAILER:
        *at = s->len;
        if (s->flags & (SEGMENT_LOST | SEGMENT_CALL_END) || h->pipelined)
            break; /* the end may be in it, and more messages */
        /* Chunks that were not asked for, inside one call: the end of the body will show. */
        in_message(f->x, flow, s);
        http1_lose_chunks(f);
        return PARSE_NEED_MORE;
    case AT_HEAD:
        if (flow == FLOW_REQUEST && f->head.n == 0 && !(s->flags & SEGMENT_LOST) &&
            (*at > 0 || !(s->flags & SEGMENT_CALL_START)))
            h->pipelined = true; /* a call that goes on behind a request */
        *at = s->len;
        if (read_cut_head(h, flow, s) && !(s->flags & SEGMENT_LOST) && !h->pipelined)
            return PARSE_NEED_MORE;
        break;
    }
    h->crowded |= flow == FLOW_RESPONSE && front(h);
    if (flow == FLOW_RESPONSE && !front(h) && f->head.n == 0 && f->state == AT_HEAD) {
        f->state = LOST;
        h->doubt = true;
        return PARSE_BROKEN;
    }
    lose(h, flow, s);
    return PARSE_BROKEN;
}

/* At a head: whether this flow may go on now. */
static enum parse_result feed_at_head(struct http1 *h, enum flow flow, const struct segment *s,
                                      uint64_t *at)
{
    bool older = false;

    if (flow == FLOW_REQUEST || has_asker(h, s, *at, &older))
        return feed_head(h, flow, s, at);
    if (older || s->flags & SEGMENT_FORCE) {
        /* Answers something that we did not see, or comes unasked. */
        h->flows[flow].state = LOST;
        h->doubt = true;
        return feed_lost(h, flow, s, at);
    }
    return PARSE_NEED_MORE; /* *at < len: wait for the request */
}

/* The response whose end was not seen ended before s, where the next one begins. */
static enum parse_result begin_next(struct http1 *h, const struct segment *s, uint64_t *at)
{
    struct http1_stream *f = &h->flows[FLOW_RESPONSE];
    struct segment before = {.pos = s->pos, .end_ns = f->x ? f->x->base.response_end_ns : 0};

    f->size_known |= f->size_told && f->state == END_UNSEEN;
    message_end(h, FLOW_RESPONSE);
    finish_asked_before(h, &before); /* pipelined ones: answered in the same calls, perhaps */
    return feed_at_head(h, FLOW_RESPONSE, s, at);
}

/* Whether a response that answers somebody else begins a call. *wait: if its request comes. */
static bool next_begins(struct http1 *h, const struct segment *s, uint64_t at, bool *wait)
{
    const struct http1_exchange *x = h->flows[FLOW_RESPONSE].x, *next;
    int looks;

    *wait = false;
    if (!x || at > 0 || !(s->flags & SEGMENT_CALL_START))
        return false;
    looks = http1_is_response(str_make(s->p, s->len));
    if (x->base.link.next == &h->pending) {
        *wait = looks == 1 && !(s->flags & SEGMENT_FORCE) && x->base.flags & EXCHANGE_REQUEST_DONE;
        return looks == 1 && s->flags & SEGMENT_FORCE;
    }
    next = CONTAINER_OF(LIST_ENTRY(x->base.link.next, struct exchange, link), struct http1_exchange,
                        base);
    return looks == 1 || (looks == 0 && s->pos == next->response_pos);
}

static enum parse_result feed_end_unseen(struct http1 *h, enum flow flow, const struct segment *s,
                                         uint64_t *at)
{
    struct http1_stream *f = &h->flows[flow];
    bool wait = false;

    if (flow == FLOW_RESPONSE && next_begins(h, s, *at, &wait))
        return begin_next(h, s, at);
    if (wait)
        return PARSE_NEED_MORE;
    in_message(f->x, flow, s);
    if (f->state == CHUNKS_LOST && http1_tail_is_end(f, s, *at))
        message_end(h, flow);
    *at = s->len;
    return PARSE_NEED_MORE;
}

/*
 * A client that got its answer early (413, or a final status in place of 100) need not send the
 * body that it announced: what begins like a request then is one.
 */
static bool body_was_given_up(struct http1 *h, enum flow flow, const struct segment *s, uint64_t at)
{
    const struct http1_stream *f = &h->flows[flow];

    if (flow != FLOW_REQUEST || f->state == AT_HEAD || f->state == LOST)
        return false;
    if (f->x && !(f->x->base.flags & EXCHANGE_RESPONSE_DONE))
        return false;
    return call_begins_head(h, flow, s, at);
}

static enum parse_result feed_framing(struct http1 *h, enum flow flow, const struct segment *s,
                                      uint64_t *at)
{
    in_message(h->flows[flow].x, flow, s);
    switch (http1_framing_byte(&h->flows[flow], s->p[(*at)++])) {
    case FRAMING_GOES_ON:
        break;
    case FRAMING_ENDS:
        message_end(h, flow);
        break;
    case FRAMING_BROKEN:
        lose(h, flow, s);
        *at = s->len;
        return PARSE_BROKEN;
    }
    return PARSE_NEED_MORE;
}

static enum parse_result feed_bytes(struct http1 *h, enum flow flow, const struct segment *s,
                                    uint64_t *at)
{
    struct http1_stream *f = &h->flows[flow];

    if (body_was_given_up(h, flow, s, *at)) {
        if (f->x)
            finish(h, f->x, 0);
        http1_at_head(f);
        return PARSE_NEED_MORE;
    }
    switch (f->state) {
    case AT_HEAD:
        return feed_at_head(h, flow, s, at);
    case IN_BODY:
    case CHUNK_DATA:
    case TO_CLOSE:
        in_message(f->x, flow, s);
        if (http1_count_body(f, s, at))
            message_end(h, flow);
        return PARSE_NEED_MORE;
    case CHUNK_SIZE:
    case CHUNK_END:
    case TRAILER:
        return feed_framing(h, flow, s, at);
    case CHUNKS_LOST:
    case END_UNSEEN:
        return feed_end_unseen(h, flow, s, at);
    case LOST:
        break;
    }
    return feed_lost(h, flow, s, at);
}

static enum parse_result http1_feed(void *state, enum flow flow, const struct segment *s,
                                    uint64_t *used)
{
    struct http1 *h = CAST_OBJ(struct http1, state, MAGIC);
    enum parse_result r = PARSE_NEED_MORE;
    uint64_t at = *used;

    while (at < s->len && !h->over) {
        uint64_t before = at;

        r = s->p ? feed_bytes(h, flow, s, &at) : feed_hole(h, flow, s, &at);
        h->flows[flow].end = s->pos + at;
        if (at > before)
            h->flows[flow].end_ns = s->end_ns;
        if (r == PARSE_BROKEN || !list_is_empty(&h->done))
            break;
        if (at == before && r == PARSE_NEED_MORE && flow == FLOW_RESPONSE)
            break; /* waits for the request */
    }
    if (h->over)
        at = s->len;
    *used = at;
    if (!list_is_empty(&h->done) && r != PARSE_BROKEN)
        return PARSE_DONE;
    if (h->over)
        return PARSE_NOT_MINE;
    return r == PARSE_BROKEN ? r : PARSE_NEED_MORE;
}

/* Nothing will come any more. Who asked in doubt, and no place is proven, may have been answered.
 */
static unsigned how_it_ended(const struct http1_exchange *x)
{
    if (x->base.flags & EXCHANGE_RESPONSE_DONE)
        return 0;
    if (x->base.flags & EXCHANGE_RESPONSE_BEGUN || x->certain ||
        x->base.min_response_pos != UINT64_MAX)
        return EXCHANGE_CUT;
    return EXCHANGE_INCOMPLETE;
}

static void http1_end(void *state)
{
    struct http1 *h = CAST_OBJ(struct http1, state, MAGIC);

    if (h->flows[FLOW_RESPONSE].state == TO_CLOSE || h->flows[FLOW_RESPONSE].state == END_UNSEEN)
        message_end(h, FLOW_RESPONSE);
    for (struct http1_exchange *x; (x = front(h));)
        finish(h, x, how_it_ended(x));
    h->over = true;
}

/* A response that was complete before its request (413): the rest of the request may never come. */
static void http1_tick(void *state, uint64_t now_ns)
{
    struct http1 *h = CAST_OBJ(struct http1, state, MAGIC);
    struct http1_exchange *x = front(h);

    if (x && x->base.flags & EXCHANGE_RESPONSE_DONE &&
        now_ns > x->base.response_end_ns + EARLY_RESPONSE_WAIT_NS)
        finish(h, x, 0);
}

static enum parser_depth http1_depth(const void *state)
{
    const struct http1 *h = state;

    if (!h->ever && h->calls_looked_at > JOIN_CALLS_MAX)
        return DEPTH_BEGINNINGS;
    return h->crowded ? DEPTH_ALL : DEPTH_HEADS;
}

static struct answer_layout http1_layout(const void *state)
{
    return ((const struct http1 *)state)->layout;
}

static enum parse_result http1_detect(struct str first)
{
    switch (http1_is_request(first)) {
    case 1:
        return PARSE_DONE;
    case 0:
        return PARSE_NEED_MORE;
    default:
        return PARSE_NOT_MINE;
    }
}

const struct parser parser_http1 = {
    .name = "http",
    .state_size = sizeof(struct http1),
    .detect = http1_detect,
    .init = http1_init,
    .fini = http1_fini,
    .feed = http1_feed,
    .take = http1_take,
    .end = http1_end,
    .tick = http1_tick,
    .depth = http1_depth,
    .layout = http1_layout,
    .exchange_free = exchange_free,
};
