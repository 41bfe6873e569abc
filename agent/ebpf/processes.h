/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes: which are observed, and what their telemetry says of them.
 *
 * Sources: exec, fork and exit records; /proc at start and for whoever is met first by a
 * connection. A short-lived process (a curl lives 10 ms) is gone from /proc before its exec record
 * is read: what the record says must do, and what its parent is known for (container). After its
 * exit a process is kept for a while, since spans may still come.
 */
#ifndef AGENT_PROCESSES_H
#define AGENT_PROCESSES_H

#include "agent/ebpf/record.h"
#include "agent/ebpf/selection.h"
#include "common/base/buf.h"
#include "common/base/hashmap.h"
#include "common/base/list.h"

#define PROCESS_MAGIC 0x50524f43u

struct process {
    unsigned magic;
    uint32_t tgid, parent;
    uint64_t exit_ns; /* 0: alive as far as we know */
    uint64_t cgroup;
    char *path;         /* of the executable; "" unknown */
    char *service_name; /* never empty; a rule's name goes before it */
    char *container_id; /* "" none */
    char *attributes;   /* OTEL_RESOURCE_ATTRIBUTES of its environment, "" none */
    bool selected, ours, checked;
    bool image_selected; /* by its executable */
    bool inherits; /* selected for a listener, or by what its parent is: so are its children */
    /* Discovery rules by number: the first that matches, and the first that it hands on with
     * `inherits`; DISCOVERY_NONE. */
    uint32_t rule, handed_rule;
    struct buf span_resource, metric_resource; /* envelopes, made when first needed */
    struct list link;
};

struct resource_options {
    const char *service_name; /* for all, over what processes say; "" none */
    const char *attributes;   /* "k=v,k2=v2", for all */
    const char *version;      /* of this program */
};

struct processes {
    struct hashmap by_tgid;
    struct list all, gone;
    const struct selection *selection;
    struct resource_options resource;
    char host[256];
    const char *proc; /* "/proc"; tests have their own */
    size_t n;
};

void processes_init(struct processes *ps, const struct selection *s,
                    const struct resource_options *o);
void processes_fini(struct processes *ps);
/* Looks at every process of /proc. fn may be NULL; called for each that is selected. */
void processes_scan(struct processes *ps, void (*fn)(void *arg, const struct process *p),
                    void *arg);
/* The process, or NULL when memory is out. */
struct process *processes_exec(struct processes *ps, const struct exec_record *r);
struct process *processes_fork(struct processes *ps, const struct fork_record *r);
void processes_exit(struct processes *ps, const struct exit_record *r);
/* Borrowed; NULL: not known yet. */
struct process *processes_find(const struct processes *ps, uint32_t tgid);
/* Known, or looked up in /proc now. NULL only when memory is out. */
struct process *processes_get(struct processes *ps, uint32_t tgid);
/* It holds a listener on that port, which is selected. */
void processes_select_listener(struct processes *ps, uint32_t tgid, uint16_t port);
/* Forgets those that exited long ago. */
void processes_tick(struct processes *ps, uint64_t now_ns);

/* Resource envelopes: of spans with pid; of metrics without, so that short-lived processes add up.
 */
struct str process_span_resource(struct processes *ps, struct process *p);
struct str process_metric_resource(struct processes *ps, struct process *p);

/* Of what the kernel counted by cgroup: its path (NULL: not known), and the container in it. */
void process_cgroup_resource(const struct processes *ps, uint64_t cgroup, const char *path,
                             struct buf *out);

/* The container id in a /proc/PID/cgroup text: a run of 64 hex digits. */
struct str container_id_of(struct str cgroup);

#endif
