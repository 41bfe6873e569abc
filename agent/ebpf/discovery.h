/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Discovery rules: a file that says which processes are observed and what they are called.
 *
 *     rules:
 *       - name: checkout              # service.name
 *         namespace: shop             # service.namespace
 *         ports: [8080, 9000-9010]    # any one of these three matches
 *         executables: ["java*"]
 *         pids: [1]
 *         attributes:
 *           - {key: team, value: payments}
 *
 * A process is observed when any rule matches, and is named by the first that does.
 */
#ifndef AGENT_DISCOVERY_H
#define AGENT_DISCOVERY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

struct discovery_attribute {
    char *key, *value;
};

/* Lists that a rule does not have are NULL with count 0, as the texts are. */
struct discovery_rule {
    char *name, *namespace;
    char **ports, **executables;
    uint32_t *pids;
    struct discovery_attribute *attributes;
    unsigned n_ports, n_executables, n_pids, n_attributes;
};

struct discovery {
    struct discovery_rule *rules;
    unsigned n_rules;
};

#define DISCOVERY_NONE UINT32_MAX

/* -EINVAL with "path:line:column: what". *text is the file's content; freed by the caller. */
int discovery_load(struct discovery **out, const char *path, char **text, struct err *e);
void discovery_free(struct discovery **d);
/* Number of the first rule that matches, else DISCOVERY_NONE; d may be NULL. */
uint32_t discovery_by_port(const struct discovery *d, uint16_t port);
uint32_t discovery_by_executable(const struct discovery *d, const char *path);
uint32_t discovery_by_pid(const struct discovery *d, uint32_t pid);
/* NULL for DISCOVERY_NONE. */
const struct discovery_rule *discovery_rule(const struct discovery *d, uint32_t i);
/* "8080" or "8000-8010". False when it is neither. */
bool port_range_read(const char *text, uint16_t *from, uint16_t *to);

#endif
