# SPDX-License-Identifier: Apache-2.0
"""What the Collector's own behaviour is, where an accepted configuration promises it: batches and their rests,
num_traces, which answers are tried again and when, what is sent by default.
"""

import re
import socket
import time

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from harness import ledger, metrics
from harness.gateway import TELEMETRY
from harness.h2raw import H2, framed
from harness.otlp import SpanMaker, raw_records, request
from harness.sink import SIGNAL_OF_PATH, Answer
from harness.wait import stable, wait_until

PIPELINE = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
processors: {processors}
exporters:
  otlp_grpc:
    endpoint: "127.0.0.1:{sink}"
    tls: {{insecure: true}}
    retry_on_failure: {{initial_interval: 200ms, randomization_factor: 0, multiplier: 2, max_interval: 400ms}}
    {exporter}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [{uses}], exporters: [otlp_grpc]}}
""" + TELEMETRY


def start(gateway, sink, processors="{}", uses="", exporter=""):
    return gateway(PIPELINE, sink=sink.grpc_port, processors=processors, uses=uses, exporter=exporter)


def spans(n, per_trace=1):
    maker = SpanMaker(seed=9)
    return request([s for _ in range(n // per_trace) for s in maker.trace(n=per_trace)])


def sizes(sink):
    with sink.lock:
        return [len(list(raw_records(body))) for body in sink.requests["traces"]]


# ---- batching ----

def test_batch_keeps_what_is_left_below_its_size(sink, gateway):
    """send_batch_max_size splits; the rest waits for the timeout, it is not sent as a small batch."""
    gw = start(gateway, sink, uses="batch", processors="""
  batch: {send_batch_size: 100, send_batch_max_size: 100, timeout: 3s}""")
    gw.export(spans(250))
    wait_until(lambda: len(sizes(sink)) >= 2, 20, "two full batches")
    gw.export(spans(60))  # 50 and 60 make the next full one, 10 are left
    wait_until(lambda: sum(sizes(sink)) == 310, 20, "all spans")
    assert sizes(sink) == [100, 100, 100, 10]
    by = {k: metrics.total(gw.scrape(), f"otelcol_processor_batch_{k}_trigger_send")
          for k in ("batch_size", "timeout")}
    assert by == {"batch_size": 3, "timeout": 1}
    ledger.assert_explained(gw.self_metrics)


def test_batch_without_timeout_sends_at_once(sink, gateway):
    gw = start(gateway, sink, uses="batch", processors="""
  batch: {send_batch_size: 10000, timeout: 0s}""")
    gw.export(spans(30))
    gw.export(spans(20))
    wait_until(lambda: sorted(sizes(sink)) == [20, 30], 20, "each request as it came")


@pytest.mark.parametrize("keys, pieces", [
    ("min_size: 1, max_size: 100", [50, 100, 100]),
    ("min_size: 1, max_size: 8000, sizer: bytes", None),
])
def test_queue_splits_what_is_larger_than_max_size(sink, gateway, keys, pieces):
    gw = start(gateway, sink, exporter="sending_queue: {batch: {flush_timeout: 50ms, %s}}" % keys)
    sent = spans(250)
    gw.export(sent)
    wait_until(lambda: sum(sizes(sink)) == 250, 20, "all spans")
    if pieces:
        assert sorted(sizes(sink)) == pieces
    else:
        assert max(map(len, sink.requests["traces"])) <= 8000 and len(sizes(sink)) > 3
    assert sorted(sink.spans()) == sorted(r for _, _, r in raw_records(sent.SerializeToString()))
    ledger.assert_explained(gw.self_metrics)


# ---- tail sampling ----

def test_num_traces_drops_the_oldest_without_a_decision(sink, gateway):
    gw = start(gateway, sink, uses="tail_sampling", processors="""
  tail_sampling: {decision_wait: 4s, num_traces: 100, policies: [{name: all, type: always_sample}]}""")
    gw.export(spans(900, per_trace=3))
    dropped = metrics.total(gw.scrape(), "otelcol_processor_tail_sampling_sampling_trace_dropped_too_early")
    assert 300 - 100 - 16 <= dropped <= 200  # a shard without a trace to drop goes one beyond
    wait_until(lambda: sink.span_count() >= 3 * (300 - dropped), 30, "the decided traces")
    assert stable(sink.span_count) == 3 * (300 - dropped)
    assert ledger.term(gw.scrape(), "processor/tail_sampling", "dropped",
                       reason="dropped_too_early") == 3 * dropped
    ledger.assert_explained(gw.self_metrics)


# ---- exporters ----

def details(code, *infos):
    status = status_pb2.Status(code=code)
    for info in infos:
        packed = any_pb2.Any()
        packed.Pack(info)
        status.details.append(packed)
    return status.SerializeToString()


RETRY_NOW = error_details_pb2.RetryInfo()
C = grpc.StatusCode
RETRYABLE = [C.CANCELLED, C.DEADLINE_EXCEEDED, C.ABORTED, C.OUT_OF_RANGE, C.UNAVAILABLE, C.DATA_LOSS]
PERMANENT = [C.UNKNOWN, C.INVALID_ARGUMENT, C.NOT_FOUND, C.ALREADY_EXISTS, C.PERMISSION_DENIED,
             C.FAILED_PRECONDITION, C.UNIMPLEMENTED, C.INTERNAL, C.UNAUTHENTICATED,
             C.RESOURCE_EXHAUSTED]


def attempts_after(gw, sink, answers):
    """Times of the attempts that one request takes when the sink answers so."""
    left = list(answers)
    sink.fault = lambda signal, body: left.pop(0) if left else None
    before = len(sink.arrivals["traces"])
    gw.export(spans(5))

    def settled():
        return ledger.term(gw.scrape(), "exporter/otlp", "held") == 0
    wait_until(lambda: len(sink.arrivals["traces"]) > before and settled(), 20, "the request's end")
    return sink.arrivals["traces"][before:]


def test_which_grpc_codes_are_tried_again(sink, gateway):
    gw = start(gateway, sink)
    for code in RETRYABLE:
        assert len(attempts_after(gw, sink, [code])) == 2, code
    for code in PERMANENT:
        assert len(attempts_after(gw, sink, [code])) == 1, code
    # RESOURCE_EXHAUSTED only with RetryInfo, whatever its delay.
    hint = Answer(C.RESOURCE_EXHAUSTED, details(8, RETRY_NOW))
    assert len(attempts_after(gw, sink, [hint])) == 2
    dropped = ledger.term(gw.scrape(), "exporter/otlp_grpc", "dropped", reason="permanent")
    assert dropped == 5 * len(PERMANENT)
    assert sink.span_count() == 5 * (len(RETRYABLE) + 1)
    ledger.assert_explained(gw.self_metrics)


def gaps(times):
    return [b - a for a, b in zip(times, times[1:])]


def test_intervals_grow_and_the_back_end_may_ask_for_more(sink, gateway):
    gw = start(gateway, sink)
    # 200 ms, twice that, and no more than max_interval; lower bounds only: the machine may be busy.
    waited = gaps(attempts_after(gw, sink, [C.UNAVAILABLE] * 3))
    assert [g >= least - 0.03 for g, least in zip(waited, (0.2, 0.4, 0.4))] == [True] * 3, waited
    assert max(waited) < 3
    asked = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=500000000))
    (waited,) = gaps(attempts_after(gw, sink, [Answer(C.UNAVAILABLE, details(14, asked))]))
    assert waited >= 1.45


def test_partial_success_is_told_counted_and_not_tried_again(sink, gateway):
    gw = start(gateway, sink)
    body = ExportTraceServiceResponse()
    body.partial_success.rejected_spans, body.partial_success.error_message = 2, "too old"
    assert len(attempts_after(gw, sink, [Answer(C.OK, body=body.SerializeToString())])) == 1
    assert "too old (2 items rejected)" in gw.child.log()
    assert ledger.term(gw.scrape(), "exporter/otlp_grpc", "dropped", reason="rejected") == 2
    assert metrics.total(gw.scrape(), "otelcol_exporter_sent_spans") == 5  # as the Collector counts
    ledger.assert_explained(gw.self_metrics)


HTTP_PIPELINE = PIPELINE.replace("otlp_grpc", "otlp_http").replace(
    'endpoint: "127.0.0.1:{sink}"\n    tls: {{insecure: true}}', 'endpoint: "http://127.0.0.1:{sink}/base/"')


def test_http_statuses_and_what_is_sent(sink, gateway, monkeypatch):
    monkeypatch.setitem(SIGNAL_OF_PATH, "/base/v1/traces", "traces")
    gw = gateway(HTTP_PIPELINE, sink=sink.http_port, processors="{}", uses="",
                 exporter="headers: {x-tenant: a}")
    for status in (429, 502, 503, 504):
        assert len(attempts_after(gw, sink, [Answer(status)])) == 2, status
    for status in (400, 401, 403, 404, 408, 413, 500, 501):
        assert len(attempts_after(gw, sink, [Answer(status)])) == 1, status
    for status in (200, 202, 204):
        assert len(attempts_after(gw, sink, [Answer(status)])) == 1, status
    path, headers = sink.http_headers[0]
    assert path == "/base/v1/traces"
    assert headers["content-encoding"] == "gzip" and headers["x-tenant"] == "a"
    assert headers["content-type"] == "application/x-protobuf"
    assert re.fullmatch(r"Tailrace/\S+ \(linux/\w+\)", headers["user-agent"])
    (waited,) = gaps(attempts_after(gw, sink, [Answer(503, headers={"retry-after": "2"})]))
    assert waited >= 1.95
    # A throttle hint counts on 429 and 503 only.
    (waited,) = gaps(attempts_after(gw, sink, [Answer(502, headers={"retry-after": "30"})]))
    assert waited < 15
    body = ExportTraceServiceResponse()
    body.partial_success.rejected_spans = 5
    attempts_after(gw, sink, [Answer(200, body=body.SerializeToString())])
    assert ledger.term(gw.scrape(), "exporter/otlp_http", "dropped", reason="rejected") == 5
    # An answer that cannot be read is no success.
    attempts_after(gw, sink, [Answer(200, body=b"\xff\xff\xff")])
    assert "the answer cannot be read" in gw.child.log()
    ledger.assert_explained(gw.self_metrics)


# ---- on the wire ----

def first_request_headers(gw):
    """Headers of the first gRPC request that a client sends to .server, read frame by frame."""
    conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    sock, _ = gw.server.accept()
    with sock:
        sock.settimeout(20)
        conn.initiate_connection()
        sock.sendall(conn.data_to_send())
        while True:
            for event in conn.receive_data(sock.recv(65536)):
                if isinstance(event, h2.events.RequestReceived):
                    return {k.decode(): v.decode() for k, v in event.headers}
            sock.sendall(conn.data_to_send())


def test_a_grpc_request_is_compressed_by_default_and_tells_its_deadline(gateway, sink):
    with socket.create_server(("127.0.0.1", 0)) as server:
        gw = gateway(PIPELINE, sink=server.getsockname()[1], processors="{}", uses="",
                     exporter="headers: {x-tenant: a}")
        gw.server = server
        gw.export(spans(5))
        headers = first_request_headers(gw)
    assert headers[":path"] == "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    assert headers["grpc-encoding"] == "gzip" and headers["content-type"] == "application/grpc"
    assert headers["te"] == "trailers" and headers["x-tenant"] == "a"
    assert re.fullmatch(r"Tailrace/\S+ \(linux/\w+\)", headers["user-agent"])
    value, unit = int(headers["grpc-timeout"][:-1]), headers["grpc-timeout"][-1]
    seconds = value / {"S": 1, "m": 1e3, "u": 1e6, "n": 1e9}[unit]
    assert 3 < seconds <= 5  # the default of timeout
    gw.child.kill()


def test_windows_are_a_megabyte_a_stream_and_four_a_connection(gateway, sink):
    gw = start(gateway, sink)
    client = H2(gw.grpc)
    client.sync()
    assert 1_000_000 <= client.conn.remote_settings.initial_window_size <= 1 << 20
    assert client.conn.outbound_flow_control_window == 4 << 20
    client.close()


def test_a_deadline_that_has_passed_is_told(gateway, sink):
    """A request that is whole only after its grpc-timeout is not delivered."""
    gw = start(gateway, sink)
    body = framed(spans(5).SerializeToString())
    client = H2(gw.grpc)
    sid = client.open("/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                      headers=[("grpc-timeout", "100m")])
    client.send(sid, body[:-10])
    sent = time.monotonic()
    client.sync()
    wait_until(lambda: time.monotonic() - sent > 0.3 or client.answered(sid), 10, "the deadline")
    if not client.answered(sid):
        client.send(sid, body[-10:], end=True)
    client.wait(lambda: client.answered(sid), what="an answer")
    assert client.grpc_status(sid) == "4", client.streams[sid]
    late = client.open("/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                       headers=[("grpc-timeout", "10S")])
    client.send(late, body, end=True)
    client.wait(lambda: client.answered(late), what="an answer")
    assert client.grpc_status(late) == "0"
    wait_until(lambda: sink.span_count() == 5, 20, "the second request alone")
    client.close()
