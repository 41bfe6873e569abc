/* SPDX-License-Identifier: Apache-2.0 */
#include "common/io/http_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/io/client_conn.h"

/* How often deadlines are looked at: a sixteenth of the timeout; rarely while no call waits. */
enum { TICK_MS_MIN = 20, TICK_MS_MAX = 250, TICK_MS_IDLE = 1000, DEFAULT_CONNS = 8 };
#define CLIENT_MAGIC 0x48434c49u

/* ---- what calls keep ---- */

size_t client_call_keep(struct http_call *call, const void *p, size_t n)
{
    if (call->text_n + n > HTTP_MAX_RESPONSE + (16 << 10))
        return SIZE_MAX;
    if (call->text_n + n > call->text_cap) {
        size_t cap = MAX(call->text_cap * 2, call->text_n + n + 256);
        char *text = try_realloc(call->text, cap);
        if (!text)
            return SIZE_MAX;
        call->text = text;
        call->text_cap = cap;
    }
    size_t at = call->text_n;
    if (n)
        memcpy(call->text + at, p, n);
    call->text_n += n;
    return at;
}

/*
 * While the text still grows and may move, a kept field is an offset in its pointer's place; done()
 * turns it into a pointer.
 */
static void keep_field(struct http_call *call, struct str *field, const char *p, size_t n)
{
    size_t at = client_call_keep(call, p, n);
    if (at != SIZE_MAX)
        *field = str_make((const char *)(uintptr_t)(at + 1), n);
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* grpc-message is percent-encoded (gRPC over HTTP/2). */
static void keep_message(struct http_call *call, struct str v)
{
    char out[512];
    size_t n = 0;
    for (size_t i = 0; i < v.n && n < sizeof(out); i++) {
        bool escaped = v.p[i] == '%' && i + 2 < v.n && hex(v.p[i + 1]) >= 0 && hex(v.p[i + 2]) >= 0;
        out[n++] = escaped ? (char)(hex(v.p[i + 1]) << 4 | hex(v.p[i + 2])) : v.p[i];
        i += escaped ? 2 : 0;
    }
    keep_field(call, &call->result.grpc_message, out, n);
}

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Binary header fields are base64, padded or not (gRPC over HTTP/2). */
static void keep_base64(struct http_call *call, struct str *field, struct str v)
{
    char out[1024];
    size_t n = 0;
    uint32_t bits = 0, have = 0;
    for (size_t i = 0; i < v.n && n < sizeof(out); i++) {
        int d = base64_digit(v.p[i]);
        if (d < 0)
            break;
        bits = bits << 6 | (uint32_t)d;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[n++] = (char)(bits >> have);
        }
    }
    keep_field(call, field, out, n);
}

void client_call_field(struct http_call *call, struct str name, struct str value)
{
    uint64_t v;
    if (str_ieq(name, STR("content-type"))) {
        keep_field(call, &call->result.content_type, value.p, value.n);
    } else if (str_ieq(name, STR("retry-after"))) {
        keep_field(call, &call->result.retry_after, value.p, value.n);
    } else if (str_ieq(name, STR("grpc-status")) && str_to_u64(value, &v) == 0) {
        call->result.has_grpc_status = true;
        call->result.grpc_status = (int)v;
    } else if (str_ieq(name, STR("grpc-message"))) {
        keep_message(call, value);
    } else if (str_ieq(name, STR("grpc-status-details-bin"))) {
        keep_base64(call, &call->result.grpc_details, value);
    }
}

static void point(struct http_call *call, struct str *s)
{
    if (s->p)
        s->p = call->text + ((uintptr_t)s->p - 1);
}

void client_call_done(struct http_call *call, int error, const char *why)
{
    struct http_result *r = &call->result;
    list_remove(&call->in_client);
    if (call->conn)
        call->conn->n_calls--;
    r->error = error;
    r->why = why;
    r->is_uncertain = error != 0 && call->is_on_wire;
    point(call, &r->content_type);
    point(call, &r->retry_after);
    point(call, &r->grpc_message);
    point(call, &r->grpc_details);
    r->body = str_make(call->text_n ? call->text + call->body_at : NULL, call->body_n);
    char *text = call->text;
    chunk_unref(&call->body);
    call->conn = NULL;
    call->text = NULL;
    call->done(call, r); /* may reuse or free the call */
    free(text);
}

/* ---- connections ---- */

static void free_conn(struct task *t)
{
    struct client_conn *c = CONTAINER_OF(t, struct client_conn, free_task);
    CLEAR_MAGIC(c);
    free(c);
}

