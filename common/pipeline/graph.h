/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One generation of the pipelines: instances, the edges between them, and their life.
 *
 *   graph_new ─► graph_start ─► (runs) ─► graph_stop ─► graph_free
 *
 * A second generation may be built and started while the first one runs; instances that adopt share
 * the old one's state. Every function here runs on loop 0.
 */
#ifndef PIPELINE_GRAPH_H
#define PIPELINE_GRAPH_H

#include "common/pipeline/config.h"
#include "common/pipeline/ledger.h"
#include "common/pipeline/node.h"

struct graph;
struct node;

struct edge {
    struct node *to;
    struct ledger_edge *ledger;
};

struct edges {
    struct edge *v;
    unsigned n;
};

/* Tells one loop that a node's entry opened or closed. One for each loop, reused. */
struct gate_task {
    struct task task;
    struct node *node;
    struct loop *loop;
    _Atomic bool is_posted;
};

struct node {
    struct instance in; /* what the component sees */
    struct graph *graph;
    const struct yaml_mark *place; /* of its key in the configuration */
    struct edges out[SIGNAL_COUNT];
    struct ledger_account *account[SIGNAL_COUNT]; /* of the signals that it takes or makes */
    struct node **up;                             /* nodes whose outputs lead here */
    unsigned n_up;
    _Atomic int closed; /* own closes and closed nodes below; open at 0 */
    struct gate_task *gates;
    bool is_created, is_adopted;
    _Atomic bool is_started; /* between start and stop: gates are told only then */
    _Atomic bool is_stopped;
    bool is_draining;           /* extensions: told */
    struct memory_marks *marks; /* memory_limiter */
};

struct graph {
    uint64_t number; /* of the generation */
    const struct config *config;
    struct node **nodes; /* exporters first, receivers last: the order of starting */
    unsigned n;
    struct graph *old; /* while it is being built: the running one */
    void (*on_fatal)(struct instance *in, const char *why);
};

/* Builds and creates. `old` may be NULL. On failure everything made is freed; the text has the
 * place. */
int graph_new(struct graph **out, const struct config *c, struct graph *old,
              struct err *e) MUSTCHECK;
/* Starts in order. On failure what had started is stopped by graph_stop, which the caller calls. */
int graph_start(struct graph *g, struct err *e) MUSTCHECK;
/* Tells the node's gate on every loop whether its outputs are open. */
void node_tell_gate(struct node *n);
/*
 * Stops level by level, receivers first; each call does what can be done now and returns true when
 * all have stopped. The caller calls again (on loop 0) until then or until its deadline, then
 * graph_abandon, and then again.
 */
bool graph_stop(struct graph *g);
/*
 * The deadline has passed: what is held is dropped and what is under way cut short, the last stage
 * first, so that nothing is handed on into a void. Returns the items that were held. graph_stop is
 * called on until all have stopped.
 */
uint64_t graph_abandon(struct graph *g);
/* All stopped; no thread may be inside a node any more, nor a gate be told (two barriers). */
void graph_free(struct graph **g);
/* Items held by all nodes. */
uint64_t graph_held(const struct graph *g);

static inline struct node *node_of(const struct instance *in)
{
    return in->node;
}

#endif
