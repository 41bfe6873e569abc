/* SPDX-License-Identifier: Apache-2.0 */
#include "common/pipeline/shard.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/hashmap.h"

static unsigned shard_of_hash(uint64_t hash)
{
    return (unsigned)(hash >> 60) % SHARD_COUNT; /* high bits: tables use the low ones */
}

unsigned shard_of(const uint8_t trace_id[16])
{
    return shard_of_hash(hash_bytes(trace_id, 16));
}

/* Grows with the largest batch that the thread has seen; freed with the thread's storage. */
struct scratch {
    uint32_t cap;
    uint32_t *idx;
    uint64_t *hash;
};

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void free_scratch(void *p)
{
    struct scratch *s = p;
    free(s->idx);
    free(s->hash);
    free(s);
}

static void make_key(void)
{
    ASSERT(pthread_key_create(&scratch_key, free_scratch) == 0);
}

static struct scratch *scratch_for(uint32_t n)
{
    pthread_once(&scratch_once, make_key);
    struct scratch *s = pthread_getspecific(scratch_key);
    if (!s) {
        s = xcalloc(1, sizeof(*s));
        pthread_setspecific(scratch_key, s);
    }
    if (n <= s->cap)
        return s;
    uint32_t cap = MAX(n, s->cap * 2);
    uint32_t *idx = try_realloc(s->idx, cap * sizeof(*idx));
    if (!idx)
        return NULL;
    s->idx = idx;
    uint64_t *hash = try_realloc(s->hash, cap * sizeof(*hash));
    if (!hash)
        return NULL;
    s->hash = hash;
    s->cap = cap;
    return s;
}

int shard_sort(const struct batch *b, struct shard_parts *out)
{
    uint32_t at[SHARD_COUNT] = {0}, sum = 0;
    ASSERT(b->keys);
    struct scratch *s = scratch_for(b->n_records);
    if (!s)
        return -ENOMEM;
    for (uint32_t i = 0; i < b->n_records; i++) {
        /* Neighbours are often of one trace. */
        bool same = i && memcmp(b->keys[i].trace_id, b->keys[i - 1].trace_id, 16) == 0;
        s->hash[i] = same ? s->hash[i - 1] : hash_bytes(b->keys[i].trace_id, 16);
        at[shard_of_hash(s->hash[i])]++;
    }
    for (unsigned k = 0; k < SHARD_COUNT; k++) { /* counting sort: stable within a shard */
        out->begin[k] = sum;
        sum += at[k];
        at[k] = out->begin[k];
    }
    out->begin[SHARD_COUNT] = sum;
    for (uint32_t i = 0; i < b->n_records; i++)
        s->idx[at[shard_of_hash(s->hash[i])]++] = i;
    out->idx = s->idx;
    out->hash = s->hash;
    return 0;
}
