# SPDX-License-Identifier: Apache-2.0
"""Random OTLP requests of all three signals, and other ways to write the same message on the wire."""

import math
import struct

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import (Exemplar, ExponentialHistogramDataPoint,
                                                        HistogramDataPoint, Metric, NumberDataPoint,
                                                        SummaryDataPoint)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from harness.otlp import fields

# Field numbers of messages inside messages, as far as the mutations go down.
NESTED = {"traces": {1: "resource_spans"}, "resource_spans": {1: "resource", 2: "scope_spans"},
          "scope_spans": {1: "scope", 2: "span"}, "span": {9: "kv", 11: "event", 15: "status"},
          "resource": {1: "kv"}, "scope": {3: "kv"}, "event": {3: "kv"}, "kv": {2: "any"},
          "logs": {1: "resource_logs"}, "resource_logs": {1: "resource", 2: "scope_logs"},
          "scope_logs": {1: "scope", 2: "log"}, "log": {5: "any", 6: "kv"},
          "metrics": {1: "resource_metrics"}, "resource_metrics": {1: "resource", 2: "scope_metrics"},
          "scope_metrics": {1: "scope", 2: "metric"},
          "metric": {5: "gauge", 7: "sum", 9: "histogram", 10: "exponential", 11: "summary", 12: "kv"},
          "gauge": {1: "number"}, "sum": {1: "number"}, "histogram": {1: "histogram_point"},
          "exponential": {1: "exponential_point"}, "summary": {1: "summary_point"},
          "number": {5: "exemplar", 7: "kv"}, "exemplar": {7: "kv"},
          "histogram_point": {8: "exemplar", 9: "kv"},
          "exponential_point": {1: "kv", 8: "buckets", 9: "buckets", 11: "exemplar"},
          "summary_point": {7: "kv"}}
SCALARS = {"span": {6: 0, 7: 1, 8: 1, 10: 0, 16: 5}, "status": {3: 0}, "event": {1: 1},
           "log": {1: 1, 2: 0, 7: 0, 8: 5, 11: 1}, "sum": {2: 0, 3: 0}, "histogram": {2: 0},
           "number": {2: 1, 3: 1, 4: 1, 6: 1, 8: 0}, "exemplar": {2: 1, 3: 1, 6: 1},
           "histogram_point": {4: 1, 5: 1, 6: 1, 7: 1, 10: 0, 11: 1, 12: 1}, "buckets": {1: 0, 2: 0},
           "exponential_point": {4: 1, 5: 1, 6: 0, 7: 1, 10: 0, 12: 1, 13: 1, 14: 1},
           "summary_point": {4: 1, 5: 1, 8: 0}}
SINGULAR = ("resource", "scope", "status", "any", "gauge", "sum", "histogram", "exponential", "summary",
            "buckets")
SHUFFLED = ("resource_spans", "scope_spans", "span", "resource_logs", "scope_logs", "log",
            "resource_metrics", "scope_metrics", "number", "histogram_point", "exponential_point",
            "summary_point")


def text(rng):
    return "".join(rng.choice("abcdez é€😀") for _ in range(rng.randrange(8)))


def double(rng):
    if rng.random() < 0.15:
        return rng.choice([0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308])
    return rng.random() * 10 ** rng.randrange(-5, 20)


def any_value(rng, depth=0):
    v = AnyValue()
    kind = rng.randrange(7 if depth < 3 else 5)
    if kind == 0:
        v.string_value = text(rng)
    elif kind == 1:
        v.bool_value = rng.random() < 0.5
    elif kind == 2:
        v.int_value = rng.getrandbits(64) - (1 << 63)
    elif kind == 3:
        v.double_value = double(rng)
    elif kind == 4:
        v.bytes_value = rng.randbytes(rng.randrange(5))
    elif kind == 5:
        v.array_value.values.extend(any_value(rng, depth + 1) for _ in range(rng.randrange(3)))
    else:
        v.kvlist_value.values.extend(KeyValue(key=text(rng), value=any_value(rng, depth + 1))
                                     for _ in range(rng.randrange(3)))
    return v


def attributes(rng, n=4):
    keys = rng.sample(["a", "b", "c", "http.request.method", "r", "é", ""], rng.randrange(n))
    return [KeyValue(key=k, value=any_value(rng)) for k in keys]


