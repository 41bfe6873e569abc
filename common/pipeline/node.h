/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes and edges of a running graph, as a component sees them.
 *
 * Delivery: node_emit() hands a batch to every next node: one reference and one count of the ack
 * per branch, counted on each edge. It never fails; the verdict travels in the ack.
 *
 * Back-pressure comes first and is separate: a node that cannot take more closes its entry
 * (node_close), and everything above it is closed until it opens again. Receivers read only while
 * open; a node that makes data by itself asks node_is_open(its own) before it makes more.
 *
 * The ledger: in + made = out + dropped{reason} + held, per node and signal, in items. node_emit
 * and the engine count in and out; the component counts the rest here.
 */
#ifndef PIPELINE_NODE_H
#define PIPELINE_NODE_H

#include <pthread.h>

#include "common/pipeline/component.h"

/* Gives one reference of b and one count of a to the outputs. Connectors: the signal of b is
 * `makes`. */
void node_emit(struct instance *in, struct batch *b, struct ack *a);
/* Whether any pipeline takes that signal from here (receivers: others are answered, not delivered).
 */
bool node_has_output(const struct instance *in, enum signal s);
/* True while every output's entry is open (receivers: of all pipelines of that signal). */
bool node_outputs_open(const struct instance *in);
/* The same for the pipelines of one signal. */
bool node_outputs_open_for(const struct instance *in, enum signal s);
/*
 * Closes or opens the entry of this instance. Counted: each close needs its open, and threads may
 * bring the two in either order. Any thread. For state that outlives a generation see struct entry.
 */
void node_close(struct instance *in);
void node_open(struct instance *in);

/*
 * The entry of something that many threads fill and drain, and that a reload may hand to a next
 * generation's instance: whether it is closed is decided and told under one lock, so that the last
 * word is the true one and no close stays with an instance that is gone.
 */
struct entry {
    pthread_mutex_t lock;
    struct instance *in; /* whose entry it is now */
    _Atomic bool is_closed;
};
/* Whether it shall be closed, given whether it is. Called with the entry's lock held. */
typedef bool entry_full_fn(void *arg, bool is_closed);
void entry_init(struct entry *e, struct instance *in);
/* Asks is_full without the lock first: cheap when nothing changes. Not under a lock is_full takes.
 */
void entry_update(struct entry *e, entry_full_fn *is_full, void *arg);
/* adopt: the entry is the new instance's from here on. */
void entry_move(struct entry *e, struct instance *to);
void entry_fini(struct entry *e);

/* ---- ledger ---- */

/* Items that appear here (receivers: accepted; connectors and generators: made). */
void ledger_made(struct instance *in, enum signal s, uint64_t items);
/*
 * Items that end here without going on. Static reason text, part of the metric's label:
 * "filtered", "not_sampled", "shutdown", "rejected", "too_old", "queue_full" ...
 */
void ledger_dropped(struct instance *in, enum signal s, uint64_t items, const char *reason);
/* Items that left the process from here (exporters, at success), or that a connector turned into
 * others. */
void ledger_sent(struct instance *in, enum signal s, uint64_t items);
/* An attempt ended without an answer: the items may arrive twice. */
void ledger_uncertain(struct instance *in, enum signal s, uint64_t items);

/* ---- life ---- */

/* The instance has finished stopping; call it once, on any thread. */
void instance_stopped(struct instance *in);
/* A component failed for good while running: the service shuts down with exit status 1. */
void instance_fatal(struct instance *in, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Another instance by id (extensions), NULL if there is none. */
struct instance *instance_find(struct instance *in, enum component_kind kind, const char *id);

#endif
