# SPDX-License-Identifier: Apache-2.0
"""Memory and back-pressure at the door: who waits, who goes on, who is told what."""

import socket
import time

import h2.exceptions
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from harness import ledger, metrics
from harness.gateway import TELEMETRY
from harness.h2raw import H2, framed
from harness.otlp import METRICS_METHOD, TRACE_METHOD, SpanMaker, request
from harness.wait import wait_until

# The soft limit is 48 MiB, so messages under assembly have 12 MiB.
CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}, http: {{endpoint: "127.0.0.1:{http}"}}}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 64, spike_limit_mib: 16}}
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{sink}
    tls: {{insecure: true}}
    sending_queue: {{queue_size: 8, num_consumers: 1}}
    retry_on_failure: {{initial_interval: 100ms, max_interval: 300ms}}
  otlp_grpc/metrics:
    endpoint: 127.0.0.1:{metrics_sink}
    tls: {{insecure: true}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [memory_limiter], exporters: [otlp_grpc]}}
    metrics: {{receivers: [otlp], processors: [memory_limiter], exporters: [otlp_grpc/metrics]}}
""" + TELEMETRY


def large_message(size):
    spans = SpanMaker(seed=3).trace()[:1]
    spans[0][1].attributes.add(key="blob").value.string_value = "x" * size
    return framed(request(spans).SerializeToString())


def small_message():
    return framed(request(SpanMaker(seed=4).trace()).SerializeToString())


def promise(conn, size=3_900_000):
    """A request of which only the gRPC prefix and a byte come."""
    sid = conn.open(TRACE_METHOD)
    conn.send(sid, b"\0" + size.to_bytes(4, "big") + b"\n")
    conn.sync()
    return sid


@pytest.fixture
def crowd():
    """More connections than may have large windows."""
    opened = []

    def open_them(port, n=17):
        for _ in range(n):
            c = H2(port)
            c.sync()
            opened.append(c)
    yield open_them
    for c in opened:
        c.close()


def test_an_admitted_message_finishes_beside_one_that_waits(gateway, sink, crowd):
    gw = gateway(CONFIG, sink=sink.grpc_port, metrics_sink=sink.grpc_port)
    crowd(gw.grpc)
    other, mine = H2(gw.grpc), H2(gw.grpc)
    for _ in range(2):
        promise(other)  # 7.8 MB of the 12 MiB
    message = large_message(3_400_000)
    admitted, waiting = mine.open(TRACE_METHOD), mine.open(TRACE_METHOD)
    mine.send(admitted, message[:100])
    mine.sync()
    pushed = mine.send(waiting, message)
    assert pushed >= 60_000, "the waiting stream takes the connection's whole window"
    mine.send_all(admitted, message[100:])
    mine.wait(lambda: mine.answered(admitted), what="answer to the admitted message")
    assert mine.grpc_status(admitted) == "0"
    assert not mine.answered(waiting), "it was not refused to make way"
    mine.send_all(waiting, message[pushed:])
    mine.wait(lambda: mine.answered(waiting), what="answer to the one that waited")
    assert mine.grpc_status(waiting) == "0"
    # All room for assembly is taken and nobody frees it: after a second one is told to come again.
    promise(other)
    refused = promise(mine)
    began = time.monotonic()
    mine.wait(lambda: mine.answered(refused), 5, "refusal")
    assert 0.8 < time.monotonic() - began
    assert mine.grpc_status(refused) == "14"
    assert "grpc-status-details-bin" in mine.streams[refused]["headers"]
    other.close()
    mine.close()
    ledger.assert_explained(gw.self_metrics)


def test_those_who_wait_fill_no_memory(gateway, sink):
    """Beside an admitted message, many that wait on its connection push all that windows allow. What
    they push is bounded too: beyond a quarter of the limit the next is told to come again."""
    gw = gateway(CONFIG, sink=sink.grpc_port, metrics_sink=sink.grpc_port)
    c, other = H2(gw.grpc), H2(gw.grpc)
    for conn in (other, other, c):
        promise(conn)
    message = large_message(3_400_000)
    waiting = []
    began = time.monotonic()
    while time.monotonic() - began < 0.8 and len(waiting) < 60:  # a second, and they are refused
        sid = c.open(TRACE_METHOD)
        waiting.append(sid)
        c.send(sid, message[:1 << 20])
        c.sync()
    samples = gw.scrape()
    used = sum(metrics.total(samples, f"tailrace_memory_{k}_bytes") for k in ("in_use", "reserved"))
    assert len(waiting) > 30, "too slow to tell"
    assert used < 32 << 20, f"{used / (1 << 20):.0f} MiB by {len(waiting)} messages that were not let in"
    c.wait(lambda: all(c.answered(sid) for sid in waiting), 10, "all are refused")
    assert {c.grpc_status(sid) for sid in waiting} == {"14"}
    c.close()
    other.close()
    wait_until(lambda: metrics.total(gw.scrape(), "tailrace_memory_reserved_bytes") == 0,
               what="nothing is reserved any more")


def test_half_a_message_costs_its_stream_not_its_connection(gateway, sink):
    gw = gateway(CONFIG, sink=sink.grpc_port, metrics_sink=sink.grpc_port)
    c = H2(gw.grpc)
    half = promise(c)
    began = time.monotonic()
    c.wait(lambda: c.answered(half), 20, "the half message is given up")
    assert c.streams[half]["reset"] == 7  # REFUSED_STREAM: it can be sent again
    assert time.monotonic() - began > 8
    whole = c.open(TRACE_METHOD)
    c.send_all(whole, small_message())
    c.wait(lambda: c.answered(whole), what="answer on the same connection")
    assert c.grpc_status(whole) == "0"
    c.close()
    assert "no byte of it came" in gw.child.log()


def test_who_has_no_credit_is_not_late(gateway, sink, crowd):
    """Two bytes of a gRPC prefix, then the connection's window goes to others that wait for memory,
    again and again: that nothing comes of it for 10 s is none of the sender's fault."""
    gw = gateway(CONFIG, sink=sink.grpc_port, metrics_sink=sink.grpc_port)
    crowd(gw.grpc)
    other, mine = H2(gw.grpc), H2(gw.grpc)
    promised = [promise(other) for _ in range(3)]  # all room for assembly
    small, large = small_message(), large_message(3_400_000)
    half = mine.open(TRACE_METHOD)
    mine.send(half, small[:2])
    mine.sync()
    began, refused = time.monotonic(), 0
    while time.monotonic() - began < 12:
        waiting = mine.open(TRACE_METHOD)
        assert mine.send(waiting, large) >= 60_000, "it takes the connection's whole window"
        mine.wait(lambda sid=waiting: mine.answered(sid) or mine.answered(half), 5, "refusal")
        assert not mine.answered(half), mine.streams[half]
        mine.sync()  # and the credit is back
        refused += 1
        for sid in promised:  # so that these are not given up
            other.send(sid, b"x")
        other.sync()
    assert refused > 5
    other.close()
    wait_until(lambda: metrics.total(gw.scrape(), "tailrace_memory_reserved_bytes") == 0, what="room")
    mine.send_all(half, small[2:])
    mine.wait(lambda: mine.answered(half), what="answer")
    assert mine.grpc_status(half) == "0"
    mine.close()
    ledger.assert_explained(gw.self_metrics)


