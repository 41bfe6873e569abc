/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/selection.h"

#include <fnmatch.h>
#include <sys/socket.h>

static const char *const our_programs[] = {"tailrace-agent", "tailrace-gateway", NULL};

bool selection_has_port(const struct selection *s, uint16_t port)
{
    for (size_t i = 0; i < s->n_ports; i++)
        if (s->ports[i] == port)
            return true;
    return false;
}

bool selection_has_pid(const struct selection *s, uint32_t pid)
{
    for (size_t i = 0; i < s->n_pids; i++)
        if (s->pids[i] == pid)
            return true;
    return false;
}

bool selection_has_exe(const struct selection *s, const char *path)
{
    for (size_t i = 0; i < s->n_exes; i++)
        if (fnmatch(s->exes[i], path, 0) == 0)
            return true;
    return false;
}

bool selection_is_ours(const struct selection *s, uint32_t tgid, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

    if (tgid == s->self)
        return true;
    for (unsigned i = 0; our_programs[i]; i++)
        if (strcmp(name, our_programs[i]) == 0)
            return true;
    return false;
}

/* IPv4 in either family's form, as 4 bytes; NULL for real IPv6. */
static const uint8_t *as_v4(uint8_t family, const uint8_t *a)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    if (family == AF_INET)
        return a;
    return memcmp(a, mapped, 12) == 0 ? a + 12 : NULL;
}

bool selection_is_excluded(const struct selection *s, uint8_t family, const struct endpoint *e)
{
    static const uint8_t zero[16];
    const uint8_t *v4 = as_v4(family, e->address);

    for (size_t i = 0; i < s->n_excluded; i++) {
        const struct endpoint *x = &s->excluded[i];
        const uint8_t *x4 = as_v4(AF_INET6, x->address);

        if (x->port != e->port)
            continue;
        if (memcmp(x->address, zero, 16) == 0)
            return true;
        if (v4 && x4 ? memcmp(v4, x4, 4) == 0 : !v4 && memcmp(e->address, x->address, 16) == 0)
            return true;
    }
    return false;
}
