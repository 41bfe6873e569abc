/* SPDX-License-Identifier: Apache-2.0 */
/* The otlp_grpc exporter as a part of others: load_balancing makes one for each backend. */
#ifndef COMPONENTS_OTLP_GRPC_H
#define COMPONENTS_OTLP_GRPC_H

#include "common/components/exporters/client_options.h"
#include "common/pipeline/queue.h"

struct otlp_grpc_config {
    const char *endpoint;
    struct client_tls_config tls;
    int compression;            /* enum client_compression */
    struct option_list headers; /* struct option_pair */
    const char *authority, *user_agent;
    struct queue_config queue;
};

extern const struct component otlp_grpc_component;
/* Its keys, for a nested block. */
extern const struct option otlp_grpc_options[];

/* See queue_divert. */
void otlp_grpc_divert(struct instance *in, queue_divert_fn *fn, void *arg);

#endif
