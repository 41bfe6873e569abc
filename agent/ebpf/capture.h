/* SPDX-License-Identifier: Apache-2.0 */
/*
 * User space of the receiver, without the kernel and without the graph: records in, batches and
 * verdicts out. The receiver feeds it from the rings; a replay feeds it from a file.
 */
#ifndef AGENT_CAPTURE_H
#define AGENT_CAPTURE_H

#include "agent/ebpf/connections.h"
#include "agent/ebpf/metrics.h"
#include "agent/ebpf/processes.h"
#include "agent/ebpf/spans.h"

struct capture_options {
    struct selection selection;
    struct resource_options resource;
    struct request_options request;
    uint64_t metrics_interval_ns;
    size_t max_series;
    /* Brings process records that are still under way, before an unknown process is looked up. */
    void (*drain_control)(void *arg);
    /* It was found out whether a process is selected: the kernel is to know. */
    void (*judged)(void *arg, const struct process *p);
    void *arg;
};

struct capture_counters {
    uint64_t spans, incomplete_spans, exchanges_without_span;
};

struct capture {
    struct capture_options options;
    struct connections connections;
    struct processes processes;
    struct spans spans;
    struct metrics metrics;
    struct request request;
    struct capture_counters count;
    int64_t wall_offset_ns;
    uint64_t metrics_at_ns;
};

void capture_init(struct capture *c, const struct capture_options *o);
/* Connections under way come out as cut exchanges; take the spans first if they are wanted. */
void capture_fini(struct capture *c);
/* Every connection comes to its end: what is under way becomes spans. For a replay's end. */
void capture_finish(struct capture *c);

/* Before the records of a drain: monotonic to wall time is read afresh. */
void capture_begin(struct capture *c);
void capture_open(struct capture *c, const struct open_record *r);
void capture_data(struct capture *c, const struct data_record *r);
void capture_close(struct capture *c, const struct close_record *r);
void capture_exec(struct capture *c, const struct exec_record *r);
void capture_fork(struct capture *c, const struct fork_record *r);
void capture_exit(struct capture *c, const struct exit_record *r);
/* The process has begun to listen on a selected port. */
void capture_listens(struct capture *c, uint32_t tgid, uint16_t port);
/* After them: verdicts are in c->connections.verdicts, spans wait for capture_spans(). */
void capture_end(struct capture *c, uint64_t now_ns);

/* Batches, or NULL. *lost: spans that memory was refused for. */
struct batch *capture_spans(struct capture *c, uint64_t *lost);
struct batch *capture_metrics(struct capture *c, uint64_t now_ns);

#endif
