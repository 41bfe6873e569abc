# SPDX-License-Identifier: Apache-2.0
"""load_balancing: whole traces at the owners that the Collector's ring names; a list that changes."""

import collections
import random
import signal
import struct
import threading
import zlib

import pytest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from harness import otlp
from harness.gateway import TELEMETRY
from harness.metrics import series, total
from harness.names import NameServer
from harness.sink import Sink
from harness.wait import PATIENCE, free_ports, stable, wait_until

BALANCER = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:{grpc}}}}}}}
exporters:
  load_balancing:
    routing_key: {key}
    protocol:
      otlp:
        timeout: TIMEOUT
        tls: {{insecure: true}}
        retry_on_failure: {{initial_interval: 50ms, max_interval: 200ms}}
    resolver:
      static: {{hostnames: {hosts}}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [load_balancing]}}
""".replace("TIMEOUT", f"{5 * PATIENCE}s") + TELEMETRY


def ring(endpoints):
    """The Collector's ring (0.157 and later), written anew: sorted [(position, endpoint)]."""
    positions, nodes = 131071, []
    for e in set(endpoints):
        for i in range(200):
            h = zlib.crc32(e.encode() + struct.pack("<I", i))
            nodes.append((h % positions, h, e))
    taken = {}
    for pos, _, e in sorted(nodes):
        for step in range(10):
            at = (pos + step) % positions
            if at not in taken:
                taken[at] = e
                break
    return sorted(taken.items())


def owner(points, key):
    at = zlib.crc32(key) % 131071
    return next((e for pos, e in points if pos >= at), points[0][1])


def make_spans(traces, seed, services=("shop",)):
    maker, rng = otlp.SpanMaker(seed=seed), random.Random(seed)
    return [maker.trace(service=rng.choice(services)) for _ in range(traces)]


def send_shuffled(gw, traces, per_request=37, seed=1):
    """All spans, shuffled over many requests."""
    spans = [s for t in traces for s in t]
    random.Random(seed).shuffle(spans)
    for i in range(0, len(spans), per_request):
        gw.export(otlp.request(spans[i:i + per_request]))
    return len(spans)


@pytest.fixture
def sinks():
    all_sinks = [Sink() for _ in range(3)]
    yield all_sinks
    for s in all_sinks:
        s.stop()


def hosts_of(sinks):
    return [f"127.0.0.1:{s.grpc_port}" for s in sinks]


def as_yaml(hosts):
    return "[" + ", ".join(f'"{h}"' for h in hosts) + "]"


def spans_at(sinks):
    return sum(s.span_count() for s in sinks)


def check_ledger(gw):
    samples = wait_until(lambda: (lambda m: m if total(m, "tailrace_ledger_unexplained") == 0
                                  else None)(gw.scrape()), what="the ledger explains everything")
    return samples


def test_each_trace_is_whole_at_its_owner(gateway, sinks):
    hosts = hosts_of(sinks)
    gw = gateway(BALANCER, key="traceID", hosts=as_yaml(hosts))
    traces = make_spans(300, seed=3)
    sent = send_shuffled(gw, traces)
    wait_until(lambda: spans_at(sinks) == sent, what=f"{sent} spans at the three back ends")
    points = ring(hosts)
    for host, sink in zip(hosts, sinks):
        got = collections.Counter(otlp.span_ids(s)[0] for s in sink.spans())
        assert got, f"{host} got nothing"
        for trace_id, count in got.items():
            assert owner(points, trace_id) == host
            assert count == 10
    samples = check_ledger(gw)
    assert total(samples, "otelcol_loadbalancer_num_backends", resolver="static") == 3
    assert total(samples, "otelcol_loadbalancer_num_backend_updates", resolver="static") == 1
    assert total(samples, "otelcol_loadbalancer_num_resolutions", success="true") == 1
    outcomes = {ls["endpoint"]: v for ls, v in series(samples, "otelcol_loadbalancer_backend_outcome")
                if ls["success"] == "true"}
    assert set(outcomes) == set(hosts) and all(v > 0 for v in outcomes.values())
    assert total(samples, "otelcol_loadbalancer_backend_latency_count") == sum(outcomes.values())
    assert total(samples, "otelcol_exporter_sent_spans", exporter="load_balancing") == sent
    queues = {ls["endpoint"] for ls, _ in series(samples, "otelcol_exporter_queue_size")}
    assert queues == set(hosts)
    assert gw.stop() == 0


