# SPDX-License-Identifier: Apache-2.0
"""Exchanges to the nanosecond and the port, in both roles: when they begin and end, and what is nobody's bytes."""

import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import pytest

from harness.capture import Nginx
from harness.wait import free_ports, stable, wait_until

pytestmark = pytest.mark.root

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
MS = 1_000_000


def get(path, *fields):
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: t", *fields, "", ""]).encode()


def receive(s, n):
    got = b""
    while len(got) < n:
        piece = s.recv(65536)
        assert piece, got
        got += piece
    return got


class Pair:
    """A connection of this process with itself; says when it did what."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.client = socket.create_connection(("127.0.0.1", self.port))
        self.server = self.listener.accept()[0]
        self.client_port = self.client.getsockname()[1]
        self.times = {}

    def ask(self, data):
        self.client.sendall(data)
        receive(self.server, len(data))

    def answer(self, data):
        self.server.sendall(data)
        receive(self.client, len(data))

    def exchange(self, path, pause=0.0):
        before = time.time_ns()
        self.ask(get(path))
        threading.Event().wait(pause)
        self.answer(OK)
        self.times[path] = (before, time.time_ns())

    def both(self, a, path):
        """(server span, client span) of the path on this connection, exactly one of each."""
        ends = {self.port, self.client_port}
        found = [s for s in a.spans() if s.path == path and s.attrs["network.peer.port"] in ends]
        assert sorted(s.is_server for s in found) == [False, True], (path, found)
        return sorted(found, key=lambda s: not s.is_server)

    def close(self):
        for s in (self.client, self.server, self.listener):
            s.close()


def assert_within(span, begin, end, slack=20 * MS):
    assert begin - slack <= span.start <= span.end <= end + slack, (span, span.start - begin, span.end - end)


def test_times_and_ports(agent):
    """Of exchanges with a known pause: begin, end and duration in both roles, child within parent; ports at each end."""
    a = agent(pids=[os.getpid()])
    p = Pair()
    for i in range(10):
        p.exchange(f"/t{i}", 0.05 if i % 2 else 0)
    p.close()
    wait_until(lambda: len([s for s in a.spans() if s.path and s.path.startswith("/t")]) >= 20, 15, "spans")
    stable(lambda: len(a.spans()))
    for i in range(10):
        server, client = p.both(a, f"/t{i}")
        for s in (server, client):
            assert_within(s, *p.times[f"/t{i}"])
            assert s.brief() == ("GET", f"/t{i}", 200, 0, 5)
            assert s.end - s.start >= (50 * MS if i % 2 else 0)
        assert client.start <= server.start, "a child before its parent"
        assert server.attrs["server.port"] == p.port and server.attrs["network.peer.port"] == p.client_port
        assert client.attrs["network.peer.port"] == p.port
        assert server.attrs["client.address"] == client.attrs["network.peer.address"] == "127.0.0.1"
    a.assert_ledger()


def test_bytes_that_wait_in_the_socket(agent):
    """They count from when the program took them, and not from when they came: TCP's own stamps tell both."""
    a = agent(pids=[os.getpid()])
    pair = Pair()
    pair.exchange("/first")
    asked = time.time_ns()
    pair.client.sendall(get("/late"))
    threading.Event().wait(0.2)
    taken = time.time_ns()
    receive(pair.server, len(get("/late")))
    pair.server.sendall(OK)
    answered = time.time_ns()
    threading.Event().wait(0.2)
    read = time.time_ns()
    receive(pair.client, len(OK))
    over = time.time_ns()
    wait_until(lambda: sum(s.path == "/late" for s in a.spans()) == 2, 15, "both spans of the exchange")
    server, client = pair.both(a, "/late")
    assert_within(server, taken, answered)
    assert_within(client, asked, over)
    assert client.start < taken - 100 * MS and client.end > read - 20 * MS, (client.start - taken, client.end - read)
    pair.close()


