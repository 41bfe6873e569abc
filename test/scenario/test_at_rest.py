# SPDX-License-Identifier: Apache-2.0
"""Where nothing happens nobody looks whether it has: how often the programs wake up at rest."""

import os
import pathlib
import re
import threading
import time

import pytest

from harness import metrics
from harness.gateway import TELEMETRY
from harness.otlp import SpanMaker, request
from harness.wait import wait_until

SAMPLES = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:{grpc}}}, http: {{endpoint: 127.0.0.1:{http}}}}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 512}}
  tail_sampling: {{decision_wait: 2s, policies: [{{name: all, type: always_sample}}]}}
  batch: {{timeout: 200ms}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{sink}", tls: {{insecure: true}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [memory_limiter, tail_sampling, batch], exporters: [otlp_grpc]}}
""" + TELEMETRY


def wake_ups(pid):
    """How often its threads have gone to sleep of their own accord, by thread."""
    told = {t: (t / "status").read_text() for t in pathlib.Path(f"/proc/{pid}/task").iterdir()}
    return {t.name: int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", s, re.M)[1]) for t, s in told.items()}


def a_second(pid, seconds=5):
    """Wake-ups a second of all its threads, and how many threads there are."""
    began, before = time.monotonic(), wake_ups(pid)
    threading.Event().wait(seconds)
    after, took = wake_ups(pid), time.monotonic() - began
    return sum(after[t] - before.get(t, 0) for t in after) / took, len(after)


@pytest.mark.root
def test_agent(agent):
    """The drains of its rings, its queue's tick, and what is due once a second."""
    a = agent(pids=[os.getpid()])
    wait_until(lambda: metrics.scrape(a.metrics_port), 20, "it tells its metrics")
    n, threads = a_second(a.child.pid)
    print(f"{n:.1f} a second, {threads} threads")
    assert 0 < n <= 30


def test_gateway(gateway, sink):
    """At most 15 a second for each loop; and what comes into that rest is decided and sent when it is due."""
    g = gateway(SAMPLES, sink=sink.grpc_port)
    n, threads = a_second(g.child.pid)
    print(f"{n:.1f} a second, {threads} threads")
    assert 0 < n <= 15 * (threads - 1)
    for round in range(3):
        body = request(SpanMaker(seed=round).trace()).SerializeToString()
        sent = time.monotonic()
        g.export(body)
        wait_until(lambda: sink.span_count() >= 10 * (round + 1), 10, "the trace at the sink")
        took = time.monotonic() - sent
        assert 2.0 <= took < 2.0 + 0.2 + 0.6, took  # decision_wait, the batch's timeout, and ticks on a slow machine
    assert g.stop() == 0
