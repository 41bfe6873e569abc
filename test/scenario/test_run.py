# SPDX-License-Identifier: Apache-2.0
"""`scripts/run`, what `make run` calls: a stranger's first minute, and Ctrl-C."""

import os
import signal
import urllib.request

import pytest

from harness.process import ROOT, Child
from harness.wait import accepts, wait_until

PORTS = {"gateway OTLP": 4317, "OTLP over HTTP": 4318, "Prometheus": 8889, "health": 13133,
         "self metrics": 8888, "demonstration": 18080, "demonstration by TLS": 18443, "shop": 18081}


@pytest.fixture
def interrupts():
    """A process started in the background of a script ignores SIGINT, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.root
def test_the_first_minute(tmp_path, interrupts):
    taken = [name for name, port in PORTS.items() if accepts(port)]
    if taken:
        pytest.skip(f"ports of the demonstration are in use here: {taken}")
    run = Child(["bash", ROOT / "scripts" / "run"], tmp_path / "run.log")
    try:
        wait_until(lambda: "Ctrl-C ends all of it" in run.log(), 60, "the addresses are told")
        for name, port in PORTS.items():
            assert accepts(port), f"{name}: nobody listens on {port}"
        wait_until(lambda: "GET /slow 200" in run.log() and "GET /broken 503" in run.log(), 90,
                   "traces on the terminal")

        def counted():
            with urllib.request.urlopen("http://127.0.0.1:8889/metrics", timeout=10) as r:
                text = r.read().decode()
            return [l for l in text.splitlines() if l.startswith("http_server_request_duration")
                    and 'url_scheme="https"' in l]
        wait_until(counted, 60, "requests by TLS in the metrics")
        assert all(p in run.log() for p in ("4317", "4318", "8889", "13133"))
    finally:
        os.kill(run.pid, signal.SIGINT)
        run.proc.wait(40)
    wait_until(lambda: not any(accepts(p) for p in PORTS.values()), 20, "all of it ended")
    log = run.log()
    assert "Traceback" not in log and "Exporting failed" not in log, log[-3000:]
