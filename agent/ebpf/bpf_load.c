/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads the whole object; only if that fails, programs are tried alone, to say which one it was and
 * to do without it if the tier can.
 */
#include "agent/ebpf/bpf_load.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/ebpf/bpf_sched.h"
#include "agent/ebpf/bpf_tls.h"
#include "agent/ebpf/doctor.h"
#include "common/base/buf.h"
#include "common/base/log.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "bpf/tailrace.skel.h"
#pragma GCC diagnostic pop

#define BPF_LOG (&(struct log_ctx){.component = "ebpf"})

/* What failed of a tier: the first of its programs that does not load and attach alone. */
struct refusal {
    char name[32]; /* "" if all do, and only the whole does not */
    const char *doing;
    int error;
    bool optional;
};

static uint32_t ring_size(uint64_t bytes)
{
    uint32_t n = 1 << 16;
    while (n < bytes && n < 1u << 30)
        n <<= 1; /* a power of two of pages */
    return n;
}

/* One for each 8 CPUs: on one ring more of them would wait for each other. */
static unsigned ring_count(unsigned asked)
{
    int cpus = libbpf_num_possible_cpus();
    unsigned n = asked ? asked : (unsigned)(MAX(cpus, 1) + 7) / 8;

    return MIN(n, (unsigned)WIRE_RINGS);
}

/* Rings that nobody asked for share what one may take, or 16 MB: 64 CPUs are no reason for more. */
static uint32_t ring_share(const struct source_config *c, unsigned n)
{
    uint64_t all = MAX(c->ring_bytes, (uint64_t)16 << 20);
    uint32_t bytes = ring_size(c->ring_bytes);

    while (!c->rings && (uint64_t)bytes * n > all)
        bytes >>= 1;
    return bytes;
}

static int make_rings(struct loaded *l)
{
    int outer = bpf_map__fd(l->skel->maps.data_rings), r = 0;
    uint32_t bytes = (uint32_t)l->skel->rodata->ring_bytes;

    for (uint32_t i = 0; i < l->n_rings && r == 0; i++) {
        int fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "tailrace_data", 0, 0, bytes, NULL);

        l->ring_fds[i] = fd;
        r = fd < 0 || bpf_map_update_elem(outer, &i, &fd, BPF_ANY) ? -errno : 0;
    }
    return r;
}

static int fill_ports(struct loaded *l, const struct selection *sel)
{
    uint8_t yes = 1;
    for (size_t i = 0; i < sel->n_ports; i++)
        bpf_map__update_elem(l->skel->maps.ports, &sel->ports[i], sizeof(sel->ports[i]), &yes,
                             sizeof(yes), BPF_ANY);
    return 0;
}

static void configure(struct loaded *l, const struct source_config *c)
{
    const struct selection *sel = c->selection;

    l->skel->rodata->self_tgid = sel->self;
    l->skel->rodata->select_all = sel->all;
    l->skel->rodata->select_unknown = sel->n_exes > 0;
    if (c->tls)
        tls_prepare(l->skel);
    l->n_rings = ring_count(c->rings);
    l->skel->rodata->n_rings = l->n_rings;
    l->skel->rodata->ring_bytes = ring_share(c, l->n_rings);
    l->skel->rodata->wake_bytes = l->skel->rodata->ring_bytes / 4;
    bpf_map__set_max_entries(l->skel->maps.scratches,
                             (uint32_t)libbpf_num_possible_cpus() * WIRE_SCRATCHES);
    bpf_map__set_max_entries(l->skel->maps.control_ring, ring_size(c->control_ring_bytes));
}

void bpf_unload(struct loaded *l)
{
    tier_detach(&l->sched);
    tier_detach(&l->links);
    for (unsigned i = 0; i < l->n_rings; i++)
        if (l->ring_fds[i] > 0)
            close(l->ring_fds[i]);
    memset(l->ring_fds, 0, sizeof(l->ring_fds));
    tailrace__destroy(l->skel);
    l->skel = NULL;
}

