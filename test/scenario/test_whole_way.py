"""The whole way: agent -> load_balancing -> three gateways -> a verifying sink.

Error and slow requests are kept, the rest as the probability says; every kept trace is whole; the
ledgers of all four processes leave nothing unexplained; span metrics read through a real Prometheus
server equal what was sent.
"""

import collections
import random

import pytest

from harness import ledger
from harness.gateway import TELEMETRY, Gateway
from harness.otlp import SpanMaker, request, span_ids
from harness.prometheus import Prometheus
from harness.wait import stable, wait_until

AGENT = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: 127.0.0.1:{grpc}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 512}}
  batch: {{timeout: 50ms, send_batch_size: 512}}
exporters:
  load_balancing:
    routing_key: traceID
    protocol:
      otlp:
        tls: {{insecure: true}}
    resolver:
      static:
        hostnames: [{backends}]
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [memory_limiter, batch], exporters: [load_balancing]}}
""" + TELEMETRY

GATEWAY = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: 127.0.0.1:{grpc}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 512}}
  tail_sampling:
    decision_wait: 3s
    policies:
      - {{name: errors, type: status_code, status_code: {{status_codes: [ERROR]}}}}
      - {{name: slow, type: latency, latency: {{threshold_ms: 1000}}}}
      - {{name: some, type: probabilistic, probabilistic: {{sampling_percentage: 10}}}}
connectors:
  span_metrics:
    metrics_flush_interval: 500ms
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{sink}
    tls: {{insecure: true}}
  prometheus:
    endpoint: 127.0.0.1:{prom}
service:
  pipelines:
    traces/metrics: {{receivers: [otlp], exporters: [span_metrics]}}
    traces: {{receivers: [otlp], processors: [memory_limiter, tail_sampling], exporters: [otlp_grpc]}}
    metrics: {{receivers: [span_metrics], exporters: [prometheus]}}
""" + TELEMETRY

TRACES = 2000
MASK64 = (1 << 64) - 1


def fnv1a64(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 & MASK64
    return h


def kept_by_chance(trace_id, percent):
    return fnv1a64(b"default-hash-seed" + trace_id) <= int(percent / 100 * MASK64)


def make_traces():
    """{trace id: (spans, must be kept)}; 2 % with an error, 3 % slow."""
    maker = SpanMaker(seed=11)
    traces = {}
    for i in range(TRACES):
        error, slow = i % 50 == 7, i % 33 == 5
        spans = maker.trace(n=10, error=error, duration_ms=1500 if slow else 20,
                            service=f"shop-{i % 3}")
        trace_id = spans[0][1].trace_id
        traces[trace_id] = (spans, error or slow or kept_by_chance(trace_id, 10))
    return traces


@pytest.mark.tsan
def test_whole_way(tmp_path, sink):
    gateways = [Gateway(tmp_path, GATEWAY, name=f"gateway{i}", sink=sink.grpc_port)
                for i in range(3)]
    agent = prometheus = None
    try:
        for g in gateways:
            g.wait_ready()
        agent = Gateway(tmp_path, AGENT, name="agent", binary="tailrace-agent",
                        backends=", ".join(f'"127.0.0.1:{g.grpc}"' for g in gateways)).wait_ready()
        prometheus = Prometheus(tmp_path, [f"127.0.0.1:{g.prom}" for g in gateways]).wait_ready()
        traces = make_traces()
        spans = [s for parts, _ in traces.values() for s in parts]
        random.Random(1).shuffle(spans)
        for at in range(0, len(spans), 200):
            agent.export(request(spans[at:at + 200]))

        kept = {t for t, (_, keep) in traces.items() if keep}
        wait_until(lambda: sink.span_count() >= 10 * len(kept), 60, "kept spans at the sink")
        assert stable(sink.span_count) == 10 * len(kept)
        arrived = collections.defaultdict(collections.Counter)
        for _, _, record in sink.records():
            arrived[span_ids(record)[0]][record] += 1
        assert set(arrived) == kept
        for trace_id in kept:
            sent = collections.Counter(s.SerializeToString() for _, s in traces[trace_id][0])
            assert arrived[trace_id] == sent, trace_id.hex()

        def calls():
            return sum(v for _, v in prometheus.query("traces_span_metrics_calls_total"))
        wait_until(lambda: calls() == len(spans), 30, f"calls in Prometheus equal {len(spans)}")
        by_service = collections.Counter(service for service, _ in spans)
        for service, count in by_service.items():
            got = prometheus.query(
                f'sum(traces_span_metrics_calls_total{{service_name="{service}"}})')
            assert got[0][1] == count
            durations = prometheus.query(
                f'sum(traces_span_metrics_duration_milliseconds_count{{service_name="{service}"}})')
            assert durations[0][1] == count

        for process in [agent, *gateways]:
            ledger.assert_explained(process.self_metrics)
    finally:
        for p in [prometheus, agent, *gateways]:
            if p is not None:
                p.stop()
