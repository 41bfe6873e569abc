# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the scenario tests. Nothing here sleeps; everything started is ended by pid."""

import contextlib
import itertools
import os
import pathlib
import signal

import pytest

from harness.capture import Agent
from harness.gateway import Gateway
from harness.process import ROOT
from harness.sink import Sink
from harness.wait import TSAN


def pytest_configure(config):
    config.addinivalue_line("markers", "root: needs root, BTF and the right to load BPF programs")


def pytest_collection_modifyitems(config, items):
    """On the ThreadSanitizer build: all but those that test/not-on-tsan.txt names, with its reasons."""
    if not TSAN:
        return
    lines = (ROOT / "test" / "not-on-tsan.txt").read_text().splitlines()
    left_out = [line.split(":", 1)[0] for line in lines if line and not line.startswith("#")]
    names = {item: f"{item.path.stem}.{item.name}" for item in items}
    unknown = [name for name in left_out if not any(n.startswith(name) for n in names.values())]
    if len(config.args) == 1 and pathlib.Path(config.args[0]).is_dir():
        assert not unknown, f"test/not-on-tsan.txt names no test: {unknown}"
    out = [i for i in items if any(names[i].startswith(name) for name in left_out)]
    config.hook.pytest_deselected(items=out)
    items[:] = [i for i in items if i not in out]


@pytest.fixture(autouse=TSAN)
def no_race(tmp_path, monkeypatch):
    """A report of any process that the test started fails the test, whatever it asserts."""
    log = tmp_path / "tsan"
    options = os.environ.get("TSAN_OPTIONS", "")
    monkeypatch.setenv("TSAN_OPTIONS", f"{options} log_path={log}")
    yield
    reports = [p.read_text(errors="replace") for p in tmp_path.glob("tsan.*")]
    assert not reports, reports[0][:6000]


@pytest.fixture
def sink():
    s = Sink()
    yield s
    s.stop()


@pytest.fixture
def gateway(tmp_path, sink):
    """A function that starts a gateway and waits until it accepts; all are ended after the test, and
    before the sink: a drain tries on while its back end is away."""
    started = []

    def start(config, name=None, wait=True, **values):
        g = Gateway(tmp_path, config, name=name or f"gateway{len(started)}", **values)
        started.append(g)
        if wait:
            g.wait_ready()
        return g

    yield start
    for g in started:
        if g.child.alive():
            status = g.stop()
            assert status in (0, 1), f"exit status {status}:\n{g.child.log()[-4000:]}"


@pytest.fixture
def agent(tmp_path, sink):
    """A function that starts an agent which observes what its arguments select, and waits until it does."""
    names = (f"agent{i}" for i in itertools.count())

    def end(a):
        if a.child.alive():
            a.child.signal(signal.SIGCONT)  # a test may have stopped it
            assert a.stop() == 0, a.child.log()[-4000:]

    with contextlib.ExitStack() as ends:  # all of them, though one fails

        def start(**selection):
            a = Agent(tmp_path, sink, name=next(names), **selection)
            ends.callback(end, a)
            return a

        yield start
