/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/bpf_rings.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* Of one ring in one drain: an 8 MB ring of the smallest records has about as many. */
enum { RECORDS_MAX = 65536 };

static int add(const struct rings *r, struct ring *ring, int fd)
{
    struct epoll_event e = {.events = EPOLLIN};
    struct bpf_map_info info = {0};
    uint32_t size = sizeof(info);
    int res = bpf_obj_get_info_by_fd(fd, &info, &size);

    if (res == 0)
        res = ring_open(ring, fd, info.max_entries, r->fn, r->arg);
    if (res == 0 && epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &e))
        res = -errno;
    return res;
}

int rings_open(struct rings *r, const struct loaded *l, int control, ring_fn *fn, void *arg)
{
    int res;

    memset(r, 0, sizeof(*r));
    r->fn = fn;
    r->arg = arg;
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (r->epoll < 0)
        return -errno;
    res = add(r, &r->control, control);
    for (; r->n < l->n_rings && res == 0; r->n++)
        res = add(r, &r->data[r->n], l->ring_fds[r->n]);
    return res;
}

void rings_close(struct rings *r)
{
    for (unsigned i = 0; i < r->n; i++)
        ring_close(&r->data[i]);
    ring_close(&r->control);
    r->n = 0;
    if (r->epoll > 0)
        close(r->epoll);
    r->epoll = 0;
}

size_t rings_consume_control(struct rings *r)
{
    return ring_consume(&r->control, RECORDS_MAX);
}

bool rings_consume(struct rings *r)
{
    bool more = false;

    for (unsigned i = 0; i < r->n; i++) {
        more |= ring_consume(&r->data[(r->first + i) % r->n], RECORDS_MAX) == RECORDS_MAX;
    }
    r->first = r->n ? (r->first + 1) % r->n : 0;
    return more;
}
