/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS libraries in selected processes, by (device, inode) of their executable mappings: a copy
 * under another name, in another mount namespace or replaced since is the file that is mapped.
 */
#ifndef AGENT_LIBRARIES_H
#define AGENT_LIBRARIES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/base/list.h"

enum { LIBRARY_LINKS = 16 };

struct library {
    struct list link;
    dev_t dev;
    ino_t inode;
    bool is_tls, is_default;
    uint64_t unused_since_ns; /* 0: a process maps it */
    void *links[LIBRARY_LINKS];
    unsigned n_links;
};

struct libraries {
    struct list all, watched;
    void (*attach)(void *arg, struct library *l, const char *path);
    void (*detach)(void *arg, struct library *l);
    void *arg;
    uint64_t looked_ns;
};

void libraries_init(struct libraries *ls,
                    void (*attach)(void *arg, struct library *l, const char *path),
                    void (*detach)(void *arg, struct library *l), void *arg);
void libraries_fini(struct libraries *ls);
/* The process is watched from now on, until it is gone. */
void libraries_look(struct libraries *ls, uint32_t tgid);
/* The system's own libssl, so that processes of a few milliseconds are seen. */
void libraries_look_default(struct libraries *ls);
/* Looks again at watched processes; lets go what nobody has mapped for 5 minutes. */
void libraries_tick(struct libraries *ls, uint64_t now_ns);

#endif
