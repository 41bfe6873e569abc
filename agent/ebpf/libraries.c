/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/libraries.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/base/clock.h"

#define UNUSED_NS (300 * NS_PER_S)
#define STARTED_NS (300 * NS_PER_S)
#define LOOK_FIRST_NS NS_PER_MS /* between two looks; doubled while nothing new is found */
#define LOOK_LAST_NS NS_PER_S
enum { WATCHED_MAX = 20000, LIBRARIES_MAX = 4096, LIBRARIES_OF_PROCESS = 8 };

struct watched {
    struct list changed; /* in libraries.changed, or alone */
    uint32_t tgid;
    uint64_t looked_ns, pause_ns;
    size_t n_mapped;   /* executable mappings */
    bool is_once_more; /* the mapping that was told may not have been complete */
    struct library *libraries[LIBRARIES_OF_PROCESS];
    struct tls_links *links[LIBRARIES_OF_PROCESS]; /* NULL: in all processes, or refused */
    unsigned n;
};

static bool watched_eq(const void *value, const void *key)
{
    return ((const struct watched *)value)->tgid == *(const uint32_t *)key;
}

static struct watched *find_watched(const struct libraries *ls, uint32_t tgid)
{
    return hashmap_find(&ls->watched, hash_bytes(&tgid, sizeof(tgid)), watched_eq, &tgid);
}

bool libraries_is_everywhere(const struct libraries *ls)
{
    return ls->everywhere_until_ns != 0;
}

/* ---- libraries ---- */

static struct library *find(struct libraries *ls, dev_t dev, ino_t inode)
{
    LIST_EACH (it, &ls->all) {
        struct library *l = LIST_ENTRY(it, struct library, link);

        if (l->dev == dev && l->inode == inode)
            return l;
    }
    return NULL;
}

/* Every file with code is asked once. The name is for the log, the path may be one of /proc. */
static struct library *meet(struct libraries *ls, dev_t dev, ino_t inode, const char *path,
                            const char *name)
{
    struct library *l = find(ls, dev, inode);
    const char *slash = strrchr(name, '/');

    if (l)
        return l;
    l = xcalloc(1, sizeof(*l));
    l->dev = dev;
    l->inode = inode;
    snprintf(l->name, sizeof(l->name), "%s", slash ? slash + 1 : name);
    l->name[strcspn(l->name, "\n")] = 0;
    list_push(&ls->all, &l->link);
    l->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    l->is_tls = l->fd >= 0 && tls_sites_find(&l->sites, l->fd) == 0;
    if (!l->is_tls && l->fd >= 0) {
        close(l->fd);
        l->fd = -1;
    }
    if (l->is_tls && libraries_is_everywhere(ls))
        l->everywhere = ls->ops.attach(ls->ops.arg, l, 0);
    return l;
}

static void forget(struct libraries *ls, struct library *l)
{
    if (l->everywhere)
        ls->ops.detach(ls->ops.arg, l->everywhere);
    if (l->fd >= 0)
        close(l->fd);
    list_remove(&l->link);
    free(l);
}

/* ---- processes ---- */

static void attach(struct libraries *ls, struct watched *w, unsigned i)
{
    if (!libraries_is_everywhere(ls) && !w->links[i])
        w->links[i] = ls->ops.attach(ls->ops.arg, w->libraries[i], w->tgid);
}

static void detach(struct libraries *ls, struct watched *w)
{
    for (unsigned i = 0; i < w->n; i++) {
        if (w->links[i])
            ls->ops.detach(ls->ops.arg, w->links[i]);
        w->links[i] = NULL;
    }
}

static void map(struct libraries *ls, struct watched *w, struct library *l)
{
    l->unused_since_ns = 0;
    if (!l->is_tls || w->n == LIBRARIES_OF_PROCESS)
        return;
    for (unsigned i = 0; i < w->n; i++)
        if (w->libraries[i] == l)
            return;
    w->libraries[w->n++] = l;
    attach(ls, w, w->n - 1);
}

