/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/bpf_rings.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "bpf/tailrace.skel.h"
#pragma GCC diagnostic pop

/* Of one ring in one drain: an 8 MB ring of the smallest records has about as many. */
enum { RECORDS_MAX = 65536 };

/* libbpf stops after a record for which this is negative; that one counts as read. */
static int on_sample(void *arg, void *data, size_t size)
{
    struct rings *r = arg;

    r->fn(r->arg, data, size);
    return --r->left ? 0 : -EAGAIN;
}

int rings_watch(struct rings *r, int fd)
{
    struct epoll_event e = {.events = EPOLLIN};

    return epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &e) ? -errno : 0;
}

static int add(struct rings *r, int fd)
{
    r->reader[r->n] = ring_buffer__new(fd, on_sample, r, NULL);
    if (!r->reader[r->n])
        return -errno;
    r->n++;
    return rings_watch(r, fd);
}

int rings_open(struct rings *r, const struct loaded *l,
               int (*fn)(void *arg, void *data, size_t size), void *arg)
{
    int res = 0;

    memset(r, 0, sizeof(*r));
    r->fn = fn;
    r->arg = arg;
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (r->epoll < 0)
        return -errno;
    for (unsigned i = 0; i < l->n_rings && res == 0; i++)
        res = add(r, l->ring_fds[i]);
    return res;
}

void rings_close(struct rings *r)
{
    for (unsigned i = 0; i < r->n; i++)
        ring_buffer__free(r->reader[i]);
    r->n = 0;
    if (r->epoll > 0)
        close(r->epoll);
    r->epoll = 0;
}

bool rings_consume(struct rings *r)
{
    bool more = false;

    for (unsigned i = 0; i < r->n; i++) {
        r->left = RECORDS_MAX;
        ring_buffer__consume(r->reader[(r->first + i) % r->n]);
        more |= r->left == 0;
    }
    r->first = r->n ? (r->first + 1) % r->n : 0;
    return more;
}
