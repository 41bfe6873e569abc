# SPDX-License-Identifier: Apache-2.0
"""The prometheus exporter against the Collector's rules: names, labels, accumulation, staleness. What it
shows is read by Prometheus' own checker.
"""

import subprocess

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from harness import ledger, metrics
from harness.gateway import TELEMETRY
from harness.otlp import METRICS_METHOD, add_attr
from harness.wait import free_ports, wait_until

CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
exporters:
  prometheus: {{endpoint: "127.0.0.1:{prom}", send_timestamps: true}}
  prometheus/plain:
    endpoint: "127.0.0.1:{plain}"
    namespace: site
    const_labels: {{zone: a}}
    add_metric_suffixes: false
    without_scope_info: true
  prometheus/resource:
    endpoint: "127.0.0.1:{resource}"
    without_scope_info: true
    resource_to_telemetry_conversion: {{enabled: true}}
service:
  pipelines:
    metrics: {{receivers: [otlp], exporters: [prometheus, prometheus/plain, prometheus/resource]}}
""" + TELEMETRY

DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


class Maker:
    """One request: a resource, a scope, metrics."""

    def __init__(self, resource=(), scope_attrs=()):
        self.request = ExportMetricsServiceRequest()
        rm = self.request.resource_metrics.add()
        for k, v in dict({"service.name": "shop"}, **dict(resource)).items():
            add_attr(rm.resource.attributes, k, v)
        self.scope = rm.scope_metrics.add(schema_url="https://schema/1")
        self.scope.scope.name, self.scope.scope.version = "lib", "1.2"
        for k, v in scope_attrs:
            add_attr(self.scope.scope.attributes, k, v)

    def metric(self, name, unit="", description=""):
        return self.scope.metrics.add(name=name, unit=unit, description=description)

    def point(self, where, attrs=(), at=1, start=0, flags=0, **values):
        p = where.data_points.add(start_time_unix_nano=NOW + start * SECOND,
                                  time_unix_nano=NOW + at * SECOND, flags=flags, **values)
        for k, v in attrs:
            add_attr(p.attributes, k, v)
        return p

    def gauge(self, name, value=1.0, unit="", attrs=(), description="", **more):
        self.point(self.metric(name, unit, description).gauge, attrs, as_double=value, **more)
        return self

    def sum(self, name, value, unit="", attrs=(), temporality=CUMULATIVE, monotonic=True, **more):
        m = self.metric(name, unit)
        m.sum.aggregation_temporality, m.sum.is_monotonic = temporality, monotonic
        self.point(m.sum, attrs, as_int=value, **more)
        return self

    def histogram(self, name, counts, bounds, unit="", temporality=CUMULATIVE, count=None, **more):
        m = self.metric(name, unit)
        m.histogram.aggregation_temporality = temporality
        self.point(m.histogram, count=sum(counts) if count is None else count, sum=5.0,
                   bucket_counts=counts, explicit_bounds=bounds, **more)
        return self


class Exporter:
    def __init__(self, gateway):
        self.plain, self.resource = free_ports(2)
        self.gateway = gateway(CONFIG, plain=self.plain, resource=self.resource)
        self.sent = 0

    def send(self, *makers):
        for m in makers:
            self.gateway.stub(METRICS_METHOD)(m.request.SerializeToString(), timeout=20)

    def shown(self, port=None):
        return metrics.scrape(port or self.gateway.prom)

    def names(self, port=None):
        return {n for n, _ in self.shown(port)}

    def one(self, name, port=None):
        """(labels, value) of the only series of that name."""
        (found,) = metrics.series(self.shown(port), name)
        return found

    def dropped(self, reason):
        """Points that the first exporter dropped for that reason."""
        return metrics.total(self.gateway.scrape(), "tailrace_ledger_items",
                             node="exporter/prometheus", term="dropped", reason=reason)


@pytest.fixture
def exporter(gateway):
    return Exporter(gateway)


@pytest.mark.parametrize("part", ["names", "plain names"])
def test_names(exporter, part):
    """With suffixes, and without."""
    m = Maker()
    wanted = {}

    def case(kind, name, unit, suffixed, plain):
        m.gauge(name, unit=unit) if kind == "gauge" else m.sum(name, 1, unit=unit,
                                                               monotonic=kind == "counter")
        wanted[suffixed] = plain

    case("gauge", "http.server.duration", "s", "http_server_duration_seconds", "http_server_duration")
    case("gauge", "bytes.used", "By", "bytes_used", "bytes_used")
    case("gauge", "ram.used", "By", "ram_used_bytes", "ram_used")
    case("counter", "requests", "{request}", "requests_total", "requests")
    case("counter", "total.calls", "1", "calls_total", "total_calls")
    case("gauge", "load", "1", "load_ratio", "load")
    case("up_down", "jobs", "1", "jobs", "jobs")
    case("gauge", "speed", "m/s", "speed_meters_per_second", "speed")
    case("gauge", "rate", "By/s", "rate_bytes_per_second", "rate")
    case("gauge", "flow", "1/min", "flow_per_min", "flow")
    case("gauge", "odd", "widgets/box", "odd_widgets_per_box", "odd")
    case("gauge", "weird__name..x", "", "weird_name_x", "weird__name_x")
    case("gauge", "5xx", "", "_5xx", "5xx")
    case("gauge", "heat", "Cel", "heat_celsius", "heat")
    case("gauge", "share", "%", "share_percent", "share")
    exporter.send(m)
    if part == "names":
        assert exporter.names() == set(wanted)
    else:
        assert exporter.names(exporter.plain) == {f"site_{n}" for n in wanted.values()}
        assert exporter.one("site_odd", exporter.plain)[0] == {"job": "shop", "zone": "a"}


def test_labels(exporter):
    exporter.send(
        Maker(resource={"service.namespace": "eu", "service.instance.id": "i-1"},
              scope_attrs=[("short.name", "x")])
        .gauge("a", attrs=[("http.method", "GET"), ("1st", 1), ("_x", True), (".y", 2.5), ("é", "z")]))
    assert exporter.one("a")[0] == {
        "job": "eu/shop", "instance": "i-1", "http_method": "GET", "key_1st": "1", "key_x": "true",
        "key_y": "2.5", "key_": "z", "otel_scope_name": "lib", "otel_scope_version": "1.2",
        "otel_scope_schema_url": "https://schema/1", "otel_scope_short_name": "x"}
    # The same labels in another order are the same series.
    exporter.send(Maker().gauge("b", 1.0, attrs=[("p", 1), ("q", 2)], at=1),
                  Maker().gauge("b", 2.0, attrs=[("q", 2), ("p", 1)], at=2))
    assert exporter.one("b")[1] == 2
    # Two attributes that give one label would make the whole page unreadable.
    exporter.send(Maker().gauge("c", attrs=[("x.y", 1), ("x_y", 2)]).gauge("d"))
    assert "c" not in exporter.names() and "d" in exporter.names()
    assert exporter.dropped("duplicate_label") == 1


def test_target_info(exporter):
    exporter.send(Maker(resource={"service.instance.id": "1", "host.name": "h1"}).gauge("a"))
    assert exporter.one("target_info") == (
        {"job": "shop", "instance": "1", "host_name": "h1"}, 1.0)
    labels, _ = exporter.one("site_target_info", exporter.plain)
    assert labels == {"job": "shop", "instance": "1", "host_name": "h1"}
    # One for each identity: another resource with the same one takes its place.
    exporter.send(Maker(resource={"service.instance.id": "1", "host.name": "h2", "host_name": "h3"})
                  .gauge("a", at=2))
    assert exporter.one("target_info")[0]["host_name"] == "h2;h3"
    exporter.send(Maker(resource={"service.instance.id": "2"}).gauge("a"))  # nothing to tell
    assert exporter.one("target_info")


def test_resource_attributes_as_labels(exporter):
    exporter.send(Maker(resource={"host.name": "h1"}).gauge("a", attrs=[("host.name", "mine")]))
    assert exporter.one("a", exporter.resource)[0] == {
        "job": "shop", "service_name": "shop", "host_name": "h1"}


def test_cumulative_and_delta(exporter):
    """The newest cumulative value wins; deltas add up while each begins where the last one ended."""
    exporter.send(Maker().sum("c", 5, at=2), Maker().sum("c", 3, at=1))
    assert exporter.one("c_total")[1] == 5
    for start, at, value, want in [(0, 1, 5, 5), (1, 2, 3, 8), (0, 1, 100, 8), (4, 5, 2, 2)]:
        exporter.send(Maker().sum("d", value, temporality=DELTA, start=start, at=at))
        assert exporter.one("d_total")[1] == want
    exporter.send(Maker().sum("up_down", 1, temporality=DELTA, monotonic=False),
                  Maker().sum("unknown", 1, temporality=0))
    assert not exporter.names() & {"up_down", "unknown", "unknown_total"}
    assert exporter.dropped("no_text_form") == 2


def test_histograms(exporter):
    m = Maker().histogram("h", [1, 2, 3], [0.5, 1000000.0], unit="s")
    exporter.send(m)
    shown = {dict(ls).get("le"): v for (n, ls), v in exporter.shown().items()
             if n == "h_seconds_bucket"}
    assert shown == {"0.5": 1, "1e+06": 3, "+Inf": 6}  # bounds as Go writes them
    assert exporter.one("h_seconds_count")[1] == 6 and exporter.one("h_seconds_sum")[1] == 5
    exporter.send(Maker().histogram("bare", [], [], count=4))
    assert exporter.one("bare_bucket") == (
        dict(exporter.one("bare_count")[0], le="+Inf"), 4.0)
    for start, at, want in [(0, 1, 6), (1, 2, 12), (1, 3, 12), (9, 10, 6)]:
        exporter.send(Maker().histogram("d", [1, 2, 3], [1, 2], temporality=DELTA, start=start, at=at))
        assert exporter.one("d_count")[1] == want
    exporter.send(Maker().histogram("broken", [1, 2], [1, 2, 3]))
    assert "broken_count" not in exporter.names() and exporter.dropped("malformed") == 1


def test_a_point_without_value_ends_its_series(exporter):
    exporter.send(Maker().gauge("a", 7.0).histogram("h", [1, 1], [1.0]).sum("s", 3))
    assert {"a", "h_count", "s_total"} <= exporter.names()
    m = Maker()
    m.point(m.metric("a").gauge, flags=1, at=2)
    h = m.metric("h").histogram
    h.aggregation_temporality = CUMULATIVE
    m.point(h, flags=1, at=2)
    s = m.metric("s").sum
    s.aggregation_temporality, s.is_monotonic = CUMULATIVE, True
    m.point(s, flags=1, at=2)
    exporter.send(m)
    assert not {"a", "h_count", "s_total"} & exporter.names()
    exporter.send(Maker().gauge("a", 8.0, at=3))
    assert exporter.one("a")[1] == 8


def test_the_first_type_of_a_name_stays(exporter):
    exporter.send(Maker().gauge("x_total", description="first"), Maker().sum("x", 1))
    assert exporter.one("x_total")[1] == 1.0
    assert exporter.dropped("type_conflict") == 1


def test_prometheus_own_checker_reads_it(exporter):
    exporter.send(Maker(resource={"service.instance.id": "1", "host.name": 'quote " and \\'})
                  .gauge("a", description="line\nbreak and \\ back", attrs=[("text", 'x"\\\ny')])
                  .histogram("h", [1, 2], [1.5], unit="s").sum("s", 4))

    def text(port):
        import urllib.request
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as r:
            assert r.headers["content-type"].startswith("text/plain; version=0.0.4")
            return r.read()

    page = text(exporter.gateway.prom)
    assert b"# HELP a line\\nbreak and \\\\ back\n" in page
    assert b" 1700000001000\n" in page  # send_timestamps
    for port in (exporter.gateway.prom, exporter.plain, exporter.resource):
        done = subprocess.run(["promtool", "check", "metrics"], input=text(port), capture_output=True,
                              timeout=30)
        # 3: only matters of style (a missing HELP text), which are the sender's.
        assert done.returncode in (0, 3) and b"error while linting" not in done.stderr, done.stderr
    wait_until(lambda: not ledger.unexplained(metrics.scrape(exporter.gateway.self_metrics)), 10,
               "ledger is explained")
