/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probing by doing: every program is loaded and attached alone, in an object of its own. Kernel
 * versions and build options decide nothing.
 */
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/ebpf/bpf_tiers.h"
#include "agent/ebpf/bpf_tls.h"
#include "agent/ebpf/doctor.h"
#include "common/base/mem.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "bpf/tailrace.skel.h"
#pragma GCC diagnostic pop

/* What is lost without the hook. */
static const struct {
    const char *section, *gives;
} hooks[] = {
    {"tp_btf/sock_send_length", "bytes that programs send (tier sock_length)"},
    {"tp_btf/sock_recv_length", "bytes that programs receive (tier sock_length)"},
    {"tp_btf/inet_sock_set_state", "listeners, connects, roles"},
    {"tp_btf/tcp_destroy_sock", "ends of connections"},
    {"tp_btf/sched_process_exec", "names of short-lived processes"},
    {"tp_btf/sched_process_fork", "children of observed processes"},
    {"tp_btf/sched_process_exit", "ends of processes"},
    {"tp_btf/tcp_retransmit_skb", "TCP retransmits"},
    {"fexit/inet_sendmsg", "bytes that programs send (tier fexit)"},
    {"fexit/inet6_sendmsg", "the same over IPv6"},
    {"fexit/inet_recvmsg", "bytes that programs receive (tier fexit)"},
    {"fexit/inet6_recvmsg", "the same over IPv6"},
    {"fexit/inet_sendpage", "lengths of sendfile before 6.5 (tier fexit)"},
    {"kprobe/inet_sendmsg", "bytes that programs send (tier kprobe): calls"},
    {"kprobe/inet6_sendmsg", "the same over IPv6"},
    {"kprobe/inet_recvmsg", "bytes that programs receive (tier kprobe): calls"},
    {"kprobe/inet6_recvmsg", "the same over IPv6"},
    {"kprobe/inet_sendpage", "lengths of sendfile before 6.5 (tier kprobe): calls"},
    {"kretprobe/inet_sendmsg", "bytes that programs send (tier kprobe): returns"},
    {"kretprobe/inet6_sendmsg", "the same over IPv6"},
    {"kretprobe/inet_recvmsg", "bytes that programs receive (tier kprobe): returns"},
    {"kretprobe/inet6_recvmsg", "the same over IPv6"},
    {"kretprobe/inet_sendpage", "lengths of sendfile before 6.5 (tier kprobe): returns"},
    {"tp_btf/sched_switch", "run-queue latency: ends of waits, and those who are preempted"},
    {"tp_btf/sched_wakeup", "run-queue latency: beginnings of waits"},
    {"tp_btf/sched_wakeup_new", "the same of new tasks"},
    {"tp_btf/task_newtask", "run-queue latency: storage of new tasks"},
    {"iter/task", "run-queue latency: tasks that are there at start"},
    {"iter/task_file", "listeners and connections that are open at start"},
    {"iter/bpf_sk_storage_map", "ends of connections whose records were lost"},
    {"uprobe", "plaintext of OpenSSL: calls"},
    {"uretprobe", "plaintext of OpenSSL: their ends"},
    {"tp_btf/vm_unmapped_area", "TLS libraries that are loaded later, at once"},
};

static int silent(enum libbpf_print_level level, const char *fmt, va_list ap)
{
    (void)level;
    (void)fmt;
    (void)ap;
    return 0;
}

static const char *gives(const char *name, const char *section)
{
    if (strcmp(name, "tr_sched_exit") == 0)
        return "run-queue latency: how much storage there is";
    for (size_t i = 0; i < ARRAY_LEN(hooks); i++)
        if (strcmp(section, hooks[i].section) == 0)
            return hooks[i].gives;
    return "";
}

/* Nothing will be in them, and memory is taken at once: a try shall cost little. */
static void make_maps_small(struct tailrace *skel)
{
    struct bpf_map *m;

    bpf_object__for_each_map(m, skel->obj)
    {
        enum bpf_map_type type = bpf_map__type(m);

        if (type == BPF_MAP_TYPE_HASH || type == BPF_MAP_TYPE_LRU_HASH)
            bpf_map__set_max_entries(m, MIN(bpf_map__max_entries(m), 64u));
        else if (type == BPF_MAP_TYPE_RINGBUF)
            bpf_map__set_max_entries(m, 1 << 16);
    }
}

/* Uprobes attach to this program itself. */
int doctor_try(const char *name, const char **doing)
{
    struct tailrace *skel = tailrace__open();
    struct bpf_program *p;
    struct bpf_link *link = NULL;
    struct tier_links links = {0};
    int r = skel ? 0 : -errno;
    *doing = "open";
    if (r)
        return r;
    tier_prepare(skel, tier_of(name));
    make_maps_small(skel);
    bpf_object__for_each_program(p, skel->obj)
        bpf_program__set_autoload(p, strcmp(bpf_program__name(p), name) == 0);
    *doing = "load";
    r = tailrace__load(skel);
    if (r == 0) {
        p = bpf_object__find_program_by_name(skel->obj, name);
        bool is_return = strcmp(bpf_program__section_name(p), "uretprobe") == 0;
        *doing = "attach";
        if (is_return || strcmp(bpf_program__section_name(p), "uprobe") == 0) {
            /* The entry of a function of ours, as an offset into the file. */
            extern const char __executable_start;
            size_t off = (size_t)((const char *)(uintptr_t)doctor_command - &__executable_start);
            link = bpf_program__attach_uprobe(p, is_return, getpid(), "/proc/self/exe", off);
            r = link ? 0 : -errno;
        } else {
            r = tier_attach_program(skel, p, &links);
        }
    }
    bpf_link__destroy(link);
    tier_detach(&links);
    tailrace__destroy(skel);
    return r;
}

