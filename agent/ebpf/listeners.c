/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /proc/PID/net/tcp names a listener's inode, /proc/PID/fd/N who holds it. The tables are the same
 * for all processes of a network namespace and are read once for each.
 */
#include "agent/ebpf/listeners.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/mem.h"

enum { STATE_LISTEN = 0x0A };

struct listener {
    uint64_t inode;
    uint16_t port;
};

struct scan {
    const char *proc;
    const struct selection *selection;
    uint64_t *namespaces;
    struct listener *listeners;
    size_t n_namespaces, n_listeners;
    void (*fn)(void *arg, uint32_t tgid, uint16_t port);
    void *arg;
};

/* False when it was known already. */
static bool add_namespace(struct scan *s, uint64_t inode)
{
    for (size_t i = 0; i < s->n_namespaces; i++)
        if (s->namespaces[i] == inode)
            return false;
    s->namespaces = xrealloc(s->namespaces, (s->n_namespaces + 1) * sizeof(*s->namespaces));
    s->namespaces[s->n_namespaces++] = inode;
    return true;
}

static void add_listener(struct scan *s, uint64_t inode, uint16_t port)
{
    s->listeners = xrealloc(s->listeners, (s->n_listeners + 1) * sizeof(*s->listeners));
    s->listeners[s->n_listeners++] = (struct listener){inode, port};
}

static void read_table(struct scan *s, const char *path)
{
    char line[512];
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        unsigned port, state;
        unsigned long long inode;
        /* sl local_address:port rem_address:port st tx:rx tr:when retrnsmt uid timeout inode */
        if (sscanf(line, "%*d: %*[0-9A-Fa-f]:%X %*[0-9A-Fa-f]:%*X %X %*s %*s %*s %*u %*u %llu",
                   &port, &state, &inode) != 3)
            continue;
        if (state == STATE_LISTEN && selection_has_port(s->selection, (uint16_t)port))
            add_listener(s, inode, (uint16_t)port);
    }
    if (f)
        fclose(f);
}

static void read_namespace(struct scan *s, const char *pid)
{
    char path[512];
    struct stat st;
    snprintf(path, sizeof(path), "%s/%s/ns/net", s->proc, pid);
    if (stat(path, &st) || !add_namespace(s, st.st_ino))
        return;
    snprintf(path, sizeof(path), "%s/%s/net/tcp", s->proc, pid);
    read_table(s, path);
    snprintf(path, sizeof(path), "%s/%s/net/tcp6", s->proc, pid);
    read_table(s, path);
}

static void tell(const struct scan *s, uint32_t tgid, uint64_t inode)
{
    for (size_t i = 0; i < s->n_listeners; i++)
        if (s->listeners[i].inode == inode)
            s->fn(s->arg, tgid, s->listeners[i].port);
}

static void read_process(struct scan *s, const char *pid)
{
    char path[512], target[64];
    struct dirent *e;
    snprintf(path, sizeof(path), "%s/%s/fd", s->proc, pid);
    DIR *d = opendir(path);
    while (d && (e = readdir(d))) {
        ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);
        unsigned long long inode;
        if (n <= 0)
            continue;
        target[n] = '\0';
        if (sscanf(target, "socket:[%llu]", &inode) == 1)
            tell(s, (uint32_t)strtoul(pid, NULL, 10), inode);
    }
    if (d)
        closedir(d);
}

static void each_process(struct scan *s, void (*visit)(struct scan *s, const char *pid))
{
    struct dirent *e;
    DIR *d = opendir(s->proc);
    while (d && (e = readdir(d)))
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
            visit(s, e->d_name);
    if (d)
        closedir(d);
}

void listeners_scan(const char *proc, const struct selection *s,
                    void (*fn)(void *arg, uint32_t tgid, uint16_t port), void *arg)
{
    struct scan scan = {.proc = proc, .selection = s, .fn = fn, .arg = arg};
    if (s->n_ports == 0)
        return;
    each_process(&scan, read_namespace);
    if (scan.n_listeners)
        each_process(&scan, read_process);
    free(scan.namespaces);
    free(scan.listeners);
}
