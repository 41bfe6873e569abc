/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Collector's consistent-hash ring (load_balancing): CRC32-IEEE of the key modulo 131071, 200
 * virtual nodes an endpoint, so that a mixed fleet routes alike. Immutable once built.
 */
#ifndef PIPELINE_RING_H
#define PIPELINE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/mem.h"

struct ring;

/* Endpoints as the resolver spelled them; copied and sorted. */
int ring_new(struct ring **out, const char *const *endpoints, size_t n) MUSTCHECK;
void ring_free(struct ring **r);
/* Index into the sorted endpoints. */
uint32_t ring_owner(const struct ring *r, const void *key, size_t n);
const char *ring_endpoint(const struct ring *r, uint32_t index);
uint32_t ring_size(const struct ring *r);
bool ring_eq(const struct ring *a, const struct ring *b);

#endif