static void line(const char *hook, const char *program, bool works, const char *gives_or_not)
{
    printf("%-28s %-20s %-8s %s\n", hook, program, works ? "yes" : "no", gives_or_not);
}

/* What TLS probes need that is no program of its own; 0 or -errno of loading them. */
static int look_at_tls(struct tls_probes *probes)
{
    struct tailrace *skel = tailrace__open();
    struct bpf_program *p;
    bool works;
    int r = skel ? 0 : -errno;

    if (r)
        return r;
    works = probes->has_multi = tls_has_multi();
    line("uprobe.multi", "tr_ssl_enter", works,
         works ? "TLS probes in selected processes alone"
               : "TLS probes are in every process with the library, and 16 at most");
    tier_prepare(skel, TIER_FIRST);
    tls_prepare(skel);
    bpf_map__set_max_entries(skel->maps.control_ring, 1 << 16);
    bpf_object__for_each_program(p, skel->obj) bpf_program__set_autoload(
        p, p == skel->progs.tr_ssl_enter || p == skel->progs.tr_ssl_leave);
    r = tailrace__load(skel);
    if (r == 0) {
        works = tls_returns_work(skel);
        probes->returns = works ? TLS_RETURNS_PROBE : TLS_RETURNS_BEHIND;
        line("uretprobe-under-seccomp", "tr_ssl_leave", works,
             works ? "ends of TLS calls by return probes"
                   : "ends of TLS calls are seen behind the call, where that can be proven");
    }
    tailrace__destroy(skel);
    return r;
}

/* Where probes would go in this system's own TLS library. */
static void look_at_libraries(const struct tls_probes *p)
{
    glob_t g;

    if (glob("/usr/lib/*/libssl.so.*", 0, NULL, &g) == 0) {
        for (size_t k = 0; k < g.gl_pathc; k++) {
            int fd = open(g.gl_pathv[k], O_RDONLY | O_CLOEXEC);
            struct tls_sites s;
            struct buf b;

            buf_init(&b);
            if (fd >= 0 && tls_sites_find(&s, fd) == 0) {
                tls_describe(p, &s, &b);
                printf("%s: %s\n", g.gl_pathv[k], buf_cstr(&b));
            }
            if (fd >= 0)
                close(fd);
            buf_fini(&b);
        }
    }
    globfree(&g);
}

/* Bits of the tiers that cannot do without the program. */
static unsigned needed_by(const char *program)
{
    unsigned tiers = 0;

    for (enum capture_tier t = TIER_FIRST; t <= TIER_LAST; t++)
        if (tier_needs(t, program))
            tiers |= 1u << t;
    return tiers;
}

/* A line of the table. Bits of the tiers that are lost. */
static unsigned look_at(const struct bpf_program *p)
{
    const char *name = bpf_program__name(p), *section = bpf_program__section_name(p), *doing;
    unsigned needed = needed_by(name);
    int r;

    if (tier_excludes(tier_of(name), name)) {
        printf("%-28s %-20s %-8s %s\n", section, name, "-",
               "not needed: this kernel has no such function");
        return 0;
    }
    r = doctor_try(name, &doing);
    if (r == 0) {
        printf("%-28s %-20s %-8s %s\n", section, name, "yes", gives(name, section));
        return 0;
    }
    printf("%-28s %-20s %-8s %s: %s", section, name, "no", doing, strerror(-r));
    if (needed & (needed - 1))
        printf(" (needed)\n");
    else
        printf("%s%s\n", needed ? ": no tier " : "", needed ? tier_name(tier_of(name)) : "");
    return needed;
}

int doctor_command(int argc, char **argv)
{
    struct tailrace *skel;
    struct bpf_program *p;
    struct tls_probes probes = {.returns = TLS_RETURNS_BEHIND};
    unsigned lost = 0;
    enum capture_tier t = TIER_FIRST;
    (void)argc;
    (void)argv;
    libbpf_set_print(silent);
    skel = tailrace__open();
    if (!skel) {
        fprintf(stderr, "doctor: BPF object: %s\n", strerror(errno));
        return 1;
    }
    printf("%-28s %-20s %-8s %s\n", "hook", "program", "works", "gives, or why not");
    bpf_object__for_each_program(p, skel->obj) lost |= look_at(p);
    tailrace__destroy(skel);
    if (look_at_tls(&probes))
        line("uretprobe-under-seccomp", "tr_ssl_leave", false, "its program does not load");
    look_at_libraries(&probes);
    while (t <= TIER_LAST && (lost & 1u << t))
        t++;
    printf("capture tier: %s\n",
           t > TIER_LAST ? "none: capturing does not work here" : tier_name(t));
    return t > TIER_LAST;
}
