/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names to addresses without blocking a loop: c-ares, /etc/hosts first, then the name servers of
 * /etc/resolv.conf, which is read anew for each lookup.
 */
#ifndef IO_DNS_H
#define IO_DNS_H

#include <stddef.h>

#include "common/io/loop.h"

struct dns_answer {
    int error;       /* 0, -ENOENT (no such name, or no address), -ETIMEDOUT, -EIO ... */
    const char *why; /* text of the error */
    const char *const *addresses; /* numeric, IPv4 and IPv6, sorted, each once; borrowed */
    size_t n;                     /* at least 1 when error is 0 */
};

struct dns_query;
typedef void dns_done_fn(void *arg, const struct dns_answer *a);

/*
 * Looks up the IPv4 and IPv6 addresses of a host (a numeric one is its own answer). done is called
 * once on the loop, never from inside. On the loop that is given.
 */
struct dns_query *dns_lookup(struct loop *l, const char *host, uint64_t timeout_ms,
                             dns_done_fn *done, void *arg);
/* done will not be called. On the query's loop; not from done. */
void dns_cancel(struct dns_query **q);

#endif
