# SPDX-License-Identifier: Apache-2.0
"""A back end that stops for a minute: what was kept for it waits in memory, and little besides."""

import json
import signal
import subprocess

import pytest

from harness import ledger, metrics
from harness.gateway import TELEMETRY
from harness.process import Child, tool
from harness.wait import accepts, free_ports, wait_until

CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 1000}}
  tail_sampling:
    decision_wait: 3s
    num_traces: 1000000
    decision_cache: {{sampled_cache_size: 1000, non_sampled_cache_size: 1000}}
    policies: [{{name: some, type: probabilistic, probabilistic: {{sampling_percentage: 15}}}}]
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{sink}
    tls: {{insecure: true}}
    sending_queue: {{sizer: bytes, queue_size: 500000000}}
    compression: none
    retry_on_failure: {{initial_interval: 500ms, max_interval: 2s}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [memory_limiter, tail_sampling], exporters: [otlp_grpc]}}
""" + TELEMETRY

RATE, STOPPED_S = 20_000, 60
MIB = 1 << 20


@pytest.fixture
def counting_sink(tmp_path):
    (port,) = free_ports(1)
    child = Child([tool("sink"), "--port", port], tmp_path / "sink.log")
    wait_until(lambda: accepts(port), what="sink accepts")
    child.port = port
    yield child
    child.signal(signal.SIGCONT)
    child.kill()


def stats(port):
    import urllib.request
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=10) as r:
        return json.load(r)


def memory(gw):
    """Resident bytes, and what the gateway itself counts as mapped."""
    with open(f"/proc/{gw.child.pid}/statm", encoding="ascii") as f:
        rss = int(f.read().split()[1]) * 4096
    return rss, metrics.total(gw.scrape(), "tailrace_memory_mapped_bytes")


def load(port, seconds):
    return subprocess.Popen([tool("load"), "--port", str(port), "--spans", "100", "--rate", str(RATE),
                             "--connections", "4", "--seconds", str(seconds)], stdout=subprocess.PIPE, text=True)


def report(process):
    out, _ = process.communicate(timeout=STOPPED_S + 60)
    return json.loads(out.splitlines()[-1])


def test_memory_while_the_back_end_is_stopped(gateway, counting_sink):
    gw = gateway(CONFIG, sink=counting_sink.port)
    sampler, exporter = "processor/tail_sampling", "exporter/otlp_grpc"

    def term(node, name):
        return ledger.term(gw.scrape(), node, name)

    # What the undecided window costs is measured while everything flows.
    first = report(load(gw.grpc, 5))
    window, window_mapped = memory(gw)
    wait_until(lambda: term(sampler, "held") == 0 and term(exporter, "held") == 0, 30, "all is decided and sent")
    before = stats(counting_sink.port)
    a_span = before["bytes"] / before["spans"]

    counting_sink.signal(signal.SIGSTOP)
    second = report(load(gw.grpc, STOPPED_S))
    assert second["failed_spans"] == 0
    rss, mapped = memory(gw)
    kept = term(exporter, "held")
    assert kept > 0.1 * second["sent_spans"], "what is kept waits"
    allowed = 1.3 * kept * a_span
    print(f"kept {kept:.0f} spans of {a_span:.0f} B: {kept * a_span / MIB:.0f} MiB, window {window / MIB:.0f} MiB, "
          f"resident {rss / MIB:.0f} MiB, mapped {mapped / MIB:.0f} (window {window_mapped / MIB:.0f})")
    assert rss <= allowed + window
    assert mapped <= allowed + window_mapped

    counting_sink.signal(signal.SIGCONT)
    wait_until(lambda: term(sampler, "held") == 0 and term(exporter, "held") == 0, 60, "all is sent")
    ledger.assert_explained(gw.self_metrics)
    acked = first["acked_spans"] + second["acked_spans"]
    samples = gw.scrape()
    kept_in_all = acked - ledger.term(samples, sampler, "dropped", reason="not_sampled")
    assert kept_in_all == ledger.term(samples, exporter, "sent"), "all that was kept is sent"
    twice = stats(counting_sink.port)["spans"] - kept_in_all
    assert 0 <= twice <= ledger.term(samples, exporter, "uncertain")
