/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probing by doing: every program is loaded and attached alone, in an object of its own. Kernel
 * versions and build options decide nothing.
 */
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/ebpf/doctor.h"
#include "common/base/mem.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "bpf/tailrace.skel.h"
#pragma GCC diagnostic pop

/* What is lost without the hook. Those that are needed make capturing possible at all. */
static const struct {
    const char *section, *gives;
    bool needed;
} hooks[] = {
    {"tp_btf/sock_send_length", "bytes that programs send (tier sock_length)", true},
    {"tp_btf/sock_recv_length", "bytes that programs receive (tier sock_length)", true},
    {"tp_btf/inet_sock_set_state", "listeners, connects, roles", true},
    {"tp_btf/tcp_destroy_sock", "ends of connections", true},
    {"tp_btf/sched_process_exec", "names of short-lived processes", true},
    {"tp_btf/sched_process_fork", "children of observed processes", true},
    {"tp_btf/sched_process_exit", "ends of processes", true},
    {"tp_btf/tcp_retransmit_skb", "TCP retransmits", false},
    {"uprobe", "plaintext of OpenSSL: calls", false},
    {"uretprobe", "plaintext of OpenSSL: returns", false},
};

static int silent(enum libbpf_print_level level, const char *fmt, va_list ap)
{
    (void)level;
    (void)fmt;
    (void)ap;
    return 0;
}

static const char *gives(const char *section, bool *needed)
{
    *needed = false;
    for (size_t i = 0; i < ARRAY_LEN(hooks); i++) {
        if (strcmp(section, hooks[i].section) == 0) {
            *needed = hooks[i].needed;
            return hooks[i].gives;
        }
    }
    return "";
}

/* 0, or -errno of loading or attaching; *doing tells which. Uprobes attach to this program itself.
 */
static int try_program(const char *name, const char **doing)
{
    struct tailrace *skel = tailrace__open();
    struct bpf_program *p;
    struct bpf_link *link = NULL;
    int r = skel ? 0 : -errno;
    *doing = "open";
    if (r)
        return r;
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
        } else {
            link = bpf_program__attach(p);
        }
        r = link ? 0 : -errno;
    }
    bpf_link__destroy(link);
    tailrace__destroy(skel);
    return r;
}

int doctor_command(int argc, char **argv)
{
    struct tailrace *skel;
    struct bpf_program *p;
    int missing = 0;
    (void)argc;
    (void)argv;
    libbpf_set_print(silent);
    skel = tailrace__open();
    if (!skel) {
        fprintf(stderr, "doctor: BPF object: %s\n", strerror(errno));
        return 1;
    }
    printf("%-28s %-20s %-8s %s\n", "hook", "program", "works", "gives, or why not");
    bpf_object__for_each_program(p, skel->obj)
    {
        const char *doing, *section = bpf_program__section_name(p);
        bool needed;
        const char *what = gives(section, &needed);
        int r = try_program(bpf_program__name(p), &doing);
        missing += r && needed;
        if (r)
            printf("%-28s %-20s %-8s %s: %s%s\n", section, bpf_program__name(p), "no", doing,
                   strerror(-r), needed ? " (needed)" : "");
        else
            printf("%-28s %-20s %-8s %s\n", section, bpf_program__name(p), "yes", what);
    }
    tailrace__destroy(skel);
    printf("capture tier: %s\n", missing ? "none: capturing does not work here" : "sock_length");
    return missing ? 1 : 0;
}
