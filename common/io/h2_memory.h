/* SPDX-License-Identifier: Apache-2.0 */
/* What nghttp2 allocates is counted. For h2_server.c and h2_client.c only. */
#ifndef IO_H2_MEMORY_H
#define IO_H2_MEMORY_H

#include <nghttp2/nghttp2.h>

#include "common/io/foreign.h"

static inline void *h2_mem_malloc(size_t n, void *user)
{
    (void)user;
    return foreign_malloc(n);
}

static inline void h2_mem_free(void *p, void *user)
{
    (void)user;
    foreign_free(p);
}

static inline void *h2_mem_calloc(size_t n, size_t size, void *user)
{
    (void)user;
    return foreign_calloc(n, size);
}

static inline void *h2_mem_realloc(void *p, size_t n, void *user)
{
    (void)user;
    return foreign_realloc(p, n);
}

/* Copied by nghttp2. */
static inline nghttp2_mem h2_memory(void)
{
    return (nghttp2_mem){NULL, h2_mem_malloc, h2_mem_free, h2_mem_calloc, h2_mem_realloc};
}

#endif