void client_conn_end(struct client_conn *c, int error, const char *why)
{
    struct http_client *client = c->client;
    struct list failed;
    if (c->is_closing)
        return;
    c->is_closing = true;
    list_remove(&c->in_client);
    client->n_conns--;
    list_init(&failed);
    list_splice(&failed, &c->calls);
    /* Nobody else is dialling: whoever waits for a connection learns that there is none. */
    if (!c->is_ready && client->n_conns == 0)
        list_splice(&failed, &client->waiting);
    if (c->state)
        client->proto->free(c);
    stream_close(&c->stream);
    while (!list_is_empty(&failed))
        client_call_done(LIST_ENTRY(failed.next, struct http_call, in_client),
                         error ? error : -ECONNRESET, why);
    c->free_task.run = free_conn;
    loop_post(client->loop, &c->free_task);
    if (!client->is_closing)
        client_pump(client);
}

static void on_ready(void *arg)
{
    struct client_conn *c = CAST_OBJ(struct client_conn, arg, CLIENT_CONN_MAGIC);
    int r = c->client->proto->open(c);
    if (r) {
        client_conn_end(c, r, "out of memory");
        return;
    }
    c->is_ready = true;
    client_pump(c->client);
}

static void on_read(void *arg, const uint8_t *p, size_t n)
{
    struct client_conn *c = CAST_OBJ(struct client_conn, arg, CLIENT_CONN_MAGIC);
    int r = c->client->proto->read(c, p, n);
    if (r < 0)
        client_conn_end(c, r, "malformed answer");
}

static void on_drained(void *arg)
{
    struct client_conn *c = CAST_OBJ(struct client_conn, arg, CLIENT_CONN_MAGIC);
    if (c->is_ready)
        c->client->proto->flush(c);
}

static void on_end(void *arg, int error, const char *why)
{
    struct client_conn *c = CAST_OBJ(struct client_conn, arg, CLIENT_CONN_MAGIC);
    client_conn_end(c, error, why);
}

static const struct stream_ops conn_ops = {
    .on_ready = on_ready, .on_read = on_read, .on_drained = on_drained, .on_end = on_end};

static void dial(struct http_client *client)
{
    struct client_conn *c = xcalloc(1, sizeof(*c));
    SET_MAGIC(c, CLIENT_CONN_MAGIC);
    c->client = client;
    list_init(&c->calls);
    list_push(&client->conns, &c->in_client);
    client->n_conns++;
    int r = stream_connect(&c->stream, client->loop, client->endpoint, client->config.tls,
                           &conn_ops, c);
    if (r)
        client_conn_end(c, r, "cannot dial");
}

static struct client_conn *find_room(struct http_client *client)
{
    LIST_EACH (it, &client->conns) {
        struct client_conn *c = LIST_ENTRY(it, struct client_conn, in_client);
        if (c->is_ready && !c->is_going && client->proto->has_room(c))
            return c;
    }
    return NULL;
}

/* True when a new connection could serve a waiting call. */
static bool may_dial(const struct http_client *client)
{
    unsigned usable = 0;
    LIST_EACH (it, &client->conns) {
        const struct client_conn *c = LIST_ENTRY(it, struct client_conn, in_client);
        if (!c->is_ready)
            return false; /* one at a time */
        usable += !c->is_going;
    }
    return usable < client->config.max_conns;
}

static void flush_all(struct http_client *client)
{
    LIST_EACH_SAFE (it, next, &client->conns) {
        struct client_conn *c = LIST_ENTRY(it, struct client_conn, in_client);
        if (!c->wants_flush)
            continue;
        c->wants_flush = false;
        client->proto->flush(c); /* may end it */
    }
}

/* Connections that take no more calls, and have none. */
static void end_going(struct http_client *client)
{
    LIST_EACH_SAFE (it, next, &client->conns) {
        struct client_conn *c = LIST_ENTRY(it, struct client_conn, in_client);
        if (c->is_going && c->n_calls == 0)
            client_conn_end(c, 0, "closed");
    }
}

static void run_pump(struct task *t)
{
    struct http_client *client = CONTAINER_OF(t, struct http_client, pump_task);
    client->is_pumping = false;
    if (client->is_closing) {
        CLEAR_MAGIC(client);
        free(client->endpoint);
        free(client->authority);
        free(client);
        return;
    }
    end_going(client);
    while (!list_is_empty(&client->waiting)) {
        struct client_conn *c = find_room(client);
        if (!c)
            break;
        struct http_call *call = LIST_ENTRY(client->waiting.next, struct http_call, in_client);
        list_remove(&call->in_client);
        list_push(&c->calls, &call->in_client);
        call->conn = c;
        c->n_calls++;
        int r = client->proto->submit(c, call);
        if (r)
            client_call_done(call, r, "cannot submit");
        c->wants_flush = true;
    }
    flush_all(client); /* many calls leave in one write */
    if (!list_is_empty(&client->waiting) && !find_room(client) && may_dial(client))
        dial(client);
}

