/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiers of capturing. Return probes: a call that blocks in a receive occupies one of its probe's
 * slots until it is over, and what the perf interface makes has as many slots as there are CPUs,
 * or ten; calls beyond that would not be seen at all. So returns are made as events in tracefs,
 * which take a number of slots.
 */
#include "agent/ebpf/bpf_tiers.h"

#include "agent/ebpf/bpf_iter.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/ebpf/bpf_sched.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "bpf/tailrace.skel.h"
#pragma GCC diagnostic pop

#define BPF_LOG (&(struct log_ctx){.component = "ebpf"})
#define BIT(n) (1u << (n))
#define TIERS (BIT(TIER_SOCK_LENGTH) | BIT(TIER_FEXIT) | BIT(TIER_KPROBE))
enum { RETURN_SLOTS = 4096, GROUPS = 32 }; /* slots: the most the kernel allows */

/* Programs that are needed, or that not every tier uses. Others are optional in all tiers. */
static const struct tier_program {
    const char *name;
    unsigned tiers;
    const char *function; /* what it sits on, when that need not exist */
    bool optional;
} programs[] = {
    {"tr_set_state", TIERS, NULL, false},
    {"tr_destroy_sock", TIERS, NULL, false},
    {"tr_exec", TIERS, NULL, false},
    {"tr_fork", TIERS, NULL, false},
    {"tr_exit", TIERS, NULL, false},
    {"tr_send_length", BIT(TIER_SOCK_LENGTH), NULL, false},
    {"tr_recv_length", BIT(TIER_SOCK_LENGTH), NULL, false},
    {"tr_fexit_send", BIT(TIER_FEXIT), NULL, false},
    {"tr_fexit_recv", BIT(TIER_FEXIT), NULL, false},
    {"tr_fexit_send6", BIT(TIER_FEXIT), "inet6_sendmsg", false},
    {"tr_fexit_recv6", BIT(TIER_FEXIT), "inet6_recvmsg", false},
    {"tr_fexit_page", BIT(TIER_FEXIT), "inet_sendpage", false},
    {"tr_kreturn_send", BIT(TIER_KPROBE), NULL, false},
    {"tr_kreturn_recv", BIT(TIER_KPROBE), NULL, false},
    {"tr_kreturn_send6", BIT(TIER_KPROBE), "inet6_sendmsg", false},
    {"tr_kreturn_recv6", BIT(TIER_KPROBE), "inet6_recvmsg", false},
    {"tr_kreturn_page", BIT(TIER_KPROBE), "inet_sendpage", false},
    {"tr_kprobe_send", BIT(TIER_KPROBE), NULL, false},
    {"tr_kprobe_recv", BIT(TIER_KPROBE), NULL, false},
    {"tr_kprobe_send6", BIT(TIER_KPROBE), "inet6_sendmsg", false},
    {"tr_kprobe_recv6", BIT(TIER_KPROBE), "inet6_recvmsg", false},
    {"tr_kprobe_page", BIT(TIER_KPROBE), "inet_sendpage", false},
    {"tr_files", TIERS, NULL, true},
    {"tr_alive", BIT(TIER_SOCK_LENGTH) | BIT(TIER_FEXIT), NULL, true}, /* kprobe has a table */
};

const char *tier_name(enum capture_tier t)
{
    static const char *const names[] = {"auto", "sock_length", "fexit", "kprobe", "syscall"};

    return names[t];
}

static const struct tier_program *find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(programs); i++)
        if (strcmp(programs[i].name, name) == 0)
            return &programs[i];
    return NULL;
}

/* Functions that a kernel may be without; asked once, of the symbols, which have modules' too. */
static bool function_exists(const char *name)
{
    static struct {
        const char *name;
        bool exists;
    } known[] = {{"inet6_sendmsg", false}, {"inet6_recvmsg", false}, {"inet_sendpage", false}};
    static bool is_read;
    char line[512], symbol[256];
    FILE *f = is_read ? NULL : fopen("/proc/kallsyms", "re");

    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, "%*s %*s %255s", symbol) != 1)
            continue;
        for (size_t i = 0; i < ARRAY_LEN(known); i++)
            known[i].exists |= strcmp(symbol, known[i].name) == 0;
    }
    if (f)
        fclose(f);
    is_read = true;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strcmp(name, known[i].name) == 0)
            return known[i].exists;
    return true;
}

