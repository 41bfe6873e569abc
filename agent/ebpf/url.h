/* SPDX-License-Identifier: Apache-2.0 */
/* Request targets (RFC 9112 3.2) and authorities, taken apart; and what may not be told of them. */
#ifndef AGENT_URL_H
#define AGENT_URL_H

#include "common/base/buf.h"

struct target {
    struct str scheme, authority; /* absolute and authority form; else empty */
    struct str path, query;       /* query without '?' */
    bool has_query;
};

/* Borrowed parts of a request target. CONNECT's is an authority. */
void target_split(struct str target, bool connect, struct target *out);

/* "host:port", "[::1]:80", "host". *port is 0 when there is none. User information is left out. */
struct str authority_host(struct str authority, uint16_t *port);

/*
 * Appends the query with the values of sensitive keys replaced by REDACTED, as the semantic
 * conventions ask: the names in `keys` (NULL-ended), compared by case.
 */
void query_redact(struct buf *out, struct str query, const char *const *keys);
extern const char *const query_sensitive_keys[];

/* First element of an X-Forwarded-* list. */
struct str forwarded_first(struct str list);
/* Parameter of the first element of a Forwarded field (RFC 7239), unquoted; empty when missing. */
struct str forwarded_param(struct str forwarded, struct str name);

#endif