def make_span(rng):
    s = Span(trace_id=rng.randbytes(16), span_id=rng.randbytes(8), name=text(rng),
             kind=rng.randrange(6), start_time_unix_nano=rng.getrandbits(60),
             end_time_unix_nano=rng.getrandbits(60), trace_state=text(rng), flags=rng.getrandbits(32))
    if rng.random() < 0.6:
        s.parent_span_id = rng.randbytes(8)
    s.attributes.extend(attributes(rng))
    for _ in range(rng.randrange(2)):
        s.events.add(time_unix_nano=rng.getrandbits(40), name=text(rng)).attributes.extend(attributes(rng))
    for _ in range(rng.randrange(2)):
        s.links.add(trace_id=rng.randbytes(16), span_id=rng.randbytes(8))
    if rng.random() < 0.4:
        s.status.code = rng.randrange(3)
        s.status.message = text(rng)
    return s


def exemplars(rng):
    for _ in range(rng.randrange(2)):
        e = Exemplar(time_unix_nano=rng.getrandbits(60), span_id=rng.randbytes(8),
                     trace_id=rng.randbytes(16), filtered_attributes=attributes(rng))
        if rng.random() < 0.5:
            e.as_int = rng.getrandbits(64) - (1 << 63)
        else:
            e.as_double = double(rng)
        yield e


def point(rng, kind, **more):
    return kind(attributes=attributes(rng), start_time_unix_nano=rng.getrandbits(60),
                time_unix_nano=rng.getrandbits(60), flags=rng.randrange(2), **more)


def number_point(rng):
    value = {"as_int": rng.getrandbits(64) - (1 << 63)} if rng.random() < 0.5 else {"as_double": double(rng)}
    return point(rng, NumberDataPoint, exemplars=exemplars(rng), **(value if rng.random() < 0.9 else {}))


def bounds(rng):
    """sum, min and max: each may be absent, and then is not zero."""
    return {k: double(rng) for k in ("sum", "min", "max") if rng.random() < 0.6}


def buckets(rng):
    return ExponentialHistogramDataPoint.Buckets(
        offset=rng.randrange(-40, 40), bucket_counts=[rng.getrandbits(rng.randrange(64))
                                                      for _ in range(rng.randrange(5))])


def histogram_point(rng):
    n = rng.randrange(4)
    return point(rng, HistogramDataPoint, count=rng.getrandbits(40), exemplars=exemplars(rng),
                 bucket_counts=[rng.getrandbits(64) for _ in range(n)],
                 explicit_bounds=[double(rng) for _ in range(n)], **bounds(rng))


def exponential_point(rng):
    return point(rng, ExponentialHistogramDataPoint, count=rng.getrandbits(40), scale=rng.randrange(-10, 20),
                 zero_count=rng.getrandbits(20), positive=buckets(rng), zero_threshold=double(rng),
                 negative=buckets(rng) if rng.random() < 0.5 else None, exemplars=exemplars(rng),
                 **bounds(rng))


def summary_point(rng):
    value = SummaryDataPoint.ValueAtQuantile
    return point(rng, SummaryDataPoint, count=rng.getrandbits(40), sum=double(rng),
                 quantile_values=[value(quantile=rng.random(), value=double(rng))
                                  for _ in range(rng.randrange(3))])


def make_metric(rng):
    m = Metric(name=text(rng), description=text(rng), unit=text(rng), metadata=attributes(rng, 2))
    kinds = [("gauge", number_point), ("sum", number_point), ("histogram", histogram_point),
             ("exponential_histogram", exponential_point), ("summary", summary_point)]
    name, make = rng.choice(kinds)
    data = getattr(m, name)
    data.SetInParent()
    data.data_points.extend(make(rng) for _ in range(rng.randrange(4)))
    if name not in ("gauge", "summary"):
        data.aggregation_temporality = rng.randrange(3)
    if name == "sum":
        data.is_monotonic = rng.random() < 0.5
    return m


