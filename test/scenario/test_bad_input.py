# SPDX-License-Identifier: Apache-2.0
"""Malformed, truncated, oversized and bomb-compressed requests: the right error, no memory kept."""

import gzip
import http.client
import random
import socket
import struct

import grpc
import pytest
from google.rpc import status_pb2

from harness.gateway import TELEMETRY
from harness.metrics import total
from harness.otlp import SpanMaker, request
from harness.wait import wait_until

CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: 127.0.0.1:{grpc}}}
      http: {{endpoint: 127.0.0.1:{http}, max_request_body_size: 1048576}}
processors:
  batch: {{timeout: 50ms}}
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{sink}
    tls: {{insecure: true}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}}
""" + TELEMETRY


def good_body(traces=3):
    maker = SpanMaker(seed=3)
    return request([s for _ in range(traces) for s in maker.trace()]).SerializeToString()


def post(port, body, path="/v1/traces", method="POST", **headers):
    """(status, headers, body) of one HTTP request."""
    head = {"content-type": "application/x-protobuf"}
    head.update({k.replace("_", "-"): v for k, v in headers.items()})
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        conn.request(method, path, body=body, headers=head)
        r = conn.getresponse()
        return r.status, {k.lower(): v for k, v in r.getheaders()}, r.read()
    finally:
        conn.close()


def bad_utf8():
    """A span whose name is not UTF-8."""
    span = bytes.fromhex("0a10") + b"t" * 16 + bytes.fromhex("1208") + b"s" * 8 + b"\x2a\x02\xff\xfe"
    scope = b"\x12" + bytes([len(span)]) + span
    res = b"\x12" + bytes([len(scope)]) + scope
    return b"\x0a" + bytes([len(res)]) + res


def deep_value(depth):
    """A span with one attribute whose ArrayValue is nested `depth` deep."""
    def field(number, data):
        out, n = bytes([number << 3 | 2]), len(data)
        while n > 127:
            out, n = out + bytes([n & 127 | 128]), n >> 7
        return out + bytes([n]) + data
    value = b""
    for _ in range(depth):
        value = field(5, field(1, value))  # AnyValue.array_value{ArrayValue.values}
    attr = field(9, field(1, b"k") + field(2, value))
    span = field(1, b"t" * 16) + field(2, b"s" * 8) + attr
    return field(1, field(2, field(2, span)))


MALFORMED = {
    "not protobuf": b"\xff\xff\xff\xff",
    "truncated": good_body()[:-7],
    "bad utf-8": bad_utf8(),
    "nested 2000 deep": deep_value(2000),
    "field number 0": b"\x02\x00",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_is_refused_by_both_protocols(gateway, sink, name):
    gw = gateway(CONFIG, sink=sink.grpc_port)
    body = MALFORMED[name]
    status, headers, answer = post(gw.http, body)
    assert status == 400, answer
    assert headers["content-type"] == "application/x-protobuf"
    rpc = status_pb2.Status.FromString(answer)
    assert rpc.code == 3 and rpc.message
    with pytest.raises(grpc.RpcError) as failed:
        gw.export(body)
    assert failed.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)
    assert failed.value.details()
    # The next sender is not harmed.
    gw.export(good_body())
    wait_until(lambda: sink.span_count() == 30, what="the good spans")


def test_http_status_codes(gateway, sink):
    gw = gateway(CONFIG, sink=sink.grpc_port)
    body = good_body()
    assert post(gw.http, None, method="GET")[0] == 405
    assert post(gw.http, body, path="/v1/nothing")[0] == 404
    assert post(gw.http, body, content_type="text/plain")[0] == 415
    assert post(gw.http, b"{}", content_type="application/json")[0] == 415
    assert post(gw.http, body, content_encoding="br")[0] == 400
    assert post(gw.http, b"junk", content_encoding="gzip")[0] == 400
    assert post(gw.http, gzip.compress(body)[:-9], content_encoding="gzip")[0] == 400
    assert post(gw.http, b"\0" * (1 << 20 | 1))[0] == 400
    assert post(gw.http, gzip.compress(body), content_encoding="gzip")[0] == 200
    assert post(gw.http, body, content_type="application/x-protobuf; charset=utf-8")[0] == 200
    wait_until(lambda: sink.span_count() == 60, what="both good requests")


def test_grpc_errors(gateway, sink):
    gw = gateway(CONFIG, sink=sink.grpc_port)
    with pytest.raises(grpc.RpcError) as failed:
        gw.stub("/opentelemetry.proto.collector.trace.v1.TraceService/Nothing")(b"", timeout=10)
    assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as failed:
        gw.export(b"\0" * ((4 << 20) + 1))
    assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    # An empty request is a success that reaches nobody.
    assert gw.export(b"") == b""


def test_bombs_leave_memory_where_it_was(gateway, sink):
    gw = gateway(CONFIG, sink=sink.grpc_port)
    gw.export(good_body())

    def rss():
        with open(f"/proc/{gw.child.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * 4096

    before = rss()
    bomb = gzip.compress(b"\0" * (256 << 20), 9)
    for _ in range(20):
        assert post(gw.http, bomb, content_encoding="gzip")[0] == 400
    channel = grpc.insecure_channel(f"127.0.0.1:{gw.grpc}", compression=grpc.Compression.Gzip)
    call = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
    for _ in range(5):
        with pytest.raises(grpc.RpcError) as failed:
            call(b"\0" * (64 << 20), timeout=20)
        assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    channel.close()
    assert rss() - before < 48 << 20
    gw.export(good_body())


def test_random_bytes_on_the_sockets(gateway, sink):
    """Garbage, half requests and resets on both ports: the service stays, others are served."""
    gw = gateway(CONFIG, sink=sink.grpc_port)
    rng = random.Random(5)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for i in range(60):
        data = rng.randbytes(rng.randrange(1, 4000))
        if i % 3 == 1:
            data = preface + data
        if i % 3 == 2:
            data = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 999\r\n" + data
        s = socket.create_connection(("127.0.0.1", gw.http if i % 2 else gw.grpc), timeout=5)
        s.sendall(data)
        if i % 4 == 0:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
    gw.export(good_body())
    wait_until(lambda: sink.span_count() == 30, what="the good spans")
    assert total(gw.scrape(), "otelcol_receiver_accepted_spans") == 30
    assert gw.stop() == 0
