# SPDX-License-Identifier: Apache-2.0
"""The end: what is held is handed on as long as the deadline allows; what is left then is dropped,
counted, told, and freed."""

import re
import signal
import socket
import time

import grpc
import pytest

from harness import ledger
from harness.gateway import TELEMETRY
from harness.h2raw import H2
from harness.otlp import TRACE_METHOD, SpanMaker, request
from harness.sink import Sink
from harness.wait import wait_until

CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}, http: {{endpoint: "127.0.0.1:{http}"}}}}}}
processors:
  tail_sampling:
    decision_wait: 100ms
    policies: [{{name: all, type: always_sample}}]
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{sink}
    tls: {{insecure: true}}
    timeout: 60s
    retry_on_failure: {{initial_interval: 100ms, max_interval: 400ms}}
  otlp_http:
    endpoint: http://127.0.0.1:{sink_http}
    timeout: 60s
    retry_on_failure: {{initial_interval: 100ms, max_interval: 400ms}}
  otlp_grpc/direct:
    endpoint: 127.0.0.1:{sink}
    tls: {{insecure: true}}
    timeout: 60s
    sending_queue: {{enabled: false}}
  load_balancing:
    protocol: {{otlp: {{timeout: 60s, tls: {{insecure: true}}, retry_on_failure: {{initial_interval: 100ms, max_interval: 400ms}}}}}}
    resolver: {{static: {{hostnames: ["127.0.0.1:{sink}"]}}}}
service:
  shutdown_timeout: {drain}
  pipelines:
    traces: {{receivers: [otlp], processors: {processors}, exporters: {exporters}}}
""" + TELEMETRY


class Hole:
    """A back end that takes connections and never says a word."""

    def __init__(self):
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.sock.getsockname()[1]

    def close(self):
        self.sock.close()


@pytest.fixture
def hole():
    h = Hole()
    yield h
    h.close()


def dropped(log):
    """Items told as dropped: by exporters, and by the service at the end."""
    each = sum(int(n) for n in re.findall(r"Dropping data: .*?\((\d+) items", log))
    told = re.findall(r"(\d+) items dropped at shutdown: the deadline passed", log)
    return each, [int(n) for n in told]


@pytest.mark.parametrize("exporter", ["otlp_grpc", "otlp_http", "load_balancing"])
@pytest.mark.parametrize("processors", ["[]", "[tail_sampling]"], ids=["", "sampled"])
def test_what_is_left_at_the_deadline_is_told(gateway, hole, exporter, processors):
    """Attempts under way, some that wait for one: all is dropped, counted and freed, exit status 1."""
    gw = gateway(CONFIG, sink=hole.port, sink_http=hole.port, drain="1s", processors=processors,
                 exporters=f"[{exporter}]")
    maker = SpanMaker(seed=41)
    for _ in range(30):
        gw.export(request(maker.trace()))
    wait_until(lambda: ledger.term(gw.scrape(), "exporter/", "held") == 300, what="300 spans held")
    began = time.monotonic()
    assert gw.stop() == 1
    assert 0.9 < time.monotonic() - began < 8
    log = gw.child.log()
    assert dropped(log) == (300, [300]), log[-3000:]
    assert "does not end" not in log and "Sanitizer" not in log


def test_senders_hear_of_what_is_cut(gateway, hole):
    """Without a queue the sender waits for the back end: at the deadline it is told, not left."""
    gw = gateway(CONFIG, sink=hole.port, sink_http=hole.port, drain="1s", processors="[]",
                 exporters="[otlp_grpc/direct]")
    call = gw.stub().future(request(SpanMaker(seed=42).trace()).SerializeToString(), timeout=30)
    wait_until(lambda: ledger.term(gw.scrape(), "exporter/", "held") == 10, what="10 spans held")
    gw.child.signal(signal.SIGTERM)
    with pytest.raises(grpc.RpcError) as failed:
        call.result()
    assert failed.value.code() == grpc.StatusCode.UNAVAILABLE
    assert gw.stop() == 1
    assert dropped(gw.child.log())[0] == 10


@pytest.mark.parametrize("exporter", ["otlp_grpc", "otlp_http", "load_balancing"])
def test_a_back_end_that_comes_back_in_time_gets_all(gateway, exporter):
    sink = Sink()
    gw = gateway(CONFIG, sink=sink.grpc_port, sink_http=sink.http_port, drain="15s", processors="[]",
                 exporters=f"[{exporter}]")
    sink.stop()
    maker = SpanMaker(seed=43)
    for _ in range(30):
        gw.export(request(maker.trace()))
    gw.child.wait_log("Will retry")
    gw.child.signal(signal.SIGTERM)
    gw.child.wait_log("shutting down")
    # The log leaves out what it has said a hundred times: those are several attempts for each.
    gw.child.wait_log("like it left out")
    sink.start()
    assert gw.child.wait(20) == 0
    assert sorted(sink.spans()) == sorted(set(sink.spans())) and sink.span_count() == 300
    sink.stop()


def test_a_second_signal_ends_the_drain(gateway, hole):
    gw = gateway(CONFIG, sink=hole.port, sink_http=hole.port, drain="60s", processors="[]",
                 exporters="[otlp_grpc]")
    gw.export(request(SpanMaker(seed=44).trace()))
    wait_until(lambda: ledger.term(gw.scrape(), "exporter/", "held") == 10, what="10 spans held")
    gw.child.signal(signal.SIGTERM)
    gw.child.wait_log("shutting down")
    began = time.monotonic()
    assert gw.stop() == 1
    assert time.monotonic() - began < 8
    assert dropped(gw.child.log()) == (10, [10])


def test_peers_who_do_not_finish_do_not_hold_the_end(gateway, sink):
    """Half requests on both ports, one that goes on drop by drop: the end comes all the same."""
    gw = gateway(CONFIG, sink=sink.grpc_port, sink_http=sink.http_port, drain="15s", processors="[]",
                 exporters="[otlp_grpc]")
    gw.export(request(SpanMaker(seed=45).trace()))
    half = H2(gw.grpc)
    sid = half.open(TRACE_METHOD)
    half.send(sid, b"\0\0\0\1\0" + b"\n")
    half.sync()
    slow = socket.create_connection(("127.0.0.1", gw.http), 10)
    slow.sendall(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
                 b"content-length: 100000\r\n\r\n")
    gw.child.signal(signal.SIGTERM)
    began = time.monotonic()

    def drip():
        try:
            slow.sendall(b"\n")
        except OSError:
            pass
        return not gw.child.alive()
    wait_until(drip, 12, "the end", interval=0.2)
    assert gw.child.wait(1) == 0
    assert 3 < time.monotonic() - began, "half requests had no time at all"
    assert sink.span_count() == 10
    half.close()
    slow.close()
