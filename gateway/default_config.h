/* SPDX-License-Identifier: Apache-2.0 */
/* What the gateway runs when no --config is given: everything on loopback, traces to the terminal. */
#ifndef GATEWAY_DEFAULT_CONFIG_H
#define GATEWAY_DEFAULT_CONFIG_H

#define GATEWAY_DEFAULT_CONFIG                                                                     \
    "receivers:\n"                                                                                 \
    "  otlp:\n"                                                                                    \
    "    protocols:\n"                                                                             \
    "      grpc: {endpoint: 127.0.0.1:4317}\n"                                                     \
    "      http: {endpoint: 127.0.0.1:4318}\n"                                                     \
    "exporters:\n"                                                                                 \
    "  otlp_grpc: {endpoint: 127.0.0.1:14317, tls: {insecure: true}}\n"                            \
    "service:\n"                                                                                   \
    "  pipelines:\n"                                                                               \
    "    traces: {receivers: [otlp], exporters: [otlp_grpc]}\n"

#endif