static bool has_hook(const struct tier_program *p)
{
    return !p->function || function_exists(p->function);
}

bool tier_needs(enum capture_tier t, const char *program)
{
    const struct tier_program *p = find(program);

    return p && (p->tiers & BIT(t)) && !p->optional && has_hook(p);
}

bool tier_excludes(enum capture_tier t, const char *program)
{
    const struct tier_program *p = find(program);

    return p && (!(p->tiers & BIT(t)) || !has_hook(p));
}

enum capture_tier tier_of(const char *program)
{
    const struct tier_program *p = find(program);
    enum capture_tier t = TIER_FIRST;

    while (p && t < TIER_LAST && !(p->tiers & BIT(t)))
        t++;
    return t;
}

static bool is_iterator(const struct bpf_program *p)
{
    return strncmp(bpf_program__section_name(p), "iter", 4) == 0;
}

void tier_prepare(struct tailrace *skel, enum capture_tier t)
{
    struct bpf_program *p;

    skel->rodata->raw_sockets = t == TIER_KPROBE;
    if (t != TIER_KPROBE) {
        bpf_map__set_max_entries(skel->maps.conns_by_cookie, 1);
        bpf_map__set_max_entries(skel->maps.inet_calls, 1);
    }
    bpf_object__for_each_program(p, skel->obj)
    {
        const struct tier_program *own = find(bpf_program__name(p));

        if (own && tier_excludes(t, own->name))
            bpf_program__set_autoload(p, false);
        else if ((own && own->tiers == BIT(TIER_KPROBE)) || is_iterator(p))
            bpf_program__set_autoattach(p, false);
    }
}

/* ---- return probes ---- */

static const char *tracefs(void)
{
    static const char *const places[] = {"/sys/kernel/tracing", "/sys/kernel/debug/tracing"};
    char path[64];

    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        snprintf(path, sizeof(path), "%s/kprobe_events", places[i]);
        if (access(path, W_OK) == 0)
            return places[i];
    }
    return NULL;
}

__attribute__((format(printf, 1, 2))) static int order(const char *fmt, ...)
{
    char path[64], text[256];
    va_list ap;
    int fd, n, r;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    snprintf(path, sizeof(path), "%s/kprobe_events", tracefs());
    fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    r = write(fd, text, (size_t)n) == n ? 0 : -errno;
    close(fd);
    return r;
}

static int event_id(const char *name)
{
    char path[160];
    int id = -1;
    FILE *f;

    snprintf(path, sizeof(path), "%s/events/%s/id", tracefs(), name);
    f = fopen(path, "re");
    if (!f)
        return -errno;
    if (fscanf(f, "%d", &id) != 1)
        id = -EIO;
    fclose(f);
    return id;
}