def test_services_stay_together(gateway, sinks):
    hosts = hosts_of(sinks)
    gw = gateway(BALANCER, key="service", hosts=as_yaml(hosts))
    services = [f"service-{i}" for i in range(20)]
    sent = send_shuffled(gw, make_spans(100, seed=4, services=services))
    wait_until(lambda: spans_at(sinks) == sent, what="all spans at the back ends")
    points = ring(hosts)
    for host, sink in zip(hosts, sinks):
        for resource, _, _ in sink.records():
            name = Resource.FromString(resource).attributes[0].value.string_value
            assert name in services
            assert owner(points, f"service.name={name}|".encode()) == host
    assert gw.stop() == 0


def test_what_waits_for_a_removed_backend_goes_to_others(gateway, sinks):
    """One back end is down and then taken off the list by SIGHUP: every span arrives exactly once."""
    hosts = hosts_of(sinks)
    gw = gateway(BALANCER, key="traceID", hosts=as_yaml(hosts))
    sinks[2].stop()
    traces = make_spans(120, seed=5)
    sent = send_shuffled(gw, traces)
    alive = sinks[:2]
    reached = stable(lambda: spans_at(alive))
    assert 0 < reached < sent
    pid = gw.child.pid
    gw.values["hosts"] = as_yaml(hosts[:2])
    gw.write(BALANCER)
    gw.child.signal(signal.SIGHUP)
    wait_until(lambda: spans_at(alive) >= sent, what=f"{sent} spans at the two that are left")
    assert gw.child.alive() and gw.child.pid == pid
    ids = collections.Counter(otlp.span_ids(s) for sink in alive for s in sink.spans())
    assert len(ids) == sent and set(ids.values()) == {1}
    points = ring(hosts[:2])
    before = ring(hosts)
    for host, sink in zip(hosts, alive):
        for s in sink.spans():
            trace_id, _ = otlp.span_ids(s)
            # What had arrived before stays; the third one's share went to its new owner.
            assert host == owner(before, trace_id) or (owner(before, trace_id) == hosts[2] and
                                                       host == owner(points, trace_id))
    check_ledger(gw)
    assert gw.stop() == 0


def test_the_list_changes_under_load(gateway, sinks):
    """Back ends come and go by SIGHUP while spans arrive: none is lost, none is sent twice."""
    hosts = hosts_of(sinks)
    gw = gateway(BALANCER, key="traceID", hosts=as_yaml(hosts))
    traces = make_spans(600, seed=6)
    sent = []
    worker = threading.Thread(target=lambda: sent.append(send_shuffled(gw, traces, per_request=11)))
    worker.start()
    for n in (2, 3, 2, 3):
        gw.values["hosts"] = as_yaml(hosts[:n])
        gw.write(BALANCER)
        reloads = gw.child.log().count("configuration reloaded")
        gw.child.signal(signal.SIGHUP)
        wait_until(lambda: gw.child.log().count("configuration reloaded") > reloads,
                   what="the new list is in force")
    worker.join()
    wait_until(lambda: spans_at(sinks) >= sent[0], what="all spans at the back ends")
    ids = collections.Counter(otlp.span_ids(s) for sink in sinks for s in sink.spans())
    assert len(ids) == sent[0] and set(ids.values()) == {1}
    check_ledger(gw)
    assert gw.stop() == 0


