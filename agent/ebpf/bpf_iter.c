/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/bpf_iter.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "bpf/wire.h"
#include "common/base/log.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "bpf/tailrace.skel.h"
#pragma GCC diagnostic pop

#define BPF_LOG (&(struct log_ctx){.component = "ebpf"})

struct bpf_link *iter_attach(struct tailrace *skel, const struct bpf_program *p)
{
    union bpf_iter_link_info info = {.map.map_fd = (uint32_t)bpf_map__fd(skel->maps.conns)};
    LIBBPF_OPTS(bpf_iter_attach_opts, o, .link_info = &info, .link_info_len = sizeof(info));

    return bpf_program__attach_iter(p, p == skel->progs.tr_alive ? &o : NULL);
}

/* Runs the iterator to its end; each(arg, item) for what it wrote, in items of that size. */
static int run(struct tailrace *skel, const struct bpf_program *p, size_t size,
               void (*each)(void *arg, const void *item), void *arg)
{
    struct bpf_link *link = NULL;
    int fd = -1, r = -ENOTSUP;
    char items[4096];
    size_t have = 0;
    ssize_t n;

    if (bpf_program__fd(p) < 0)
        return r; /* left out */
    link = iter_attach(skel, p);
    fd = link ? bpf_iter_create(bpf_link__fd(link)) : -1;
    r = fd < 0 ? -errno : 0;
    while (r == 0) {
        size_t at = 0;

        n = read(fd, items + have, sizeof(items) - have);
        if (n < 0 && errno == EAGAIN)
            continue; /* it stopped for the sake of others */
        if (n <= 0) {
            r = n < 0 ? -errno : 0;
            break;
        }
        have += (size_t)n;
        for (; have - at >= size; at += size)
            each(arg, items + at);
        memmove(items, items + at, have - at);
        have -= at;
    }
    if (fd >= 0)
        close(fd);
    bpf_link__destroy(link);
    return r;
}

int iter_run(struct tailrace *skel, const struct bpf_program *p)
{
    return run(skel, p, 1, NULL, NULL);
}

struct on_holder {
    void (*fn)(void *arg, uint32_t tgid, uint16_t port);
    void *arg;
};

static void each_holder(void *arg, const void *item)
{
    const struct on_holder *o = arg;
    struct wire_holder h;

    memcpy(&h, item, sizeof(h));
    o->fn(o->arg, h.tgid, h.port);
}

void iter_files(struct tailrace *skel, void (*fn)(void *arg, uint32_t tgid, uint16_t port),
                void *arg)
{
    struct on_holder o = {fn, arg};
    int r = run(skel, skel->progs.tr_files, sizeof(struct wire_holder), each_holder, &o);

    if (r)
        log_warn(BPF_LOG, "listeners and connections that are open already are not known: %s",
                 strerror(-r));
}

struct on_cookie {
    void (*fn)(void *arg, uint64_t cookie);
    void *arg;
};

static void each_cookie(void *arg, const void *item)
{
    const struct on_cookie *o = arg;
    uint64_t cookie;

    memcpy(&cookie, item, sizeof(cookie));
    o->fn(o->arg, cookie);
}

int iter_alive(struct tailrace *skel, enum capture_tier t, void (*fn)(void *arg, uint64_t cookie),
               void *arg)
{
    struct on_cookie o = {fn, arg};
    int fd = bpf_map__fd(skel->maps.conns_by_cookie);
    uint64_t cookie, *before = NULL;

    if (t != TIER_KPROBE)
        return run(skel, skel->progs.tr_alive, sizeof(uint64_t), each_cookie, &o);
    while (bpf_map_get_next_key(fd, before, &cookie) == 0) {
        fn(arg, cookie);
        before = &cookie;
    }
    return errno == ENOENT ? 0 : -errno;
}
