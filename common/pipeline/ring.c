/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Collector's hash ring, as its load_balancing exporter builds it from 0.157 on.
 *
 * 131071 positions, 200 virtual nodes an endpoint. Virtual node i of an endpoint hashes to
 * CRC32-IEEE(endpoint bytes, i as 4 bytes little-endian); its position is that modulo 131071. All
 * virtual nodes are ordered by (position, hash, endpoint) and then placed in this order: a taken
 * position is passed on to the next one, up to nine times; whoever finds none within that is left
 * out. A key belongs to the first virtual node at or after CRC32-IEEE(key) modulo 131071, round the
 * end.
 *
 * Verified: the unit test compares whole rings and 20,000 owners each with values that the
 * Collector's own code (v0.158.0) gave for the same endpoints, 300 endpoints with many collisions
 * among them. Earlier Collectors (36000 positions, 100 virtual nodes) place differently.
 *
 * A list that names an endpoint twice gives it twice the virtual nodes there, and here.
 */
#include "common/pipeline/ring.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { POSITIONS = 131071, VIRTUAL_NODES = 200, PROBES = 10 };

struct virtual_node {
    uint32_t position, hash, owner;
};

struct ring_item {
    uint32_t position, owner;
};

struct ring {
    char **endpoints; /* sorted, each once */
    uint32_t n_endpoints;
    struct ring_item *items; /* ascending positions */
    uint32_t n_items;
};

/* ---- CRC-32 (IEEE 802.3, reflected 0xedb88320), eight bytes a step ---- */

static uint32_t crc_table[8][256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void crc_init(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
        crc_table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int t = 1; t < 8; t++)
            crc_table[t][i] = crc_table[t - 1][i] >> 8 ^ crc_table[0][crc_table[t - 1][i] & 0xff];
}

/* Continues a CRC; begin with 0. */
static uint32_t crc32_add(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *p = data;
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t lo = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                             (uint32_t)p[3] << 24);
        crc = crc_table[7][lo & 0xff] ^ crc_table[6][lo >> 8 & 0xff] ^
              crc_table[5][lo >> 16 & 0xff] ^ crc_table[4][lo >> 24] ^ crc_table[3][p[4]] ^
              crc_table[2][p[5]] ^ crc_table[1][p[6]] ^ crc_table[0][p[7]];
    }
    for (; n; n--, p++)
        crc = crc >> 8 ^ crc_table[0][(crc ^ *p) & 0xff];
    return ~crc;
}

/* ---- building ---- */

static int name_cmp(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int node_cmp(const void *a, const void *b)
{
    const struct virtual_node *x = a, *y = b;
    if (x->position != y->position)
        return x->position < y->position ? -1 : 1;
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return x->owner < y->owner ? -1 : x->owner > y->owner;
}

static int item_cmp(const void *a, const void *b)
{
    const struct ring_item *x = a, *y = b;
    return x->position < y->position ? -1 : x->position > y->position;
}

static void make_nodes(const char *endpoint, uint32_t owner, struct virtual_node *out)
{
    uint32_t begun = crc32_add(0, endpoint, strlen(endpoint));
    for (uint32_t i = 0; i < VIRTUAL_NODES; i++) {
        uint8_t index[4] = {(uint8_t)i, (uint8_t)(i >> 8), (uint8_t)(i >> 16), (uint8_t)(i >> 24)};
        uint32_t hash = crc32_add(begun, index, sizeof(index));
        out[i] = (struct virtual_node){hash % POSITIONS, hash, owner};
    }
}

/* Gives the ordered nodes their places. */
static void place(struct ring *r, const struct virtual_node *nodes, size_t n, bool *taken)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t at = nodes[i].position;
        int probes = 0;
        for (; taken[at] && probes < PROBES; probes++)
            at = (at + 1) % POSITIONS;
        if (probes == PROBES)
            continue;
        taken[at] = true;
        r->items[r->n_items++] = (struct ring_item){at, nodes[i].owner};
    }
    qsort(r->items, r->n_items, sizeof(*r->items), item_cmp);
}

