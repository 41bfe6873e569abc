# SPDX-License-Identifier: Apache-2.0
"""Which sockets are seen, in which role, and what becomes of their ends: namespaces, MPTCP, UNIX, lost records."""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from harness.process import Child
from harness.wait import free_ports, stable, wait_until

pytestmark = pytest.mark.root

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
IPPROTO_MPTCP = 262


def get(path):
    return b"GET %s HTTP/1.1\r\nHost: t\r\n\r\n" % path.encode()


def receive(s, n):
    got = b""
    while len(got) < n:
        piece = s.recv(65536)
        assert piece, got
        got += piece
    return got


def exchange(client, server, path, answer=OK):
    """A request and its answer over a connection of this process with itself."""
    client.sendall(get(path))
    receive(server, len(get(path)))
    server.sendall(answer)
    receive(client, len(answer))


def pair(listener):
    client = socket.socket(listener.family, socket.SOCK_STREAM, listener.proto)
    client.connect(listener.getsockname())
    return client, listener.accept()[0]


def roles(spans, path):
    return sorted("server" if s.is_server else "client" for s in spans if s.path == path)


SERVER = """
import socket, sys, threading
l = socket.socket(socket.AF_INET, socket.SOCK_STREAM, int(sys.argv[2]))
l.bind(("127.0.0.1", int(sys.argv[1])))
l.listen()
def serve(s):
    while data := s.recv(65536):
        s.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello")
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
"""

CLIENT = """
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for line in sys.stdin:
    s.sendall(b"GET %s HTTP/1.1\\r\\nHost: t\\r\\n\\r\\n" % line.strip().encode())
    got = b""
    while not got.endswith(b"hello"):
        got += s.recv(65536)
    print("done", flush=True)
"""


