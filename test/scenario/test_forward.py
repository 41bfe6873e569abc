# SPDX-License-Identifier: Apache-2.0
"""The thread through everything: spans in by gRPC and HTTP, out to a back end, byte for byte."""

import urllib.request


from harness.gateway import TELEMETRY
from harness.otlp import SpanMaker, raw_records, request
from harness.wait import wait_until

FORWARD = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: 127.0.0.1:{grpc}}}
      http: {{endpoint: 127.0.0.1:{http}}}
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{sink}
    tls: {{insecure: true}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_grpc]}}
""" + TELEMETRY


def make_request(traces=5):
    maker = SpanMaker(seed=7)
    return request([s for _ in range(traces) for s in maker.trace()]).SerializeToString()


def test_grpc_spans_arrive_byte_for_byte(gateway, sink):
    gw = gateway(FORWARD, sink=sink.grpc_port)
    body = make_request()
    assert gw.export(body) == b""
    wait_until(lambda: sink.span_count() == 50, what="50 spans at the sink")
    assert sink.records() == list(raw_records(body))
    assert gw.stop() == 0


def test_http_spans_arrive_byte_for_byte(gateway, sink):
    gw = gateway(FORWARD, sink=sink.grpc_port)
    body = make_request()
    req = urllib.request.Request(f"http://127.0.0.1:{gw.http}/v1/traces", data=body, method="POST",
                                 headers={"content-type": "application/x-protobuf"})
    with urllib.request.urlopen(req, timeout=10) as r:
        assert r.status == 200
        assert r.headers["content-type"] == "application/x-protobuf"
    wait_until(lambda: sink.span_count() == 50, what="50 spans at the sink")
    assert sink.records() == list(raw_records(body))
