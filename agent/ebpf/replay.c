/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/ebpf/replay.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/ebpf/recording.h"
#include "agent/ebpf/url.h"
#include "common/otlp/view.h"

void replay_print(struct buf *out, const struct batch *b)
{
    static const char *const kinds[] = {"unspecified", "internal", "server",
                                        "client",      "producer", "consumer"};

    for (uint32_t i = 0; i < b->n_records; i++) {
        const struct span_key *k = &b->keys[i];
        struct wire w = wire_of(record_body(&b->records[i]));
        struct attr a;

        buf_addf(out, "%s %.*s", kinds[k->kind < 6 ? k->kind : 0],
                 STR_ARG(span_name(&b->records[i])));
        while (attr_next(&w, SPAN_ATTRIBUTES, &a)) {
            buf_addf(out, " %.*s=", STR_ARG(a.key));
            any_to_text(any_read(a.value), out);
        }
        buf_addf(out, " status=%u parent=%d duration_us=%llu\n", k->status,
                 !!(k->key_flags & SPAN_HAS_PARENT),
                 (unsigned long long)((k->end_ns - k->start_ns) / 1000));
    }
}

struct printing {
    struct capture capture;
    struct buf out;
};

static void print_spans(void *arg)
{
    struct printing *p = arg;
    uint64_t lost = 0;
    struct batch *b = capture_spans(&p->capture, &lost);

    if (!b)
        return;
    buf_reset(&p->out);
    replay_print(&p->out, b);
    fwrite(p->out.p, p->out.n, 1, stdout);
    batch_unref(&b);
}

int replay_command(int argc, char **argv)
{
    struct capture_options o = {.selection = {.all = true, .self = (uint32_t)getpid()},
                                .resource = {"", "", "replay"},
                                .request = {.redacted_keys = query_sensitive_keys},
                                .max_series = 1000};
    struct printing p;
    struct err e;
    int res;

    if (argc != 2) {
        fprintf(stderr, "usage: tailrace-agent replay FILE\n");
        return 2;
    }
    capture_init(&p.capture, &o);
    buf_init(&p.out);
    res = recording_replay(argv[1], &p.capture, print_spans, &p, &e);
    if (res)
        fprintf(stderr, "tailrace-agent: %s: %s\n", argv[1], e.text);
    capture_finish(&p.capture);
    print_spans(&p);
    buf_fini(&p.out);
    capture_fini(&p.capture);
    return res ? 1 : 0;
}
