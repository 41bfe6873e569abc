/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocation, assertions, magic numbers.
 *
 * Two families of allocation. xalloc() and friends are for small things whose size we chose: they
 * abort when memory is out, so callers have no failure branch. try_alloc() is for any size a peer,
 * a file or the kernel chose: it fails, the caller counts the failure and carries on.
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>
#include <stdint.h>

#define MUSTCHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define UNUSED __attribute__((unused))
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Prints where and what, then aborts. */
void assert_fail(const char *expr, const char *file, int line, const char *func)
    __attribute__((noreturn, cold));

/* Checks our own logic, never input. Stays on in release builds. */
#define ASSERT(e) (LIKELY(e) ? (void)0 : assert_fail(#e, __FILE__, __LINE__, __func__))

/*
 * A struct that crosses a void pointer begins with `unsigned magic`. SET_MAGIC at construction,
 * CAST_OBJ on the way back, CLEAR_MAGIC before the memory goes.
 */
#define SET_MAGIC(o, m) ((o)->magic = (m))
#define CLEAR_MAGIC(o) ((o)->magic = 0)
#define CHECK_OBJ(o, m) ASSERT((o) && (o)->magic == (m))
#define CAST_OBJ(type, p, m)                                                                       \
    (__extension__({                                                                               \
        type *obj_ = (p);                                                                          \
        CHECK_OBJ(obj_, m);                                                                        \
        obj_;                                                                                      \
    }))

void *xalloc(size_t n) __attribute__((malloc, returns_nonnull, alloc_size(1)));
void *xcalloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull, alloc_size(1, 2)));
void *xrealloc(void *p, size_t n) __attribute__((returns_nonnull, alloc_size(2)));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xstrndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2) __attribute__((malloc, returns_nonnull));

/* NULL when memory is out (or when a test made the Nth try_ call fail, see mem_fail_after). */
void *try_alloc(size_t n) __attribute__((malloc, alloc_size(1))) MUSTCHECK;
void *try_realloc(void *p, size_t n) __attribute__((alloc_size(2))) MUSTCHECK;
/*
 * Zeroes, for a table that is looked up at random: a large one lies in huge pages, since each
 * lookup would miss the TLB. Is freed like any other.
 */
void *try_alloc_table(size_t n) __attribute__((malloc, alloc_size(1))) MUSTCHECK;

/* Test hook: the nth try_ call from now on fails once (1 = the next). 0 turns it off. */
void mem_fail_after(unsigned n);

#endif
