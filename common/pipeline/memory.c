/* SPDX-License-Identifier: Apache-2.0 */
#include "common/pipeline/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/pipeline/graph.h"

static bool read_u64(const char *path, uint64_t *out)
{
    unsigned long long v;
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    int n = fscanf(f, "%llu", &v);
    fclose(f);
    if (n == 1)
        *out = v;
    return n == 1;
}

uint64_t memory_total(void)
{
    static const char *const limits[] = {"/sys/fs/cgroup/memory.max",
                                         "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    uint64_t total = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE), v;
    for (unsigned i = 0; i < ARRAY_LEN(limits); i++)
        if (read_u64(limits[i], &v) && v > 0 && v < total) /* v1 says "no limit" by a huge number */
            total = v;
    return total;
}

void memory_marks_set(struct instance *processor, struct memory_marks m)
{
    struct node *n = processor->node;
    if (!n->marks)
        n->marks = xalloc(sizeof(*n->marks));
    *n->marks = m;
}

static void tighten(struct memory_marks *m, const struct node *n)
{
    if (n->marks) {
        m->soft = MIN(m->soft, n->marks->soft);
        m->hard = MIN(m->hard, n->marks->hard);
    }
    for (unsigned s = 0; s < SIGNAL_COUNT; s++)
        for (unsigned i = 0; i < n->out[s].n; i++)
            tighten(m, n->out[s].v[i].to);
}

struct memory_marks memory_marks_of(const struct instance *receiver)
{
    uint64_t process = memory_total() / 10 * 8;
    struct memory_marks m = {process - process / 5, process};
    tighten(&m, receiver->node);
    return m;
}