/* Every executable mapping of the process; true when there are others than before. */
static bool look(struct libraries *ls, struct watched *w)
{
    char path[64], line[4500];
    size_t before = w->n_mapped;
    FILE *f;

    w->n_mapped = 0;

    snprintf(path, sizeof(path), "/proc/%u/maps", w->tgid);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        unsigned long from, to, inode;
        unsigned major, minor;
        char perms[8], file[128];
        int name = 0;

        if (sscanf(line, "%lx-%lx %7s %*x %x:%x %lu %n", &from, &to, perms, &major, &minor, &inode,
                   &name) != 6 ||
            perms[2] != 'x' || !inode)
            continue;
        snprintf(file, sizeof(file), "/proc/%u/map_files/%lx-%lx", w->tgid, from, to);
        map(ls, w, meet(ls, makedev(major, minor), (ino_t)inode, file, line + name));
        w->n_mapped++;
    }
    if (f)
        fclose(f);
    return w->n_mapped != before;
}

static void look_and_pause(struct libraries *ls, struct watched *w, uint64_t now_ns)
{
    list_remove(&w->changed);
    if (w->is_once_more)
        list_push(&ls->changed, &w->changed);
    w->is_once_more = false;
    if (ls->ops.looked)
        ls->ops.looked(ls->ops.arg, w->tgid); /* before it: what is mapped meanwhile is told */
    if (look(ls, w))
        w->pause_ns = LOOK_FIRST_NS;
    else
        w->pause_ns = MAX(MIN(w->pause_ns * 2, LOOK_LAST_NS), LOOK_FIRST_NS);
    w->looked_ns = now_ns;
}

void libraries_watch(struct libraries *ls, uint32_t tgid, uint64_t now_ns)
{
    struct watched *w = find_watched(ls, tgid);

    if (w || ls->watched.n >= WATCHED_MAX)
        return;
    w = xcalloc(1, sizeof(*w));
    w->tgid = tgid;
    w->pause_ns = LOOK_FIRST_NS;
    list_init(&w->changed);
    if (hashmap_add(&ls->watched, hash_bytes(&tgid, sizeof(tgid)), w)) {
        free(w);
        return;
    }
    look_and_pause(ls, w, now_ns);
}

void libraries_changed(struct libraries *ls, uint32_t tgid)
{
    struct watched *w = find_watched(ls, tgid);

    if (!w)
        return;
    w->is_once_more = true;
    if (list_is_empty(&w->changed))
        list_push(&ls->changed, &w->changed);
}

void libraries_gone(struct libraries *ls, uint32_t tgid)
{
    struct watched *w =
        hashmap_take(&ls->watched, hash_bytes(&tgid, sizeof(tgid)), watched_eq, &tgid);

    if (!w)
        return;
    detach(ls, w);
    list_remove(&w->changed);
    free(w);
}

void libraries_look(struct libraries *ls, uint64_t now_ns)
{
    LIST_EACH_SAFE (it, tmp, &ls->changed) {
        struct watched *w = CONTAINER_OF(it, struct watched, changed);

        if (w->looked_ns + w->pause_ns <= now_ns)
            look_and_pause(ls, w, now_ns);
    }
}

/* ---- all processes, or each alone ---- */

static void begin_everywhere(struct libraries *ls, uint64_t until_ns)
{
    bool was = libraries_is_everywhere(ls);
    size_t pos = 0;

    ls->everywhere_until_ns = MAX(ls->everywhere_until_ns, until_ns);
    if (was)
        return;
    LIST_EACH (it, &ls->all) {
        struct library *l = LIST_ENTRY(it, struct library, link);

        if (l->is_tls && !l->everywhere)
            l->everywhere = ls->ops.attach(ls->ops.arg, l, 0);
    }
    for (struct watched *w; (w = hashmap_next(&ls->watched, &pos));)
        detach(ls, w);
}

static void end_everywhere(struct libraries *ls)
{
    size_t pos = 0;

    ls->everywhere_until_ns = 0;
    for (struct watched *w; (w = hashmap_next(&ls->watched, &pos));)
        for (unsigned i = 0; i < w->n; i++)
            attach(ls, w, i);
    LIST_EACH (it, &ls->all) {
        struct library *l = LIST_ENTRY(it, struct library, link);

        if (l->everywhere)
            ls->ops.detach(ls->ops.arg, l->everywhere);
        l->everywhere = NULL;
    }
}

