/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of rotated files: traces.json becomes traces-2026-01-31T23-59-59.123.json. The time is that
 * of the rotation, in UTC or local time, so the names sort by age.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/components/exporters/file_writer.h"

enum { STAMP_LEN = 23 }; /* of 2026-01-31T23-59-59.123 */

struct name_parts {
    struct str dir, stem, ext; /* ext with its dot */
};

static struct name_parts split(const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    const char *dot = strrchr(base, '.'), *end = base + strlen(base);
    struct name_parts n = {.dir = slash ? str_make(path, (size_t)(base - path)) : STR(""),
                           .stem = str_make(base, (size_t)((dot ? dot : end) - base)),
                           .ext = dot ? str_of(dot) : STR("")};
    return n;
}

static void put_stamp(char out[STAMP_LEN + 1], uint64_t wall_ms, bool is_local)
{
    time_t s = (time_t)(wall_ms / 1000);
    struct tm tm;
    char text[40];
    if (is_local)
        localtime_r(&s, &tm);
    else
        gmtime_r(&s, &tm);
    size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H-%M-%S", &tm);
    snprintf(text + n, sizeof(text) - n, ".%03u", (unsigned)(wall_ms % 1000));
    memcpy(out, text, STAMP_LEN);
    out[STAMP_LEN] = '\0';
}

/* The stamp in a rotated file's name, or NULL when it is none of ours. */
static const char *stamp_of(const struct name_parts *n, const char *name)
{
    static const char shape[] = "dddd-dd-ddTdd-dd-dd.ddd";
    struct str s = str_of(name);
    if (s.n != n->stem.n + 1 + STAMP_LEN + n->ext.n || !str_has_prefix(s, n->stem) ||
        !str_has_suffix(s, n->ext) || name[n->stem.n] != '-')
        return NULL;
    const char *stamp = name + n->stem.n + 1;
    for (unsigned i = 0; i < STAMP_LEN; i++)
        if (shape[i] == 'd' ? stamp[i] < '0' || stamp[i] > '9' : stamp[i] != shape[i])
            return NULL;
    return stamp;
}

static int newest_first(const void *a, const void *b)
{
    return strcmp(*(char *const *)b, *(char *const *)a);
}

/* What cannot be removed stays and is tried again at the next rotation. */
static void remove_old(const struct name_parts *n, const struct file_config *c)
{
    char *dir_name = n->dir.n ? xstrndup(n->dir.p, n->dir.n) : xstrdup(".");
    DIR *dir = opendir(dir_name);
    char **names = NULL, oldest[STAMP_LEN + 1];
    size_t n_names = 0;
    uint64_t now_ms = clock_wall_ns() / NS_PER_MS, age_ms = c->max_days * 86400 * 1000;
    if (!dir) {
        free(dir_name);
        return;
    }
    for (struct dirent *d; (d = readdir(dir));) {
        if (!stamp_of(n, d->d_name))
            continue;
        names = xrealloc(names, (n_names + 1) * sizeof(*names));
        names[n_names++] = xstrdup(d->d_name);
    }
    if (n_names > 0)
        qsort(names, n_names, sizeof(*names), newest_first);
    put_stamp(oldest, now_ms > age_ms ? now_ms - age_ms : 0, c->localtime);
    for (size_t i = 0; i < n_names; i++) {
        bool is_over = c->max_backups && i >= c->max_backups;
        bool is_old = c->max_days && memcmp(stamp_of(n, names[i]), oldest, STAMP_LEN) < 0;
        if (is_over || is_old)
            (void)unlinkat(dirfd(dir), names[i], 0);
        free(names[i]);
    }
    free(names);
    closedir(dir);
    free(dir_name);
}

int file_rotate(const char *path, const struct file_config *c)
{
    struct name_parts n = split(path);
    uint64_t wall_ms = clock_wall_ns() / NS_PER_MS;
    char stamp[STAMP_LEN + 1];
    int r;
    do { /* a name that is taken belongs to a file of this very millisecond */
        put_stamp(stamp, wall_ms++, c->localtime);
        char *to = xasprintf(STR_FMT STR_FMT "-%s" STR_FMT, STR_ARG(n.dir), STR_ARG(n.stem), stamp,
                             STR_ARG(n.ext));
        r = renameat2(AT_FDCWD, path, AT_FDCWD, to, RENAME_NOREPLACE) ? -errno : 0;
        free(to);
    } while (r == -EEXIST);
    if (r == 0)
        remove_old(&n, c);
    return r;
}
