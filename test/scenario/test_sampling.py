"""Tail sampling against an oracle: 10,000 traces of 10 spans, shuffled, through a balancer into three
gateways. The kept set and every kept span's bytes equal the oracle's, with one loop and with four.
"""

import collections
import random
import re

import pytest

from harness import ledger
from harness.gateway import TELEMETRY
from harness.otlp import SpanMaker, request, span_ids
from harness.wait import stable, wait_until

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
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{sink}", tls: {{insecure: true}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [tail_sampling], exporters: [otlp_grpc]}}
""" + TELEMETRY

MASK64 = (1 << 64) - 1


def fnv1a64(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 & MASK64
    return h


def chance(trace_id, percent, salt=b"default-hash-seed"):
    return fnv1a64(salt + trace_id) <= int(percent / 100 * float(MASK64))


def oracle(spans):
    """Whether a trace (list of Span) is kept, from the policies' definition."""
    if any(s.status.code == 2 for s in spans):
        return True
    took = max(s.end_time_unix_nano for s in spans) - min(s.start_time_unix_nano for s in spans)
    if took > 1_000_000_000:
        return True
    trace_id = spans[0].trace_id
    tiers = [a.value.string_value for s in spans for a in s.attributes if a.key == "tier"]
    if any(re.search("gold|plat.*", t) for t in tiers) and chance(trace_id, 50, b"salt"):
        return True
    return chance(trace_id, 10)


def make_traces(n):
    maker = SpanMaker(seed=23)
    out = {}
    for i in range(n):
        tier = ["bronze", "gold", "platinum", "silver"][i % 4]
        spans = maker.trace(n=10, error=i % 50 == 7, duration_ms=1500 if i % 33 == 5 else 20,
                            service=f"shop-{i % 5}", attrs=[("tier", tier)] if i % 7 == 0 else [])
        out[spans[0][1].trace_id] = spans
    return out


def run(gateway, sink, traces, loops, shuffle_seed):
    gateways = [gateway(SAMPLER, name=f"gateway{loops}-{i}", sink=sink.grpc_port, decision="4s",
                        env={"TAILRACE_LOOPS": str(loops)})
                for i in range(3)]
    balancer = gateway(BALANCER, name=f"balancer{loops}",
                       backends=", ".join(f'"127.0.0.1:{g.grpc}"' for g in gateways))
    spans = [s for parts in traces.values() for s in parts]
    random.Random(shuffle_seed).shuffle(spans)
    for at in range(0, len(spans), 500):
        balancer.export(request(spans[at:at + 500]))
    kept = {t for t, parts in traces.items() if oracle([s for _, s in parts])}
    wait_until(lambda: sink.span_count() >= 10 * len(kept), 60, "kept spans at the sink")
    stable(sink.span_count)
    arrived = collections.defaultdict(collections.Counter)
    for _, _, record in sink.records():
        arrived[span_ids(record)[0]][record] += 1
    for process in [balancer, *gateways]:
        ledger.assert_explained(process.self_metrics)
        assert process.stop() == 0
    return kept, arrived


@pytest.mark.parametrize("loops", [1, 4])
def test_kept_set_equals_the_oracles(gateway, sink, loops):
    traces = make_traces(10_000)
    kept, arrived = run(gateway, sink, traces, loops, shuffle_seed=loops)
    assert set(arrived) == kept
    for trace_id in kept:
        sent = collections.Counter(s.SerializeToString() for _, s in traces[trace_id])
        assert arrived[trace_id] == sent, trace_id.hex()
