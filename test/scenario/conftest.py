"""Fixtures of the scenario tests. Nothing here sleeps; everything started is ended by pid."""

import pytest

from harness.gateway import Gateway
from harness.sink import Sink


def pytest_configure(config):
    config.addinivalue_line("markers", "tsan: also run on the ThreadSanitizer build")
    config.addinivalue_line("markers", "root: needs root, BTF and the right to load BPF programs")


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
