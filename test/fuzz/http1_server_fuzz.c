/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's HTTP/1.1 from hostile bytes: heads, chunked bodies, and a connection that answers
 * each request at once. The same bytes cut in another way must give the same requests and answers:
 * where they differ is where a proxy and we would disagree on what the requests are.
 *
 * Input: [flags][bytes]. Bit 0: a head of a response; bit 1: each body waits for memory first.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/io/http1.h"
#include "common/io/http_conn.h"

/* What a connection calls, recorded here; the server itself is not linked in. */
#define stream_write stub_write
#define stream_pause stub_pause
#define stream_resume stub_resume
#define http_conn_end stub_conn_end
#define http_exchange_new stub_new
#define http_exchange_free stub_free
#define http_exchange_keep stub_keep
#define http_exchange_head stub_head
#define http_exchange_expect stub_expect
#define http_exchange_append stub_append
#define http_exchange_message stub_message
#define http_exchange_refuse stub_refuse
#define http_server_is_h2_only stub_is_h2_only
#define loop_now_ns stub_now_ns
#define stream_is_blocked stub_is_blocked

enum { MAX_BODY = 256 };

int stub_write(struct stream *s, const struct iovec *v, int n);
void stub_pause(struct stream *s);
void stub_resume(struct stream *s);
void stub_conn_end(struct http_conn *c);
struct http_exchange *stub_new(struct http_conn *c, unsigned version);
void stub_free(struct http_exchange **x);
struct str stub_keep(struct http_exchange *x, struct str s);
int stub_head(struct http_exchange *x);
bool stub_expect(struct http_exchange *x, uint64_t n);
int stub_append(struct http_exchange *x, const uint8_t *p, size_t n);
void stub_message(struct http_exchange *x);
void stub_refuse(struct http_exchange *x, enum http_refusal why);
bool stub_is_h2_only(const struct http_server *s);
uint64_t stub_now_ns(struct loop *l);
bool stub_is_blocked(const struct stream *s);

#include "common/io/http1_server.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    struct buf seen; /* requests, bodies, answers in their order */
    bool waits, is_ended, is_paused;
} world;

int stub_write(struct stream *s, const struct iovec *v, int n)
{
    for (int i = 0; i < n; i++)
        buf_add(&world.seen, v[i].iov_base, v[i].iov_len);
    return 0;
}

void stub_pause(struct stream *s)
{
    world.is_paused = true;
}

void stub_resume(struct stream *s)
{
    world.is_paused = false;
}

void stub_conn_end(struct http_conn *c)
{
    world.is_ended = c->is_closing = true;
}

struct http_exchange *stub_new(struct http_conn *c, unsigned version)
{
    struct http_exchange *x = xcalloc(1, sizeof(*x));
    x->conn = c;
    x->max_body = MAX_BODY;
    return x;
}

void stub_free(struct http_exchange **x)
{
    if (*x)
        free((*x)->text_more);
    free(*x);
    *x = NULL;
}

struct str stub_keep(struct http_exchange *x, struct str s)
{
    buf_add(&world.seen, "[", 1);
    if (s.n)
        buf_add(&world.seen, s.p, s.n);
    buf_add(&world.seen, "]", 1);
    return (struct str){NULL, 0};
}

int stub_head(struct http_exchange *x)
{
    return 0;
}

static void answer_now(struct http_exchange *x, int status)
{
    struct http_response resp = {.status = status, .body = STR("ok")};
    http1_proto.respond(x, &resp);
}

bool stub_expect(struct http_exchange *x, uint64_t n)
{
    if (world.waits)
        x->state = EXCHANGE_WAITING;
    return !world.waits;
}

int stub_append(struct http_exchange *x, const uint8_t *p, size_t n)
{
    size_t fits = MIN(n, (size_t)(MAX_BODY - x->r.deadline_ns)); /* unused here: counts the body */

    x->r.deadline_ns += fits;
    buf_add(&world.seen, p, fits);
    return fits < n ? -E2BIG : 0;
}

