/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All of the receiver's user space from a recording: whatever records say, the capture ledger holds
 * to the byte, nothing crashes, nothing is left behind.
 */
#include <stdlib.h>

#include "agent/ebpf/recording.h"
#include "agent/ebpf/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void take(void *arg)
{
    uint64_t lost = 0;
    struct batch *b = capture_spans(arg, &lost);

    if (b)
        batch_unref(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct capture_options o = {.selection = {.all = true, .self = 1},
                                .resource = {"", "", "fuzz"},
                                .request = {query_sensitive_keys, true},
                                .max_series = 20};
    struct capture c;
    struct err e;

    capture_init(&c, &o);
    c.processes.proc = "/nonexistent";
    if (recording_replay_bytes(str_make(data, size), &c, take, &c, &e) == 0)
        e.text[0] = 0;
    capture_finish(&c);
    take(&c);
    for (unsigned i = 0; i < LAYER_COUNT * DIR_COUNT; i++) {
        const struct capture_account *a =
            &c.connections.ledger.layers[i / DIR_COUNT][i % DIR_COUNT];
        uint64_t sum = a->parsed + a->skipped;

        for (unsigned h = 0; h < HOLE_COUNT; h++)
            sum += a->holes[h];
        if (sum != a->passed)
            abort();
    }
    if (c.connections.held_bytes || c.connections.n)
        abort();
    capture_fini(&c);
    return 0;
}
