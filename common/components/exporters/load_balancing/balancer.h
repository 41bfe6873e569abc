/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The balancer: a ring, a sub-exporter for each backend, and what happens when the list changes.
 *
 *   list changes ─► new set (ring, backends; those that stay are shared) ─► swapped in
 *                   backends that left: what waits in their queues is routed anew over the new set,
 * so is what a last attempt there gives back; then they stop and go
 *
 * A set is immutable and counted; a batch under way holds its set and its backends. Delivery
 * happens on any loop, changes on loop 0 only.
 *
 * One backend whose queue is full does not stop the others: what is its own is refused, retryably.
 * Only when all are full, or none is known yet, the balancer closes its entry.
 */
#ifndef LOAD_BALANCING_BALANCER_H
#define LOAD_BALANCING_BALANCER_H

#include "common/components/exporters/load_balancing/route.h"
#include "common/pipeline/queue.h"

struct balancer;

/* How a backend's sub-exporter comes to be: the otlp_grpc exporter; tests put in another one. */
struct balancer_sub {
    const struct component *component;
    /* A configuration of component->config_size bytes for that host:port, to be freed with free().
     */
    void *(*config_for)(const void *lb_config, const char *endpoint);
    /*
     * Makes the sub-exporter keep nothing from now on: what waits, what comes in and what an
     * attempt gives back as retryable goes to fn. Any thread may call fn until the instance is
     * freed.
     */
    void (*divert)(struct instance *sub, queue_divert_fn *fn, void *arg);
};

int balancer_new(struct balancer **out, struct instance *in, const struct balancer_sub *sub,
                 const void *lb_config, enum route_key key) MUSTCHECK;
/* The label of the metrics: "static", "dns". Before start. Loop 0. */
void balancer_set_resolver(struct balancer *lb, const char *resolver);
void balancer_start(struct balancer *lb);
/*
 * A reload made a new instance with the same way of speaking to backends: from now on it is the one
 * that everything is counted on, and backends to come are made of its configuration. Loop 0.
 */
void balancer_adopt(struct balancer *lb, struct instance *in, const void *lb_config);
/*
 * The list of backends as the resolver spells them (they are hashed so; ":4317" is added for
 * dialling where there is no port). An empty list and a list with an equal ring change nothing.
 * Loop 0.
 */
void balancer_set_endpoints(struct balancer *lb, const char *const *endpoints, size_t n);
/* Whether there is a list already. Loop 0. */
bool balancer_has_list(const struct balancer *lb);
/* Counts an attempt to resolve. */
void balancer_resolved(struct balancer *lb, bool success);

/* Takes the batch and one count of the ack. Any loop. */
void balancer_consume(struct balancer *lb, struct batch *b, struct ack *a);
uint64_t balancer_held(struct balancer *lb);
/* Waits for backends that leave, then stops all; instance_stopped(in) at the end. Loop 0. */
void balancer_stop(struct balancer *lb);
void balancer_abandon(struct balancer *lb);
void balancer_free(struct balancer **lb);

#endif
