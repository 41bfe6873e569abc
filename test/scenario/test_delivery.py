"""Nothing acknowledged is lost: at shutdown, over a reload, while the back end is away."""

import collections
import json
import signal
import subprocess
import urllib.request

import pytest

from harness import ledger
from harness.gateway import TELEMETRY
from harness.otlp import SpanMaker, request
from harness.process import Child, tool
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
    import urllib.request
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


@pytest.mark.tsan
def test_sigterm_under_load_loses_nothing_acknowledged(gateway, counting_sink):
    gw = gateway(FORWARD, sink=counting_sink.port, generation="1")
    load = start_load(gw.grpc, 3)
    wait_for_traffic(counting_sink.port)
    assert gw.stop() == 0
    report = last_report(load)
    assert report["acked_spans"] > 0
    assert sink_spans(counting_sink.port) >= report["acked_spans"]


@pytest.mark.tsan
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


def test_back_end_away_then_back_every_span_once(gateway, sink):
    """Connections are refused for some seconds: every span arrives, exactly once."""
    gw = gateway(FORWARD, sink=sink.grpc_port, generation="1")
    maker = SpanMaker(seed=5)
    sent = []
    sink.stop()
    for _ in range(30):
        spans = maker.trace()
        gw.export(request(spans))
        sent += [s.span_id for _, s in spans]
    gw.child.wait_log("Will retry")
    sink.start()
    wait_until(lambda: sink.span_count() >= len(sent), 40, "spans after the back end is back")
    stable(sink.span_count)
    from opentelemetry.proto.trace.v1.trace_pb2 import Span
    arrived = collections.Counter(Span.FromString(s).span_id for s in sink.spans())
    assert arrived == collections.Counter(sent)
    ledger.assert_explained(gw.self_metrics)


def test_queue_full_is_refused_and_told(gateway, sink):
    config = FORWARD.replace("retry_on_failure:", "sending_queue: {{queue_size: 2, num_consumers: 1}}\n    retry_on_failure:")
    config = config.replace("processors: [attributes, batch]", "processors: [attributes]")
    gw = gateway(config, sink=sink.grpc_port, generation="1")
    sink.stop()
    maker = SpanMaker(seed=6)
    import grpc
    accepted = refused = 0
    for _ in range(30):
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
