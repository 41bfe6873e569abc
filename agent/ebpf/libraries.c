/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/libraries.h"

#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/base/clock.h"

#define UNUSED_NS (300 * NS_PER_S)
enum { WATCHED_MAX = 20000, FILE_MAX = 512 << 20 };

struct watched {
    struct list link;
    uint32_t tgid;
};

static struct library *find(struct libraries *ls, dev_t dev, ino_t inode)
{
    LIST_EACH (it, &ls->all) {
        struct library *l = LIST_ENTRY(it, struct library, link);

        if (l->dev == dev && l->inode == inode)
            return l;
    }
    return NULL;
}

/* The name of a function that TLS libraries export; whoever has it is asked for the symbol itself.
 */
static bool has_ssl(const char *path)
{
    static const char name[] = "\0SSL_read";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    bool found = false;
    void *p;

    if (fd < 0)
        return false;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 64 && st.st_size < FILE_MAX) {
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p != MAP_FAILED) {
            found =
                memcmp(p, "\177ELF", 4) == 0 && memmem(p, (size_t)st.st_size, name, sizeof(name));
            munmap(p, (size_t)st.st_size);
        }
    }
    close(fd);
    return found;
}

static void meet(struct libraries *ls, dev_t dev, ino_t inode, const char *path, bool is_default)
{
    struct library *l = find(ls, dev, inode);

    if (l) {
        l->unused_since_ns = 0;
        return;
    }
    l = xcalloc(1, sizeof(*l));
    l->dev = dev;
    l->inode = inode;
    l->is_default = is_default;
    list_push(&ls->all, &l->link);
    l->is_tls = has_ssl(path);
    if (l->is_tls)
        ls->attach(ls->arg, l, path);
}

/* Every executable mapping of the process. False when it is gone. */
static bool look(struct libraries *ls, uint32_t tgid)
{
    char path[64], line[4500];
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%u/maps", tgid);
    f = fopen(path, "re");
    if (!f)
        return false;
    while (fgets(line, sizeof(line), f)) {
        unsigned long from, to, inode;
        unsigned major, minor;
        char perms[8], file[128];

        if (sscanf(line, "%lx-%lx %7s %*x %x:%x %lu", &from, &to, perms, &major, &minor, &inode) !=
                6 ||
            perms[2] != 'x' || !inode)
            continue;
        snprintf(file, sizeof(file), "/proc/%u/map_files/%lx-%lx", tgid, from, to);
        meet(ls, makedev(major, minor), (ino_t)inode, file, false);
    }
    fclose(f);
    return true;
}

void libraries_look(struct libraries *ls, uint32_t tgid)
{
    struct watched *w;
    size_t n = 0;

    LIST_EACH (it, &ls->watched) {
        if (LIST_ENTRY(it, struct watched, link)->tgid == tgid)
            return;
        n++;
    }
    if (!look(ls, tgid) || n >= WATCHED_MAX)
        return;
    w = xcalloc(1, sizeof(*w));
    w->tgid = tgid;
    list_push(&ls->watched, &w->link);
}

void libraries_look_default(struct libraries *ls)
{
    static const char *const patterns[] = {"/lib/*/libssl.so.*", "/usr/lib/*/libssl.so.*",
                                           "/usr/lib64/libssl.so.*", NULL};

    for (unsigned i = 0; patterns[i]; i++) {
        glob_t g;

        if (glob(patterns[i], 0, NULL, &g) == 0) {
            for (size_t k = 0; k < g.gl_pathc; k++) {
                struct stat st;

                if (stat(g.gl_pathv[k], &st) == 0)
                    meet(ls, st.st_dev, st.st_ino, g.gl_pathv[k], true);
            }
        }
        globfree(&g);
    }
}

static void let_go(struct libraries *ls, uint64_t now_ns)
{
    LIST_EACH_SAFE (it, tmp, &ls->all) {
        struct library *l = LIST_ENTRY(it, struct library, link);

        if (l->is_default || !l->unused_since_ns || l->unused_since_ns + UNUSED_NS > now_ns)
            continue;
        ls->detach(ls->arg, l);
        list_remove(&l->link);
        free(l);
    }
}

void libraries_tick(struct libraries *ls, uint64_t now_ns)
{
    LIST_EACH (it, &ls->all) {
        struct library *l = LIST_ENTRY(it, struct library, link);

        if (!l->unused_since_ns)
            l->unused_since_ns = now_ns; /* until a process is seen with it */
    }
    LIST_EACH_SAFE (it, tmp, &ls->watched) {
        struct watched *w = LIST_ENTRY(it, struct watched, link);

        if (look(ls, w->tgid))
            continue;
        list_remove(&w->link);
        free(w);
    }
    let_go(ls, now_ns);
}

void libraries_init(struct libraries *ls,
                    void (*attach)(void *arg, struct library *l, const char *path),
                    void (*detach)(void *arg, struct library *l), void *arg)
{
    memset(ls, 0, sizeof(*ls));
    list_init(&ls->all);
    list_init(&ls->watched);
    ls->attach = attach;
    ls->detach = detach;
    ls->arg = arg;
}

void libraries_fini(struct libraries *ls)
{
    if (!ls->attach)
        return; /* never begun */
    for (struct list *it; (it = list_pop(&ls->watched));)
        free(LIST_ENTRY(it, struct watched, link));
    for (struct list *it; (it = list_pop(&ls->all));) {
        struct library *l = LIST_ENTRY(it, struct library, link);

        ls->detach(ls->arg, l);
        free(l);
    }
}
