/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/closer.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/mem.h"

#define CLOSER_MAGIC 0x434c4f53u
enum { THREADS = 16 }; /* one while the agent runs, more at its end */

struct closer {
    unsigned magic;
    pthread_mutex_t lock;
    pthread_cond_t more;
    int *fds;
    size_t n, cap;
    bool is_ending;
    pthread_t threads[THREADS];
    unsigned n_threads;
};

static void *run(void *arg)
{
    struct closer *c = CAST_OBJ(struct closer, arg, CLOSER_MAGIC);

    pthread_mutex_lock(&c->lock);
    for (;;) {
        int fd;

        while (!c->n && !c->is_ending)
            pthread_cond_wait(&c->more, &c->lock);
        if (!c->n)
            break;
        fd = c->fds[--c->n];
        pthread_mutex_unlock(&c->lock);
        close(fd);
        pthread_mutex_lock(&c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static void start(struct closer *c)
{
    if (c->n_threads < THREADS && pthread_create(&c->threads[c->n_threads], NULL, run, c) == 0)
        c->n_threads++;
}

void closer_new(struct closer **out)
{
    struct closer *c = xcalloc(1, sizeof(*c));

    SET_MAGIC(c, CLOSER_MAGIC);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->more, NULL);
    *out = c;
}

void closer_give(struct closer *c, int fd)
{
    CHECK_OBJ(c, CLOSER_MAGIC);
    if (!c->n_threads)
        start(c);
    if (!c->n_threads) {
        close(fd);
        return;
    }
    pthread_mutex_lock(&c->lock);
    if (c->n == c->cap) {
        c->cap = c->cap ? c->cap * 2 : 64;
        c->fds = xrealloc(c->fds, c->cap * sizeof(*c->fds));
    }
    c->fds[c->n++] = fd;
    pthread_cond_signal(&c->more);
    pthread_mutex_unlock(&c->lock);
}

void closer_free(struct closer **cp)
{
    struct closer *c = *cp;
    size_t left;

    if (!c)
        return;
    CHECK_OBJ(c, CLOSER_MAGIC);
    pthread_mutex_lock(&c->lock);
    c->is_ending = true;
    left = c->n;
    pthread_cond_broadcast(&c->more);
    pthread_mutex_unlock(&c->lock);
    while (left-- > 1 && c->n_threads < THREADS)
        start(c);
    for (unsigned i = 0; i < c->n_threads; i++)
        pthread_join(c->threads[i], NULL);
    pthread_cond_destroy(&c->more);
    pthread_mutex_destroy(&c->lock);
    free(c->fds);
    CLEAR_MAGIC(c);
    free(c);
    *cp = NULL;
}
