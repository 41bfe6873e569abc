/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

static _Atomic bool is_frozen;
static _Atomic uint64_t frozen_mono_ns, frozen_wall_ns;

static uint64_t read_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t clock_mono_ns(void)
{
    if (__builtin_expect(is_frozen, 0))
        return frozen_mono_ns;
    return read_ns(CLOCK_MONOTONIC);
}

uint64_t clock_wall_ns(void)
{
    if (__builtin_expect(is_frozen, 0))
        return frozen_wall_ns;
    return read_ns(CLOCK_REALTIME);
}

int64_t clock_wall_offset_ns(void)
{
    uint64_t best_gap = UINT64_MAX;
    int64_t offset = 0;
    if (is_frozen)
        return (int64_t)(frozen_wall_ns - frozen_mono_ns);
    for (int i = 0; i < 3; i++) {
        uint64_t before = read_ns(CLOCK_MONOTONIC);
        uint64_t wall = read_ns(CLOCK_REALTIME);
        uint64_t after = read_ns(CLOCK_MONOTONIC);
        if (after - before < best_gap) {
            best_gap = after - before;
            offset = (int64_t)(wall - (before + best_gap / 2));
        }
    }
    return offset;
}

void clock_freeze(uint64_t mono_ns, uint64_t wall_ns)
{
    frozen_mono_ns = mono_ns;
    frozen_wall_ns = wall_ns;
    is_frozen = true;
}

void clock_advance(uint64_t ns)
{
    frozen_mono_ns += ns;
    frozen_wall_ns += ns;
}

void clock_thaw(void)
{
    is_frozen = false;
}