def test_a_closed_gate_holds_senders_without_an_error(gateway, sink):
    """The back end of traces is away: when its queue is nearly full, senders wait, and no other
    signal does. When it is back everything arrives once."""
    from harness.sink import Sink
    traces = Sink()
    gw = gateway(CONFIG, sink=traces.grpc_port, metrics_sink=sink.grpc_port)
    traces.stop()
    maker = SpanMaker(seed=5)
    calls, sent = [], []
    for _ in range(20):
        spans = maker.trace()
        sent += [s.span_id for _, s in spans]
        calls.append(gw.stub().future(request(spans).SerializeToString(), timeout=60))
    wait_until(lambda: sum(c.done() for c in calls) >= 7, what="the queue is nearly full")
    metrics = ExportMetricsServiceRequest()
    m = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="still.open")
    m.gauge.data_points.add(as_int=1)
    for _ in range(10):
        gw.stub(METRICS_METHOD)(metrics.SerializeToString(), timeout=10)
    assert sum(c.done() for c in calls) < 20
    for c in calls:
        assert not c.done() or c.exception() is None
    traces.start()
    for c in calls:
        c.result(timeout=60)
    wait_until(lambda: traces.span_count() >= len(sent), 30, "all spans")
    ids = [s for b in traces.requests["traces"]
           for rs in ExportTraceServiceRequest.FromString(b).resource_spans
           for ss in rs.scope_spans for s in ss.spans]
    assert sorted(s.span_id for s in ids) == sorted(sent)
    ledger.assert_explained(gw.self_metrics)
    traces.stop()


