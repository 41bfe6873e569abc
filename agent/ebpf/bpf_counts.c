/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/bpf_counts.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <math.h>
#include <stdlib.h>

#include "bpf/wire.h"
#include "common/base/clock.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "bpf/tailrace.skel.h"
#pragma GCC diagnostic pop

#define SWEEP_NS (10 * NS_PER_S)

static const char *const failures[WIRE_FAILURES] = {
    [WIRE_FAILED_REFUSED] = "refused",         [WIRE_FAILED_TIMED_OUT] = "timed_out",
    [WIRE_FAILED_UNREACHABLE] = "unreachable", [WIRE_FAILED_RESET] = "reset",
    [WIRE_FAILED_CANCELED] = "canceled",       [WIRE_FAILED_OTHER] = "other",
};

/* The kernel's buckets as an OTLP histogram of the same scale, so that no count moves. */
static void set_histogram(struct metrics *m, struct metric_series *series,
                          const struct wire_histogram *w)
{
    struct exp_histogram *h = &series->exp;
    uint32_t first = 0, last = WIRE_BUCKETS;
    uint64_t before = h->count;

    while (first < last && !w->buckets[first])
        first++;
    while (last > first && !w->buckets[last - 1])
        last--;
    exp_histogram_fini(h);
    exp_histogram_init(h, WIRE_BUCKETS);
    h->scale = WIRE_SCALE;
    h->sum = (double)w->sum_ns / 1e9;
    h->count = h->zero_count = w->zeros;
    h->zero_threshold = ldexp(1, WIRE_OFFSET / (1 << WIRE_SCALE));
    h->positive.counts = xcalloc(last - first + 1, sizeof(uint64_t));
    h->positive.cap = last - first + 1;
    h->positive.n = last - first;
    h->positive.offset = (int32_t)first + WIRE_OFFSET;
    for (uint32_t i = first; i < last; i++) {
        h->positive.counts[i - first] = w->buckets[i];
        h->count += w->buckets[i];
    }
    m->changed |= h->count != before;
}

/* In an entry of the kernel's that is new is what came after the reading before. */
static struct metric_series *series_of(const struct counts *k, struct metrics *m,
                                       enum agent_metric id, struct str resource, struct str attrs)
{
    struct metric_series *s = metrics_counted(m, id, resource, attrs);

    if (s && (s->is_ended || (!s->sum && !s->exp.count)))
        s->start_ns = k->read_wall_ns;
    if (s)
        s->is_ended = false;
    return s;
}

static void read_histogram(const struct counts *k, struct metrics *m, enum agent_metric id,
                           struct str resource, const struct wire_histogram *w)
{
    struct metric_series *series;
    uint64_t n = w->zeros;

    for (unsigned b = 0; b < WIRE_BUCKETS; b++)
        n += w->buckets[b];
    series = n ? series_of(k, m, id, resource, (struct str){NULL, 0}) : NULL;
    if (series)
        set_histogram(m, series, w);
}

static void set_sum(struct metrics *m, struct metric_series *series, uint64_t v)
{
    m->changed |= series->sum != v;
    series->sum = v;
}

static void read_sums(const struct counts *k, struct metrics *m, struct str resource,
                      const struct wire_tcp *t)
{
    struct metric_series *series;
    struct buf attrs;

    buf_init(&attrs);
    if (t->retransmits &&
        (series = series_of(k, m, METRIC_TCP_RETRANSMITS, resource, buf_str(&attrs))))
        set_sum(m, series, t->retransmits);
    for (unsigned i = 0; i < WIRE_FAILURES; i++) {
        if (!t->failures[i])
            continue;
        buf_reset(&attrs);
        encode_attr_str(&attrs, metrics_attr_field(METRIC_TCP_FAILURES), "error.type",
                        str_of(failures[i]));
        series = series_of(k, m, METRIC_TCP_FAILURES, resource, buf_str(&attrs));
        if (series)
            set_sum(m, series, t->failures[i]);
    }
    buf_fini(&attrs);
}

/* ---- tables by cgroup ---- */

static void read_tcp(const struct counts *k, struct metrics *m, struct str resource,
                     const void *value)
{
    const struct wire_tcp *t = value;

    read_histogram(k, m, METRIC_TCP_CONNECT, resource, &t->histograms[WIRE_CONNECT]);
    read_histogram(k, m, METRIC_TCP_RTT, resource, &t->histograms[WIRE_RTT]);
    read_sums(k, m, resource, t);
}

static void read_runqueue(const struct counts *k, struct metrics *m, struct str resource,
                          const void *value)
{
    read_histogram(k, m, METRIC_RUNQUEUE, resource, value);
}

typedef void read_fn(const struct counts *k, struct metrics *m, struct str resource,
                     const void *value);

static void read_table(struct counts *k, struct capture *c, const struct bpf_map *map, read_fn *fn)
{
    union {
        struct wire_tcp tcp;
        struct wire_histogram runqueue;
    } value;
    int fd = bpf_map__fd(map);
    uint64_t id, *prev = NULL;

    for (; fd >= 0 && bpf_map_get_next_key(fd, prev, &id) == 0; prev = &id)
        if (bpf_map_lookup_elem(fd, &id, &value) == 0)
            fn(k, &c->metrics, cgroups_resource(&k->cgroups, &c->processes, id), &value);
}

struct sweep {
    struct tailrace *skel;
    struct metrics *metrics;
};

/* What was counted last is in the series, which are told once more. */
static void on_gone(void *arg, uint64_t id, struct str resource)
{
    const struct sweep *sw = arg;
    const int fds[] = {bpf_map__fd(sw->skel->maps.tcp_by_cgroup),
                       bpf_map__fd(sw->skel->maps.runqueue_by_cgroup)};

    for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
        if (fds[i] >= 0)
            bpf_map_delete_elem(fds[i], &id);
    metrics_end(sw->metrics, resource);
}

void counts_read(struct counts *k, struct tailrace *skel, struct capture *c, uint64_t now_ns)
{
    struct sweep sw = {skel, &c->metrics};

    read_table(k, c, skel->maps.tcp_by_cgroup, read_tcp);
    read_table(k, c, skel->maps.runqueue_by_cgroup, read_runqueue);
    k->read_wall_ns = now_ns + (uint64_t)c->wall_offset_ns;
    if (now_ns < k->sweep_ns + SWEEP_NS)
        return;
    k->sweep_ns = now_ns;
    cgroups_sweep(&k->cgroups, on_gone, &sw);
}

void counts_init(struct counts *k)
{
    cgroups_init(&k->cgroups, "/proc/self/mountinfo");
    k->read_wall_ns = clock_wall_ns();
    k->sweep_ns = clock_mono_ns();
}

void counts_fini(struct counts *k)
{
    cgroups_fini(&k->cgroups);
}
