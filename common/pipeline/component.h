/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one interface of receivers, processors, exporters, connectors and extensions.
 *
 * A component is one file (or folder) that ends in one `const struct component`, and one line in
 * the program's components.def. An *instance* is what the graph makes of it:
 *
 *   receiver   one per id, shared by all signals and pipelines that name it
 *   processor  one per pipeline
 *   exporter   one per (id, signal)
 *   connector  one per (from signal, to signal, id)
 *   extension  one per id
 *
 * Life of an instance:
 *
 *   create ─► [adopt(old)] ─► start ─► consume* / ticks ─► stop ─► (stopped) ─► free
 *
 *   create   reads its configuration, makes its state, takes no port and starts no thread. Fails
 * with a text. A `validate` run of the program ends here. adopt    on reload only, when an instance
 * of the same kind, id and signal (and pipeline, for processors) is running and the component says
 * its identity options are equal: takes over sockets, queues, tables. After it the old one holds
 * nothing. start    binds, connects, arms timers. Order: exporters first, receivers last. stop
 * stops taking in new work, hands on or finishes what it holds, then calls instance_stopped().
 *            Order: receivers first. May take many loop turns; the service's deadline bounds it,
 * what is left then is counted failed{shutdown} by `abandon`.
 *
 * Threads: consume is called on any loop, concurrently. Affinity tells what the component promises.
 */
#ifndef PIPELINE_COMPONENT_H
#define PIPELINE_COMPONENT_H

#include "common/base/log.h"
#include "common/io/loop.h"
#include "common/otlp/batch.h"
#include "common/pipeline/ack.h"
#include "common/pipeline/option.h"

enum component_kind {
    KIND_RECEIVER,
    KIND_PROCESSOR,
    KIND_EXPORTER,
    KIND_CONNECTOR,
    KIND_EXTENSION,
    KIND_COUNT,
};

enum stability { STABILITY_DEVELOPMENT, STABILITY_ALPHA, STABILITY_BETA, STABILITY_STABLE };

enum affinity {
    AFFINITY_NONE,    /* no state between batches */
    AFFINITY_TRACE,   /* state in trace shards (shard.h), each under its lock */
    AFFINITY_SERIES,  /* parts per loop, merged by one owner at flush */
    AFFINITY_PROCESS, /* one state with its own lock or owner loop */
};

struct instance;
struct ledger_node;

struct component {
    enum component_kind kind;
    const char *name;           /* canonical: "otlp_grpc" */
    const char *const *aliases; /* NULL-ended old spellings: "otlp"; NULL = none */
    const char *help;           /* one sentence */
    unsigned signals;           /* SIGNAL_BITs it takes (receivers: makes) */
    unsigned makes;             /* connectors: SIGNAL_BITs it makes; 0 = the signal it takes */
    enum stability stability;
    enum affinity affinity;
    bool mutates; /* its output may differ from its input: told for docs */

    const struct option *options; /* OPTION_END-ended; NULL = no keys */
    size_t config_size;
    /* Checks across keys, after parsing; e without place. 0 or -EINVAL. */
    int (*validate)(const void *config, struct err *e);

    int (*create)(struct instance *in, struct err *e);
    /* Equal identity: takes over the old instance's state and returns true. NULL = never. */
    bool (*adopt)(struct instance *in, struct instance *old);
    int (*start)(struct instance *in, struct err *e);
    /*
     * Takes the batch (one reference) and one count of the ack: both are the component's from here
     * on, whatever happens. Not for receivers and extensions.
     */
    void (*consume)(struct instance *in, struct batch *b, struct ack *a);
    /* Extensions: the pipelines begin to stop. stop comes when all of them have. May be NULL. */
    void (*draining)(struct instance *in);
    void (*stop)(struct instance *in);
    /*
     * Deadline passed: drop what is left, counting it (ledger_dropped as "shutdown"), settle acks,
     * cut short what is under way, take nothing more. stop may have been called, or will be;
     * instance_stopped() is owed as before, and soon.
     */
    void (*abandon)(struct instance *in);
    void (*free)(struct instance *in);
    /* Items it holds now, counted in its structures. For the ledger. NULL = holds nothing. */
    uint64_t (*held)(struct instance *in);
    /* A downstream entry opened or closed, called on each loop (receivers and batch makers). */
    void (*gate)(struct instance *in, struct loop *loop, bool open);
};

/* What the graph gives a component; fields are read-only for it but `self`. */
struct instance {
    unsigned magic;
    const struct component *component;
    const char *id;       /* "otlp_grpc/backend" */
    const char *pipeline; /* processors: "traces/errors"; else NULL */
    enum signal signal;   /* exporters, processors; connectors: the signal taken */
    enum signal makes;    /* connectors: the signal made */
    const void *config;   /* of config_size bytes, parsed and validated */
    struct log_ctx log;
    void *self;        /* the component's own */
    struct node *node; /* engine's own, see node.h */
};

#define INSTANCE_MAGIC 0x494e5354u

#endif
