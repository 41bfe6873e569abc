/* SPDX-License-Identifier: Apache-2.0 */
/* Who listens on the selected ports already when we start; later ones the kernel side tells. */
#ifndef AGENT_LISTENERS_H
#define AGENT_LISTENERS_H

#include "agent/ebpf/selection.h"

/*
 * Calls fn for each TCP listener on a selected port that a process below `proc` holds, in whatever
 * network namespace. Processes that vanish meanwhile are passed over.
 */
void listeners_scan(const char *proc, const struct selection *s,
                    void (*fn)(void *arg, uint32_t tgid, uint16_t port), void *arg);

#endif
