/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open-addressing table of pointers, linear probing with backward-shift deletion, keyed by a 64-bit
 * hash with a per-process secret (keys are chosen by strangers). The caller keeps keys and values
 * in its own structs and supplies the comparison. Grows at 5/8 load. Not thread-safe.
 */
#ifndef BASE_HASHMAP_H
#define BASE_HASHMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/mem.h"
#include "common/base/str.h"

struct hashmap_slot {
    uint64_t hash;
    void *value; /* NULL = free */
};

struct hashmap {
    struct hashmap_slot *slots;
    size_t n, mask; /* mask 0 and slots NULL: empty */
};

/* XXH3-64 of the bytes under this process's secret seed. */
uint64_t hash_bytes(const void *p, size_t n);
static inline uint64_t hash_str(struct str s)
{
    return hash_bytes(s.p, s.n);
}
/* Folds more into a hash; order matters. */
uint64_t hash_mix(uint64_t a, uint64_t b);

typedef bool hashmap_eq_fn(const void *value, const void *key);

void hashmap_init(struct hashmap *m);
/* Frees the table, not the values. */
void hashmap_fini(struct hashmap *m);
/* Value or NULL. */
void *hashmap_find(const struct hashmap *m, uint64_t hash, hashmap_eq_fn *eq, const void *key);
/* Adds without looking for an equal key. -ENOMEM when the table cannot grow. */
int hashmap_add(struct hashmap *m, uint64_t hash, void *value) MUSTCHECK;
/* Removes and returns the value, or NULL. */
void *hashmap_take(struct hashmap *m, uint64_t hash, hashmap_eq_fn *eq, const void *key);
/* Iterates: start with *pos = 0; NULL at the end. The table must not change meanwhile. */
void *hashmap_next(const struct hashmap *m, size_t *pos);
/* Bytes of the slot table, for accounting. */
size_t hashmap_bytes(const struct hashmap *m);

#endif
