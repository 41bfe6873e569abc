# SPDX-License-Identifier: Apache-2.0
"""Tail sampling and span metrics against an oracle: 10,000 traces of 10 spans, shuffled over batches
and connections, through a balancer into three gateways. The kept set and every kept span's bytes
equal the oracle's, there is one series for each identity and its calls are the spans sent: with one
loop and with four.
"""

import collections
import random
import re
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from harness import ledger, metrics
from harness.gateway import TELEMETRY
from harness.oracle import kept_by_chance
from harness.otlp import TRACE_METHOD, SpanMaker, request, span_ids
from harness.wait import TSAN, stable, wait_until

BALANCER = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
exporters:
  load_balancing:
    protocol: {{otlp: {{tls: {{insecure: true}}}}}}
    resolver: {{static: {{hostnames: [{backends}]}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [load_balancing]}}
""" + TELEMETRY

SAMPLER = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
processors:
  tail_sampling:
    decision_wait: {decision}
    num_traces: 100000
    policies:
      - {{name: errors, type: status_code, status_code: {{status_codes: [ERROR]}}}}
      - {{name: slow, type: latency, latency: {{threshold_ms: 1000}}}}
      - name: premium-server
        type: and
        and:
          and_sub_policy:
            - {{name: tier, type: string_attribute, string_attribute: {{key: tier, values: [gold, "plat.*"], enabled_regex_matching: true}}}}
            - {{name: half, type: probabilistic, probabilistic: {{sampling_percentage: 50, hash_salt: salt}}}}
      - {{name: some, type: probabilistic, probabilistic: {{sampling_percentage: 10}}}}
connectors:
  span_metrics: {{metrics_flush_interval: 500ms}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{sink}", tls: {{insecure: true}}}}
  prometheus: {{endpoint: "127.0.0.1:{prom}"}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [tail_sampling], exporters: [otlp_grpc]}}
    traces/metrics: {{receivers: [otlp], exporters: [span_metrics]}}
    metrics: {{receivers: [span_metrics], exporters: [prometheus]}}
""" + TELEMETRY

CONNECTIONS = 8


def oracle(spans):
    """Whether a trace (list of Span) is kept, from the policies' definition."""
    if any(s.status.code == 2 for s in spans):
        return True
    took = max(s.end_time_unix_nano for s in spans) - min(s.start_time_unix_nano for s in spans)
    if took > 1_000_000_000:
        return True
    trace_id = spans[0].trace_id
    tiers = [a.value.string_value for s in spans for a in s.attributes if a.key == "tier"]
    if any(re.search("gold|plat.*", t) for t in tiers) and kept_by_chance(trace_id, 50, b"salt"):
        return True
    return kept_by_chance(trace_id, 10)


def make_traces(n):
    maker = SpanMaker(seed=23)
    out = {}
    for i in range(n):
        tier = ["bronze", "gold", "platinum", "silver"][i % 4]
        spans = maker.trace(n=10, error=i % 50 == 7, duration_ms=1500 if i % 33 == 5 else 20,
                            service=f"shop-{i % 5}", attrs=[("tier", tier)] if i % 7 == 0 else [])
        out[spans[0][1].trace_id] = spans
    return out


def send(port, spans):
    """Requests of 500 spans, spread over connections that are served at the same time."""
    def one(parts):
        options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            export = channel.unary_unary(TRACE_METHOD)
            for part in parts:
                export(request(part).SerializeToString(), timeout=60)
    parts = [spans[at:at + 500] for at in range(0, len(spans), 500)]
    with futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(one, [parts[i::CONNECTIONS] for i in range(CONNECTIONS)]))


def identity(service, span):
    return (service, span.name, f"SPAN_KIND_{Span.SpanKind.Name(span.kind).rpartition('_')[2]}",
            Status.StatusCode.Name(span.status.code))


def calls_of(gateways):
    """{identity: calls} over all gateways; each gateway has one series of it at most."""
    out = collections.Counter()
    for g in gateways:
        found = collections.Counter()
        for labels, value in metrics.series(metrics.scrape(g.prom), "traces_span_metrics_calls_total"):
            who = tuple(labels[k] for k in ("service_name", "span_name", "span_kind", "status_code"))
            found[who] += 1
            out[who] += int(value)
        assert set(found.values()) <= {1}, found.most_common(3)
    return out


@pytest.mark.parametrize("loops", [1, 4])
def test_kept_set_and_calls_equal_the_oracles(gateway, sink, loops):
    traces = make_traces(2_000 if TSAN else 10_000)
    env = {"TAILRACE_LOOPS": str(loops)}
    gateways = [gateway(SAMPLER, name=f"gateway{i}", sink=sink.grpc_port, decision="4s", env=env)
                for i in range(3)]
    balancer = gateway(BALANCER, name="balancer", env=env,
                       backends=", ".join(f'"127.0.0.1:{g.grpc}"' for g in gateways))
    spans = [s for parts in traces.values() for s in parts]
    random.Random(loops).shuffle(spans)
    send(balancer.grpc, spans)

    kept = {t for t, parts in traces.items() if oracle([s for _, s in parts])}
    wait_until(lambda: sink.span_count() >= 10 * len(kept), 60, "kept spans at the sink")
    stable(sink.span_count)
    arrived = collections.defaultdict(collections.Counter)
    for _, _, record in sink.records():
        arrived[span_ids(record)[0]][record] += 1
    assert set(arrived) == kept
    for trace_id in kept:
        sent = collections.Counter(s.SerializeToString() for _, s in traces[trace_id])
        assert arrived[trace_id] == sent, trace_id.hex()
    want = collections.Counter(identity(service, s) for service, s in spans)
    wait_until(lambda: calls_of(gateways) == want, 20, "calls are the spans sent")
    for process in [balancer, *gateways]:
        ledger.assert_explained(process.self_metrics)
