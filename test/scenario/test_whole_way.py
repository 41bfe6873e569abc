# SPDX-License-Identifier: Apache-2.0
"""The whole way, from real requests: nginx and a Python service -> captured by the agent ->
load_balancing -> three gateways -> a verifying sink.

Error and slow requests are kept, the rest as the probability says; every kept trace is whole; the
ledgers of all four processes leave nothing unexplained; span metrics read through a real Prometheus
server equal the requests sent.
"""

import collections
import http.client
import os
import random
import re
import sys
import threading

import pytest

from harness import ledger, metrics
from harness.capture import Nginx, Seen, assert_stream_ledger
from harness.gateway import TELEMETRY, Gateway
from harness.oracle import kept_by_chance
from harness.process import ROOT, Child
from harness.prometheus import Prometheus
from harness.wait import accepts, free_ports, stable, wait_until

AGENT = """
receivers:
  ebpf: {{port: [{ports}], client_spans_with_traceparent: true}}
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
    traces: {{receivers: [ebpf], processors: [memory_limiter, batch], exporters: [load_balancing]}}
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

REQUESTS, CLIENTS = 1000, 8
STATUS = {"/app/item": 200, "/app/slow": 200, "/app/broken": 503}


@pytest.fixture
def shop(tmp_path):
    """A Python service on .app behind nginx on .port."""
    if os.geteuid() != 0 or not os.path.exists("/sys/kernel/btf/vmlinux"):
        pytest.skip("missing capability: root with CAP_BPF and kernel BTF")
    tmp_path.chmod(0o755)
    app_port, = free_ports(1)
    app = Child([sys.executable, ROOT / "test" / "apps" / "shop.py", app_port], tmp_path / "shop.log")
    wait_until(lambda: accepts(app_port), what="the shop accepts")
    nginx = Nginx(tmp_path, app=app_port)
    nginx.app = app_port
    yield nginx
    nginx.stop()
    app.stop()


class Asked:
    """One request: the caller's ids travel in traceparent, as an instrumented caller's do."""

    def __init__(self, rng, i):
        self.path = "/app/broken" if i % 50 == 7 else "/app/slow" if i % 50 == 5 else "/app/item"
        self.trace_id, self.span_id = rng.randbytes(16), rng.randbytes(8)
        self.status = None

    def send(self, conn):
        conn.request("GET", self.path, headers={
            "traceparent": f"00-{self.trace_id.hex()}-{self.span_id.hex()}-01"})
        answer = conn.getresponse()
        answer.read()
        self.status = answer.status

    def must_be_kept(self):
        return self.path != "/app/item" or kept_by_chance(self.trace_id, 10)


def send_all(port, asked):
    """All requests, by CLIENTS keep-alive connections at a time."""
    def one(mine):
        conn = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for a in mine:
            a.send(conn)
        conn.close()
    threads = [threading.Thread(target=one, args=(asked[i::CLIENTS],)) for i in range(CLIENTS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(a.status == STATUS[a.path] for a in asked)


def program(service):
    """Without the version in its name: python3.11."""
    return re.sub(r"[\d.]+$", "", service)


def assert_whole(asked, seen):
    """A trace is nginx's server span, its client span and the shop's server span, all under the caller's."""
    shape = sorted((program(s.resource["service.name"]), s.is_server) for s in seen)
    assert shape == [("nginx", False), ("nginx", True), ("python", True)], (asked.path, seen)
    for s in seen:
        assert s.span.parent_span_id == asked.span_id
        assert (s.path, s.attrs["http.response.status_code"]) == (asked.path, asked.status)


def took_ms(seen):
    return (max(s.end for s in seen) - min(s.start for s in seen)) / 1e6


def assert_calls(prometheus):
    """Series by service and kind: each request was served twice and passed on once."""
    def calls():
        return {(program(m["service_name"]), m["span_kind"]): v for m, v in prometheus.query(
            "sum by (service_name, span_kind) (traces_span_metrics_calls_total)")}
    want = {("nginx", "SPAN_KIND_SERVER"): REQUESTS, ("nginx", "SPAN_KIND_CLIENT"): REQUESTS,
            ("python", "SPAN_KIND_SERVER"): REQUESTS}
    wait_until(lambda: calls() == want, 30, f"calls in Prometheus equal {want}")
    durations = prometheus.query("sum(traces_span_metrics_duration_milliseconds_count)")
    assert durations[0][1] == 3 * REQUESTS
    # 503 is the server's error and its client's.
    errors = prometheus.query('sum(traces_span_metrics_calls_total{status_code="STATUS_CODE_ERROR"})')
    assert errors[0][1] == 3 * REQUESTS / 50


@pytest.mark.root
def test_whole_way(tmp_path, sink, shop):
    gateways = [Gateway(tmp_path, GATEWAY, name=f"gateway{i}", sink=sink.grpc_port)
                for i in range(3)]
    agent = prometheus = None
    try:
        for g in gateways:
            g.wait_ready()
        agent = Gateway(tmp_path, AGENT, name="agent", binary="tailrace-agent", ports=f"{shop.port}, {shop.app}",
                        backends=", ".join(f'"127.0.0.1:{g.grpc}"' for g in gateways)).wait_ready()
        prometheus = Prometheus(tmp_path, [f"127.0.0.1:{g.prom}" for g in gateways]).wait_ready()
        rng = random.Random(11)
        asked = {a.trace_id: a for a in (Asked(rng, i) for i in range(REQUESTS))}
        send_all(shop.port, list(asked.values()))

        kept = {t for t, a in asked.items() if a.must_be_kept()}
        wait_until(lambda: sink.span_count() >= 3 * len(kept), 60, "kept spans at the sink")
        stable(sink.span_count, quiet=1)
        arrived = collections.defaultdict(list)
        for resource, _, record in sink.records():
            s = Seen(resource, record)
            arrived[s.span.trace_id].append(s)
        assert kept <= set(arrived)
        for trace_id, seen in arrived.items():
            assert_whole(asked[trace_id], seen)
            assert trace_id in kept or took_ms(seen) > 1000, "kept, though neither slow nor chosen"
            if asked[trace_id].path == "/app/slow":
                assert took_ms(seen) >= 1200

        assert_calls(prometheus)
        assert all(ledger.term(g.scrape(), "receiver/otlp", "made") > 0 for g in gateways), "one gateway was idle"
        for process in [agent, *gateways]:
            ledger.assert_explained(process.self_metrics)
        assert_stream_ledger(metrics.scrape(agent.self_metrics))
        assert ledger.term(agent.scrape(), "receiver/ebpf", "made", signal="traces") == 3 * REQUESTS
    finally:
        for p in [prometheus, agent, *gateways]:
            if p is not None:
                p.stop()
