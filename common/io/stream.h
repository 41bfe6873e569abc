/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A byte stream: TCP, with TLS in between if asked for. Belongs to one loop.
 *
 *   stream_accepted / stream_connect ─► on_ready ─► on_read* / stream_write* ─► stream_close ─►
 * freed
 *
 * Writing never keeps the caller's memory: what the socket does not take at once is copied and sent
 * later; stream_is_blocked() says so, and on_drained tells when it has gone. A caller that stops
 * making bytes while blocked therefore copies only what one call overshoots.
 */
#ifndef IO_STREAM_H
#define IO_STREAM_H

#include <sys/uio.h>

#include "common/io/loop.h"
#include "common/io/tls.h"

struct stream;

struct stream_ops {
    /* Connected, handshake done: bytes may be written. */
    void (*on_ready)(void *arg);
    /* Borrowed bytes; consumed when it returns. May call stream_close. */
    void (*on_read)(void *arg, const uint8_t *p, size_t n);
    void (*on_drained)(void *arg);
    /*
     * The peer has closed or the stream broke: error is -errno, 0 at an orderly end; why is text.
     * The owner calls stream_close. Called once, and not after stream_close.
     */
    void (*on_end)(void *arg, int error, const char *why);
};

/* Takes over a connected socket. tls NULL: plain. The fd is closed on failure. */
int stream_accepted(struct stream **out, struct loop *l, int fd, struct tls_context *tls,
                    const struct stream_ops *ops, void *arg) MUSTCHECK;
/*
 * Dials "host:port" ("[v6]:port"); names are resolved off the loop. Failure comes as on_end; a
 * stream that has not become ready in timeout_ms ends with -ETIMEDOUT.
 */
int stream_connect(struct stream **out, struct loop *l, const char *endpoint,
                   struct tls_context *tls, const struct stream_ops *ops, void *arg) MUSTCHECK;
/* No callback after this; memory goes when the loop is done with it. */
void stream_close(struct stream **s);

/* 0, or -errno when the stream is broken (on_end follows). */
int stream_write(struct stream *s, const struct iovec *iov, int n);
bool stream_is_blocked(const struct stream *s);
/* Bytes that wait for the socket. */
size_t stream_pending(const struct stream *s);
/* Stops and goes on reading; TCP then slows the peer down. */
void stream_pause(struct stream *s);
void stream_resume(struct stream *s);
/* "127.0.0.1:40000" */
const char *stream_peer(const struct stream *s);
bool stream_is_tls(const struct stream *s);
/* Connect timeout of streams not yet ready. */
void stream_set_connect_timeout(struct stream *s, uint64_t ms);

/* Splits "host:port" or "[v6]:port". -EINVAL. host may come out empty (":4317"). */
int endpoint_split(const char *endpoint, char *host, size_t host_size, char *port,
                   size_t port_size);

#endif
