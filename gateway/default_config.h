/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the gateway runs when no --config is given: everything on loopback, kept traces to the
 * terminal, span metrics and what the agent measures to a Prometheus endpoint.
 */
#ifndef GATEWAY_DEFAULT_CONFIG_H
#define GATEWAY_DEFAULT_CONFIG_H

#define GATEWAY_DEFAULT_CONFIG                                                                     \
    "receivers:\n"                                                                                 \
    "  otlp:\n"                                                                                    \
    "    protocols:\n"                                                                             \
    "      grpc: {endpoint: 127.0.0.1:4317}\n"                                                     \
    "      http: {endpoint: 127.0.0.1:4318}\n"                                                     \
    "processors:\n"                                                                                \
    "  memory_limiter: {check_interval: 1s, limit_percentage: 50, spike_limit_percentage: 10}\n"   \
    "  tail_sampling:\n"                                                                           \
    "    decision_wait: 3s\n"                                                                      \
    "    policies:\n"                                                                              \
    "      - {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}\n"            \
    "      - {name: slow, type: latency, latency: {threshold_ms: 1000}}\n"                         \
    "      - {name: some, type: probabilistic, probabilistic: {sampling_percentage: 25}}\n"        \
    "connectors:\n"                                                                                \
    "  span_metrics: {metrics_flush_interval: 5s}\n"                                               \
    "exporters:\n"                                                                                 \
    "  debug: {verbosity: normal}\n"                                                               \
    "  prometheus: {endpoint: 127.0.0.1:8889}\n"                                                   \
    "extensions:\n"                                                                                \
    "  health_check: {endpoint: 127.0.0.1:13133}\n"                                                \
    "service:\n"                                                                                   \
    "  extensions: [health_check]\n"                                                               \
    "  telemetry:\n"                                                                               \
    "    metrics:\n"                                                                               \
    "      readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: 8888}}}}]\n"           \
    "  pipelines:\n"                                                                               \
    "    traces/sampled:\n"                                                                        \
    "      receivers: [otlp]\n"                                                                    \
    "      processors: [memory_limiter, tail_sampling]\n"                                          \
    "      exporters: [debug]\n"                                                                   \
    "    traces/counted: {receivers: [otlp], exporters: [span_metrics]}\n"                         \
    "    metrics: {receivers: [otlp, span_metrics], exporters: [prometheus]}\n"

#endif
