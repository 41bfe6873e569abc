/* SPDX-License-Identifier: Apache-2.0 */
#include "common/io/foreign.h"

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/base/chunk.h"

static _Thread_local int64_t owed; /* bytes that the process's count does not know yet */

static void count(int64_t bytes)
{
    owed += bytes;
    if (owed < FOREIGN_STEP && owed > -FOREIGN_STEP)
        return;
    mem_account(owed);
    owed = 0;
}

static void *counted(void *p)
{
    if (p)
        count((int64_t)malloc_usable_size(p));
    return p;
}

void *foreign_malloc(size_t n)
{
    return counted(malloc(n));
}

void *foreign_calloc(size_t n, size_t size)
{
    return counted(calloc(n, size));
}

void *foreign_realloc(void *old, size_t n)
{
    int64_t had = old ? (int64_t)malloc_usable_size(old) : 0;
    void *p = realloc(old, n);
    if (p)
        count((int64_t)malloc_usable_size(p) - had);
    else if (n == 0)
        count(-had);
    return p;
}

void foreign_free(void *p)
{
    if (p)
        count(-(int64_t)malloc_usable_size(p));
    free(p);
}
