# SPDX-License-Identifier: Apache-2.0
"""The service's own metrics: the Collector's names, types and labels, with the values of what was sent;
by default on port 8888, and health on 13133."""

import json
import os
import shutil
import subprocess
import urllib.request

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness import metrics
from harness.gateway import TELEMETRY
from harness.otlp import SpanMaker, request
from harness.process import Child, program
from harness.wait import wait_until

CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}, http: {{endpoint: "127.0.0.1:{http}"}}}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 512}}
  attributes: {{actions: [{{key: a, value: b, action: upsert}}]}}
  batch: {{timeout: 50ms}}
  tail_sampling: {{decision_wait: 100ms, policies: [{{name: all, type: always_sample}}]}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{sink}", tls: {{insecure: true}}}}
  load_balancing:
    protocol: {{otlp: {{tls: {{insecure: true}}}}}}
    resolver: {{static: {{hostnames: ["127.0.0.1:{sink}"]}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [memory_limiter, attributes, tail_sampling, batch], exporters: [otlp_grpc]}}
    traces/balanced: {{receivers: [otlp], processors: [memory_limiter], exporters: [load_balancing]}}
""" + TELEMETRY

# name: (type, labels that each series has)
WANTED = {
    "receiver_accepted_spans": ("counter", {"receiver", "transport"}),
    "receiver_refused_spans": ("counter", {"receiver", "transport"}),
    "receiver_requests": ("counter", {"receiver", "transport", "outcome"}),
    "processor_incoming_items": ("counter", {"processor", "otel_signal"}),
    "processor_outgoing_items": ("counter", {"processor", "otel_signal"}),
    "processor_memory_limiter_accepted_spans": ("counter", {"processor"}),
    "processor_batch_batch_send_size": ("histogram", {"processor"}),
    "processor_batch_batch_size_trigger_send": ("counter", {"processor"}),
    "processor_batch_timeout_trigger_send": ("counter", {"processor"}),
    "processor_tail_sampling_new_trace_id_received": ("counter", set()),
    "processor_tail_sampling_sampling_traces_on_memory": ("gauge", set()),
    "processor_tail_sampling_count_traces_sampled": ("counter", {"policy", "sampled", "decision"}),
    "processor_tail_sampling_global_count_traces_sampled": ("counter", {"sampled", "decision"}),
    "exporter_sent_spans": ("counter", {"exporter"}),
    "exporter_send_failed_spans": ("counter", {"exporter"}),
    "exporter_enqueue_failed_spans": ("counter", {"exporter"}),
    "exporter_queue_size": ("gauge", {"exporter", "data_type"}),
    "exporter_queue_capacity": ("gauge", {"exporter", "data_type"}),
    "exporter_in_flight_requests": ("gauge", {"exporter", "data_type"}),
    "loadbalancer_num_resolutions": ("counter", {"resolver", "success"}),
    "loadbalancer_num_backends": ("gauge", {"resolver"}),
    "loadbalancer_num_backend_updates": ("counter", {"resolver"}),
    "loadbalancer_backend_latency": ("histogram", {"endpoint"}),
    "loadbalancer_backend_outcome": ("counter", {"endpoint", "success"}),
    "process_uptime": ("counter", set()),
    "process_cpu_seconds": ("counter", set()),
    "process_memory_rss": ("gauge", set()),
    "process_runtime_heap_alloc_bytes": ("gauge", set()),
    "process_runtime_total_sys_memory_bytes": ("gauge", set()),
}


def types_of(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as r:
        text = r.read().decode()
    return dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE "))


def test_names_types_labels_and_values(gateway, sink):
    gw = gateway(CONFIG, sink=sink.grpc_port)
    maker = SpanMaker(seed=71)
    for _ in range(20):
        gw.export(request(maker.trace()))
    with pytest.raises(grpc.RpcError):
        gw.export(b"\xff\xff")
    wait_until(lambda: sink.span_count() == 400, what="spans by both exporters")
    wait_until(lambda: metrics.total(gw.scrape(), "otelcol_exporter_sent_spans") == 400, what="all are told as sent")
    types, now = types_of(gw.self_metrics), gw.scrape()
    for name, (kind, labels) in WANTED.items():
        full = f"otelcol_{name}"
        assert types.get(full) == kind, full
        series = metrics.series(now, full + ("_count" if kind == "histogram" else ""))
        assert series and all(labels <= set(ls) for ls, _ in series), (full, series)

    def total(name, **labels):
        return metrics.total(now, f"otelcol_{name}", **labels)
    assert total("receiver_accepted_spans", receiver="otlp", transport="grpc") == 200
    assert total("receiver_requests", outcome="success", transport="grpc") == 20
    assert total("receiver_requests", outcome="failure", transport="grpc") == 1
    assert total("receiver_requests", transport="http") == 0
    for processor, pipelines in (("memory_limiter", 2), ("attributes", 1), ("tail_sampling", 1), ("batch", 1)):
        for way in ("incoming", "outgoing"):
            assert total(f"processor_{way}_items", processor=processor, otel_signal="traces") == 200 * pipelines
    assert total("processor_memory_limiter_accepted_spans") == 400
    assert total("processor_tail_sampling_new_trace_id_received") == 20
    assert total("exporter_sent_spans", exporter="otlp_grpc") == 200
    assert total("exporter_sent_spans", exporter="load_balancing") == 200
    assert total("exporter_in_flight_requests") == 0 and total("exporter_queue_size") == 0
    assert total("exporter_queue_capacity", exporter="otlp_grpc") == 1000
    assert total("loadbalancer_num_backends") == 1


DEFAULTS = """
receivers: {otlp: {protocols: {grpc: {}}}}
exporters: {debug: {}}
extensions: {health_check: {}}
service:
  extensions: [health_check]
  pipelines: {traces: {receivers: [otlp], exporters: [debug]}}
"""


def test_default_ports(tmp_path):
    """In a network namespace of its own, where the ports are free."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("missing capability: root with unshare and nsenter")
    config = tmp_path / "defaults.yaml"
    config.write_text(DEFAULTS)
    child = Child(["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh",
                   program("tailrace-gateway"), "--config", config], tmp_path / "gateway.log")

    def get(url):
        return subprocess.run(["nsenter", "--net", "-t", str(child.pid), "curl", "-sS", "--max-time", "10", url],
                              check=True, capture_output=True, text=True).stdout
    try:
        child.wait_log("Everything is ready")
        text = get("http://localhost:8888/metrics")
        names = {f.name for f in text_string_to_metric_families(text)}
        assert "otelcol_process_memory_rss" in names and "target_info{" in text
        assert json.loads(get("http://localhost:13133/"))["status"] == "Server available"
    finally:
        assert child.stop() == 0
