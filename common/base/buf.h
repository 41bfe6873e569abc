/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Latched byte builder: append freely, test once at the end. After the first failure all appends
 * are no-ops and buf_error() tells the first -errno.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdint.h>

#include "common/base/str.h"
#include "common/base/mem.h"

struct buf {
    char *p;
    size_t n, cap;
    size_t max; /* 0 = no bound; past it -E2BIG latches */
    int error;
};

void buf_init(struct buf *b);
void buf_fini(struct buf *b);
void buf_reset(struct buf *b); /* keeps the memory, clears the latch */
void buf_add(struct buf *b, const void *p, size_t n);
void buf_add_str(struct buf *b, struct str s);
void buf_add_cstr(struct buf *b, const char *s);
void buf_add_byte(struct buf *b, uint8_t c);
void buf_addf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void *buf_reserve_slow(struct buf *b, size_t n);

/* Room for n bytes to be written by the caller, then counted with buf_commit. NULL once latched. */
static inline void *buf_reserve(struct buf *b, size_t n)
{
    if (LIKELY(n < b->cap - b->n && b->max == 0 && b->error == 0))
        return b->p + b->n;
    return buf_reserve_slow(b, n);
}

static inline void buf_commit(struct buf *b, size_t n)
{
    ASSERT(n <= b->cap - b->n);
    b->n += n;
}
/* Ends it with a NUL that is not counted; borrowed until the next append. "" once latched. */
const char *buf_cstr(struct buf *b);
int buf_error(const struct buf *b);

static inline struct str buf_str(const struct buf *b)
{
    return (struct str){b->p, b->n};
}

#endif