def test_a_chunked_answer_ends_with_its_last_chunk(agent):
    """Not with the next request, which comes a second later; large chunks that are not captured whole, too."""
    a = agent(pids=[os.getpid()])
    p = Pair()
    p.exchange("/before")
    ends = {}
    for path, size in (("/small", 5), ("/large", 50_000)):
        p.ask(get(path))
        p.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in range(3):
            threading.Event().wait(0.5)  # the case itself
            chunk = b"%x\r\n%s\r\n" % (size, b"c" * size)
            if part == 2:
                chunk += b"0\r\n\r\n"
            reader = threading.Thread(target=receive, args=(p.client, len(chunk)))
            reader.start()
            p.server.sendall(chunk)
            reader.join()
        ends[path] = time.time_ns()
        threading.Event().wait(1)
    # By one writev, as nginx does: its last bytes are found wherever the pieces are cut.
    p.ask(get("/pieces"))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = [head] + [x for _ in range(3) for x in (b"4e20\r\n", b"d" * 20_000, b"\r\n")] + [b"0\r\n", b"\r\n"]
    reader = threading.Thread(target=receive, args=(p.client, sum(map(len, parts))))
    reader.start()
    assert p.server.sendmsg(parts) == sum(map(len, parts))
    reader.join()
    ends["/pieces"] = time.time_ns()
    threading.Event().wait(1)
    p.exchange("/after")
    p.close()
    wait_until(lambda: len([s for s in a.spans() if s.path == "/after"]) >= 2, 15, "spans")
    stable(lambda: len(a.spans()))
    for path, end in ends.items():
        for s in p.both(a, path):
            assert abs(s.end - end) < 400 * MS, (s, s.end - end)
            assert s.attrs["http.response.status_code"] == 200 and "tailrace.incomplete" not in s.attrs, s
            assert path == "/pieces" or s.end - s.start >= 1400 * MS
    for s in p.both(a, "/small"):
        assert s.attrs["http.response.body.size"] == 15
    for path in ("/before", "/after"):
        for s in p.both(a, path):
            assert s.brief() == ("GET", path, 200, 0, 5)
    a.assert_ledger()


def test_bodies_stay_in_the_kernel(agent, tmp_path):
    """Once it is known how answers look: what is behind a head and no longer than it says; no head is taken for a body."""
    record = tmp_path / "records"
    a = agent(pids=[os.getpid()], record_file=record)
    p = Pair()
    mark = b"mark-of-a-body"
    body = mark + b"b" * 1000

    def answer(*parts):
        assert p.server.sendmsg(parts) == sum(map(len, parts))
        return receive(p.client, sum(map(len, parts)))

    length = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    p.exchange("/first")
    for path in ("/known", "/known", "/known"):
        p.ask(get(path))
        answer(length % len(body) + body)
    wait_until(lambda: len([s for s in a.spans() if s.path == "/known"]) == 6, 15, "the connection is known")
    for i in range(100):  # in a piece of its own, as nginx does, and not
        p.ask(get(f"/length{i}"))
        answer(*([length % len(body), body] if i % 2 else [length % len(body) + body]))
    for i in range(3):
        p.ask(get(f"/chunks{i}"))
        answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"3e8\r\n" + b"c" * 1000 + b"\r\n0\r\n\r\n")
    p.ask(get("/none") + get("/next"))
    answer(b"HTTP/1.1 304 Not Modified\r\n\r\n", length % 1000 + b"n" * 1000)
    for cut in (2, 300):  # the second answer begins in the first one's call, where its body is over
        p.ask(get("/both") + get("/both"))
        two = (length % 1000 + b"2" * 1000) * 2
        answer(two[:1060 - cut], two[1060 - cut:])
    p.ask(get("/head").replace(b"GET", b"HEAD"))
    answer(length % 1014)
    p.exchange("/last")
    p.close()
    wait_until(lambda: len([s for s in a.spans() if s.path == "/last"]) == 2, 15, "spans")
    stable(lambda: len(a.spans()))
    sizes = {"/first": 5, "/next": 1000, "/last": 5, **{f"/length{i}": len(body) for i in range(100)},
             **{f"/chunks{i}": 1000 for i in range(3)}}
    for path, size in sizes.items():
        for s in p.both(a, path):
            assert s.brief() == ("GET", path, 200, 0, size) and "tailrace.incomplete" not in s.attrs, s
    both = [s for s in a.spans() if s.path == "/both"]
    assert len(both) == 8 and all(s.brief() == ("GET", "/both", 200, 0, 1000) for s in both), both
    for s in p.both(a, "/head"):
        assert s.attrs["http.response.status_code"] == 200 and "tailrace.incomplete" not in s.attrs, s
    for s in p.both(a, "/none"):
        assert s.attrs["http.response.status_code"] == 304 and "tailrace.incomplete" not in s.attrs, s
    # Until it was known, at both ends: one answer at least, and three when no verdict came in between.
    assert 2 <= record.read_bytes().count(mark) <= 6
    a.assert_ledger()


