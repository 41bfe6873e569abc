# SPDX-License-Identifier: Apache-2.0
"""The span_metrics connector against the Collector's facts: names, attributes, units, buckets, starting zero,
deltas, adjusted counts, limits and expiry, as an OTLP back end sees them.
"""

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from harness.gateway import TELEMETRY
from harness.otlp import SpanMaker, add_attr
from harness.wait import wait_until

CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
connectors:
  span_metrics:
    metrics_flush_interval: 300ms
{keys}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{sink}", tls: {{insecure: true}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [span_metrics]}}
    metrics: {{receivers: [span_metrics], exporters: [otlp_grpc]}}
""" + TELEMETRY

DEFAULT_BOUNDS_MS = [2, 4, 6, 8, 10, 50, 100, 200, 400, 800, 1000, 1400, 2000, 5000, 10000, 15000]
DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE


def attrs_of(message):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in message.attributes}


class Under:
    """A gateway with one connector and what came out of it, point by point in order of arrival."""

    def __init__(self, gateway, sink, keys=""):
        indented = "".join(f"    {line}\n" for line in keys.strip().splitlines())
        self.sink = sink
        self.maker = SpanMaker(seed=5)
        self.gateway = gateway(CONFIG.replace("{keys}", indented.replace("{", "{{").replace("}", "}}")),
                               sink=sink.grpc_port)

    def send(self, n=1, resource=None, **fields):
        """n single-span traces of one resource."""
        request = ExportTraceServiceRequest()
        rs = request.resource_spans.add()
        for k, v in ({"service.name": "shop"} if resource is None else resource).items():
            add_attr(rs.resource.attributes, k, v)
        ss = rs.scope_spans.add()
        for _ in range(n):
            (_, span), = self.maker.trace(n=1, duration_ms=20)
            span.ClearField("attributes")
            for k, v in fields.get("attrs", {}).items():
                add_attr(span.attributes, k, v)
            span.name = fields.get("name", "GET /")
            span.trace_state = fields.get("state", "")
            if "end" in fields:
                span.end_time_unix_nano = fields["end"]
            ss.spans.append(span)
        self.gateway.export(request)

    def points(self, suffix):
        """[(resource, metric, point)] of all metrics whose name ends so."""
        out = []
        for resource, scope, record in self.sink.records("metrics"):
            m = Metric.FromString(record)
            assert InstrumentationScope.FromString(scope).name == "spanmetricsconnector"
            if m.name.endswith(suffix):
                data = getattr(m, m.WhichOneof("data"))
                out += [(attrs_of(Resource.FromString(resource)), m, p) for p in data.data_points]
        return out

    def values(self, **want):
        """Values of calls over time, of the series that carry these attributes (_ for .)."""
        want = {k.replace("_", "."): v for k, v in want.items()}
        return [p.as_int for _, _, p in self.points("calls") if want.items() <= attrs_of(p).items()]

    def settled(self, value, **want):
        wait_until(lambda: value in self.values(**want), 20, f"calls of {want} to be {value}")


@pytest.fixture
def start(sink, gateway):  # in this order: the gateway's last flush finds the sink
    return lambda keys="": Under(gateway, sink, keys)


def test_defaults(start):
    u = start()
    u.send(3, resource={"service.name": "shop", "host.name": "h1"}, attrs={"http.method": "GET"})
    u.send(2, resource={"host.name": "nameless"})  # without service.name: skipped entirely
    u.send(1, name="backwards", end=1)
    u.settled(3, span_name="GET /")
    u.settled(1, span_name="backwards")
    assert u.values(span_name="GET /")[0] == 0  # a starting zero for rate()
    resource, metric, point = next(x for x in u.points("calls") if len(x[0]) > 1)
    assert resource == {"service.name": "shop", "host.name": "h1"}
    assert metric.name == "traces.span.metrics.calls" and metric.unit == ""
    assert metric.sum.is_monotonic and metric.sum.aggregation_temporality == CUMULATIVE
    attrs = attrs_of(point)
    assert attrs.pop("collector.instance.id")
    assert attrs == {"service.name": "shop", "span.name": "GET /", "span.kind": "SPAN_KIND_SERVER",
                     "status.code": "STATUS_CODE_UNSET"}
    # Histograms have no starting zero, no min and no max.
    _, metric, point = next(x for x in u.points("duration") if len(x[0]) > 1)
    assert metric.name == "traces.span.metrics.duration" and metric.unit == "ms"
    assert list(point.explicit_bounds) == DEFAULT_BOUNDS_MS
    assert (point.count, point.sum) == (3, 60.0) and point.bucket_counts[5] == 3
    assert not point.HasField("min") and not point.HasField("max")
    (backwards,) = {(p.count, p.sum, p.bucket_counts[0]) for _, _, p in u.points("duration")
                    if attrs_of(p)["span.name"] == "backwards"}
    assert backwards == (1, 0.0, 1)
    assert all("nameless" not in r.values() for r, _, _ in u.points("calls"))


def test_seconds_dimensions_and_names(start):
    u = start("""
