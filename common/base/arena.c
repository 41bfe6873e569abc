/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/arena.h"

#include <errno.h>
#include <string.h>

enum { FIRST_CHUNK = 4 << 10, LARGEST_STEP = 256 << 10 };

void arena_init(struct arena *a)
{
    *a = (struct arena){0};
}

void arena_fini(struct arena *a)
{
    while (a->head) {
        struct chunk *c = a->head;
        a->head = c->next;
        chunk_unref(&c);
    }
    a->bytes = 0;
}

void *arena_alloc(struct arena *a, size_t n)
{
    struct chunk *c = a->head;
    if (n > SIZE_MAX / 2)
        return NULL;
    n = (n + 7) & ~(size_t)7;
    if (!c || c->cap - c->len < n) {
        size_t step = MIN(MAX((size_t)FIRST_CHUNK, a->bytes), (size_t)LARGEST_STEP);
        c = chunk_new(MAX(n, step));
        if (!c)
            return NULL;
        a->bytes += c->cap;
        if (a->head && a->head->cap - a->head->len > c->cap - n) {
            /* The old one has more room left than this: keep filling that one. */
            c->next = a->head->next;
            a->head->next = c;
        } else {
            c->next = a->head;
            a->head = c;
        }
    }
    void *p = c->data + c->len;
    c->len += n;
    return p;
}

void *arena_zalloc(struct arena *a, size_t n)
{
    void *p = arena_alloc(a, n);
    return p ? memset(p, 0, n) : NULL;
}

struct str arena_dup(struct arena *a, struct str s)
{
    char *p = arena_alloc(a, s.n + 1);
    if (!p)
        return (struct str){NULL, 0};
    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = '\0'; /* so that text may be handed to C functions */
    return (struct str){p, s.n};
}
