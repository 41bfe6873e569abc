/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocation on behalf of libraries (nghttp2, OpenSSL), counted in the process's memory: a peer
 * decides how many connections and streams it opens. The count is kept on the thread and handed in
 * by steps of FOREIGN_STEP bytes, so it may be behind by as much for each thread.
 */
#ifndef IO_FOREIGN_H
#define IO_FOREIGN_H

#include <stddef.h>

#define FOREIGN_STEP (16 << 10)

/* As malloc, calloc, realloc and free. NULL when memory is out. */
void *foreign_malloc(size_t n);
void *foreign_calloc(size_t n, size_t size);
void *foreign_realloc(void *p, size_t n);
void foreign_free(void *p);

#endif