def test_an_answer_without_a_body_is_not_one_with(agent):
    """To HEAD, in one call with the next answer, and laid out like those whose body ends with the call: the kernel cannot
    know, so the next one may be lost; it is never another one's."""
    a = agent(pids=[os.getpid()])
    p = Pair()
    for path in ("/first", "/second", "/known"):
        p.exchange(path)
    wait_until(lambda: len([s for s in a.spans() if s.path == "/known"]) == 2, 15, "the connection is known")
    missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nnothing"
    for i in range(3):
        p.ask(get(f"/head{i}").replace(b"GET", b"HEAD") + get(f"/missing{i}"))
        p.answer(OK[:-5].replace(b": 5", b": %d" % len(missing)) + missing)
        p.exchange(f"/after{i}")
    p.exchange("/last")
    p.close()
    wait_until(lambda: len([s for s in a.spans() if s.path == "/last"]) == 2, 15, "spans")
    stable(lambda: len(a.spans()))
    for i in range(3):
        for s in p.both(a, f"/head{i}"):
            known = s.attrs.get("http.response.status_code")
            assert known == 200 or known is None and "tailrace.incomplete" in s.attrs, s
        for s in p.both(a, f"/missing{i}"):
            known = s.attrs.get("http.response.status_code")
            assert known == 404 or known is None and "tailrace.incomplete" in s.attrs, s
        for s in p.both(a, f"/after{i}"):
            known = s.attrs.get("http.response.status_code")
            assert known == 200 or known is None and "tailrace.incomplete" in s.attrs, s
    for s in p.both(a, "/last"):
        assert s.brief() == ("GET", "/last", 200, 0, 5) and "tailrace.incomplete" not in s.attrs, s
    a.assert_ledger()


def test_interim_answers(agent):
    """A 103 is no answer, however long its head: what is cut of it may hide the answer, which is told then."""
    a = agent(pids=[os.getpid()])
    p = Pair()
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n%s\r\n"
    long = b"".join(b"Link: </font-%04d.woff2>; rel=preload; as=font\r\n" % i for i in range(150))
    assert len(long) > 6000
    p.exchange("/first")
    for i in range(20):
        p.ask(get(f"/short{i}"))
        for part in ([hints % b"", hints % b"", OK] if i % 2 else [hints % b"" * 2 + OK]):
            p.answer(part)
    for i in range(4):
        p.ask(get(f"/long{i}"))
        for part in ([hints % long, OK] if i % 2 else [hints % long + OK]):
            p.answer(part)
        p.exchange(f"/after{i}")
    p.exchange("/last")
    p.close()
    wait_until(lambda: len([s for s in a.spans() if s.path == "/last"]) == 2, 15, "spans")
    stable(lambda: len(a.spans()))
    for path in ["/first", "/last"] + [f"/short{i}" for i in range(20)]:
        for s in p.both(a, path):
            assert s.brief() == ("GET", path, 200, 0, 5) and "tailrace.incomplete" not in s.attrs, s
    for path in [f"/{what}{i}" for what in ("long", "after") for i in range(4)]:
        for s in p.both(a, path):
            known = s.attrs.get("http.response.status_code")
            assert known == 200 or known is None and "tailrace.incomplete" in s.attrs, s
    a.assert_ledger()


