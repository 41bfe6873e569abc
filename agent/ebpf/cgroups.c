/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/cgroups.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/ebpf/processes.h"
#include "common/base/mem.h"

enum { DEPTH_MAX = 16 }; /* of cgroups in cgroups */

struct cgroup {
    uint64_t id;
    char *path; /* of its directory; "" not found */
    struct buf resource;
};

static bool id_eq(const void *value, const void *key)
{
    return ((const struct cgroup *)value)->id == *(const uint64_t *)key;
}

/* ---- where ---- */

static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = list; (p = strstr(p, word)); p += n)
        if ((p == list || p[-1] == ',') && (p[n] == ',' || p[n] == 0))
            return true;
    return false;
}

static char *find_root(const char *mountinfo)
{
    char line[4096], where[1024], type[64], options[1024];
    char *found = xstrdup("");
    FILE *f = fopen(mountinfo, "re");

    while (f && fgets(line, sizeof(line), f)) {
        const char *tail = strstr(line, " - ");
        bool is_cpu;

        if (!tail || sscanf(line, "%*s %*s %*s %*s %1023s", where) != 1 ||
            sscanf(tail, " - %63s %*s %1023s", type, options) != 2)
            continue;
        is_cpu = strcmp(type, "cgroup") == 0 && has_word(options, "cpu");
        if (!is_cpu && (found[0] || strcmp(type, "cgroup2") != 0))
            continue;
        free(found);
        found = xstrdup(where);
        if (is_cpu)
            break;
    }
    if (f)
        fclose(f);
    return found;
}

/* The path below `path` whose directory has that number; appended to it. */
static bool find_below(char *path, size_t size, uint64_t id, unsigned depth)
{
    size_t n = strlen(path);
    DIR *d = depth ? opendir(path) : NULL;
    struct dirent *e;
    bool found = false;

    while (d && !found && (e = readdir(d))) {
        if (e->d_type != DT_DIR || e->d_name[0] == '.' || n + strlen(e->d_name) + 2 > size)
            continue;
        snprintf(path + n, size - n, "/%s", e->d_name);
        found = e->d_ino == id || find_below(path, size, id, depth - 1);
        if (!found)
            path[n] = 0;
    }
    if (d)
        closedir(d);
    return found;
}

static bool is_directory(const char *path, uint64_t id)
{
    struct stat st;

    return stat(path, &st) == 0 && st.st_ino == id;
}

static char *find_path(const struct cgroups *cs, uint64_t id)
{
    char path[4096];

    if (!cs->root[0])
        return xstrdup("");
    snprintf(path, sizeof(path), "%s", cs->root);
    if (is_directory(path, id) || find_below(path, sizeof(path), id, DEPTH_MAX))
        return xstrdup(path);
    return xstrdup("");
}

/* ---- what is told of one ---- */

static void describe(const struct cgroups *cs, struct cgroup *g, const struct processes *ps)
{
    const char *path = g->path[0] ? g->path + strlen(cs->root) : NULL;

    if (path && !path[0])
        path = "/";
    process_cgroup_resource(ps, g->id, path, &g->resource);
}

static struct cgroup *find(const struct cgroups *cs, uint64_t id)
{
    return hashmap_find(&cs->by_id, hash_bytes(&id, sizeof(id)), id_eq, &id);
}

static void cgroup_free(struct cgroup *g)
{
    free(g->path);
    buf_fini(&g->resource);
    free(g);
}

struct str cgroups_resource(struct cgroups *cs, const struct processes *ps, uint64_t id)
{
    struct cgroup *g = find(cs, id);

    if (!g) {
        g = xcalloc(1, sizeof(*g));
        g->id = id;
        buf_init(&g->resource);
        g->path = find_path(cs, id);
        describe(cs, g, ps);
        if (hashmap_add(&cs->by_id, hash_bytes(&id, sizeof(id)), g)) {
            cgroup_free(g);
            return (struct str){NULL, 0};
        }
    }
    return buf_str(&g->resource);
}

void cgroups_sweep(struct cgroups *cs, void (*fn)(void *arg, uint64_t id, struct str resource),
                   void *arg)
{
    struct cgroup *g, **gone = xcalloc(cs->by_id.n + 1, sizeof(*gone));
    size_t pos = 0, n = 0;

    while ((g = hashmap_next(&cs->by_id, &pos)))
        if (!g->path[0] || !is_directory(g->path, g->id))
            gone[n++] = g;
    while (n) {
        g = gone[--n];
        hashmap_take(&cs->by_id, hash_bytes(&g->id, sizeof(g->id)), id_eq, &g->id);
        fn(arg, g->id, buf_str(&g->resource));
        cgroup_free(g);
    }
    free(gone);
}

void cgroups_init(struct cgroups *cs, const char *mountinfo)
{
    hashmap_init(&cs->by_id);
    cs->root = find_root(mountinfo);
}

void cgroups_fini(struct cgroups *cs)
{
    size_t pos = 0;
    struct cgroup *g;

    while ((g = hashmap_next(&cs->by_id, &pos)))
        cgroup_free(g);
    hashmap_fini(&cs->by_id);
    free(cs->root);
    cs->root = NULL;
}
