/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS between socket and protocol: OpenSSL over memory BIOs, so that the event loop does all I/O.
 * TLS 1.2 and later, ALPN.
 */
#ifndef IO_TLS_H
#define IO_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

/* As configured; strings may be "" or NULL. */
struct tls_config {
    bool on; /* servers: TLS at all */
    const char *ca_file, *cert_file, *key_file;
    const char *server_name; /* clients: name to verify and to send; NULL = the host dialled */
    bool skip_verify;        /* clients: accept any certificate */
    const char *alpn;        /* clients: the one protocol asked for, "h2" or "http/1.1" */
};

struct tls_context; /* certificates and settings; shared by connections, any thread */
struct tls;         /* one connection */

int tls_context_new(struct tls_context **out, bool is_server, const struct tls_config *c,
                    struct err *e) MUSTCHECK;
void tls_context_free(struct tls_context **c);

/* host: what a client dialled, without the port. */
int tls_new(struct tls **out, struct tls_context *c, const char *host) MUSTCHECK;
void tls_free(struct tls **t);

/* Bytes from the socket. -EPROTO when TLS failed (tls_error tells why). */
int tls_feed(struct tls *t, const uint8_t *p, size_t n);
/* Decrypted bytes: count, 0 = none now, -EPROTO, -ESHUTDOWN after close_notify. */
int tls_read(struct tls *t, uint8_t *p, size_t n);
/* Encrypts all of it. 0, or -EPROTO. Not before tls_is_ready. */
int tls_write(struct tls *t, const uint8_t *p, size_t n);
/* Bytes for the socket: count, 0 = none. */
size_t tls_drain(struct tls *t, uint8_t *p, size_t n);
/* Goes on with the handshake: 1 = done, 0 = needs more from the peer, -EPROTO. */
int tls_handshake(struct tls *t);
bool tls_is_ready(const struct tls *t);
const char *tls_error(const struct tls *t);

#endif
