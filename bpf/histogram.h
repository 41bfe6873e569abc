/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Histograms are OTLP's exponential ones, of seconds: bucketing nanoseconds and dividing later
 * would move counts, since log2(1e-9) is no whole number of buckets. So nanoseconds become seconds
 * first, as 32.32 fixed point. Its unit test compiles it for user space.
 */
#ifndef TAILRACE_HISTOGRAM_H
#define TAILRACE_HISTOGRAM_H

#include "bpf/wire.h"

/* ns * 2^32 / 1e9. The factor's fraction is 2^32 times itself; from 8.6 s on the product does not
 * fit into 64 bits, and a microsecond is fine enough. */
static __always_inline wire_u64 seconds_of(wire_u64 ns)
{
    if (ns >> 43)
        ns = (1ULL << 43) - 1; /* 2.4 hours: past the last bucket */
    if (ns >> 33)
        return ((((ns >> 10) * 1266874890ULL) >> 32) << 10) + (ns << 2);
    return ((ns * 1266874890ULL) >> 32) + (ns << 2);
}

/* Bucket of scale 2, upper bounds inclusive: four to an octave. Below 0: less than the first one.
 */
static __always_inline int bucket_of(wire_u64 ns)
{
    /* (2^(k/4) - 1) * 2^64, k = 1..3 */
    const wire_u64 t1 = 0x306fe0a31b7152deULL, t2 = 0x6a09e667f3bcc908ULL,
                   t3 = 0xae89f995ad3ad5e8ULL;
    wire_u64 u = seconds_of(ns), m;
    int e = 0, i;
    if (u == 0)
        return -1;
    if (u >> 32)
        e += 32;
    if (u >> (e + 16))
        e += 16;
    if (u >> (e + 8))
        e += 8;
    if (u >> (e + 4))
        e += 4;
    if (u >> (e + 2))
        e += 2;
    if (u >> (e + 1))
        e += 1;
    m = e ? u << (64 - e) : 0; /* the fraction of [1, 2) */
    i = (e - 32) * 4 + (m > t1) + (m > t2) + (m > t3) - (m == 0) - WIRE_OFFSET;
    return i >= WIRE_BUCKETS ? WIRE_BUCKETS - 1 : i;
}

static __always_inline void histogram_add(struct wire_histogram *h, wire_u64 ns)
{
    int b = bucket_of(ns);
    if (b < 0)
        __sync_fetch_and_add(&h->zeros, 1);
    else
        __sync_fetch_and_add(&h->buckets[b & (WIRE_BUCKETS - 1)], 1);
    __sync_fetch_and_add(&h->sum_ns, ns);
}

#endif
