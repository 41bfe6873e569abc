"""Capture of real HTTP traffic: N requests are N server spans and N client spans, and none is wrong."""

import os
import socket
import subprocess
import tempfile
import threading

import pytest

from harness.capture import Agent, Nginx
from harness.wait import free_ports, stable, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def agent(tmp_path, sink):
    started = []

    def start(**selection):
        started.append(Agent(tmp_path, sink, name=f"agent{len(started)}", **selection))
        return started[-1]

    yield start
    for a in started:
        if a.child.alive():
            assert a.stop() == 0, a.child.log()[-4000:]


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


# ---- the list of HTTP cases, by raw sockets, client and server in one process ----

class Pair:
    """One connection of this process with itself; both ends are observed."""

    def __init__(self, port):
        self.listener = socket.create_server(("127.0.0.1", port))
        self.client = socket.create_connection(("127.0.0.1", port))
        self.server = self.listener.accept()[0]
        self.ports = (port, self.client.getsockname()[1])

    def close(self):
        for s in (self.client, self.server, self.listener):
            s.close()


def pour(from_, to, data, piece=None):
    """Sends data and receives all of it."""
    if piece:
        for i in range(0, len(data), piece):
            from_.sendall(data[i:i + piece])
    else:
        from_.sendall(data)
    drain(to, len(data))


def drain(to, n):
    while n:
        got = len(to.recv(min(n, 65536)))
        assert got
        n -= got


GET = b"GET /%s HTTP/1.1\r\nHost: t\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def head_in_3_sends(p):
    data = GET % b"three"
    for part in (data[:7], data[7:20], data[20:]):
        pour(p.client, p.server, part)
    for part in (OK[:5], OK[5:30], OK[30:]):
        pour(p.server, p.client, part)
    return [("GET", "/three", 200, 0, 5)]


def head_in_2_byte_iovecs(p):
    for a, b, data in ((p.client, p.server, GET % b"iov"), (p.server, p.client, OK)):
        a.sendmsg([data[i:i + 2] for i in range(0, len(data), 2)])
        drain(b, len(data))
    return [("GET", "/iov", 200, 0, 5)]


def head_of_12_kb(p):
    data = (GET % b"long")[:-2] + b"X-Long: " + b"q" * 12000 + b"\r\n\r\n"
    pour(p.client, p.server, data)
    pour(p.server, p.client, OK[:-9] + b"\r\nX-Long: " + b"q" * 12000 + b"\r\n\r\nhello")
    return [("GET", "/long", 200, 0, 5)]


def fifty_pipelined(p):
    pour(p.client, p.server, b"".join(GET % b"p%d" % i for i in range(50)))
    pour(p.server, p.client, OK * 50)
    return [("GET", f"/p{i}", 200, 0, 5) for i in range(50)]


def reader_peeks(p):
    data = GET % b"peek"
    p.client.sendall(data)
    p.server.recv(10, socket.MSG_PEEK)
    p.server.recv(1000, socket.MSG_PEEK)
    drain(p.server, len(data))
    p.server.sendall(OK)
    p.client.recv(1000, socket.MSG_PEEK)
    drain(p.client, len(OK))
    return [("GET", "/peek", 200, 0, 5)]