def read_head(sock):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(4096)
        assert piece, data
        data += piece
    return data


def test_100_continue_is_said_when_there_is_room(gateway, sink):
    gw = gateway(CONFIG, sink=sink.grpc_port, metrics_sink=sink.grpc_port)
    body = request(SpanMaker(seed=6).trace()).SerializeToString()

    def head(n):
        return (f"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
                f"expect: 100-continue\r\ncontent-length: {n}\r\n\r\n").encode()

    with socket.create_connection(("127.0.0.1", gw.http), 20) as s:
        s.sendall(head(len(body)))
        assert read_head(s) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(body)
        assert read_head(s).startswith(b"HTTP/1.1 200 ")
    c = H2(gw.grpc)
    for _ in range(3):
        promise(c)
    with socket.create_connection(("127.0.0.1", gw.http), 20) as s:
        s.sendall(head(3_900_000))
        answer = read_head(s)
        assert answer.startswith(b"HTTP/1.1 503 "), answer
        assert b"retry-after:" in answer.lower()
    c.close()


def test_a_name_with_several_addresses(gateway, sink, tmp_path):
    """::1 comes first and nobody listens there: the second address is tried."""
    hosts = tmp_path / "hosts"
    hosts.write_text("::1 twofold\n127.0.0.1 twofold\n")
    config = CONFIG.replace("127.0.0.1:{sink}", "twofold:{sink}")
    prefix = ["unshare", "--mount", "sh", "-c",
              f"mount --bind {hosts} /etc/hosts && exec \"$@\"", "sh"]
    gw = gateway(config, sink=sink.grpc_port, metrics_sink=sink.grpc_port, prefix=prefix)
    gw.export(request(SpanMaker(seed=7).trace()))
    wait_until(lambda: sink.span_count() == 10, what="spans through the second address")


def reset_streams(c, most):
    """Opens and resets up to `most` streams; how many it were when the server had enough."""
    for n in range(0, most, 50):
        if c.goaway is not None or c.closed:
            return n
        for _ in range(50):
            c.conn.reset_stream(c.open(TRACE_METHOD), 8)
        c.flush()
        c.pump(0.001)
    return most


def test_rapid_reset_ends_the_connection(gateway, sink):
    """CVE-2023-44487: opening and resetting streams for nothing is not served for ever."""
    gw = gateway(CONFIG, sink=sink.grpc_port, metrics_sink=sink.grpc_port)
    c = H2(gw.grpc)
    assert reset_streams(c, 500) == 500, "callers may give up"
    c.sync()
    whole = c.open(TRACE_METHOD)
    c.send_all(whole, small_message())
    c.wait(lambda: c.answered(whole), what="answer after 500 resets")
    try:
        assert reset_streams(c, 20_000) < 20_000, "resets were served without end"
    except (OSError, h2.exceptions.ProtocolError):
        pass  # the end came in the middle of a call
    c.wait(lambda: c.goaway is not None or c.closed, what="GOAWAY")
    assert c.goaway == 11  # ENHANCE_YOUR_CALM
    gw.child.wait_log("connection ended: too many resets of unanswered requests")
    c.close()
    gw.export(request(SpanMaker(seed=8).trace()))


def test_who_is_refused_often_is_not_sent_away(gateway, sink):
    """A client stops the body of a request that was answered early by a reset (RFC 9113 section
    8.1): that is no rapid reset, however often it happens, and the connection goes on."""
    gw = gateway(CONFIG, sink=sink.grpc_port, metrics_sink=sink.grpc_port)
    c = H2(gw.grpc)
    for _ in range(40):  # twice what may be reset unanswered
        refused = [c.open(TRACE_METHOD) for _ in range(50)]
        for sid in refused:
            c.send(sid, b"\0" + (1 << 30).to_bytes(4, "big"))
        c.wait(lambda r=refused: all(c.answered(sid) for sid in r), what="early answers")
        assert {c.grpc_status(sid) for sid in refused} == {"8"}
        for sid in refused:
            c.conn.reset_stream(sid, 0)
        c.flush()
    c.sync()
    whole = c.open(TRACE_METHOD)
    c.send_all(whole, small_message())
    c.wait(lambda: c.answered(whole), what="answer after 2,000 early ones")
    assert c.grpc_status(whole) == "0" and c.goaway is None
    c.close()