def test_traceparent(agent):
    """A server span is the caller's child; a client span is made only for requests that nobody else traces."""
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    a = agent(pids=[os.getpid()])
    p = Pair()
    p.ask(get("/traced", f"traceparent: 00-{trace}-{parent}-01", "tracestate: a=b"))
    p.answer(OK)
    p.exchange("/plain")
    p.close()
    wait_until(lambda: len([s for s in a.spans() if s.path in ("/traced", "/plain")]) >= 3, 15, "spans")
    stable(lambda: len(a.spans()))
    traced, = [s for s in a.spans() if s.path == "/traced"]
    assert traced.is_server and traced.span.trace_id.hex() == trace and traced.span.parent_span_id.hex() == parent
    assert traced.span.trace_state == "a=b"
    p.both(a, "/plain")
    a.stop()
    b = agent(pids=[os.getpid()], client_spans_with_traceparent="true")
    p = Pair()
    p.ask(get("/asked", f"traceparent: 00-{trace}-{parent}-01"))
    p.answer(OK)
    p.close()
    wait_until(lambda: len([s for s in b.spans() if s.path == "/asked"]) == 2, 15, "both spans")
    assert all(s.span.trace_id.hex() == trace for s in b.spans() if s.path == "/asked")


FOREIGN = r"""
import os, socket, struct, sys, tempfile
secret = sys.argv[1].encode()
log = open(sys.argv[2], "wb", buffering=0)
l = socket.create_server(("127.0.0.1", 0))
c = socket.create_connection(l.getsockname())
s = l.accept()[0]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
def get(path): return b"GET /%s HTTP/1.1\r\nHost: t\r\n\r\n" % path
def into(sock, n, flags=0):
    # a buffer full of what the connection never carried
    b = bytearray(secret * (n // len(secret) + 2))
    got = sock.recv_into(b, n, flags)
    log.write(secret)
    return got
sys.stdin.readline()
# transmit time stamps: the kernel gives the program's own bytes back as received ones
c.setsockopt(socket.SOL_SOCKET, 37, (1 << 1) | (1 << 4) | (1 << 3))  # SO_TIMESTAMPING: tx software, software, rx
c.sendall(get(b"errqueue"))
into(s, 4000)
for _ in range(200):
    try:
        data = bytearray(secret * 100)
        c.recvmsg_into([data], 500, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        break
    except BlockingIOError:
        pass
else:
    print("no time stamps", flush=True)
s.sendall(OK)
into(c, 4000)
# urgent bytes, read out of band and jumped over in the stream
c.sendall(get(b"oob"))
c.send(b"!", socket.MSG_OOB)
while True:
    try:
        into(s, 1, socket.MSG_OOB)
        break
    except OSError:
        pass
into(s, 4000)
s.sendall(OK)
into(c, 4000)
# truncated: bytes are thrown away, the buffer stays as it was
c.sendall(get(b"trunc"))
into(s, 10, socket.MSG_PEEK)
into(s, 10, socket.MSG_TRUNC)
into(s, 4000)
s.sendall(OK)
into(c, 4000)
# from a file whose neighbourhood is secret, and through a pipe, while the buffers in reach are secret
with tempfile.TemporaryFile() as f:
    f.write(secret * 1000 + b"p" * 10000 + secret * 1000)
    f.flush()
    c.sendall(get(b"sendfile"))
    into(s, 4000)
    s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n")
    assert os.sendfile(s.fileno(), f.fileno(), len(secret) * 1000, 10000) == 10000
    r, w = os.pipe()
    assert os.splice(f.fileno(), w, 10000, offset_src=len(secret) * 1000) == 10000
    assert os.splice(r, s.fileno(), 10000) == 10000
    left = 20000 + 42
    while left > 0:
        r2, w2 = os.pipe()
        n = os.splice(c.fileno(), w2, left)
        left -= n
        os.close(r2); os.close(w2)
        log.write(secret)
for path in b"after", b"last":
    print(path, flush=True)
    sys.stdin.readline()
    c.sendall(get(path))
    into(s, 4000)
    s.sendall(OK)
    into(c, 4000)
print("done", flush=True)
sys.stdin.readline()
"""


