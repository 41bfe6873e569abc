/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

static _Atomic unsigned fail_after;

void assert_fail(const char *expr, const char *file, int line, const char *func)
{
    fprintf(stderr, "assertion failed: %s at %s:%d in %s\n", expr, file, line, func);
    abort();
}

static void out_of_memory(size_t n) __attribute__((noreturn));
static void out_of_memory(size_t n)
{
    fprintf(stderr, "out of memory: %zu bytes\n", n);
    abort();
}

void *xalloc(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (!p)
        out_of_memory(n);
    return p;
}

void *xcalloc(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p)
        out_of_memory(n * size);
    return p;
}

void *xrealloc(void *old, size_t n)
{
    void *p = realloc(old, n ? n : 1);
    if (!p)
        out_of_memory(n);
    return p;
}

char *xstrdup(const char *s)
{
    return xstrndup(s, strlen(s));
}

char *xstrndup(const char *s, size_t n)
{
    char *p = xalloc(n + 1);
    memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

char *xasprintf(const char *fmt, ...)
{
    char *out;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&out, fmt, ap);
    va_end(ap);
    if (n < 0)
        out_of_memory(0);
    return out;
}

static int is_made_to_fail(void)
{
    unsigned left = atomic_load_explicit(&fail_after, memory_order_relaxed);
    if (LIKELY(left == 0))
        return 0;
    return atomic_fetch_sub(&fail_after, 1) == 1;
}

void *try_alloc(size_t n)
{
    return is_made_to_fail() ? NULL : malloc(n ? n : 1);
}

void *try_realloc(void *p, size_t n)
{
    return is_made_to_fail() ? NULL : realloc(p, n ? n : 1);
}

void *try_alloc_table(size_t n)
{
    void *p;
    if (n < HUGE_PAGE)
        return is_made_to_fail() ? NULL : calloc(1, n ? n : 1);
    n = (n + HUGE_PAGE - 1) & ~(size_t)(HUGE_PAGE - 1);
    p = is_made_to_fail() ? NULL : aligned_alloc(HUGE_PAGE, n);
    if (!p)
        return NULL;
    madvise(p, n, MADV_HUGEPAGE); /* where there are none, small ones will do */
    memset(p, 0, n);
    return p;
}

void mem_fail_after(unsigned n)
{
    atomic_store(&fail_after, n);
}