def make_log(rng):
    log = LogRecord(time_unix_nano=rng.getrandbits(60), observed_time_unix_nano=rng.getrandbits(60),
                    severity_number=rng.randrange(25), severity_text=text(rng), flags=rng.getrandbits(32),
                    attributes=attributes(rng), event_name=text(rng), dropped_attributes_count=rng.randrange(2))
    if rng.random() < 0.8:
        log.body.CopyFrom(any_value(rng))
    if rng.random() < 0.6:
        log.trace_id = rng.randbytes(16)
        log.span_id = rng.randbytes(8)
    return log


# By signal: the request, and the names of its resources, scopes and records.
REQUESTS = {"traces": (ExportTraceServiceRequest, "resource_spans", "scope_spans", "spans", make_span),
            "metrics": (ExportMetricsServiceRequest, "resource_metrics", "scope_metrics", "metrics", make_metric),
            "logs": (ExportLogsServiceRequest, "resource_logs", "scope_logs", "log_records", make_log)}


def make_request(rng, signal="traces"):
    kind, resources, scopes, records, make = REQUESTS[signal]
    req = kind()
    for _ in range(rng.randrange(3)):
        r = getattr(req, resources).add(schema_url=text(rng))
        r.resource.attributes.extend(attributes(rng))
        for _ in range(rng.randrange(3)):
            s = getattr(r, scopes).add(schema_url=text(rng))
            s.scope.name = text(rng)
            getattr(s, records).extend(make(rng) for _ in range(rng.randrange(4)))
    return req


def varint(rng, v, overlong, longest=9):
    out = bytearray()
    while True:
        out.append(v & 0x7F | (0x80 if v > 0x7F else 0))
        v >>= 7
        if not v:
            break
    if overlong and len(out) < longest and rng.random() < 0.3:
        out[-1] |= 0x80
        out += b"\x80" * rng.randrange(longest - len(out)) + b"\x00"
    return bytes(out)


def put(rng, number, kind, payload, overlong):
    tag = varint(rng, number << 3 | kind, False)
    if kind == 2:
        return tag + varint(rng, len(payload), overlong, longest=5) + payload
    if kind == 0:
        return tag + varint(rng, payload, overlong)
    return tag + struct.pack("<Q" if kind == 1 else "<I", payload)


def unknown(rng):
    number = rng.choice([1000, 77, 536870911])
    kind = rng.randrange(4)
    if kind == 3:
        inner = put(rng, 5, 0, 7, False)
        return varint(rng, number << 3 | 3, False) + inner + varint(rng, number << 3 | 4, False)
    return put(rng, number, [0, 1, 2][kind], [9, 9, b"xyz"][kind], False)


def splits(data):
    """Whether it has no group, which fields() does not read."""
    try:
        list(fields(data))
        return True
    except ValueError:
        return False


def mutate(rng, data, level="traces"):
    """The same message written in another way, or nearly: order, splits, repeats, unknown fields."""
    parts = []
    for number, kind, payload in list(fields(data)):
        inner = NESTED.get(level, {}).get(number)
        if inner and rng.random() < 0.7:
            payload = mutate(rng, payload, inner)
        if inner in SINGULAR and rng.random() < 0.2 and splits(payload):
            # A singular message in two pieces merges. An AnyValue is a oneof: the last one wins.
            halves = list(fields(payload))
            cut = rng.randrange(len(halves) + 1)
            for half in (halves[:cut], halves[cut:]):
                parts.append(put(rng, number, kind, b"".join(put(rng, *f, True) for f in half), True))
            continue
        if SCALARS.get(level, {}).get(number) == kind and rng.random() < 0.1:
            parts.append(put(rng, number, kind, rng.getrandbits(3), True))  # the last one wins
        parts.append(put(rng, number, kind, payload, True))
    if rng.random() < 0.2:
        parts.insert(rng.randrange(len(parts) + 1), unknown(rng))
    if level in SHUFFLED and rng.random() < 0.3:
        singles = [p for p in parts]
        # Order among different fields is free; among the same field it is not: rotate by field.
        order = sorted(range(len(singles)), key=lambda i: (singles[i][0] * 7919) % 13)
        parts = [singles[i] for i in order]
    out = b"".join(parts)
    return out


def damage(rng, data):
    if not data or rng.random() < 0.75:
        return data
    data = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        data[at] = rng.randrange(256)
    return bytes(data[:rng.randrange(len(data) + 1)] if rng.random() < 0.3 else data)
