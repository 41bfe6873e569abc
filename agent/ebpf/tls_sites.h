/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where probes go in a TLS library.
 *
 * SSL_read and SSL_read_ex both call one internal function with (ssl, buffer, size, &done), and so
 * do SSL_write and SSL_write_ex. That function begins with a push, which kernels emulate; the
 * exported ones begin with a sub, which they have to step over, at ten times the cost. It has no
 * name, so it has to be proven: both exported functions call it, before they do anything else, and
 * the _ex form hands its arguments on untouched. Without a proof the exported functions are probed.
 */
#ifndef AGENT_TLS_SITES_H
#define AGENT_TLS_SITES_H

#include "agent/ebpf/elf.h"
#include "common/base/buf.h"

enum { TLS_SITES = 8, TLS_BEHIND = 4, TLS_CODE = 16 };

/* One place in the file. */
struct tls_site {
    const char *name;       /* of the function; for an internal one: whom it was found in */
    uint32_t what;          /* enum wire_ssl with flags */
    uint64_t offset;        /* in the file */
    bool has_return;        /* the call's end is of interest, too */
    bool is_internal;       /* not an exported function */
    bool is_emulated;       /* by the kernel; else it is stepped over */
    uint8_t code[TLS_CODE]; /* that was found there */
};

struct tls_sites {
    struct tls_site sites[TLS_SITES];
    unsigned n;
    /* Behind the calls of internal functions: their end can be seen there without return probes. */
    struct tls_site behind[TLS_BEHIND];
    unsigned n_behind;
    bool can_do_without_returns; /* those are all there are */
};

/* -ENOENT: no TLS library. -ENOEXEC and others: no file that can be read. */
int tls_sites_find(struct tls_sites *s, int fd) MUSTCHECK;
/* Whether the code is still what was looked at. */
bool tls_sites_hold(const struct tls_sites *s, int fd);
/* Adds to a list: "the function inside SSL_read, SSL_free (stepped over, slow)". */
void tls_site_describe(const struct tls_site *s, struct buf *out);

#endif
