/* SPDX-License-Identifier: Apache-2.0 */
/* Probes in TLS libraries. For the files that know libbpf. */
#ifndef AGENT_BPF_TLS_H
#define AGENT_BPF_TLS_H

#include "agent/ebpf/closer.h"
#include "agent/ebpf/libraries.h"
#include "agent/ebpf/tls_sites.h"

struct tailrace;

/* How the end of a call is seen. */
enum tls_returns { TLS_RETURNS_AUTO, TLS_RETURNS_PROBE, TLS_RETURNS_BEHIND };

struct tls_probes {
    struct tailrace *skel;
    bool has_multi;           /* many at once, and in one process alone */
    enum tls_returns returns; /* never auto */
    unsigned n_single;        /* of those that are attached one by one */
    struct closer *closer;    /* the ends of what is detached */
};

/* Whether the kernel attaches many uprobes at once; tried, once. */
bool tls_has_multi(void);
/* Whether a process under strict seccomp outlives a return probe; tried, with a loaded object. */
bool tls_returns_work(struct tailrace *skel);
/* Before the object is loaded. */
void tls_prepare(struct tailrace *skel);
/* After it is loaded. */
void tls_probes_init(struct tls_probes *p, struct tailrace *skel, enum tls_returns wanted);

void tls_probes_fini(struct tls_probes *p);

struct tls_links;

/*
 * Attaches to the library that fd is open on: in one process, or with 0 in all that map it.
 * NULL: errno says why.
 */
struct tls_links *tls_attach(struct tls_probes *p, const struct tls_sites *s, int fd,
                             uint32_t tgid);
/* Which of a library's sites get probes. */
void tls_describe(const struct tls_probes *p, const struct tls_sites *s, struct buf *out);
void tls_detach(struct tls_probes *p, struct tls_links *l);

#endif