/* Copies the endpoints, sorted, each once; `sorted` is the caller's, sorted with repetitions. */
static int copy_endpoints(struct ring *r, const char *const *sorted, size_t n)
{
    r->endpoints = try_alloc(n * sizeof(*r->endpoints));
    if (!r->endpoints)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        if (i && strcmp(sorted[i], sorted[i - 1]) == 0)
            continue;
        size_t len = strlen(sorted[i]) + 1;
        char *copy = try_alloc(len);
        if (!copy)
            return -ENOMEM;
        memcpy(copy, sorted[i], len);
        r->endpoints[r->n_endpoints++] = copy;
    }
    return 0;
}

static int build(struct ring *r, const char *const *sorted, size_t n)
{
    size_t n_nodes = n * VIRTUAL_NODES;
    struct virtual_node *nodes = try_alloc(n_nodes * sizeof(*nodes));
    bool *taken = try_alloc(POSITIONS * sizeof(*taken));
    int rc = nodes && taken ? copy_endpoints(r, sorted, n) : -ENOMEM;

    r->items = rc == 0 ? try_alloc(n_nodes * sizeof(*r->items)) : NULL;
    if (r->items) {
        uint32_t owner = 0;
        for (size_t i = 0; i < n; i++) {
            owner += i && strcmp(sorted[i], sorted[i - 1]) != 0;
            make_nodes(sorted[i], owner, nodes + i * VIRTUAL_NODES);
        }
        qsort(nodes, n_nodes, sizeof(*nodes), node_cmp);
        memset(taken, 0, POSITIONS * sizeof(*taken));
        place(r, nodes, n_nodes, taken);
    }
    free(nodes);
    free(taken);
    return r->items ? 0 : -ENOMEM;
}

int ring_new(struct ring **out, const char *const *endpoints, size_t n)
{
    *out = NULL;
    if (n == 0 || n > UINT32_MAX / VIRTUAL_NODES)
        return -EINVAL;
    pthread_once(&crc_once, crc_init);
    struct ring *r = try_alloc(sizeof(*r));
    const char **sorted = try_alloc(n * sizeof(*sorted));
    int rc = -ENOMEM;
    if (r)
        *r = (struct ring){0};
    if (r && sorted) {
        memcpy(sorted, endpoints, n * sizeof(*sorted));
        qsort(sorted, n, sizeof(*sorted), name_cmp);
        rc = build(r, sorted, n);
    }
    free(sorted);
    if (rc < 0)
        ring_free(&r);
    *out = r;
    return rc;
}

void ring_free(struct ring **r)
{
    if (!*r)
        return;
    for (uint32_t i = 0; i < (*r)->n_endpoints; i++)
        free((*r)->endpoints[i]);
    free((*r)->endpoints);
    free((*r)->items);
    free(*r);
    *r = NULL;
}

/* ---- asking ---- */

uint32_t ring_owner(const struct ring *r, const void *key, size_t n)
{
    uint32_t position = crc32_add(0, key, n) % POSITIONS;
    uint32_t lo = 0, hi = r->n_items;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (r->items[mid].position < position)
            lo = mid + 1;
        else
            hi = mid;
    }
    return r->items[lo == r->n_items ? 0 : lo].owner;
}

const char *ring_endpoint(const struct ring *r, uint32_t index)
{
    ASSERT(index < r->n_endpoints);
    return r->endpoints[index];
}

uint32_t ring_size(const struct ring *r)
{
    return r->n_endpoints;
}

bool ring_eq(const struct ring *a, const struct ring *b)
{
    if (a->n_endpoints != b->n_endpoints || a->n_items != b->n_items)
        return false;
    for (uint32_t i = 0; i < a->n_endpoints; i++)
        if (strcmp(a->endpoints[i], b->endpoints[i]) != 0)
            return false;
    return memcmp(a->items, b->items, a->n_items * sizeof(*a->items)) == 0;
}