@pytest.fixture
def namespace():
    name = f"tailrace-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        pytest.skip("needs network namespaces")
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.parametrize("protocol", [socket.IPPROTO_TCP, IPPROTO_MPTCP], ids=["tcp", "mptcp"])
def test_a_server_of_another_namespace_that_listened_before(agent, namespace, tmp_path, protocol):
    """Found by its listener: what it accepts is a server's, also a connection that is open already."""
    inside = ["ip", "netns", "exec", namespace, sys.executable, "-c"]
    port, = free_ports(1)
    server = Child([*inside, SERVER, port, protocol], tmp_path / "server.log")
    client = None
    try:
        wait_until(lambda: "ready" in server.log() or not server.alive(), 10, "the server listens")
        if not server.alive():
            pytest.skip("needs this protocol: " + server.log()[-200:])
        client = subprocess.Popen([*inside, CLIENT, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def ask(path):
            client.stdin.write(path + "\n")
            client.stdin.flush()
            assert client.stdout.readline() == "done\n"

        ask("/before")
        a = agent(ports=[port])
        ask("/first")
        ask("/second")
        other = subprocess.run([*inside, CLIENT, str(port)], input="/new\n", text=True, capture_output=True, timeout=20)
        assert other.stdout == "done\n", other.stderr
        wait_until(lambda: {s.path for s in a.spans()} >= {"/first", "/second", "/new"}, 10, "server spans")
        stable(lambda: len(a.spans()))
        assert sorted((s.path, s.is_server) for s in a.spans()) == [
            ("/first", True), ("/new", True), ("/second", True)]
        a.assert_ledger()
    finally:
        if client:
            client.kill()
            client.wait()
        server.kill()


def test_mptcp_both_roles(agent):
    try:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    except OSError:
        pytest.skip("needs MPTCP")
    with listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client, server = pair(listener)
        exchange(client, server, "/unseen")
        a = agent(pids=[os.getpid()])
        exchange(client, server, "/old")
        for s in (client, server):
            s.close()
        client, server = pair(listener)
        exchange(client, server, "/new")
        others = [pair(listener) for _ in range(5)]
        for i in range(10):  # all accepted from one listener, at the same time
            for k, p in enumerate(others):
                exchange(*p, f"/m{k}-{i}")
        client.sendall(get("/cut"))
        receive(server, len(get("/cut")))
        for s in (client, server, *[s for p in others for s in p]):
            s.close()  # its end is told by the state of the socket: no sweep is waited for
        wait_until(lambda: len(roles(a.spans(), "/cut")) == 2, 15, f"both ends: {a.spans()}")
        stable(lambda: len(a.spans()))
        for path in ["/old", "/new", "/cut"] + [f"/m{k}-{i}" for k in range(5) for i in range(10)]:
            assert roles(a.spans(), path) == ["client", "server"], (path, a.ledger(), a.kernel(), a.spans())
        assert not roles(a.spans(), "/unseen")
        port = listener.getsockname()[1]
        new = [s for s in a.spans() if s.path == "/new"]
        assert {s.port for s in new} == {port} or all("server.port" in s.attrs for s in new)
        a.assert_ledger()


def test_unix_sockets(agent, tmp_path):
    """Both roles; the end of such a socket is found by the sweep."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    old, old_server = pair(listener)
    old.sendall(get("/half"))
    a = agent(pids=[os.getpid()], sweep_interval="1s")
    receive(old_server, len(get("/half")))
    old_server.sendall(OK)
    receive(old, len(OK))
    exchange(old, old_server, "/joined")
    client, server = pair(listener)
    for i in range(20):
        exchange(client, server, f"/u{i}")
    client.sendall(get("/cut"))
    receive(server, len(get("/cut")))
    for s in (client, server, old, old_server, listener):
        s.close()
    wait_until(lambda: len(roles(a.spans(), "/cut")) == 2, 15, "the sweep ends what was under way")
    stable(lambda: len(a.spans()))
    for path in [f"/u{i}" for i in range(20)] + ["/joined"]:
        assert roles(a.spans(), path) == ["client", "server"], (path, a.ledger(), a.kernel(), a.spans())
    wait_until(lambda: a.count("lost_closes") == 4, 10, "each end of both connections")
    assert {s.attrs.get("network.transport") for s in a.spans() if s.path == "/u0"} == {"unix"}
    assert not any("network.peer.port" in s.attrs for s in a.spans() if s.path.startswith("/u"))
    a.assert_ledger()


def test_the_listener_is_gone_before_the_first_byte(agent):
    """A server that takes one connection and closes its listener: no listener tells the role, the request does."""
    a = agent(pids=[os.getpid()])
    listener = socket.create_server(("127.0.0.1", 0))
    client, server = pair(listener)
    listener.close()
    exchange(client, server, "/once")
    exchange(client, server, "/twice")
    client.close()
    server.close()
    got = a.settled(4)
    assert roles(got, "/once") == roles(got, "/twice") == ["client", "server"]


def test_ends_that_were_lost_are_found(agent):
    """The ring is full when connections end: the sweep closes them, and what was under way is told."""
    a = agent(pids=[os.getpid()], ring_size=65536, sweep_interval="1s")
    listener = socket.create_server(("127.0.0.1", 0))
    pairs = [pair(listener) for _ in range(20)]
    for i, (client, server) in enumerate(pairs):
        exchange(client, server, f"/whole{i}")
        client.sendall(get(f"/cut{i}"))
        receive(server, len(get(f"/cut{i}")))
    wait_until(lambda: len(a.spans()) >= 40, 15, "spans before")
    filler = pair(listener)
    a.child.pause()
    for i in range(400):
        exchange(*filler, f"/fill{i}")
    for p in pairs:
        for s in p:
            s.close()
    a.child.signal(signal.SIGCONT)
    cuts = lambda: [s for s in a.spans() if s.path and s.path.startswith("/cut")]
    wait_until(lambda: len(cuts()) >= 40, 20, f"what was under way: {len(cuts())}")
    lost = stable(lambda: a.count("lost_closes"), 1.5)
    assert 20 <= lost <= 40, "a few may still have found room"
    assert all(s.attrs.get("error.type") == "connection_closed" for s in cuts())
    for s in (*filler, listener):
        s.close()
    assert stable(lambda: a.count("lost_closes"), 1.5) == lost, "a living one was closed, or one with a record"
    a.assert_ledger()


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.POINTER(Iovec)),
                ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


class Mmsghdr(ctypes.Structure):
    _fields_ = [("hdr", Msghdr), ("len", ctypes.c_uint)]


def several(call, s, buffers):
    """sendmmsg or recvmmsg with a message for each of the buffers, all of them full."""
    iovecs = [Iovec(ctypes.addressof(b), len(b)) for b in buffers]
    messages = (Mmsghdr * len(buffers))(*[Mmsghdr(Msghdr(None, 0, ctypes.pointer(v), 1, None, 0, 0)) for v in iovecs])
    more = [None] if call == "recvmmsg" else []  # a timeout
    done = getattr(ctypes.CDLL(None, use_errno=True), call)(s.fileno(), messages, len(buffers), 0, *more)
    assert done == len(buffers), os.strerror(ctypes.get_errno())
    assert [m.len for m in messages] == [len(b) for b in buffers]


def buffers_of(*parts):
    return [ctypes.create_string_buffer(x, len(x)) for x in parts]


def test_several_messages_by_one_call(agent):
    """sendmmsg and recvmmsg: nothing tells which message an event is of, so they are holes of just their size; of one message
    it is known. What passes before and behind them is whole."""
    a = agent(pids=[os.getpid()])
    listener = socket.create_server(("127.0.0.1", 0))
    client, server = pair(listener)
    both = [get(f"/both{i}") for i in range(2)]
    exchange(client, server, "/before")
    several("sendmmsg", client, buffers_of(get("/single")))
    several("recvmmsg", server, [ctypes.create_string_buffer(len(get("/single")))])
    several("sendmmsg", server, buffers_of(OK))
    several("recvmmsg", client, [ctypes.create_string_buffer(len(OK))])
    several("sendmmsg", client, buffers_of(*both))
    got = [ctypes.create_string_buffer(len(x)) for x in both]
    several("recvmmsg", server, got)
    assert [b.raw for b in got] == both
    several("sendmmsg", server, buffers_of(OK, OK))
    receive(client, 2 * len(OK))
    exchange(client, server, "/behind")
    wait_until(lambda: len(roles(a.spans(), "/behind")) == 2, 15, "the hole is over")
    exchange(client, server, "/last")
    for s in (client, server, listener):
        s.close()
    spans = a.settled(6)
    assert {s.path for s in spans} <= {"/before", "/single", "/behind", "/last"}, spans
    for path in ("/before", "/single", "/last"):
        assert roles(spans, path) == ["client", "server"]
        for s in spans:
            if s.path == path:
                assert s.brief() == ("GET", path, 200, 0, 5) and "tailrace.incomplete" not in s.attrs, s
    holes = lambda: {d: a.ledger()["socket", d]["holes"]["no_user_buffer"] for d in ("send", "receive")}
    requests = sum(map(len, both))
    wait_until(lambda: holes()["send"] == requests + 2 * len(OK), 10, "the ledger's next turn")
    assert holes()["receive"] == requests
    a.assert_ledger()


def test_four_rings(agent):
    """Each connection in one ring, so that its records keep their order; all rings are read."""
    a = agent(pids=[os.getpid()], rings=4)
    listener = socket.create_server(("127.0.0.1", 0))
    pairs = [pair(listener) for _ in range(32)]
    for i in range(10):
        for k, p in enumerate(pairs):
            exchange(*p, f"/r{k}-{i}")
    for p in pairs:
        for s in p:
            s.close()
    got = a.settled(640)
    assert len(got) == 640 and not any("tailrace.incomplete" in s.attrs for s in got)
    for k in range(32):
        assert all(roles(got, f"/r{k}-{i}") == ["client", "server"] for i in range(10))
    a.assert_ledger()


PAIRS = """
import socket, sys, threading, time
answer = b"HTTP/1.1 200 OK\\r\\nContent-Length: 100000\\r\\n\\r\\n" + b"x" * 100000
def receive(s, n):
    while n:
        n -= len(s.recv(n, socket.MSG_WAITALL))
def exchange(l, path, pause):
    c = socket.create_connection(l.getsockname())
    s = l.accept()[0]
    request = b"GET /%s HTTP/1.1\\r\\nHost: t\\r\\n\\r\\n" % path.encode()
    c.sendall(request)
    time.sleep(pause / 10)
    receive(s, len(request))
    time.sleep(pause)
    t = threading.Thread(target=receive, args=(c, len(answer)))
    t.start()
    s.sendall(answer)
    t.join()
    c.close()
    s.close()
sys.stdin.readline()
for i in range(6):
    l = socket.create_server(("127.0.0.1", 0))
    exchange(l, "woken", 0.4)
    exchange(l, "known", 0)
sys.stdin.readline()
"""


def test_a_decision_comes_with_the_first_request(agent):
    """The first data wakes the reader long before its interval; the next connection begins with the verdict."""
    p = subprocess.Popen([sys.executable, "-c", PAIRS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        a = agent(pids=[p.pid], drain_interval="1s")
        p.stdin.write("begin\n")
        p.stdin.flush()
        wait_until(lambda: a.count("closes") == 24, 20, "all is told")
        assert len(a.settled(24)) == 24
        # Undecided, it would have been 16 KB of each answer. (The interval is as likely as not over in the
        # pause of a connection, but not in those of six.)
        assert a.ledger()["socket", "send"]["parsed"] == 12 * (len(get("/woken")) + 4096 + 16), a.ledger()
        assert {s.attrs["http.response.body.size"] for s in a.spans()} == {100_000}
        a.assert_ledger()
    finally:
        p.kill()
        p.wait()


def test_a_corked_request_does_not_begin_when_the_one_before_it_ended(agent):
    """Its head is only queued: the time stamp of the socket's last transmission is older than the call."""
    a = agent(pids=[os.getpid()])
    listener = socket.create_server(("127.0.0.1", 0))
    client, server = pair(listener)
    exchange(client, server, "/first")
    threading.Event().wait(1)  # the case itself: an idle connection
    began = time.time_ns()
    client.send(get("/corked")[:10], socket.MSG_MORE)
    client.sendall(get("/corked")[10:])
    receive(server, len(get("/corked")))
    server.sendall(OK)
    receive(client, len(OK))
    span, = [s for s in a.settled(4) if s.path == "/corked" and not s.is_server]
    assert -20_000_000 < span.start - began < 500_000_000
    for s in (client, server, listener):
        s.close()


def test_ciphertext_of_an_older_connection_stays_in_the_kernel(agent, tmp_path):
    """Met in mid-life: records of TLS application data are lengths from the first one on."""
    record = tmp_path / "records"
    listener = socket.create_server(("127.0.0.1", 0))
    client, server = pair(listener)
    client.sendall(b"\x16\x03\x01\x00\x05hello")
    receive(server, 10)
    agent(pids=[os.getpid()], record_file=record)
    secret = b"CIPHER-" + os.urandom(8).hex().encode()
    data = b"\x17\x03\x03" + len(secret).to_bytes(2, "big") + secret
    for _ in range(10):
        client.sendall(data)
        receive(server, len(data))
        server.sendall(data)
        receive(client, len(data))
    other, other_server = pair(listener)
    exchange(other, other_server, "/end-mark")
    wait_until(lambda: b"/end-mark" in record.read_bytes(), 10, "records")
    assert secret not in pathlib.Path(record).read_bytes()
    for s in (client, server, other, other_server, listener):
        s.close()


def test_a_late_decision_loses_no_request(agent):
    """The reader is away while a connection passes its undecided share: heads go on, each call's beginning and end."""
    a = agent(pids=[os.getpid()])
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2328\r\n" + b"x" * 9000 + b"\r\n0\r\n\r\n"
    listener = socket.create_server(("127.0.0.1", 0))
    a.child.pause()
    client, server = pair(listener)
    for i in range(60):  # 540 KB of answers: eight times the share
        exchange(client, server, f"/late{i}", answer)
    a.child.signal(signal.SIGCONT)
    got = [s for s in a.settled(120) if s.path and s.path.startswith("/late")]
    assert len(got) == 120
    assert all(s.attrs["http.response.status_code"] == 200 and "tailrace.incomplete" not in s.attrs for s in got)
    for s in (client, server, listener):
        s.close()
    a.assert_ledger()


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_heads_are_shortened_before_records_are_lost(agent, framing):
    """A ring that is nearly full: what is given up first is what stands behind the first KB of a call, but its end."""
    a = agent(pids=[os.getpid()], ring_size=262144)
    long = {"length": b"HTTP/1.1 200 OK\r\nContent-Length: 16000\r\n\r\n" + b"y" * 16000,
            "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e80\r\n" + b"y" * 16000 +
                      b"\r\n0\r\n\r\n"}[framing]
    listener = socket.create_server(("127.0.0.1", 0))
    a.child.pause()
    pairs = [pair(listener) for _ in range(5)]  # each too young for its share of undecided bytes to be used up
    for i in range(20):
        exchange(*pairs[i // 4], f"/shed{i}", long)
    a.child.signal(signal.SIGCONT)
    got = [s for s in a.settled(40) if s.path and s.path.startswith("/shed")]
    # Undecided, each answer takes 16 KB at either end: 640 KB would not have fitted.
    assert len(got) == 40 and not any("tailrace.incomplete" in s.attrs for s in got)
    assert {s.attrs["http.response.body.size"] for s in got} == {16000}
    wait_until(lambda: a.ledger()["socket", "send"]["holes"]["limit"] > 0, 10, "what was given up is counted")
    assert a.kernel()["lost_records"] == 0
    for s in (*sum(pairs, ()), listener):
        s.close()
    a.assert_ledger()
