"""health_check answers as the Collector's does."""

import datetime
import json
import re
import urllib.error
import urllib.request

import pytest

from harness.gateway import TELEMETRY

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
