# SPDX-License-Identifier: Apache-2.0
"""OTLP requests for tests: made with the opentelemetry-proto package, split on the wire level."""

import random
import struct

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACE_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS_METHOD = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
LOGS_METHOD = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"


def varint(data, pos):
    value = shift = 0
    while True:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
        shift += 7


def fields(data):
    """Yields (number, wire type, payload or value) of a message; no groups."""
    pos, end = 0, len(data)
    while pos < end:
        tag, pos = varint(data, pos)
        number, kind = tag >> 3, tag & 7
        if kind == 2:
            n, pos = varint(data, pos)
            yield number, kind, data[pos:pos + n]
            pos += n
        elif kind == 0:
            value, pos = varint(data, pos)
            yield number, kind, value
        elif kind == 1:
            yield number, kind, struct.unpack_from("<Q", data, pos)[0]
            pos += 8
        elif kind == 5:
            yield number, kind, struct.unpack_from("<I", data, pos)[0]
            pos += 4
        else:
            raise ValueError(f"wire type {kind}")


def raw_records(request):
    """Yields (resource bytes, scope bytes, record bytes) of an Export request of any signal."""
    for number, _, res in fields(request):
        if number != 1:
            continue
        parts = list(fields(res))
        resource = b"".join(p for n, _, p in parts if n == 1)
        for n, _, scope_msg in parts:
            if n != 2:
                continue
            inner = list(fields(scope_msg))
            scope = b"".join(p for k, _, p in inner if k == 1)
            for k, _, rec in inner:
                if k == 2:
                    yield resource, scope, rec


def span_ids(span_bytes):
    """(trace id, span id) of a serialized span."""
    trace = span = b""
    for number, kind, value in fields(span_bytes):
        if number == 1 and kind == 2:
            trace = value
        elif number == 2 and kind == 2:
            span = value
    return trace, span


def add_attr(where, key, value):
    a = where.add()
    a.key = key
    if isinstance(value, bool):
        a.value.bool_value = value
    elif isinstance(value, int):
        a.value.int_value = value
    elif isinstance(value, float):
        a.value.double_value = value
    else:
        a.value.string_value = str(value)


class SpanMaker:
    """Deterministic spans. Times are nanoseconds of Unix time."""

    def __init__(self, seed=1):
        self.rng = random.Random(seed)
        self.now = 1_700_000_000_000_000_000

    def id(self, n):
        return self.rng.getrandbits(8 * n).to_bytes(n, "big") or b"\1" * n

    def trace(self, n=10, error=False, duration_ms=20, service="shop", attrs=()):
        """n spans of one trace: a server root and client children."""
        trace_id = self.id(16)
        root = self.id(8)
        out = []
        for i in range(n):
            s = Span(trace_id=trace_id, span_id=root if i == 0 else self.id(8),
                     parent_span_id=b"" if i == 0 else root,
                     name=f"op {i}", kind=Span.SPAN_KIND_SERVER if i == 0 else Span.SPAN_KIND_CLIENT,
                     start_time_unix_nano=self.now,
                     end_time_unix_nano=self.now + (duration_ms if i == 0 else 1) * 1_000_000)
            add_attr(s.attributes, "http.request.method", "GET")
            add_attr(s.attributes, "url.path", f"/item/{i}")
            for k, v in attrs:
                add_attr(s.attributes, k, v)
            if error and i == n - 1:
                s.status.code = Status.STATUS_CODE_ERROR
            out.append((service, s))
            self.now += 1000
        return out


def request(spans, scope="test"):
    """One ExportTraceServiceRequest of (service, Span) pairs, grouped by service."""
    req = ExportTraceServiceRequest()
    by_service = {}
    for service, span in spans:
        ss = by_service.get(service)
        if ss is None:
            rs = req.resource_spans.add()
            add_attr(rs.resource.attributes, "service.name", service)
            ss = rs.scope_spans.add()
            ss.scope.name = scope
            by_service[service] = ss
        ss.spans.append(span)
    return req