static int open_event(const char *name)
{
    struct perf_event_attr a = {.type = PERF_TYPE_TRACEPOINT, .size = sizeof(a)};
    int id = event_id(name), fd;

    if (id < 0)
        return id;
    a.config = (unsigned)id;
    a.sample_period = 1;
    a.wakeup_events = 1;
    fd = (int)syscall(SYS_perf_event_open, &a, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/*
 * Makes the event under the first name that nobody uses and opens it. An event that an agent left
 * behind when it was killed is not armed; taking its name removes it.
 */
static int make_event(struct tier_event *ev, const char *function)
{
    int r = -ENOENT;

    for (unsigned group = 0; group < GROUPS; group++) {
        snprintf(ev->name, sizeof(ev->name), "tailrace_%u/%s", group, function);
        order("-:%s\n", ev->name); /* refused if somebody uses it, and if it is not there */
        r = order("r%d:%s %s\n", RETURN_SLOTS, ev->name, function);
        if (r == 0)
            r = open_event(ev->name);
        if (r >= 0)
            return r;
        if (r != -EEXIST && r != -ENOENT && r != -EBUSY)
            break;
        if (r == -ENOENT && group)
            break; /* no such function */
    }
    ev->name[0] = 0;
    return r;
}

static struct bpf_link *attach_return(struct bpf_program *p, struct tier_event *ev,
                                      const char *function)
{
    struct bpf_link *link;
    int fd, saved;

    if (!tracefs()) {
        link = bpf_program__attach_kprobe(p, true, function);
        if (link)
            log_warn(BPF_LOG, "no tracefs: of calls of %s that block, some may not be seen",
                     function);
        return link;
    }
    fd = make_event(ev, function);
    if (fd < 0) {
        errno = -fd;
        return NULL;
    }
    link = bpf_program__attach_perf_event(p, fd); /* which owns the descriptor from now on */
    if (!link) {
        saved = errno;
        close(fd);
        order("-:%s\n", ev->name);
        ev->name[0] = 0;
        errno = saved;
    }
    return link;
}

int tier_attach_program(struct tailrace *skel, struct bpf_program *p, struct tier_links *l)
{
    static const char entry[] = "kprobe/", leave[] = "kretprobe/";
    const char *section = bpf_program__section_name(p);
    struct bpf_link *link;

    ASSERT(l->n < TIER_LINKS);
    if (strncmp(section, leave, sizeof(leave) - 1) == 0)
        link = attach_return(p, &l->events[l->n], section + sizeof(leave) - 1);
    else if (strncmp(section, entry, sizeof(entry) - 1) == 0)
        link = bpf_program__attach_kprobe(p, false, section + sizeof(entry) - 1);
    else if (is_iterator(p))
        link = iter_attach(skel, p);
    else
        link = bpf_program__attach(p);
    if (!link)
        return -errno;
    l->links[l->n++] = link;
    return 0;
}

/* ---- the whole ---- */

int tier_attach(struct tailrace *skel, enum capture_tier t, struct tier_links *l)
{
    int r = tailrace__attach(skel);

    if (r || t != TIER_KPROBE)
        return r;
    /* The table has returns first: an entry without its return would wait in the kernel's table. */
    for (size_t i = 0; i < ARRAY_LEN(programs) && r == 0; i++) {
        struct bpf_program *p = bpf_object__find_program_by_name(skel->obj, programs[i].name);

        if (bpf_program__fd(p) >= 0 && programs[i].tiers == BIT(TIER_KPROBE))
            r = tier_attach_program(skel, p, l);
    }
    return r;
}

void tier_detach(struct tier_links *l)
{
    for (unsigned i = 0; i < l->n; i++) {
        bpf_link__destroy(l->links[i]);
        if (l->events[i].name[0])
            order("-:%s\n", l->events[i].name);
    }
    memset(l, 0, sizeof(*l));
}

static bool is_ours(const struct tier_links *l, const char *event)
{
    for (unsigned i = 0; i < l->n; i++) {
        const char *slash = strchr(l->events[i].name, '/');

        if (slash && strcmp(slash + 1, event) == 0)
            return true;
    }
    return false;
}

/* Returns that found no free slot. The file has no groups: another agent's may be counted here. */
static uint64_t missed_returns(const struct tier_links *l)
{
    char path[64], line[512], event[128];
    unsigned long long sum = 0, missed;
    FILE *f;

    if (!l->n)
        return 0;
    snprintf(path, sizeof(path), "%s/kprobe_profile", tracefs());
    f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "%127s %*u %llu", event, &missed) == 2 && is_ours(l, event))
            sum += missed;
    if (f)
        fclose(f);
    return sum;
}

uint64_t tier_missed(const struct tailrace *skel, const struct tier_links *l)
{
    uint64_t sum = missed_returns(l);
    struct bpf_program *p;

    bpf_object__for_each_program(p, skel->obj)
    {
        struct bpf_prog_info info = {0};
        uint32_t size = sizeof(info);

        if (bpf_program__fd(p) >= 0 &&
            bpf_obj_get_info_by_fd(bpf_program__fd(p), &info, &size) == 0)
            sum += info.recursion_misses;
    }
    return sum;
}
