# SPDX-License-Identifier: Apache-2.0
"""Nothing acknowledged is lost: at shutdown, over a reload, while the back end is away."""

import collections
import json
import signal
import subprocess
import sys
import time
import urllib.request

import grpc
import pytest

from harness import ledger
from harness.gateway import TELEMETRY
from harness.otlp import SpanMaker, raw_records, request, span_ids
from harness.process import ROOT, Child, tool
from harness.sink import Sink
from harness.wait import accepts, free_ports, stable, wait_until

FORWARD = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
processors:
  batch: {{timeout: 100ms, send_batch_size: 2000}}
  attributes: {{actions: [{{key: generation, value: {generation}, action: upsert}}]}}
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{sink}
    tls: {{insecure: true}}
    retry_on_failure: {{initial_interval: 200ms, max_interval: 1s}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [attributes, batch], exporters: [otlp_grpc]}}
""" + TELEMETRY


@pytest.fixture
def counting_sink(tmp_path):
    """The C sink: counts only, fast enough for load."""
    (port,) = free_ports(1)
    child = Child([tool("sink"), "--port", port], tmp_path / "sink.log")
    wait_until(lambda: accepts(port), what="sink accepts")
    child.port = port
    yield child
    child.kill()


def sink_spans(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=10) as r:
        return json.load(r)["spans"]


def start_load(port, seconds, rate=100_000, connections=4):
    return subprocess.Popen([tool("load"), "--port", str(port), "--spans", "100", "--rate", str(rate),
                             "--connections", str(connections), "--seconds", str(seconds)],
                            stdout=subprocess.PIPE, text=True)


def last_report(load):
    out, _ = load.communicate(timeout=60)
    report = json.loads(out.splitlines()[-1])
    assert report["end"], out
    return report


def wait_for_traffic(port):
    wait_until(lambda: sink_spans(port) > 5000, 20, "traffic at the sink")


def test_sigterm_under_load_loses_nothing_acknowledged(gateway, counting_sink):
    gw = gateway(FORWARD, sink=counting_sink.port, generation="1")
    load = start_load(gw.grpc, 3)
    wait_for_traffic(counting_sink.port)
    assert gw.stop() == 0
    report = last_report(load)
    assert report["acked_spans"] > 0
    assert sink_spans(counting_sink.port) >= report["acked_spans"]


def test_sighup_under_load_closes_nothing_and_loses_nothing(gateway, counting_sink):
    gw = gateway(FORWARD, sink=counting_sink.port, generation="1")
    load = start_load(gw.grpc, 4)
    wait_for_traffic(counting_sink.port)
    for generation in ("2", "3", "4"):
        gw.values["generation"] = generation
        gw.write(FORWARD)
        before = gw.child.log().count("configuration reloaded")
        gw.child.signal(signal.SIGHUP)
        wait_until(lambda: gw.child.log().count("configuration reloaded") > before, 20, "reload")
    report = last_report(load)
    assert report["failed_spans"] == 0 and report["acked_spans"] == report["sent_spans"]
    wait_until(lambda: sink_spans(counting_sink.port) >= report["acked_spans"], 20, "all spans")
    assert stable(lambda: sink_spans(counting_sink.port)) == report["acked_spans"]
    ledger.assert_explained(gw.self_metrics)


def test_a_bad_file_leaves_the_running_configuration(gateway, sink):
    gw = gateway(FORWARD, sink=sink.grpc_port, generation="1")
    gw.path.write_text("receivers: {nonsense: {}}\n")
    gw.child.signal(signal.SIGHUP)
    gw.child.wait_log("configuration not reloaded")
    maker = SpanMaker(seed=2)
    gw.export(request(maker.trace()))
    wait_until(lambda: sink.span_count() == 10, what="spans after the bad reload")


BOTH = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{sink}
    tls: {{insecure: true}}
    retry_on_failure: {{initial_interval: 100ms, max_interval: 1s}}
  otlp_http:
    endpoint: http://127.0.0.1:{sink_http}
    retry_on_failure: {{initial_interval: 100ms, max_interval: 1s}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [{exporters}]}}
""" + TELEMETRY


def ids_of(records):
    return collections.Counter(span_ids(r)[1] for r in records)


