/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/bpf_verdicts.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/wire.h"
#include "common/base/mem.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#include "bpf/tailrace.skel.h"
#pragma GCC diagnostic pop

static const uint32_t modes[] = {
    [CAPTURE_UNDECIDED] = WIRE_UNDECIDED,
    [CAPTURE_BYTES] = WIRE_BYTES,
    [CAPTURE_LENGTHS] = WIRE_LENGTHS,
    [CAPTURE_NOTHING] = WIRE_NOTHING,
};

void verdicts_init(struct verdicts *w, struct tailrace *skel)
{
    memset(w, 0, sizeof(*w));
    w->skel = skel;
}

void verdicts_fini(struct verdicts *w)
{
    free(w->keys);
    free(w->values);
    free(w->endpoint_keys);
    free(w->endpoint_values);
    memset(w, 0, sizeof(*w));
}

static void grow(struct verdicts *w, size_t n)
{
    if (n <= w->cap)
        return;
    w->keys = xrealloc(w->keys, n * sizeof(uint64_t));
    w->values = xrealloc(w->values, n * sizeof(struct wire_verdict));
    w->endpoint_keys = xrealloc(w->endpoint_keys, n * sizeof(struct wire_endpoint));
    w->endpoint_values = xrealloc(w->endpoint_values, n * sizeof(struct wire_verdict));
    w->cap = n;
}

static struct wire_endpoint endpoint_of(const struct capture_verdict *v)
{
    struct wire_endpoint k = {.netns = v->netns,
                              .port = v->server.port,
                              .role = v->role == ROLE_SERVER ? WIRE_ROLE_SERVER : WIRE_ROLE_CLIENT,
                              .family = v->family};

    if (v->role == ROLE_CLIENT)
        memcpy(k.peer, v->server.address, sizeof(k.peer));
    return k;
}

/* A full table or an old kernel costs bytes that nobody needs, nothing else. */
static void write_batch(const struct bpf_map *m, const void *keys, const void *values, size_t n)
{
    size_t key_size = bpf_map__key_size(m), value_size = bpf_map__value_size(m);
    uint32_t done = (uint32_t)n;

    if (n == 0)
        return;
    if (bpf_map_update_batch(bpf_map__fd(m), keys, values, &done, NULL) == 0)
        return;
    for (size_t i = done < n ? done : 0; i < n; i++)
        bpf_map_update_elem(bpf_map__fd(m), (const char *)keys + i * key_size,
                            (const char *)values + i * value_size, BPF_ANY);
}

void verdicts_write(struct verdicts *w, const struct capture_verdict *v, size_t n)
{
    size_t n_endpoints = 0;

    if (n == 0)
        return;
    grow(w, n);
    for (size_t i = 0; i < n; i++) {
        struct wire_verdict x = {.mode = modes[v[i].mode],
                                 .layer =
                                     v[i].layer == LAYER_TLS ? WIRE_LAYER_TLS : WIRE_LAYER_SOCKET,
                                 .head = {v[i].head[DIR_SEND], v[i].head[DIR_RECEIVE]},
                                 .tail = {v[i].tail[DIR_SEND], v[i].tail[DIR_RECEIVE]},
                                 .answer_head = v[i].answer_head,
                                 .answer_length = v[i].answer_length};

        ((uint64_t *)w->keys)[i] = v[i].cookie;
        ((struct wire_verdict *)w->values)[i] = x;
        if (v[i].role == ROLE_UNKNOWN)
            continue;
        ((struct wire_endpoint *)w->endpoint_keys)[n_endpoints] = endpoint_of(&v[i]);
        ((struct wire_verdict *)w->endpoint_values)[n_endpoints++] = x;
    }
    write_batch(w->skel->maps.verdicts, w->keys, w->values, n);
    write_batch(w->skel->maps.endpoints, w->endpoint_keys, w->endpoint_values, n_endpoints);
    /* Behind them: who sees it finds them. */
    __atomic_add_fetch(&w->skel->bss->verdicts_written, 1, __ATOMIC_RELEASE);
}
