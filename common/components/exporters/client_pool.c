/* SPDX-License-Identifier: Apache-2.0 */
#include "common/components/exporters/client_pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int client_pool_init(struct client_pool *p, const char *endpoint,
                     const struct client_tls_config *tls, const char *default_port, bool is_h2,
                     struct err *e)
{
    *p = (struct client_pool){.is_h2 = is_h2};
    int r = client_endpoint_parse(&p->endpoint, endpoint, tls, default_port, e);
    if (r == 0)
        r = client_tls_context(&p->tls, &p->endpoint, tls, is_h2 ? "h2" : "http/1.1", e);
    if (r == 0)
        p->clients = xcalloc(loops_count() ? loops_count() : 1, sizeof(struct http_client *));
    return r;
}

struct http_client *client_pool_get(struct client_pool *p, struct loop *l)
{
    struct http_client **slot = &p->clients[loop_index(l)];
    struct http_client_config c = {.endpoint = p->endpoint.address,
                                   .authority = p->authority,
                                   .tls = p->tls,
                                   .is_h2 = p->is_h2};
    if (p->is_cut || (!*slot && http_client_new(slot, l, &c)))
        return NULL;
    return *slot;
}

struct cut {
    struct task task;
    struct http_client **slot;
};

static void cut_client(struct task *t)
{
    struct cut *c = CONTAINER_OF(t, struct cut, task);
    struct http_client *client = *c->slot;
    *c->slot = NULL;
    free(c);
    http_client_close(&client);
}

void client_pool_cut(struct client_pool *p)
{
    p->is_cut = true;
    for (unsigned i = 0; i < loops_count(); i++) {
        struct cut *c = xcalloc(1, sizeof(*c));
        c->task.run = cut_client;
        c->slot = &p->clients[i];
        loop_post(loops_get(i), &c->task);
    }
}

/* Clients are closed on their own loops; the last one takes the shared parts along. */
struct shared {
    _Atomic unsigned left;
    struct tls_context *tls;
};

struct closing {
    struct task task;
    struct http_client *client;
    struct shared *shared;
};

static void release(struct shared *s)
{
    if (atomic_fetch_sub(&s->left, 1) > 1)
        return;
    tls_context_free(&s->tls);
    free(s);
}

static void close_client(struct task *t)
{
    struct closing *c = CONTAINER_OF(t, struct closing, task);
    http_client_close(&c->client);
    release(c->shared);
    free(c);
}

void client_pool_fini(struct client_pool *p)
{
    struct shared *s = xcalloc(1, sizeof(*s));
    s->left = 1;
    s->tls = p->tls;
    for (unsigned i = 0; p->clients && i < loops_count(); i++) {
        if (!p->clients[i])
            continue;
        struct closing *c = xcalloc(1, sizeof(*c));
        *c = (struct closing){.task.run = close_client, .client = p->clients[i], .shared = s};
        atomic_fetch_add(&s->left, 1);
        loop_post(loops_get(i), &c->task);
    }
    release(s);
    free(p->clients);
    free(p->authority);
    p->clients = NULL;
    p->authority = NULL;
}

void client_headers_add(struct client_headers *h, const char *name, const char *value)
{
    char *lower = xstrdup(name);
    for (char *p = lower; *p; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p + 32);
    h->v = xrealloc(h->v, (h->n + 1) * sizeof(*h->v));
    h->v[h->n++] = (struct http_call_header){lower, xstrdup(value)};
}

void client_headers_add_all(struct client_headers *h, const struct option_list *pairs)
{
    const struct option_pair *p = pairs->items;
    for (size_t i = 0; i < pairs->n; i++)
        client_headers_add(h, p[i].key, p[i].value);
}

void client_headers_fini(struct client_headers *h)
{
    for (unsigned i = 0; i < h->n; i++) {
        free((void *)(uintptr_t)h->v[i].name);
        free((void *)(uintptr_t)h->v[i].value);
    }
    free(h->v);
    *h = (struct client_headers){0};
}

bool client_headers_eq(const struct client_headers *a, const struct client_headers *b)
{
    if (a->n != b->n)
        return false;
    for (unsigned i = 0; i < a->n; i++)
        if (strcmp(a->v[i].name, b->v[i].name) != 0 || strcmp(a->v[i].value, b->v[i].value) != 0)
            return false;
    return true;
}

bool client_tls_eq(const struct client_tls_config *a, const struct client_tls_config *b)
{
    return a->insecure_skip_verify == b->insecure_skip_verify &&
           strcmp(a->server_name_override, b->server_name_override) == 0 &&
           strcmp(a->ca_file, b->ca_file) == 0 && strcmp(a->cert_file, b->cert_file) == 0 &&
           strcmp(a->key_file, b->key_file) == 0;
}
