/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sending queue of an exporter, with retry: what the Collector's exporterhelper does. One state
 * per (id, signal) that all loops serve. An exporter embeds `struct queue_config` in its
 * configuration (options: QUEUE_OPTIONS), gives its push function, and lets queue_consume be its
 * consume.
 *
 *   consume ─► [queue ─► batcher] ─► attempt: push(request) ─► queue_done(request, outcome)
 *                  ▲                              │ retryable: back-off
 *                  └──────────────────────────────┘
 */
#ifndef PIPELINE_QUEUE_H
#define PIPELINE_QUEUE_H

#include "common/pipeline/node.h"

/* SIZER_UNSET: requests for a queue; for a batch what the queue's key says if it is written, else
 * items. */
enum queue_sizer { SIZER_UNSET, SIZER_REQUESTS, SIZER_ITEMS, SIZER_BYTES };

struct queue_config {
    bool queue_on; /* sending_queue.enabled */
    uint64_t num_consumers, queue_size;
    int sizer; /* enum queue_sizer */
    bool block_on_overflow, wait_for_result;
    bool batch_on;
    uint64_t flush_timeout_ns, min_size, max_size;
    int batch_sizer; /* enum queue_sizer */
    bool retry_on;
    uint64_t initial_interval_ns, max_interval_ns, max_elapsed_ns;
    double randomization_factor, multiplier;
    uint64_t timeout_ns; /* per attempt; `timeout` */
};

/* The three sub-tables, to be placed in an exporter's table with OPT_STRUCT at its queue_config. */
extern const struct option queue_options[]; /* sending_queue: */
extern const struct option retry_options[]; /* retry_on_failure: */
/*
 * Rows for an exporter's own table:
 *   QUEUE_OPTIONS(struct otlp_grpc_config, queue, "5s")   sending_queue, retry_on_failure, timeout
 */
#define QUEUE_OPTIONS(config, member, timeout_default)                                             \
    {.key = "sending_queue",                                                                       \
     .type = OPT_STRUCT,                                                                           \
     .offset = offsetof(config, member),                                                           \
     .sub = queue_options,                                                                         \
     .presence = OPT_ON,                                                                           \
     .on_offset = offsetof(config, member) + offsetof(struct queue_config, queue_on),              \
     .help = "Queue between the pipeline and the sender."},                                        \
        {.key = "retry_on_failure",                                                                \
         .type = OPT_STRUCT,                                                                       \
         .offset = offsetof(config, member),                                                       \
         .sub = retry_options,                                                                     \
         .presence = OPT_ON,                                                                       \
         .on_offset = offsetof(config, member) + offsetof(struct queue_config, retry_on),          \
         .help = "Retries with exponential back-off after a retryable failure."},                  \
    {                                                                                              \
        .key = "timeout", .type = OPT_DURATION,                                                    \
        .offset = offsetof(config, member) + offsetof(struct queue_config, timeout_ns),            \
        .def = timeout_default, .help = "Time for one attempt; 0 for no bound."                    \
    }

/* What the keys must be to each other. For an exporter's validate. */
int queue_config_validate(const struct queue_config *c, struct err *e) MUSTCHECK;
/* What queue_size counts, and what a batch's min_size and max_size. */
enum queue_sizer queue_sizer_of(const struct queue_config *c);
enum queue_sizer queue_batch_sizer_of(const struct queue_config *c);

struct queue;

/* One attempt's worth. The exporter may hang its state on `arg`. */
struct queue_request {
    struct batch *batch;  /* borrowed: lives until queue_done */
    struct loop *loop;    /* push is called here and queue_done must be */
    uint64_t deadline_ns; /* monotonic; 0 = none */
    void *arg;
};

enum outcome_kind {
    OUTCOME_SENT,
    OUTCOME_RETRYABLE,
    OUTCOME_PERMANENT,
};

struct outcome {
    enum outcome_kind kind;
    bool uncertain;          /* bytes went out, no answer came */
    uint64_t retry_after_ms; /* throttle hint */
    uint64_t rejected;       /* items of a partial success */
    int grpc_code;           /* 0 or the back end's */
    const char *reason;      /* static */
    const char *detail;      /* for the log, borrowed during the call */
};

typedef void queue_push_fn(struct instance *in, struct queue_request *r);

/*
 * The exporter's create makes the queue, start starts it, consume is queue_consume, held is
 * queue_held, stop is queue_stop, abandon is queue_abandon, free is queue_free.
 */
int queue_new(struct queue **out, struct instance *in, const struct queue_config *c,
              queue_push_fn *push);
/* On loop 0. Does nothing but register metrics when it is running (shared). */
void queue_start(struct queue *q);
/*
 * adopt: the running queue with what it holds, for a new instance that pushes the same way; both
 * hold it from then on, the configuration is the new one's.
 */
struct queue *queue_share(struct queue *q, struct instance *in, const struct queue_config *c);
/* The newest instance that shares it. */
struct instance *queue_instance(const struct queue *q);
void queue_consume(struct queue *q, struct batch *b, struct ack *a);
/* On the request's loop, once for each push. The request is gone after it. */
void queue_done(struct queue *q, struct queue_request *r, const struct outcome *o);
/*
 * From now on the queue keeps nothing: what waits, what comes in, and what an attempt gives back as
 * retryable goes to fn, with a count of its ack, or of a detached one where it was settled already.
 * fn is called on any thread, without a lock, until queue_free. For a balancer's backend that left.
 */
typedef void queue_divert_fn(void *arg, struct batch *b, struct ack *a);
void queue_divert(struct queue *q, queue_divert_fn *fn, void *arg);
/* Items from insertion to outcome. Any thread. */
uint64_t queue_held(const struct queue *q);
/* Sends what it holds, trying again once a second at least; then instance_stopped(in). */
void queue_stop(struct queue *q);
/*
 * What waits is dropped, and what comes from here on; attempts under way end as they end but are
 * not repeated: the exporter cuts them short. With the last one instance_stopped(in).
 */
void queue_abandon(struct queue *q);
void queue_free(struct queue **q);

#endif
