/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probes in TLS libraries. Two links make an attachment: calls, and their ends. In one process
 * alone where the kernel can, so that others with the same library pay nothing: a breakpoint is in
 * the memory of the processes that it is for.
 */
#include "agent/ebpf/bpf_tls.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bpf/wire.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "bpf/tailrace.skel.h"
#pragma GCC diagnostic pop

#define BPF_LOG (&(struct log_ctx){.component = "ebpf"})
#define UPROBE_MULTI ((enum bpf_attach_type)48) /* BPF_TRACE_UPROBE_MULTI, Linux 6.6 */
#define TEST_KEY 0x7a11aceull
/* Detaching one takes a tenth of a second, and the process that does it cannot end before that. */
enum { SINGLE_MAX = 16, MULTI_RETURN = 1, POINTS = TLS_SITES + TLS_BEHIND };

struct tls_links {
    struct bpf_link *links[SINGLE_MAX];
    int fds[2];
    unsigned n_links, n_fds;
};

/* What goes into one link, or into one each. */
struct points {
    unsigned long offsets[POINTS];
    __u64 cookies[POINTS];
    unsigned n;
};

static int link_multi(int prog, const char *path, const struct points *p, bool is_return,
                      uint32_t tgid)
{
#if LIBBPF_MAJOR_VERSION > 1 || LIBBPF_MINOR_VERSION >= 3
    LIBBPF_OPTS(bpf_link_create_opts, o, .uprobe_multi.path = path,
                .uprobe_multi.offsets = p->offsets, .uprobe_multi.cookies = p->cookies,
                .uprobe_multi.cnt = p->n, .uprobe_multi.flags = is_return ? MULTI_RETURN : 0,
                .uprobe_multi.pid = tgid);

    return bpf_link_create(prog, 0, UPROBE_MULTI, &o);
#else
    return -ENOTSUP;
#endif
}

/* Never called but by a child of ours. */
__attribute__((noinline)) static long probed(uint64_t key)
{
    __asm__ volatile("" ::"r"(key) : "memory");
    return 0;
}

/* The place of that function in the file of this program; 0: not found. */
static uint64_t probed_offset(int exe)
{
    extern const char __executable_start;
    struct elf e;

    if (exe < 0 || elf_read(&e, exe))
        return 0;
    return elf_offset(&e, (uint64_t)((const char *)(uintptr_t)probed - &__executable_start) +
                              (e.n_segments ? e.segments[0].address : 0));
}

static void path_of(int fd, char *out, size_t size)
{
    snprintf(out, size, "/proc/self/fd/%d", fd);
}

bool tls_has_multi(void)
{
    static int known = -1;
    /* r0 = 0; exit */
    const struct bpf_insn nothing[] = {{.code = 0xb7}, {.code = 0x95}};
    LIBBPF_OPTS(bpf_prog_load_opts, o, .expected_attach_type = UPROBE_MULTI);
    struct points p = {.n = 1};
    char path[64];
    int exe, prog, link = -1;

    if (known >= 0)
        return known;
    exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    p.offsets[0] = probed_offset(exe);
    path_of(exe, path, sizeof(path));
    prog =
        bpf_prog_load(BPF_PROG_TYPE_KPROBE, "tr_nothing", "GPL", nothing, ARRAY_LEN(nothing), &o);
    if (prog >= 0 && p.offsets[0])
        link = link_multi(prog, path, &p, false, (uint32_t)getpid());
    known = link >= 0;
    if (link >= 0)
        close(link);
    if (prog >= 0)
        close(prog);
    if (exe >= 0)
        close(exe);
    return known;
}

void tls_prepare(struct tailrace *skel)
{
    skel->rodata->has_tls = true;
    if (!tls_has_multi())
        return;
    bpf_program__set_expected_attach_type(skel->progs.tr_ssl_enter, UPROBE_MULTI);
    bpf_program__set_expected_attach_type(skel->progs.tr_ssl_leave, UPROBE_MULTI);
}