def test_a_dead_backend_does_not_stop_the_others(gateway, sinks):
    hosts = hosts_of(sinks)
    gw = gateway(BALANCER, key="traceID", hosts=as_yaml(hosts))
    sinks[0].stop()
    sent = send_shuffled(gw, make_spans(150, seed=7))
    reached = stable(lambda: spans_at(sinks[1:]))
    assert 0 < reached < sent
    sinks[0].start()
    wait_until(lambda: spans_at(sinks) == sent, what="the rest after the back end came back")
    check_ledger(gw)
    assert gw.stop() == 0


DNS = BALANCER.replace("static: {{hostnames: {hosts}}}",
                       "dns: {{hostname: gw.test, port: {port}, interval: 200ms, timeout: 500ms}}")


@pytest.fixture
def names(tmp_path):
    server = NameServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def addressed_sinks():
    """Three back ends with the same port on addresses of their own, as pods have."""
    (port,) = free_ports(1)
    all_sinks = [Sink(host=f"127.0.1.{i}", grpc_port=port) for i in (1, 2, 3)]
    yield all_sinks
    for s in all_sinks:
        s.stop()


def test_dns_names_the_backends(gateway, names, addressed_sinks):
    """The list follows the name server; a failed, empty or missing answer keeps it."""
    sinks, port = addressed_sinks, addressed_sinks[0].grpc_port
    names.addresses["gw.test"] = [s.host for s in sinks[:2]]
    gw = gateway(DNS, port=port, key="traceID", prefix=names.prefix())
    resolved = lambda what: total(gw.scrape(), "otelcol_loadbalancer_num_resolutions",
                                  resolver="dns", success=what)
    backends = lambda: total(gw.scrape(), "otelcol_loadbalancer_num_backends", resolver="dns")
    wait_until(lambda: backends() == 2, what="two backends")

    sent = send_shuffled(gw, make_spans(60, seed=8))
    wait_until(lambda: spans_at(sinks) == sent, what="spans at the first two")
    points = ring([f"{s.host}:{port}" for s in sinks[:2]])
    for sink in sinks[:2]:
        assert sink.span_count() > 0
        for s in sink.spans():
            assert owner(points, otlp.span_ids(s)[0]) == f"{sink.host}:{port}"

    for trouble in ("nxdomain", "silent", None):
        names.fault = trouble
        if trouble is None:
            names.addresses["gw.test"] = []
        failed = resolved("false")
        wait_until(lambda: resolved("false") >= failed + 2, what=f"lookups that failed ({trouble})")
        assert backends() == 2
        more = send_shuffled(gw, make_spans(20, seed=9))
        sent += more
        wait_until(lambda: spans_at(sinks) == sent, what="spans although nothing is resolved")

    names.addresses["gw.test"] = [s.host for s in sinks[1:]]
    wait_until(lambda: total(gw.scrape(), "otelcol_loadbalancer_num_backend_updates",
                             resolver="dns") == 2, what="the second list")
    sinks[0].clear()
    sinks[1].clear()
    sent = send_shuffled(gw, make_spans(60, seed=10))
    wait_until(lambda: spans_at(sinks) == sent, what="spans at the last two")
    assert sinks[0].span_count() == 0 and sinks[2].span_count() > 0
    check_ledger(gw)
    assert gw.stop() == 0


def test_spans_wait_until_the_first_backend_is_known(gateway, names, addressed_sinks):
    sinks, port = addressed_sinks, addressed_sinks[0].grpc_port
    names.fault = "nxdomain"
    gw = gateway(DNS, port=port, key="traceID", prefix=names.prefix())
    traces = make_spans(10, seed=11)
    answers = []
    worker = threading.Thread(target=lambda: answers.append(send_shuffled(gw, traces)))
    worker.start()
    wait_until(lambda: total(gw.scrape(), "otelcol_loadbalancer_num_resolutions",
                             success="false") >= 2, what="lookups that failed")
    assert spans_at(sinks) == 0
    names.addresses["gw.test"] = [sinks[0].host]
    names.fault = None
    worker.join()
    wait_until(lambda: sinks[0].span_count() == answers[0], what="all spans at the one back end")
    check_ledger(gw)
    assert gw.stop() == 0