/* One attempt, without the programs that were left out. 0 or -errno, *doing tells of what. */
static int try_tier(struct loaded *l, const struct source_config *c, const char **doing)
{
    bool has_sched = c->scheduler;
    int r;

    *doing = "open";
    l->skel = tailrace__open();
    if (!l->skel)
        return -errno;
    configure(l, c);
    tier_prepare(l->skel, l->tier);
    for (unsigned i = 0; i < l->n_left_out; i++) {
        bpf_program__set_autoload(bpf_object__find_program_by_name(l->skel->obj, l->left_out[i]),
                                  false);
        has_sched &= !sched_is_one(l->left_out[i]);
    }
    sched_prepare(l->skel, has_sched);
    *doing = "load";
    r = tailrace__load(l->skel);
    if (r == 0) {
        fill_ports(l, c->selection);
        *doing = "data rings";
        r = make_rings(l);
    }
    if (r == 0) {
        *doing = "attach";
        r = tier_attach(l->skel, l->tier, &l->links);
        if (r == 0 && has_sched)
            r = sched_attach(l->skel, &l->sched);
    }
    if (r)
        bpf_unload(l);
    return r;
}

static bool is_left_out(const struct loaded *l, const char *name)
{
    for (unsigned i = 0; i < l->n_left_out; i++)
        if (strcmp(l->left_out[i], name) == 0)
            return true;
    return false;
}

/* Finds out by trying them alone; those that the tier needs come first. */
static void find_refused(const struct loaded *l, bool has_sched, struct refusal *f)
{
    struct tailrace *names = tailrace__open();
    struct bpf_program *p;

    for (int optional = 0; optional < 2 && names && !f->name[0]; optional++) {
        bpf_object__for_each_program(p, names->obj)
        {
            const char *name = bpf_program__name(p), *doing;
            int r;

            if (tier_needs(l->tier, name) == optional || tier_excludes(l->tier, name) ||
                is_left_out(l, name) || (!has_sched && sched_is_one(name)))
                continue;
            r = doctor_try(name, &doing);
            if (r) {
                *f = (struct refusal){.doing = doing, .error = r, .optional = optional};
                snprintf(f->name, sizeof(f->name), "%s", name);
                break;
            }
        }
    }
    tailrace__destroy(names);
}

/* A hook that is missing costs what it gives; if the tier needs it, the tier. */
static int load_tier(struct loaded *l, const struct source_config *c, struct err *e)
{
    for (;;) {
        struct refusal f = {0};
        int r = try_tier(l, c, &f.doing);

        if (r == 0)
            return 0;
        f.error = r;
        find_refused(l, c->scheduler, &f);
        if (!f.optional || l->n_left_out == ARRAY_LEN(l->left_out))
            return err_set(e, f.error, "%s: %s%s%s: %s", tier_name(l->tier), f.name,
                           f.name[0] ? ": " : "", f.doing, strerror(-f.error));
        log_warn(BPF_LOG, "left out: %s: %s: %s", f.name, f.doing, strerror(-f.error));
        memcpy(l->left_out[l->n_left_out++], f.name, sizeof(f.name));
    }
}

int bpf_load(struct loaded *l, const struct source_config *c, struct err *e)
{
    bool is_auto = c->tier == TIER_AUTO;
    enum capture_tier last = is_auto ? TIER_LAST : c->tier;
    struct buf why;
    int r = -ENOTSUP;

    buf_init(&why);
    for (l->tier = is_auto ? TIER_FIRST : c->tier; r && l->tier <= last; l->tier++) {
        struct err one = {0};

        l->n_left_out = 0;
        r = load_tier(l, c, &one);
        if (r == 0)
            break;
        buf_addf(&why, "%s%s", why.n ? "; " : "", one.text);
        if (is_auto)
            log_info(BPF_LOG, "no capture tier %s", one.text);
    }
    if (r)
        err_set(
            e, r, "capture_tier: %s%s", buf_cstr(&why),
            r == -EPERM
                ? " (needs CAP_BPF and CAP_PERFMON; and there are kernels that refuse a hook to anybody)"
                : "");
    buf_fini(&why);
    return r;
}