/* ---- attaching ---- */

static int attach_single(struct tls_links *l, struct bpf_program *prog, const char *path,
                         const struct points *p, bool is_return, uint32_t tgid)
{
    for (unsigned i = 0; i < p->n; i++) {
        LIBBPF_OPTS(bpf_uprobe_opts, o, .bpf_cookie = p->cookies[i], .retprobe = is_return);
        struct bpf_link *link;

        if (l->n_links == SINGLE_MAX)
            return -E2BIG;
        link =
            bpf_program__attach_uprobe_opts(prog, tgid ? (int)tgid : -1, path, p->offsets[i], &o);
        if (!link)
            return -errno;
        l->links[l->n_links++] = link;
    }
    return 0;
}

static int attach_points(struct tls_links *l, struct bpf_program *prog, const char *path,
                         const struct points *p, bool is_return, uint32_t tgid)
{
    int fd;

    if (!p->n)
        return 0;
    if (bpf_program__expected_attach_type(prog) != UPROBE_MULTI)
        return attach_single(l, prog, path, p, is_return, tgid);
    fd = link_multi(bpf_program__fd(prog), path, p, is_return, tgid);
    if (fd < 0)
        return fd;
    l->fds[l->n_fds++] = fd;
    return 0;
}

static void add(struct points *p, const struct tls_site *s)
{
    p->offsets[p->n] = s->offset;
    p->cookies[p->n++] = s->what;
}

/* Without many at once, the handshake and sendfile are spared: objects are told apart by their end
 * then, and a first request may be missed. */
static bool is_used(const struct tls_probes *p, const struct tls_site *s)
{
    uint32_t call = s->what & WIRE_SSL_CALL;
    bool is_essential = call == WIRE_SSL_SEND || call == WIRE_SSL_RECV || call == WIRE_SSL_FREE;

    return is_essential || (p->has_multi && p->returns == TLS_RETURNS_PROBE);
}

void tls_describe(const struct tls_probes *p, const struct tls_sites *s, struct buf *out)
{
    for (unsigned i = 0; i < s->n; i++)
        if (is_used(p, &s->sites[i]))
            tls_site_describe(&s->sites[i], out);
}

static void choose(const struct tls_probes *p, const struct tls_sites *s, struct points *enter,
                   struct points *leave)
{
    for (unsigned i = 0; i < s->n; i++) {
        if (!is_used(p, &s->sites[i]))
            continue;
        add(enter, &s->sites[i]);
        if (p->returns == TLS_RETURNS_PROBE && s->sites[i].has_return)
            add(leave, &s->sites[i]);
    }
    for (unsigned i = 0; p->returns == TLS_RETURNS_BEHIND && i < s->n_behind; i++)
        add(leave, &s->behind[i]);
}

struct tls_links *tls_attach(struct tls_probes *p, const struct tls_sites *s, int fd, uint32_t tgid)
{
    struct points enter = {.n = 0}, leave = {.n = 0};
    struct tls_links *l;
    char path[64];
    int r = -ENOTSUP;

    choose(p, s, &enter, &leave);
    if (p->returns == TLS_RETURNS_BEHIND && !s->can_do_without_returns) {
        errno = ENOTSUP;
        return NULL;
    }
    if (!p->has_multi && p->n_single + enter.n + leave.n > SINGLE_MAX) {
        errno = EMFILE;
        return NULL;
    }
    if (!tls_sites_hold(s, fd)) {
        errno = ESTALE;
        return NULL;
    }
    path_of(fd, path, sizeof(path));
    l = xcalloc(1, sizeof(*l));
    /* The ends first: a call whose end is not seen would be taken for one that goes on. */
    r = attach_points(l, p->skel->progs.tr_ssl_leave, path, &leave, p->returns == TLS_RETURNS_PROBE,
                      tgid);
    if (r == 0)
        r = attach_points(l, p->skel->progs.tr_ssl_enter, path, &enter, false, tgid);
    p->n_single += l->n_links;
    if (r == 0)
        return l;
    tls_detach(p, l);
    errno = -r;
    return NULL;
}

