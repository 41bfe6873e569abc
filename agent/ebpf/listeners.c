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

struct numbers {
    uint64_t *v;
    size_t n;
};

struct scan {
    const char *proc;
    const struct selection *selection;
    struct numbers namespaces, inodes;
};

static bool has(const struct numbers *s, uint64_t x)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i] == x)
            return true;
    return false;
}

static void add(struct numbers *s, uint64_t x)
{
    if (has(s, x))
        return;
    s->v = xrealloc(s->v, (s->n + 1) * sizeof(*s->v));
    s->v[s->n++] = x;
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
            add(&s->inodes, inode);
    }
    if (f)
        fclose(f);
}

static void read_namespace(struct scan *s, const char *pid)
{
    char path[512];
    struct stat st;
    snprintf(path, sizeof(path), "%s/%s/ns/net", s->proc, pid);
    if (stat(path, &st) || has(&s->namespaces, st.st_ino))
        return;
    add(&s->namespaces, st.st_ino);
    snprintf(path, sizeof(path), "%s/%s/net/tcp", s->proc, pid);
    read_table(s, path);
    snprintf(path, sizeof(path), "%s/%s/net/tcp6", s->proc, pid);
    read_table(s, path);
}

static bool holds_listener(const struct scan *s, const char *pid)
{
    char path[512], target[64];
    struct dirent *e;
    bool found = false;
    snprintf(path, sizeof(path), "%s/%s/fd", s->proc, pid);
    DIR *d = opendir(path);
    while (d && !found && (e = readdir(d))) {
        ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);
        unsigned long long inode;
        if (n <= 0)
            continue;
        target[n] = '\0';
        found = sscanf(target, "socket:[%llu]", &inode) == 1 && has(&s->inodes, inode);
    }
    if (d)
        closedir(d);
    return found;
}

static void each_process(struct scan *s, void (*visit)(struct scan *s, const char *pid, void *arg),
                         void *arg)
{
    struct dirent *e;
    DIR *d = opendir(s->proc);
    while (d && (e = readdir(d)))
        if (e->d_name[0] >= '1' && e->d_name[0] <= '9')
            visit(s, e->d_name, arg);
    if (d)
        closedir(d);
}

struct found {
    void (*fn)(void *arg, uint32_t tgid);
    void *arg;
};

static void visit_namespace(struct scan *s, const char *pid, void *arg)
{
    (void)arg;
    read_namespace(s, pid);
}

static void visit_process(struct scan *s, const char *pid, void *arg)
{
    struct found *f = arg;
    if (holds_listener(s, pid))
        f->fn(f->arg, (uint32_t)strtoul(pid, NULL, 10));
}

void listeners_scan(const char *proc, const struct selection *s,
                    void (*fn)(void *arg, uint32_t tgid), void *arg)
{
    struct scan scan = {.proc = proc, .selection = s};
    struct found found = {fn, arg};
    if (s->n_ports == 0)
        return;
    each_process(&scan, visit_namespace, NULL);
    if (scan.inodes.n)
        each_process(&scan, visit_process, &found);
    free(scan.namespaces.v);
    free(scan.inodes.v);
}