void stub_message(struct http_exchange *x)
{
    x->state = EXCHANGE_HANDLER;
    buf_add_cstr(&world.seen, "<whole>");
    answer_now(x, 200);
}

void stub_refuse(struct http_exchange *x, enum http_refusal why)
{
    x->state = EXCHANGE_REFUSED;
    answer_now(x, why == HTTP_TOO_LARGE ? 413 : 503);
}

bool stub_is_h2_only(const struct http_server *s)
{
    return false;
}

bool stub_is_blocked(const struct stream *s)
{
    return false; /* the peer reads its answers */
}

uint64_t stub_now_ns(struct loop *l)
{
    return 1; /* how long a head takes is the server's business */
}

/* The connection's record of what it did with these bytes, given in pieces of `cut`. */
static struct buf converse(const uint8_t *data, size_t size, size_t cut, bool waits)
{
    struct http_loop_state home = {0};
    struct http_conn c = {.home = &home};

    memset(&world, 0, sizeof(world));
    world.waits = waits;
    buf_init(&world.seen);
    http1_new(&c);
    for (size_t i = 0; i < size && !world.is_ended; i += cut) {
        size_t n = MIN(cut, size - i);
        uint8_t *piece = xalloc(n); /* of its size, so that a read behind it is found */
        memcpy(piece, data + i, n);
        int r = http1_proto.read(&c, piece, n);
        free(piece);
        if (r < 0)
            break;
        struct http1 *h = c.state;
        while (!world.is_ended && h->x && h->x->state == EXCHANGE_WAITING) {
            h->x->state = EXCHANGE_BODY;
            http1_proto.admitted(h->x);
        }
        if (!world.is_ended && world.is_paused)
            abort(); /* everything was answered: nobody would ever wake it */
    }
    struct http1 *h = c.state;
    http_exchange_free(&h->x);
    http1_proto.free(&c);
    return world.seen;
}

static bool is_within(struct str s, const char *p, size_t n)
{
    return s.n == 0 || (s.p >= p && s.p + s.n <= p + n);
}

/* A head must be a head in full: no beginning of it is one, and its slices lie in it. */
static void check_head(const char *p, size_t n, bool is_response)
{
    struct http1_head whole, part;
    int r = http1_parse_head(p, n, is_response, &whole);

    if (r <= 0)
        return;
    if ((size_t)r > n || (whole.has_length && whole.is_chunked))
        abort();
    if (!is_within(whole.method, p, (size_t)r) && !is_response)
        abort();
    for (unsigned i = 0; i < whole.n_fields; i++)
        if (!is_within(whole.fields[i].name, p, (size_t)r) ||
            !is_within(whole.fields[i].value, p, (size_t)r))
            abort();
    for (size_t i = 0; i < MIN((size_t)r, (size_t)200); i++)
        if (http1_parse_head(p, i, is_response, &part) > 0)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t cuts[] = {1, 3, 50};

    if (size < 2)
        return 0;
    if (data[0] & 1) {
        check_head((const char *)data + 1, size - 1, true);
        return 0;
    }
    bool waits = data[0] >> 1 & 1;
    check_head((const char *)data + 1, size - 1, false);
    struct buf whole = converse(data + 1, size - 1, size, waits);
    for (unsigned i = 0; i < ARRAY_LEN(cuts); i++) {
        struct buf cut = converse(data + 1, size - 1, cuts[i], waits);
        if (whole.n != cut.n || (whole.n && memcmp(whole.p, cut.p, whole.n) != 0)) {
            fprintf(stderr, "in one piece:\n" STR_FMT "\ncut by %zu:\n" STR_FMT "\n",
                    STR_ARG(buf_str(&whole)), cuts[i], STR_ARG(buf_str(&cut)));
            abort();
        }
        buf_fini(&cut);
    }
    buf_fini(&whole);
    return 0;
}
