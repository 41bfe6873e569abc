# SPDX-License-Identifier: Apache-2.0
"""Capture of real HTTP traffic: N requests are N server spans and N client spans, and none is wrong."""

import os
import subprocess
import threading
import time

import pytest

from harness.capture import Nginx
from harness.traffic import CASES, GET, OK, Pair, pour
from harness.wait import free_ports, stable, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def nginx(tmp_path):
    n = Nginx(tmp_path)
    yield n
    n.stop()


def of(a, pair):
    """Spans of that connection, which has a port at each end."""
    return [s for s in a.spans() if s.attrs.get("network.peer.port") in pair.ports]


def both(spans):
    return [s for s in spans if s.is_server], [s for s in spans if not s.is_server]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_eight_keep_alive_clients(agent, nginx, tls):
    port = nginx.tls_port if tls else nginx.port
    a = agent(ports=[nginx.port, nginx.tls_port], exe="['*/curl']")
    clients, each = 8, 60
    scheme = "https" if tls else "http"
    kinds = ["echo/{}", "status/{}", "fault/{}", "small.txt?n={}", "big.bin?n={}"]

    def run(c):
        args = ["curl", "-s", "-k", "--http1.1"]
        for i in range(each):
            args += ["-o", "/dev/null", f"{scheme}://127.0.0.1:{port}/" + kinds[i % 5].format(f"{c}-{i}")]
        subprocess.run(args, check=True)

    threads = [threading.Thread(target=run, args=(c,)) for c in range(clients)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    n = clients * each
    servers, cs = both(a.settled(2 * n, port))

    assert not [s for s in servers + cs if "tailrace.incomplete" in s.attrs], a.ledger()
    want = {"echo": (200, 5), "status": (404, 7), "fault": (503, 5), "small": (200, 100), "big": (200, 3_000_000)}
    for got in (servers, cs):
        assert len(got) == n
        names = [s.attrs["url.path"] + "?" + s.attrs.get("url.query", "") for s in got]
        assert len(set(names)) == n, "a request twice"
        for s in got:
            status, size = next(v for k, v in want.items() if s.path.startswith("/" + k))
            assert s.attrs["http.response.status_code"] == status
            assert s.attrs["http.response.body.size"] == size
            assert s.attrs["url.scheme"] == scheme
            assert s.attrs["http.request.method"] == "GET"
            assert "tailrace.incomplete" not in s.attrs
    assert {s.resource["service.name"] for s in servers} == {"nginx"}
    assert {s.resource["service.name"] for s in cs} == {"curl"}
    started = {s.attrs["url.path"] + s.attrs.get("url.query", ""): s for s in servers}
    for c in cs:
        s = started[c.attrs["url.path"] + c.attrs.get("url.query", "")]
        assert c.start <= s.start, "a client span starts after its server span"
        assert s.attrs["network.peer.port"] != port and c.attrs["network.peer.port"] == port
    a.assert_ledger()


def test_300_short_processes(agent, nginx):
    a = agent(exe="['*/curl']")
    for i in range(300):
        subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{nginx.port}/echo/{i}"], check=True)
    servers, cs = both(a.settled(300, nginx.port))
    assert not servers
    assert sorted(int(s.path.split("/")[-1]) for s in cs) == list(range(300))
    assert {s.resource["service.name"] for s in cs} == {"curl"}
    assert len({s.resource["process.pid"] for s in cs}) == 300
    a.assert_ledger()


def assert_times_and_ports(servers, clients, ports, begin, end, slack=5_000_000):
    """Within the case's own time, give or take what two clocks differ; a client's span before its server's."""
    for s in servers + clients:
        assert begin - slack <= s.start <= s.end <= end + slack, (s, s.start - begin, s.end - end)
        assert s.attrs["network.peer.port"] == ports[1 if s.is_server else 0], s
        if s.path == "/chunks":
            assert s.end - s.start >= 2_000_000_000 - slack, "two chunks come a second late each"
    started = {s.path: s.start for s in servers}
    for c in clients:
        assert c.start <= started[c.path], (c, "a client span starts after its server span")


# ---- the list of HTTP cases, by raw sockets, client and server in one process ----

@pytest.mark.parametrize("case", CASES, ids=[c.__name__ for c in CASES])
def test_case(agent, case):
    port, = free_ports(1)
    a = agent(pids=[os.getpid()])
    p = Pair(port)
    begin = time.time_ns()
    want = case(p)
    p.close()
    end = time.time_ns()
    wait_until(lambda: len(of(a, p)) >= 2 * len(want), 20, "spans")
    stable(lambda: len(of(a, p)))
    sizes_known = all(w[3] is not None for w in want)
    for got in both(of(a, p)):
        briefs = [s.brief() if sizes_known else (*s.brief()[:3], None, s.brief()[4]) for s in got]
        assert sorted(map(str, briefs)) == sorted(map(str, want))
        assert not any("tailrace.incomplete" in s.attrs for s in got)
    assert_times_and_ports(*both(of(a, p)), p.ports, begin, end)
    a.assert_ledger()


def test_joined_in_mid_connection(agent):
    """Agent started, then another one, while a connection is open: no wrong span, the first whole one counts."""
    port, = free_ports(1)
    p = Pair(port)
    pour(p.client, p.server, GET % b"before")
    a = agent(pids=[os.getpid()])
    pour(p.server, p.client, OK)
    pour(p.client, p.server, GET % b"first")
    pour(p.server, p.client, OK)
    wait_until(lambda: len(of(a, p)) >= 2, 10, "both spans")
    pour(p.client, p.server, GET % b"between")
    assert a.stop() == 0
    pour(p.server, p.client, OK)
    b = agent(pids=[os.getpid()])
    pour(p.client, p.server, GET % b"second")
    pour(p.server, p.client, OK)
    wait_until(lambda: {s.path for s in of(b, p)} >= {"/first", "/second"}, 10, "second agent's spans")
    stable(lambda: len(of(b, p)))
    p.close()
    got = sorted((s.is_server, s.path) for s in of(b, p) if s.attrs.get("http.response.status_code"))
    assert got == [(False, "/first"), (False, "/second"), (True, "/first"), (True, "/second")]
    b.assert_ledger()


def test_inherited_by_fork(agent):
    port, = free_ports(1)
    a = agent(pids=[os.getpid()])
    p = Pair(port)
    pour(p.client, p.server, GET % b"parent")
    pour(p.server, p.client, OK)
    pid = os.fork()
    if pid == 0:
        try:
            pour(p.client, p.server, GET % b"child")
            pour(p.server, p.client, OK)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    p.close()
    spans = [s for s in a.settled(4) if s.path in ("/parent", "/child")]
    assert sorted((s.is_server, s.path) for s in spans) == \
        [(False, "/child"), (False, "/parent"), (True, "/child"), (True, "/parent")]
