/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One clock. Deadlines are monotonic; wall time is monotonic plus an offset, so that a span's
 * duration never jumps. Tests freeze and advance it.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

#define NS_PER_US 1000ULL
#define NS_PER_MS 1000000ULL
#define NS_PER_S 1000000000ULL

/* CLOCK_MONOTONIC, as the kernel's bpf_ktime_get_ns(). */
uint64_t clock_mono_ns(void);
/* Unix time. */
uint64_t clock_wall_ns(void);
/* wall - mono, read afresh (3 reads, the tightest one is taken). */
int64_t clock_wall_offset_ns(void);

/* Tests: from here on both clocks stand still at the given values; advance moves both. */
void clock_freeze(uint64_t mono_ns, uint64_t wall_ns);
void clock_advance(uint64_t ns);
void clock_thaw(void);

#endif