void tls_detach(struct tls_probes *p, struct tls_links *l)
{
    if (!l)
        return;
    p->n_single -= l->n_links;
    while (l->n_links)
        bpf_link__destroy(l->links[--l->n_links]);
    while (l->n_fds)
        closer_give(p->closer, l->fds[--l->n_fds]);
    free(l);
}

/* ---- the self-test ---- */

/* Strict seccomp leaves read, write, sigreturn and the end of the thread. */
static void child(const int go[2])
{
    volatile uint64_t key = TEST_KEY; /* so that it is an argument to the last */
    char c;

    close(go[1]);
    if (read(go[0], &c, 1) == 1 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0)
        syscall(SYS_exit, (int)probed(key));
    syscall(SYS_exit, 1);
}

static struct tls_links *attach_to_child(struct tls_probes *p, uint32_t tgid)
{
    struct points at = {.n = 1, .cookies = {WIRE_SSL_TEST}};
    struct tls_links *l = xcalloc(1, sizeof(*l));
    int exe = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), r = -ENOENT;
    char path[64];

    at.offsets[0] = probed_offset(exe);
    path_of(exe, path, sizeof(path));
    if (at.offsets[0])
        r = attach_points(l, p->skel->progs.tr_ssl_leave, path, &at, true, tgid);
    if (r == 0)
        r = attach_points(l, p->skel->progs.tr_ssl_enter, path, &at, false, tgid);
    p->n_single += l->n_links;
    if (exe >= 0)
        close(exe);
    if (r == 0)
        return l;
    tls_detach(p, l);
    return NULL;
}

bool tls_returns_work(struct tailrace *skel)
{
    struct tls_probes p = {.skel = skel};
    struct wire_ssl_key key = {.ssl = TEST_KEY};
    struct tls_links *l = NULL;
    int go[2], status = -1;
    bool works = false;
    pid_t pid;

    if (pipe2(go, O_CLOEXEC))
        return false;
    closer_new(&p.closer);
    pid = fork();
    if (pid == 0)
        child(go);
    if (pid > 0)
        l = attach_to_child(&p, (uint32_t)pid);
    if (l && write(go[1], "", 1) != 1)
        log_warn(BPF_LOG, "the test of return probes could not be begun");
    close(go[0]);
    close(go[1]); /* a child that was not told to go on ends */
    if (pid > 0 && waitpid(pid, &status, 0) == pid) {
        key.tgid = (uint32_t)pid;
        /* It lives, and what it did was seen from call to end. */
        works = l && WIFEXITED(status) && WEXITSTATUS(status) == 0 &&
                bpf_map__delete_elem(skel->maps.ssl_states, &key, sizeof(key), 0) == 0;
    }
    tls_detach(&p, l);
    closer_free(&p.closer);
    return works;
}

void tls_probes_init(struct tls_probes *p, struct tailrace *skel, enum tls_returns wanted)
{
    *p = (struct tls_probes){.skel = skel, .returns = wanted};
    closer_new(&p->closer);
    p->has_multi = bpf_program__expected_attach_type(skel->progs.tr_ssl_enter) == UPROBE_MULTI;
    if (!p->has_multi)
        log_info(BPF_LOG,
                 "TLS: no uprobe.multi: probes are in every process that maps a library, "
                 "at most %d of them",
                 SINGLE_MAX);
    if (wanted != TLS_RETURNS_AUTO)
        return;
    p->returns = tls_returns_work(skel) ? TLS_RETURNS_PROBE : TLS_RETURNS_BEHIND;
    if (p->returns == TLS_RETURNS_BEHIND)
        log_warn(
            BPF_LOG,
            "TLS: a process under strict seccomp does not outlive a return probe here: ends of "
            "calls are seen behind the call, in libraries where that place can be proven; "
            "others are not observed");
}

void tls_probes_fini(struct tls_probes *p)
{
    closer_free(&p->closer);
}
