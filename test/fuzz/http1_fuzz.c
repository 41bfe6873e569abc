/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.x from hostile bytes. Beyond not crashing: the same bytes cut in another way give the same
 * exchanges, up to the first place where the bytes stopped to make sense.
 *
 * Input: runs of [flags+length][bytes]. Bit 15 of the 16-bit header is the flow, bit 14 makes it a
 * hole; the rest is the length.
 */
#include <stdlib.h>
#include <string.h>

#include "agent/ebpf/parsers/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct result {
    char text[1 << 16];
    size_t n;
    bool broken;
};

static void add(struct result *r, const void *p, size_t n)
{
    n = MIN(n, sizeof(r->text) - r->n);
    if (n == 0)
        return; /* p may be NULL then */
    memcpy(r->text + r->n, p, n);
    r->n += n;
}

static void collect(struct result *r, void *state)
{
    struct exchange *x;

    while ((x = parser_http1.take(state))) {
        struct http1_exchange *h = CONTAINER_OF(x, struct http1_exchange, base);

        if (!r->broken) {
            unsigned flags = x->flags;

            add(r, &flags, sizeof(flags));
            add(r, &h->status, sizeof(h->status));
            add(r, &x->request_body, 8);
            add(r, &x->response_body, 8);
            add(r, h->method.p, h->method.n);
            add(r, h->target.p, h->target.n);
            for (int i = 0; i < HTTP1_FIELD_COUNT; i++)
                add(r, h->fields[i].p, h->fields[i].n);
        }
        parser_http1.exchange_free(x);
    }
}

/* Feeds n bytes; false when parsing is over. */
static bool feed(struct result *r, void *state, enum flow flow, const uint8_t *p, size_t n,
                 uint64_t pos[2])
{
    struct segment s = {
        .p = p, .len = n, .pos = pos[flow], .other_pos = pos[!flow], .flags = SEGMENT_FORCE};
    uint64_t used = 0;

    while (used < n) {
        enum parse_result res = parser_http1.feed(state, flow, &s, &used);

        collect(r, state);
        if (res == PARSE_NOT_MINE)
            return false;
        if (res == PARSE_BROKEN)
            r->broken = true;
        else if (res == PARSE_NEED_MORE && used < n)
            abort(); /* forced: nothing may be left */
    }
    pos[flow] += n;
    return true;
}

static void run(struct result *r, const uint8_t *data, size_t size, size_t cut)
{
    void *state = malloc(parser_http1.state_size);
    uint64_t pos[2] = {0};
    bool open = true;

    memset(r, 0, sizeof(*r));
    parser_http1.init(state, false);
    while (size >= 2 && open) {
        unsigned head = (unsigned)data[0] << 8 | data[1];
        enum flow flow = head >> 15;
        size_t n = head & 0x3fff;

        data += 2;
        size -= 2;
        if (head >> 14 & 1) {
            if (n)
                open = feed(r, state, flow, NULL, n, pos);
            continue;
        }
        n = MIN(n, size);
        for (size_t i = 0; i < n && open; i += cut)
            open = feed(r, state, flow, data + i, MIN(cut, n - i), pos);
        data += n;
        size -= n;
    }
    parser_http1.end(state);
    collect(r, state);
    parser_http1.fini(state);
    free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct result whole, cut;
    static const size_t cuts[] = {1, 2, 7};

    run(&whole, data, size, 1 << 20);
    for (unsigned i = 0; i < 3; i++) {
        run(&cut, data, size, cuts[i]);
        if (whole.broken != cut.broken)
            abort();
        if (!whole.broken && (whole.n != cut.n || memcmp(whole.text, cut.text, whole.n) != 0))
            abort();
    }
    return 0;
}
