# SPDX-License-Identifier: Apache-2.0
"""Far more is offered than memory holds: what is accepted arrives, and something always is."""

import json
import subprocess
import threading
import urllib.request

import pytest

from harness import ledger, metrics
from harness.gateway import TELEMETRY
from harness.process import Child, tool
from harness.wait import free_ports, wait_until

MIB = 1 << 20
LIMIT_MIB = 128
SPANS = 11_500  # of shape M: a message just below 4 MiB
CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: %d}}
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{sink}
    compression: none
    tls: {{insecure: true}}
    sending_queue: {{queue_size: 16}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [memory_limiter], exporters: [otlp_grpc]}}
""" % LIMIT_MIB + TELEMETRY


@pytest.fixture
def counting_sink(tmp_path):
    """The sink in C: it counts and forgets. Yields its port and a function that gives the count."""
    (port,) = free_ports(1)
    child = Child([tool("sink"), "--port", port], tmp_path / "sink.log")

    def stats():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=10) as r:
            return json.load(r)

    def answers():
        try:
            return stats()
        except OSError:
            return None
    wait_until(answers, what="the sink")
    yield port, stats
    child.stop()


class HighWater(threading.Thread):
    """The most memory that was resident, and what the gateway itself counted, while it ran."""

    def __init__(self, gw):
        super().__init__(daemon=True)
        self.gw, self.over = gw, threading.Event()
        self.resident = self.mapped = self.used = 0

    def run(self):
        while not self.over.wait(0.2):
            with open(f"/proc/{self.gw.child.pid}/status", encoding="ascii") as f:
                kib = next(line.split()[1] for line in f if line.startswith("VmRSS"))
            now = self.gw.scrape()
            used, reserved, mapped = (metrics.total(now, f"tailrace_memory_{k}_bytes")
                                      for k in ("in_use", "reserved", "mapped"))
            self.resident = max(self.resident, int(kib) * 1024)
            self.used = max(self.used, used + reserved)
            self.mapped = max(self.mapped, mapped)

    def stop(self):
        self.over.set()
        self.join()


def run_load(port, seconds, connections, streams, rest_ms):
    out = subprocess.run(
        [tool("load"), "--port", str(port), "--spans", str(SPANS), "--seconds", str(seconds),
         "--connections", str(connections), "--streams", str(streams), "--fresh", "0",
         "--rest-ms", str(rest_ms)], check=True, capture_output=True, text=True, timeout=180)
    print(out.stderr)
    return [json.loads(line) for line in out.stdout.splitlines()]


@pytest.mark.parametrize("rest_ms", [1000, 0], ids=["polite", "greedy"])
def test_more_than_memory_holds(gateway, counting_sink, rest_ms):
    """200 connections with 4 requests of 4 MiB each, 3.1 GiB at a time, under 128 MiB: spans are
    accepted in every second, and each of them arrives. Senders who wait as told or who do not."""
    sink_port, stats = counting_sink
    gw = gateway(CONFIG, sink=sink_port)
    water = HighWater(gw)
    water.start()
    seconds = 12
    lines = run_load(gw.grpc, seconds, 200, 4, rest_ms)
    water.stop()
    end = lines[-1]
    assert end["end"] and end["lost_spans"] == 0, end
    acked = [(line["elapsed_s"], line["acked_spans"]) for line in lines
             if line["elapsed_s"] <= seconds]
    print(end, acked[-1], *(f"{name} {getattr(water, name) / MIB:.0f} MiB"
                            for name in ("used", "mapped", "resident")))
    assert len(acked) > 3 * seconds, "the load generator itself was starved"
    begun = [sample for sample in acked if sample[1] > 0]  # 200 connections take their time on a busy host
    assert begun and begun[0][0] < 3, f"nothing was accepted at first: {acked}"
    for (t0, n0), (t1, n1) in zip(begun, begun[4:]):
        assert n1 > n0, f"nothing was accepted between {t0} s and {t1} s: {acked}"
    wait_until(lambda: stats()["spans"] >= end["acked_spans"], 30, "all that was accepted")
    ledger.assert_explained(gw.self_metrics)
    assert stats()["spans"] == end["acked_spans"]
    assert max(water.used, water.mapped) <= LIMIT_MIB * MIB
    assert water.resident <= 1.15 * LIMIT_MIB * MIB  # the program itself and its libraries on top