def test_back_end_refuses_for_30_s_every_span_once(gateway):
    """Spans come all the while; by both protocols every one of them arrives, exactly once."""
    sinks = {"otlp_grpc": Sink(), "otlp_http": Sink()}
    gw = gateway(BOTH, sink=sinks["otlp_grpc"].grpc_port, sink_http=sinks["otlp_http"].http_port,
                 exporters="otlp_grpc, otlp_http")
    for s in sinks.values():
        s.stop()
    maker, sent, began = SpanMaker(seed=5), collections.Counter(), time.monotonic()

    def export_some():
        spans = maker.trace()
        gw.export(request(spans))
        sent.update(s.span_id for _, s in spans)
        return time.monotonic() - began > 30
    wait_until(export_some, 60, "30 s without a back end", interval=0.2)
    assert gw.child.log().count("connection refused") > 10
    for s in sinks.values():
        s.start()
    for name, s in sinks.items():
        wait_until(lambda s=s: s.span_count() >= sum(sent.values()), 40, f"all spans by {name}")
        stable(s.span_count)
        assert ids_of(s.spans()) == sent, name
    ledger.assert_explained(gw.self_metrics)
    for s in sinks.values():
        assert ledger.term(gw.scrape(), "exporter/", "uncertain") == 0
        s.stop()


class Mortal:
    """test/apps/mortal_sink.py, again and again on the same ports, each life with a file of its own."""

    def __init__(self, tmp_path):
        self.tmp_path = tmp_path
        self.grpc_port, self.http_port = free_ports(2)
        self.lives = 0
        self.child = None

    def live(self):
        self.lives += 1
        self.child = Child([sys.executable, ROOT / "test" / "apps" / "mortal_sink.py", self.grpc_port, self.http_port,
                            self.tmp_path / f"life{self.lives}"], self.tmp_path / f"life{self.lives}.log")
        self.child.wait_log("ready", 30)

    def spans(self):
        """{span id: times} over all lives. What a killed one had only begun to write it did not take."""
        out = collections.Counter()
        for path in self.tmp_path.glob("life*[0-9]"):
            data, at = path.read_bytes(), 0
            while at + 4 <= len(data):
                n = int.from_bytes(data[at:at + 4], "big")
                if at + 4 + n <= len(data):
                    out += ids_of(r for _, _, r in raw_records(data[at + 4:at + 4 + n]))
                at += 4 + n
        return out


@pytest.fixture
def mortal(tmp_path):
    m = Mortal(tmp_path)
    try:
        m.live()
        yield m
    finally:
        m.child.kill()


@pytest.mark.parametrize("exporter", ["otlp_grpc", "otlp_http"])
def test_back_end_killed_in_mid_request(mortal, gateway, exporter):
    """At least once; what came twice had been told as uncertain."""
    gw = gateway(BOTH, sink=mortal.grpc_port, sink_http=mortal.http_port, exporters=exporter)
    maker, sent = SpanMaker(seed=7), collections.Counter()
    for _ in range(4):
        taken = mortal.spans().total()
        for _ in range(25):
            spans = maker.trace()
            gw.export(request(spans))
            sent.update(s.span_id for _, s in spans)
        wait_until(lambda taken=taken: mortal.spans().total() > taken, what="requests under way")
        mortal.child.kill()
        mortal.live()
    wait_until(lambda: not sent - mortal.spans(), 40, "every span, at least once")
    wait_until(lambda: ledger.term(gw.scrape(), "exporter/", "held") == 0, what="nothing is held")
    arrived = mortal.spans()
    assert set(arrived) == set(sent)
    twice = arrived.total() - len(sent)
    uncertain = ledger.term(gw.scrape(), "exporter/", "uncertain")
    print(f"{len(sent)} spans, {twice} twice, {uncertain:.0f} uncertain")
    assert 0 < twice <= uncertain
    ledger.assert_explained(gw.self_metrics)


def test_queue_full_is_refused_and_told(gateway, sink):
    config = FORWARD.replace("retry_on_failure:", "sending_queue: {{queue_size: 2, num_consumers: 1}}\n    retry_on_failure:")
    config = config.replace("processors: [attributes, batch]", "processors: [attributes]")
    gw = gateway(config, sink=sink.grpc_port, generation="1")
    sink.stop()
    maker = SpanMaker(seed=6)
    accepted = refused = 0
    for _ in range(8):
        try:
            gw.export(request(maker.trace()), timeout=2)
            accepted += 10
        except grpc.RpcError as e:
            assert e.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            refused += 10
    assert refused > 0 and accepted > 0
    sink.start()
    wait_until(lambda: sink.span_count() >= accepted, 40, "what was accepted")
    ledger.assert_explained(gw.self_metrics)
