/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/hashmap.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { FIRST_SLOTS = 16 };

static uint64_t secret;
static pthread_once_t secret_once = PTHREAD_ONCE_INIT;

static void make_secret(void)
{
    ssize_t n = getrandom(&secret, sizeof(secret), 0);
    ASSERT(n == (ssize_t)sizeof(secret));
}

uint64_t hash_bytes(const void *p, size_t n)
{
    static _Thread_local uint64_t seed;
    if (UNLIKELY(seed == 0)) {
        pthread_once(&secret_once, make_secret);
        seed = secret;
    }
    return XXH3_64bits_withSeed(n ? p : "", n, seed);
}

uint64_t hash_mix(uint64_t a, uint64_t b)
{
    /* Multiply and fold; both operands are hashes under the secret already. */
    __uint128_t m = (__uint128_t)(a ^ 0x9e3779b97f4a7c15ULL) * (b | 1);
    return (uint64_t)m ^ (uint64_t)(m >> 64) ^ b;
}

void hashmap_init(struct hashmap *m)
{
    *m = (struct hashmap){0};
}

void hashmap_fini(struct hashmap *m)
{
    free(m->slots);
    *m = (struct hashmap){0};
}

void *hashmap_find(const struct hashmap *m, uint64_t hash, hashmap_eq_fn *eq, const void *key)
{
    if (!m->slots)
        return NULL;
    for (size_t i = hash & m->mask; m->slots[i].value; i = (i + 1) & m->mask)
        if (m->slots[i].hash == hash && eq(m->slots[i].value, key))
            return m->slots[i].value;
    return NULL;
}

static void place(struct hashmap_slot *slots, size_t mask, uint64_t hash, void *value)
{
    size_t i = hash & mask;
    while (slots[i].value)
        i = (i + 1) & mask;
    slots[i] = (struct hashmap_slot){hash, value};
}

static int grow(struct hashmap *m)
{
    size_t n = m->slots ? (m->mask + 1) * 2 : FIRST_SLOTS;
    struct hashmap_slot *slots = try_alloc(n * sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    memset(slots, 0, n * sizeof(*slots));
    for (size_t i = 0; m->slots && i <= m->mask; i++)
        if (m->slots[i].value)
            place(slots, n - 1, m->slots[i].hash, m->slots[i].value);
    free(m->slots);
    m->slots = slots;
    m->mask = n - 1;
    return 0;
}

int hashmap_add(struct hashmap *m, uint64_t hash, void *value)
{
    ASSERT(value);
    if (!m->slots || (m->n + 1) * 8 > (m->mask + 1) * 5) {
        int r = grow(m);
        if (r)
            return r;
    }
    place(m->slots, m->mask, hash, value);
    m->n++;
    return 0;
}

/* Moves later entries of the run back over the hole, so that no mark is left behind. */
static void close_hole(struct hashmap *m, size_t hole)
{
    for (size_t i = (hole + 1) & m->mask; m->slots[i].value; i = (i + 1) & m->mask) {
        size_t home = m->slots[i].hash & m->mask;
        if (((i - home) & m->mask) < ((i - hole) & m->mask))
            continue; /* it would move in front of its home */
        m->slots[hole] = m->slots[i];
        hole = i;
    }
    m->slots[hole] = (struct hashmap_slot){0, NULL};
}

void *hashmap_take(struct hashmap *m, uint64_t hash, hashmap_eq_fn *eq, const void *key)
{
    if (!m->slots)
        return NULL;
    for (size_t i = hash & m->mask; m->slots[i].value; i = (i + 1) & m->mask) {
        if (m->slots[i].hash != hash || !eq(m->slots[i].value, key))
            continue;
        void *value = m->slots[i].value;
        close_hole(m, i);
        m->n--;
        return value;
    }
    return NULL;
}

void *hashmap_next(const struct hashmap *m, size_t *pos)
{
    for (; m->slots && *pos <= m->mask; (*pos)++)
        if (m->slots[*pos].value)
            return m->slots[(*pos)++].value;
    return NULL;
}

size_t hashmap_bytes(const struct hashmap *m)
{
    return m->slots ? (m->mask + 1) * sizeof(*m->slots) : 0;
}
