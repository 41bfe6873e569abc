/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is to be observed: processes by executable, pid or the ports they listen on, or all; and
 * what never is: ourselves, this product's programs, and traffic to endpoints that telemetry goes
 * to.
 */
#ifndef AGENT_SELECTION_H
#define AGENT_SELECTION_H

#include "agent/ebpf/discovery.h"
#include "agent/ebpf/record.h"

struct selection {
    const uint16_t *ports;
    size_t n_ports;
    const char *const *exes; /* globs over the whole path; '*' matches '/' too */
    size_t n_exes;
    const uint32_t *pids;
    size_t n_pids;
    bool all;
    const struct discovery *discovery; /* names; what its rules match is listed above, too */
    const struct endpoint *excluded;   /* telemetry's own; address all zero: any address */
    size_t n_excluded;
    uint32_t self;
};

bool selection_has_port(const struct selection *s, uint16_t port);
bool selection_has_pid(const struct selection *s, uint32_t pid);
bool selection_has_exe(const struct selection *s, const char *path);
/* Programs of this product are never observed. */
bool selection_is_ours(const struct selection *s, uint32_t tgid, const char *path);
bool selection_is_excluded(const struct selection *s, uint8_t family, const struct endpoint *e);

#endif