def test_no_foreign_bytes_by_other_ways(agent, tmp_path):
    """Error queue with time stamps, urgent data, truncation, sendfile, splice: all buffers in reach hold a secret."""
    if sys.version_info < (3, 10):
        pytest.skip("needs os.splice")
    record, secret = tmp_path / "records", "SECRET-" + os.urandom(8).hex()
    p = subprocess.Popen([sys.executable, "-c", FOREIGN, secret, tmp_path / "log"], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
    try:
        a = agent(pids=[p.pid], record_file=record)
        def go_on():
            p.stdin.write("go on\n")
            p.stdin.flush()
            return p.stdout.readline()

        assert "after" in go_on()
        assert "last" in go_on()
        # What comes with a hole's end may have been answered in it; what comes after it was not.
        wait_until(lambda: len([s for s in a.spans() if s.path == "/after"]) == 2, 15, "the hole is over")
        assert go_on() == "done\n"
        wait_until(lambda: len([s for s in a.spans() if s.path == "/last"]) == 2, 15, "the last exchange")
        wait_until(lambda: b"/last" in record.read_bytes(), 10, "its records")
        assert secret.encode() not in pathlib.Path(record).read_bytes()
        a.assert_ledger()
        holes = lambda direction, why: a.ledger()["socket", direction]["holes"][why]
        wait_until(lambda: a.count("closes") or a.count("spans") >= len(a.spans()), 10, "the ledger is up to date")
        assert holes("send", "no_user_buffer") >= 20_000, f"sendfile and splice: {a.ledger()}"
        assert holes("receive", "truncated") == 10, a.ledger()
        assert holes("receive", "unseen") >= 20_000, f"splice out of a socket has no event: {a.ledger()}"
        # What was seen whole is whole, on either side; what the hole could have answered says so, and is no error.
        assert all("tailrace.incomplete" in s.attrs or s.attrs["http.response.status_code"] == 200 for s in a.spans())
        assert not any("error.type" in s.attrs for s in a.spans())
        for path in ("/errqueue", "/last"):
            got = [s for s in a.spans() if s.path == path]
            assert sorted(s.is_server for s in got) == [False, True], path
            assert all(s.attrs["http.response.status_code"] == 200 for s in got)
    finally:
        p.kill()
        p.wait()


SERVICE = """
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = self.path.encode() * 20
        self.send_response(404 if self.path.endswith("9") else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
class S(http.server.ThreadingHTTPServer):
    request_queue_size = 100
S(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""


def test_every_hop_of_eight_clients(agent, tmp_path):
    """curl, nginx in front, a Python service behind: four spans a request, each with its port, nested in time."""
    app, = free_ports(1)
    service = subprocess.Popen([sys.executable, "-c", SERVICE, str(app)])
    nginx = Nginx(tmp_path, app=app)
    try:
        a = agent(ports=[nginx.port, app], exe="['*/curl']")
        clients, each = 8, 25
        threads = [threading.Thread(target=subprocess.run, args=(
            ["curl", "-s", *sum((["-o", "/dev/null", f"http://127.0.0.1:{nginx.port}/app/{c}-{i}"]
                                 for i in range(each)), [])],), kwargs={"check": True}) for c in range(clients)]
        begin = time.time_ns()
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        end = time.time_ns()
        n = clients * each
        wait_until(lambda: len(a.spans()) >= 4 * n, 20, "spans")
        stable(lambda: len(a.spans()))
        chains = {}
        for s in [s for s in a.spans() if s.path and s.path.startswith("/app/")]:
            assert s.path not in chains or (s.resource["process.executable.name"], s.is_server) not in chains[s.path], \
                f"twice: {s}"
            chains.setdefault(s.path, {})[s.resource["process.executable.name"], s.is_server] = s
        assert set(chains) == {f"/app/{c}-{i}" for c in range(clients) for i in range(each)}
        python = os.path.basename(os.path.realpath(sys.executable))
        for path, found in chains.items():
            hops = [found[k] for k in (("curl", False), ("nginx", True), ("nginx", False), (python, True))]
            assert len(found) == 4
            for s in hops:
                assert s.brief() == ("GET", path, 404 if path.endswith("9") else 200, 0, 20 * len(path))
                assert_within(s, begin, end)
            assert [s.start for s in hops] == sorted(s.start for s in hops), path
            assert [s.attrs["server.port"] for s in hops[::2]] == [nginx.port, app]
            assert [s.attrs["network.peer.port"] for s in hops[::2]] == [nginx.port, app]
            assert hops[1].attrs["server.port"] == nginx.port
        a.assert_ledger()
    finally:
        nginx.stop()
        service.kill()
        service.wait()