/* Never from inside a call of the user's: done() does not come back while he is sending. */
void client_pump(struct http_client *client)
{
    if (client->is_pumping)
        return;
    client->is_pumping = true;
    client->pump_task.run = run_pump;
    loop_post(client->loop, &client->pump_task);
}

/* ---- calls ---- */

static struct http_call *find_expired(struct list *calls, uint64_t now)
{
    LIST_EACH (it, calls) {
        struct http_call *call = LIST_ENTRY(it, struct http_call, in_client);
        if (call->deadline_ns && now >= call->deadline_ns)
            return call;
    }
    return NULL;
}

static void expire_on(struct http_client *client, struct list *calls, struct client_conn *c)
{
    uint64_t now = loop_now_ns(client->loop);
    for (struct http_call *call; (call = find_expired(calls, now));) {
        if (c)
            client->proto->cancel(c, call); /* HTTP/1.1 gives the connection up */
        client_call_done(call, -ETIMEDOUT, "timed out");
    }
}

static bool is_idle(const struct http_client *client)
{
    LIST_EACH (it, &client->conns) {
        const struct client_conn *c = LIST_ENTRY(it, struct client_conn, in_client);
        if (c->n_calls)
            return false;
    }
    return list_is_empty(&client->waiting);
}

static void on_tick(void *arg)
{
    struct http_client *client = CAST_OBJ(struct http_client, arg, CLIENT_MAGIC);
    expire_on(client, &client->waiting, NULL);
    LIST_EACH_SAFE (it, next, &client->conns) {
        struct client_conn *c = LIST_ENTRY(it, struct client_conn, in_client);
        expire_on(client, &c->calls, c);
    }
    if (client->is_closing)
        return;
    end_going(client);
    if (is_idle(client))
        loop_timer_pace(client->timer, TICK_MS_IDLE);
}

int http_client_new(struct http_client **out, struct loop *l, const struct http_client_config *c)
{
    struct http_client *client = xcalloc(1, sizeof(*client));
    SET_MAGIC(client, CLIENT_MAGIC);
    client->loop = l;
    client->config = *c;
    client->endpoint = xstrdup(c->endpoint);
    client->authority = xstrdup(c->authority ? c->authority : c->endpoint);
    client->proto = c->is_h2 ? &h2_client_proto : &http1_client_proto;
    client->config.max_conns = c->is_h2 ? 1 : c->max_conns ? c->max_conns : DEFAULT_CONNS;
    list_init(&client->conns);
    list_init(&client->waiting);
    client->timer = loop_timer_new(l, on_tick, client);
    loop_timer_pace(client->timer, TICK_MS_IDLE);
    *out = client;
    return 0;
}

void http_call_send(struct http_client *client, struct http_call *call)
{
    CHECK_OBJ(client, CLIENT_MAGIC);
    call->client = client;
    call->conn = NULL;
    call->deadline_ns =
        call->timeout_ms ? loop_now_ns(client->loop) + call->timeout_ms * NS_PER_MS : 0;
    call->sent = call->text_n = call->text_cap = call->body_at = call->body_n = 0;
    call->stream_id = 0;
    call->is_on_wire = call->is_answered = false;
    call->text = NULL;
    call->result = (struct http_result){0};
    list_push(&client->waiting, &call->in_client);
    uint64_t tick_ms = MIN(MAX(call->timeout_ms / 16, TICK_MS_MIN), TICK_MS_MAX);
    if (call->timeout_ms && tick_ms < loop_timer_interval_ms(client->timer))
        loop_timer_pace(client->timer, tick_ms);
    client_pump(client);
}

void http_client_close(struct http_client **cp)
{
    struct http_client *client = *cp;
    if (!client)
        return;
    CHECK_OBJ(client, CLIENT_MAGIC);
    *cp = NULL;
    client->is_closing = true;
    loop_timer_free(&client->timer);
    while (!list_is_empty(&client->conns))
        client_conn_end(LIST_ENTRY(client->conns.next, struct client_conn, in_client), -ECANCELED,
                        "closing");
    while (!list_is_empty(&client->waiting))
        client_call_done(LIST_ENTRY(client->waiting.next, struct http_call, in_client), -ECANCELED,
                         "closing");
    client_pump(client); /* frees it, unless one is on its way that will */
}

unsigned http_client_conns(const struct http_client *c)
{
    return c->n_conns;
}
