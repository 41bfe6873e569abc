/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of the ebpf receiver, and the selection that they describe. */
#ifndef AGENT_RECEIVER_OPTIONS_H
#define AGENT_RECEIVER_OPTIONS_H

#include "agent/ebpf/selection.h"
#include "common/base/log.h"
#include "common/pipeline/option.h"

struct ebpf_config {
    struct option_list ports, exes, pids, exclude_endpoints, redact_query_keys;
    struct option_list resource_attributes; /* struct option_pair */
    bool all, tls, scheduler, client_spans_with_traceparent;
    int tier, tls_probes, tls_returns;
    uint64_t ring_size, control_ring_size, drain_interval_ns, metrics_interval_ns, max_series;
    uint64_t rings, sweep_interval_ns;
    const char *service_name, *record_file, *discovery_file;
};

extern const struct option ebpf_options[];
int ebpf_validate(const void *config, struct err *e);

/* What selection points to. */
struct selection_storage {
    struct selection s;
    uint16_t *ports;
    uint32_t *pids;
    const char **exes;
    struct discovery *discovery;
    char *discovery_text;  /* of the file */
    const char **redacted; /* NULL-ended */
    struct endpoint *excluded;
    char *attributes; /* "k=v,..." */
};

/* Numbers out of the texts, rules out of their file; strings stay the configuration's. -EINVAL. */
int selection_read(struct selection_storage *out, const struct ebpf_config *c, struct err *e);
/* Addresses of the excluded endpoints; may ask the resolver, once, at start. */
void selection_resolve(struct selection_storage *s, const struct ebpf_config *c,
                       const struct log_ctx *log);
void selection_free(struct selection_storage *s);
/* All keys and the rules as one text: equal texts, equal receivers. Heap. */
char *ebpf_identity(const struct ebpf_config *c, const struct selection_storage *s);

#endif
