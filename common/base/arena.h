/* SPDX-License-Identifier: Apache-2.0 */
/* Bump allocation over pool chunks; all of it goes at once. Not thread-safe. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "common/base/chunk.h"
#include "common/base/str.h"

struct arena {
    struct chunk *head; /* newest; older ones hang on chunk->next */
    size_t bytes;       /* total capacity taken */
};

void arena_init(struct arena *a);
void arena_fini(struct arena *a);
/* 8-byte aligned, not zeroed. NULL when memory is refused. */
void *arena_alloc(struct arena *a, size_t n) MUSTCHECK;
void *arena_zalloc(struct arena *a, size_t n) MUSTCHECK;
/* A copy that lives with the arena. {NULL,0} when memory is refused. */
struct str arena_dup(struct arena *a, struct str s);

#endif
