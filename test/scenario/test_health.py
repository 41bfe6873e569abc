# SPDX-License-Identifier: Apache-2.0
"""health_check answers as the Collector's does."""

import datetime
import json
import re
import signal
import threading
import urllib.error
import urllib.request

import pytest

from harness import ledger
from harness.gateway import TELEMETRY
from harness.otlp import SpanMaker, request
from harness.wait import wait_until

CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
exporters:
  debug:
extensions:
  health_check: {{endpoint: "127.0.0.1:{health}", path: /healthy}}
service:
  extensions: [health_check]
  pipelines:
    traces: {{receivers: [otlp], exporters: [debug]}}
""" + TELEMETRY


def test_says_since_when_it_is_up(gateway):
    port = gateway(CONFIG).health
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthy", timeout=10) as r:
        assert r.status == 200 and r.headers["content-type"] == "application/json"
        body = json.load(r)
    assert body.keys() == {"status", "upSince", "uptime"} and body["status"] == "Server available"
    since = datetime.datetime.fromisoformat(body["upSince"])
    age = (datetime.datetime.now(datetime.timezone.utc) - since).total_seconds()
    uptime = float(re.fullmatch(r"(\d+\.\d{3})s", body["uptime"])[1])
    assert 0 <= uptime < 120 and abs(age - uptime) < 30
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)


DRAINING = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{sink}", tls: {{insecure: true}}}}
extensions:
  health_check: {{endpoint: "127.0.0.1:{health}"}}
service:
  extensions: [health_check]
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_grpc]}}
""" + TELEMETRY


def status(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as r:
            return r.status
    except urllib.error.HTTPError as e:
        return e.code


def test_says_that_it_drains(gateway, sink):
    """503 from the signal on until all that is held has gone; the default path stands for all paths."""
    held = threading.Event()
    sink.fault = lambda signal, body: held.wait(30) and None
    gw = gateway(DRAINING, sink=sink.grpc_port)
    assert [status(gw.health, p) for p in ("/", "/healthz", "/a/b?c=d")] == [200, 200, 200]
    gw.export(request(SpanMaker().trace(n=5)))
    wait_until(lambda: ledger.term(gw.scrape(), "exporter/otlp_grpc", "held") == 5, 20, "spans under way")
    gw.child.signal(signal.SIGTERM)
    wait_until(lambda: status(gw.health, "/") == 503, 20, "the answer of one that drains")
    assert gw.child.alive()
    held.set()
    assert gw.child.wait() == 0  # a second signal would cut it short
    assert sink.span_count() == 5
