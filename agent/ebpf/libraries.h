/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS libraries in observed processes, by (device, inode) of their executable mappings: a copy
 * under another name, in another mount namespace or replaced since is the file that is mapped.
 *
 * Probes cost every process that has them. So each observed process gets its own, and others with
 * the same library have none. A process of a few milliseconds is over before that: while observed
 * programs are started, libraries have probes in all processes, until none was started for five
 * minutes. So it is from the beginning where executables are selected by name, and always where
 * everything is, or where the kernel has probes for all only.
 */
#ifndef AGENT_LIBRARIES_H
#define AGENT_LIBRARIES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/ebpf/tls_sites.h"
#include "common/base/hashmap.h"
#include "common/base/list.h"

struct tls_links;

struct library {
    struct list link;
    dev_t dev;
    ino_t inode;
    int fd; /* of the file, so that it can be attached to when nobody maps it; -1: no TLS library */
    bool is_tls, is_default;
    uint64_t unused_since_ns; /* 0: a process maps it */
    struct tls_sites sites;
    struct tls_links *everywhere;
    char name[64]; /* for the log */
};

/* auto is what is said above. */
enum library_probes { PROBES_AUTO, PROBES_PROCESS, PROBES_LIBRARY };

struct libraries_ops {
    /* NULL: refused, and told. tgid 0: in all processes. */
    struct tls_links *(*attach)(void *arg, const struct library *l, uint32_t tgid);
    void (*detach)(void *arg, struct tls_links *links);
    /* The process is looked at now: what it maps from here on is to be told again. NULL: mappings
     * are not told, all are looked at each second. */
    void (*looked)(void *arg, uint32_t tgid);
    void *arg;
};

struct libraries {
    struct list all;
    struct hashmap watched; /* by tgid */
    struct list changed;    /* watched ones that have mapped something */
    struct libraries_ops ops;
    enum library_probes probes;
    uint64_t everywhere_until_ns; /* UINT64_MAX: for ever */
};

/* may_begin: programs that are observed may be started at any time. */
void libraries_init(struct libraries *ls, const struct libraries_ops *ops,
                    enum library_probes probes, bool may_begin, uint64_t now_ns);
void libraries_fini(struct libraries *ls);
/* The system's own libssl, so that the first process with it is seen from its first call. */
void libraries_look_default(struct libraries *ls);
/* The process is observed from now on, until it is gone. */
void libraries_watch(struct libraries *ls, uint32_t tgid, uint64_t now_ns);
/* An observed program was started in this process. */
void libraries_started(struct libraries *ls, uint32_t tgid, uint64_t now_ns);
/* The process has mapped something: it is looked at soon. */
void libraries_changed(struct libraries *ls, uint32_t tgid);
/* It has a connection of TLS: if its library is not known, it is looked at now. */
void libraries_does_tls(struct libraries *ls, uint32_t tgid);
void libraries_gone(struct libraries *ls, uint32_t tgid);
/* Looks at the processes that changed. */
void libraries_look(struct libraries *ls, uint64_t now_ns);
/* Probes are in all processes, and need not follow when one is selected. */
bool libraries_is_everywhere(const struct libraries *ls);
/* Each second: lets go what nobody has mapped for 5 minutes. */
void libraries_tick(struct libraries *ls, uint64_t now_ns);

#endif
