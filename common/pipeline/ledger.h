/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Double-entry book-keeping of items, one account per node and signal:
 *
 *      in + made = out + sent + dropped{reason} + held
 *
 * and per edge what one node gave is what the next one took. Accounts outlive generations: a node
 * of the same kind, id, pipeline and signal continues the account of its predecessor.
 */
#ifndef PIPELINE_LEDGER_H
#define PIPELINE_LEDGER_H

#include "common/base/buf.h"
#include "common/pipeline/component.h"

#define LEDGER_REASONS 16

struct ledger_reason {
    _Atomic(const char *) name;
    _Atomic uint64_t items;
};

struct ledger_account {
    char *node; /* "processor/batch@traces/errors" */
    enum signal signal;
    enum component_kind kind;
    char *id; /* "batch" */
    struct ledger_account *next;
    _Atomic uint64_t in, made, out, sent, uncertain;
    struct ledger_reason dropped[LEDGER_REASONS];
    struct instance *holder; /* asked for held; guarded by the ledger's lock */
};

/* What an upstream account gave to a downstream one. */
struct ledger_edge {
    struct ledger_account *from, *to;
    struct ledger_edge *next;
    _Atomic uint64_t given, taken;
};

/* Found or made; live for ever. */
struct ledger_account *ledger_account(const struct instance *in, enum signal s);
struct ledger_edge *ledger_edge(struct ledger_account *from, struct ledger_account *to);
/* From now on `in` is asked what is held; NULL with the holder itself to end that. */
void ledger_set_holder(struct ledger_account *a, struct instance *in);
void ledger_clear_holder(struct ledger_account *a, const struct instance *in);
/* Adds to a reason's count. The text is static. */
void ledger_count(struct ledger_reason *table, const char *reason, uint64_t items);
uint64_t ledger_sum(const struct ledger_reason *table);
/* Items that the account cannot explain: 0 when nothing is under way and nothing was lost. */
int64_t ledger_unexplained(struct ledger_account *a);
/* Sum of |unexplained| of all accounts and edges. */
uint64_t ledger_unexplained_total(void);
/* Exposes otelcol_processor_incoming_items and _outgoing_items, by processor and signal. */
void ledger_expose_processors(struct buf *out);
/* Exposes tailrace_ledger_items, tailrace_ledger_edge_items and tailrace_ledger_unexplained. */
void ledger_expose(struct buf *out);

#endif