def without_bodies(p):
    pour(p.client, p.server, b"HEAD /h HTTP/1.1\r\nHost: t\r\n\r\n")
    pour(p.server, p.client, b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")
    pour(p.client, p.server, GET % b"204")
    pour(p.server, p.client, b"HTTP/1.1 204 No Content\r\n\r\n")
    pour(p.client, p.server, GET % b"304")
    pour(p.server, p.client, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n")
    return [("HEAD", "/h", 200, 0, 0), ("GET", "/204", 204, 0, 0), ("GET", "/304", 304, 0, 0)]


def hundred_continue(p):
    pour(p.client, p.server, b"PUT /c HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    pour(p.server, p.client, b"HTTP/1.1 100 Continue\r\n\r\n")
    pour(p.client, p.server, b"body")
    pour(p.server, p.client, OK)
    return [("PUT", "/c", 200, 4, 5)]


def chunked_with_pauses(p):
    pour(p.client, p.server, GET % b"chunks")
    pour(p.server, p.client, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    for _ in range(2):
        threading.Event().wait(1)  # the case itself: a second between chunks
        pour(p.server, p.client, b"4\r\ndefg\r\n")
    pour(p.server, p.client, b"0\r\n\r\n")
    return [("GET", "/chunks", 200, 0, 11)]


def sendfile_body(p):
    n = 300_000
    pour(p.client, p.server, GET % b"file")
    pour(p.server, p.client, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n)
    reader = threading.Thread(target=drain, args=(p.client, n))
    reader.start()
    with tempfile.TemporaryFile() as f:
        f.write(b"b" * n)
        f.flush()
        sent = 0
        while sent < n:
            sent += os.sendfile(p.server.fileno(), f.fileno(), sent, n - sent)
    reader.join()
    pour(p.client, p.server, GET % b"after")
    pour(p.server, p.client, OK)
    return [("GET", "/file", 200, 0, n), ("GET", "/after", 200, 0, 5)]


def ended_by_close(p):
    pour(p.client, p.server, b"GET /close HTTP/1.0\r\n\r\n")
    pour(p.server, p.client, b"HTTP/1.0 200 OK\r\nServer: t\r\n\r\nsomething")
    return [("GET", "/close", 200, 0, 9)]


def early_413(p):
    pour(p.client, p.server, b"POST /early HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\nbeginning")
    pour(p.server, p.client, b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    return [("POST", "/early", 413, None, 0)]


def client_abort(p):
    pour(p.client, p.server, GET % b"abort")
    return [("GET", "/abort", None, 0, None)]


def short_writes(p):
    n = 4_000_000
    pour(p.client, p.server, GET % b"short")
    pour(p.server, p.client, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n)
    p.server.setblocking(False)
    left, data = n, b"x" * n
    while left:
        try:
            left -= p.server.send(data[:left])
        except BlockingIOError:
            pass
        p.client.setblocking(False)
        try:
            while p.client.recv(65536):
                pass
        except BlockingIOError:
            pass
    p.client.setblocking(True)
    p.client.settimeout(0.3)
    try:
        while p.client.recv(65536):
            pass
    except TimeoutError:
        pass
    return [("GET", "/short", 200, 0, n)]


def reader_and_writer_threads(p):
    want = []
    n = 200

    def serve():
        for _ in range(n):
            got = b""
            while not got.endswith(b"\r\n\r\n"):
                got += p.server.recv(4096)
            p.server.sendall(OK)

    done = threading.Semaphore(0)

    def read():
        for _ in range(n):
            drain(p.client, len(OK))
            done.release()

    threads = [threading.Thread(target=serve), threading.Thread(target=read)]
    for t in threads:
        t.start()
    for i in range(n):
        p.client.sendall(GET % b"rw%d" % i)
        done.acquire()
        want.append(("GET", f"/rw{i}", 200, 0, 5))
    for t in threads:
        t.join()
    return want


CASES = [head_in_3_sends, head_in_2_byte_iovecs, head_of_12_kb, fifty_pipelined, reader_peeks, without_bodies,
         hundred_continue, chunked_with_pauses, sendfile_body, ended_by_close, early_413, client_abort,
         short_writes, reader_and_writer_threads]


@pytest.mark.parametrize("case", CASES, ids=[c.__name__ for c in CASES])
def test_case(agent, case):
    port, = free_ports(1)
    a = agent(pids=[os.getpid()])
    p = Pair(port)
    want = case(p)
    p.close()
    wait_until(lambda: len(of(a, p)) >= 2 * len(want), 20, "spans")
    stable(lambda: len(of(a, p)))
    sizes_known = all(w[3] is not None for w in want)
    for got in both(of(a, p)):
        briefs = [s.brief() if sizes_known else (*s.brief()[:3], None, s.brief()[4]) for s in got]
        assert sorted(map(str, briefs)) == sorted(map(str, want))
        assert not any("tailrace.incomplete" in s.attrs for s in got)
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
