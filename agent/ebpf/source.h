/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where records come from: the kernel (source_kernel.c), or nothing at all in tests. The receiver
 * knows only this. All calls are made on one loop.
 */
#ifndef AGENT_SOURCE_H
#define AGENT_SOURCE_H

#include "agent/ebpf/capture.h"
#include "agent/ebpf/recording.h"
#include "common/base/err.h"

enum capture_tier { TIER_AUTO, TIER_SOCK_LENGTH, TIER_FEXIT, TIER_KPROBE, TIER_SYSCALL };

struct source_config {
    enum capture_tier tier;
    uint64_t ring_bytes, control_ring_bytes;
    unsigned rings;             /* of data; 0: one for each 8 CPUs */
    uint64_t sweep_interval_ns; /* between looks for connections whose end was lost */
    bool tls, scheduler;
    int tls_probes, tls_returns; /* enum library_probes, enum tls_returns */
    const struct selection *selection;
};

struct source;

/*
 * Loads and attaches. The error's text says which hook was refused and by what. Existing
 * connections of selected processes are announced as joined.
 */
int source_open(struct source **out, const struct source_config *c, struct err *e) MUSTCHECK;
/*
 * The sockets that were there before: names the processes that hold listeners on selected ports.
 * Once, after source_open.
 */
void source_holders(struct source *s, void (*fn)(void *arg, uint32_t tgid, uint16_t port),
                    void *arg);
/* Detaches. What is still in the rings can be drained before, not after. */
void source_close(struct source **s);
const char *source_tier(const struct source *s);
/* Readable when the kernel wants to be drained before the interval is over; -1 if it never does. */
int source_fd(const struct source *s);
/*
 * The records there are, control first, then data, into c (and to rec, when it is open). Returns
 * how many there were. When more come than can be read it ends all the same; *more tells that.
 */
size_t source_drain(struct source *s, struct capture *c, struct recording *rec, bool *more);
/* Control records only: a data record may name a process whose exec is still in that ring. */
void source_drain_control(struct source *s, struct capture *c, struct recording *rec);
/* One batch update. */
void source_verdicts(struct source *s, const struct capture_verdict *v, size_t n);
/* A process is selected, its sockets are captured from now on; or it is not. */
void source_select(struct source *s, const struct process *p);
/* Each second: what the kernel counted. */
void source_tick(struct source *s, struct capture *c, uint64_t now_ns);
/* After a drain: closes the connections of c whose end was lost, when it is time to look. */
void source_sweep(struct source *s, struct capture *c, struct recording *rec, uint64_t now_ns);

#endif