namespace: ""
histogram: {unit: s}
dimensions: [{name: http.method, default: NONE}, {name: region}, {name: code}]
exclude_dimensions: [collector.instance.id, span.kind]
""")
    u.send(1, name="a", resource={"service.name": "shop", "region": "eu", "http.method": "of resource"},
           attrs={"http.method": "GET", "code": 200})
    u.send(1, name="b")
    u.settled(1, span_name="a")
    u.settled(1, span_name="b")
    assert {m.name for _, m, _ in u.points("")} == {"calls", "duration"}
    _, metric, point = u.points("duration")[0]
    assert metric.unit == "s"
    assert list(point.explicit_bounds) == pytest.approx([b / 1000 for b in DEFAULT_BOUNDS_MS])
    by_name = {attrs_of(p)["span.name"]: attrs_of(p) for _, _, p in u.points("calls")}
    common = {"service.name": "shop", "status.code": "STATUS_CODE_UNSET"}
    # The span before the resource; values keep their type; the default, or no attribute at all.
    assert by_name["a"] == common | {"span.name": "a", "http.method": "GET", "region": "eu", "code": 200}
    assert by_name["b"] == common | {"span.name": "b", "http.method": "NONE"}


def test_deltas_follow_each_other(start):
    u = start("""
aggregation_temporality: AGGREGATION_TEMPORALITY_DELTA
histogram: {explicit: {buckets: [5ms, 1s]}}
""")
    for n in (2, 3, 4):
        before = len(u.values())
        u.send(n)
        wait_until(lambda: len(u.values()) > before, 20, "the next delta")
    assert sum(u.values()) == 9 and 0 not in u.values()  # no starting zero, nothing twice
    points = [p for _, m, p in u.points("calls") if m.sum.aggregation_temporality == DELTA]
    assert len(points) == len(u.values()) >= 3
    for earlier, later in zip(points, points[1:]):
        assert later.start_time_unix_nano == earlier.time_unix_nano
    assert points[0].start_time_unix_nano < points[0].time_unix_nano
    durations = [p for _, _, p in u.points("duration")]
    assert sum(p.count for p in durations) == 9 and list(durations[0].explicit_bounds) == [5, 1000]


def test_sampled_spans_count_for_those_they_stand_for(start):
    u = start()
    for name, state in [("quarter", "ot=th:c"), ("half", "x=y , ot=rv:abcdef01234567;th:8"),
                        ("all", "ot=th:0"), ("none", "ot=rv:1"), ("bad", "ot=th:xyz"),
                        ("long", "ot=th:123456789abcdef")]:
        u.send(10, name=name, state=state)
    u.send(3000, name="rounded", state="ot=th:4")  # 4/3 each
    for name, count in [("quarter", 40), ("half", 20), ("all", 10), ("none", 10), ("bad", 10),
                        ("long", 10)]:
        u.settled(count, span_name=name)
    wait_until(lambda: len(set(u.values(span_name="rounded"))) > 1, 20, "rounded counts")
    assert max(u.values(span_name="rounded")) == pytest.approx(4000, abs=200)
    sums = {attrs_of(p)["span.name"]: (p.count, p.sum) for _, _, p in u.points("duration")}
    assert sums["quarter"] == (40, 800.0)


def test_limits(start):
    u = start("""
aggregation_cardinality_limit: 2
resource_metrics_key_attributes: [service.name]
""")
    for i in range(5):
        u.send(1, name=f"op {i}", resource={"service.name": "shop", "pod": f"p{i}"})
    u.settled(3, otel_metric_overflow="true")  # two have their own series, the rest share one
    overflow = [attrs_of(p) for _, _, p in u.points("calls") if "otel.metric.overflow" in attrs_of(p)]
    assert overflow[0] == {"otel.metric.overflow": "true"}
    assert len({r["pod"] for r, _, _ in u.points("calls")}) == 1  # one resource for all pods


def test_series_expire(start):
    u = start("series_expiration: 1s")
    u.send(1, name="once")
    u.settled(1, span_name="once")

    def gone():
        u.send(1, name="often")
        u.sink.clear()
        wait_until(lambda: u.values(span_name="often"), 20, "a flush")
        return not u.values(span_name="once")
    wait_until(gone, 20, "the series to be forgotten")
    u.send(1, name="once")
    u.settled(0, span_name="once")  # a new series begins with its zero again
    u.settled(1, span_name="once")