void libraries_started(struct libraries *ls, uint32_t tgid, uint64_t now_ns)
{
    struct watched *w;

    if (ls->probes != PROBES_PROCESS)
        begin_everywhere(ls, now_ns + STARTED_NS);
    w = find_watched(ls, tgid);
    if (!w) {
        libraries_watch(ls, tgid, now_ns);
        return;
    }
    w->n = 0; /* another program: nothing of the one before is mapped */
    detach(ls, w);
    w->pause_ns = 0;
    libraries_changed(ls, tgid);
}

void libraries_does_tls(struct libraries *ls, uint32_t tgid)
{
    struct watched *w = find_watched(ls, tgid);

    if (!w || w->n)
        return;
    w->pause_ns = LOOK_FIRST_NS;
    libraries_changed(ls, tgid);
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
                    meet(ls, st.st_dev, st.st_ino, g.gl_pathv[k], g.gl_pathv[k])->is_default = true;
            }
        }
        globfree(&g);
    }
}

/* ---- time ---- */

/* Which libraries nobody has; a process that is gone without a word is forgotten. */
static void count_users(struct libraries *ls, uint64_t now_ns)
{
    size_t pos = 0;

    LIST_EACH (it, &ls->all) {
        struct library *l = LIST_ENTRY(it, struct library, link);

        if (!l->unused_since_ns)
            l->unused_since_ns = now_ns;
    }
    for (struct watched *w; (w = hashmap_next(&ls->watched, &pos));)
        for (unsigned i = 0; i < w->n; i++)
            w->libraries[i]->unused_since_ns = 0;
}

static void forget_gone(struct libraries *ls)
{
    uint32_t gone[64];
    unsigned n = 0;
    size_t pos = 0;

    for (struct watched *w; n < ARRAY_LEN(gone) && (w = hashmap_next(&ls->watched, &pos));) {
        char path[32];

        snprintf(path, sizeof(path), "/proc/%u", w->tgid);
        if (access(path, F_OK))
            gone[n++] = w->tgid;
    }
    while (n)
        libraries_gone(ls, gone[--n]);
}

static size_t n_libraries(const struct libraries *ls)
{
    size_t n = 0;

    LIST_EACH (it, &ls->all)
        n++;
    return n;
}

/* Files that are no TLS libraries are remembered, so that they are not asked again and again. */
static void let_go(struct libraries *ls, uint64_t now_ns)
{
    bool is_full = n_libraries(ls) > LIBRARIES_MAX;

    LIST_EACH_SAFE (it, tmp, &ls->all) {
        struct library *l = LIST_ENTRY(it, struct library, link);
        bool is_unused = l->unused_since_ns && l->unused_since_ns + UNUSED_NS <= now_ns;

        if (!l->is_default && (is_unused || (is_full && !l->is_tls)))
            forget(ls, l);
    }
}

void libraries_tick(struct libraries *ls, uint64_t now_ns)
{
    size_t pos = 0;

    forget_gone(ls);
    if (!ls->ops.looked)
        for (struct watched *w; (w = hashmap_next(&ls->watched, &pos));)
            libraries_changed(ls, w->tgid);
    if (libraries_is_everywhere(ls) && ls->everywhere_until_ns <= now_ns)
        end_everywhere(ls);
    count_users(ls, now_ns);
    let_go(ls, now_ns);
}

void libraries_init(struct libraries *ls, const struct libraries_ops *ops,
                    enum library_probes probes, bool may_begin, uint64_t now_ns)
{
    memset(ls, 0, sizeof(*ls));
    list_init(&ls->all);
    list_init(&ls->changed);
    hashmap_init(&ls->watched);
    ls->ops = *ops;
    ls->probes = probes;
    if (probes == PROBES_LIBRARY)
        ls->everywhere_until_ns = UINT64_MAX;
    else if (probes == PROBES_AUTO && may_begin)
        ls->everywhere_until_ns = now_ns + STARTED_NS;
}

void libraries_fini(struct libraries *ls)
{
    size_t pos = 0;

    if (!ls->ops.attach)
        return; /* never begun */
    for (struct watched *w; (w = hashmap_next(&ls->watched, &pos));) {
        detach(ls, w);
        free(w);
    }
    hashmap_fini(&ls->watched);
    while (!list_is_empty(&ls->all))
        forget(ls, LIST_ENTRY(ls->all.next, struct library, link));
}
