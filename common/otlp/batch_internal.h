/* SPDX-License-Identifier: Apache-2.0 */
/* Shared inside common/otlp: tables of a batch under construction. */
#ifndef OTLP_BATCH_INTERNAL_H
#define OTLP_BATCH_INTERNAL_H

#include "common/otlp/batch.h"
#include "common/otlp/wire.h"

/* An empty batch, refs 1. NULL when memory is out. */
struct batch *batch__new(enum signal signal);
/* Holds a further reference to c. -ENOMEM. */
/* Appends the request to c, which has room for it. */
void batch__write(const struct batch *b, struct chunk *c);
int batch__share(struct batch *b, struct chunk *c, uint32_t *cap) MUSTCHECK;
/* The span's key from its bytes. False when the bytes are malformed. */
bool span_key_read(struct str body, struct span_key *key);
/*
 * Reads the key and validates to the leaf in one pass. True: both are done, and the general walk
 * would say the same. False: this span is not of the common form, or it is wrong; *key is
 * undefined.
 */
bool span_scan(struct str body, struct span_key *key);
/* Data points of a Metric message; SIZE_MAX when malformed. */
size_t metric_points(struct str body);

/* Walks one record to the leaf. Returns false and writes the path below the record into e. */
bool otlp_validate_record(enum signal signal, struct str body, struct err *e);
bool otlp_validate_resource(struct str envelope, struct err *e);
bool otlp_validate_scope(struct str envelope, struct err *e);

#endif
