/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/bpf_memory.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/mem.h"
#include "common/pipeline/telemetry.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "bpf/tailrace.skel.h"
#pragma GCC diagnostic pop

enum {
    MAPS_MAX = 64,
    /* Of one object with storage, all of it: the object's list with its cache (about 200 bytes),
     * our state and its links, each rounded up to what the allocator has. */
    SOCKET_BYTES = 256 + 192,
    TASK_BYTES = 256 + 96,
};

static const struct metric_desc map_desc = {
    "ebpf_map_bytes",
    "Memory of the kernel side, by map; of socket and task storage by their number.",
    "By",
    METRIC_KIND_GAUGE,
    LEVEL_BASIC,
    NULL,
    0};

struct map_bytes {
    uint32_t id;
    uint64_t bytes;
    char name[BPF_OBJ_NAME_LEN];
};

/* What the kernel says of a descriptor of ours. False: it is none of a map. */
static bool read_map(const char *fd, struct map_bytes *out)
{
    struct bpf_map_info info = {0};
    uint32_t size = sizeof(info);
    char path[300], line[128];
    unsigned long long bytes = 0;
    bool is_map = false;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%s", fd);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f)) {
        is_map |= strncmp(line, "map_type:", 9) == 0;
        sscanf(line, "memlock: %llu", &bytes);
    }
    if (f)
        fclose(f);
    if (!is_map || bpf_obj_get_info_by_fd(atoi(fd), &info, &size))
        return false;
    out->id = info.id;
    out->bytes = bytes;
    snprintf(out->name, sizeof(out->name), "%s", info.name);
    return true;
}

/* Rings of data have one name: they are one line. */
static size_t add_map(struct map_bytes *maps, size_t n, const struct map_bytes *m)
{
    for (size_t i = 0; i < n; i++) {
        if (m->id && maps[i].id == m->id)
            return n;
        if (strcmp(maps[i].name, m->name) == 0) {
            maps[i].bytes += m->bytes;
            maps[i].id = m->id ? m->id : maps[i].id;
            return n;
        }
    }
    maps[n] = *m;
    return n + 1;
}

static size_t read_maps(struct map_bytes *maps)
{
    DIR *d = opendir("/proc/self/fdinfo");
    struct dirent *e;
    struct map_bytes m;
    size_t n = 0;

    while (d && n < MAPS_MAX && (e = readdir(d)))
        if (e->d_name[0] != '.' && read_map(e->d_name, &m))
            n = add_map(maps, n, &m);
    if (d)
        closedir(d);
    return n;
}

uint64_t memory_expose(const struct tailrace *skel)
{
    const struct map_bytes storage[] = {
        {.name = "conns", .bytes = skel->bss->conn_states_live * SOCKET_BYTES},
        {.name = "sched_tasks", .bytes = skel->bss->sched_tasks_live * TASK_BYTES},
    };
    struct map_bytes maps[MAPS_MAX + ARRAY_LEN(storage)];
    size_t n = read_maps(maps);
    uint64_t sum = 0;

    for (size_t i = 0; i < ARRAY_LEN(storage); i++)
        n = add_map(maps, n, &storage[i]);
    for (size_t i = 0; i < n; i++) {
        struct label l = {"map", maps[i].name};

        series_set(telemetry_series(&map_desc, &l, 1), (int64_t)maps[i].bytes);
        sum += maps[i].bytes;
    }
    return sum;
}
