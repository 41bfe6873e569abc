/* SPDX-License-Identifier: Apache-2.0 */
/* Nanoseconds a span: the walk, the walk with validation, framing, one attribute set on each span.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/otlp/edit.h"
#include "test/bench/payload.h"

enum { SPANS = 500, REQUESTS = 30, ROUNDS = 9 };

static void must(int r)
{
    if (r < 0) {
        fprintf(stderr, "otlp_walk_bench: %s\n", strerror(-r));
        exit(1);
    }
}

static void edit_all(struct batch *b)
{
    struct any value = {.type = ANY_STRING, .s = STR("production")};
    struct batch *out;
    struct edit *e;

    must(batch_edit(&e, b));
    for (uint32_t i = 0; i < b->n_records; i++)
        edit_attr_set(e, (struct edit_at){EDIT_RECORD, i}, STR("environment"), value);
    must(edit_seal(&e, &out));
    batch_unref(&out);
}

enum step { WALK, VALIDATE, EDIT, FRAME, STEPS };

static uint64_t run(enum step step, struct chunk *c)
{
    struct err e = {0};
    struct batch *b;
    struct chunk *framed;
    uint64_t t0 = clock_mono_ns();

    must(batch_read(&b, SIGNAL_TRACES, c, 0, c->len, step == VALIDATE ? BATCH_VALIDATE : 0, &e));
    if (step >= EDIT)
        t0 = clock_mono_ns();
    if (step == EDIT)
        edit_all(b);
    if (step == FRAME) {
        must(batch_frame(&framed, b, 5));
        chunk_unref(&framed);
    }
    uint64_t t1 = clock_mono_ns();
    batch_unref(&b);
    return t1 - t0;
}

int main(void)
{
    printf("ns/span, best of %d   %8s %8s %8s %8s\n", ROUNDS, "walk", "validate", "edit", "frame");
    for (enum shape s = SHAPE_S; s < SHAPE_COUNT; s++) {
        struct payload p;
        double best[STEPS];

        payload_init(&p, s, REQUESTS, SPANS, 1);
        for (int step = 0; step < STEPS; step++)
            best[step] = 1e18;
        for (int round = 0; round < ROUNDS * STEPS; round++) {
            enum step step = (enum step)(round % STEPS);
            uint64_t ns = 0, spans = 0;
            for (uint32_t i = 0; i < p.n_requests; i++) {
                struct chunk *c = chunk_new(p.requests[i].len);
                if (!c)
                    must(-ENOMEM);
                payload_copy(&p, i, (uint64_t)round, c->data);
                c->len = p.requests[i].len;
                ns += run(step, c);
                spans += p.requests[i].n_spans;
                chunk_unref(&c);
            }
            if ((double)ns / (double)spans < best[step])
                best[step] = (double)ns / (double)spans;
        }
        printf("%s (%3zu bytes)         %8.0f %8.0f %8.0f %8.0f\n", shape_names[s], p.span_bytes,
               best[WALK], best[VALIDATE], best[EDIT], best[FRAME]);
        payload_fini(&p);
    }
    return 0;
}
