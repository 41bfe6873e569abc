# SPDX-License-Identifier: Apache-2.0
"""Peers who mean no good: the right error or the end of their connection, memory that stays bounded,
and other clients who do not notice."""

import contextlib
import os
import resource
import select
import socket
import struct
import threading
import time

import hpack
import pytest

from harness import ledger, metrics
from harness.gateway import TELEMETRY
from harness.h2raw import H2, framed
from harness.otlp import TRACE_METHOD, SpanMaker, request
from harness.wait import stable, wait_until

CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}, http: {{endpoint: "127.0.0.1:{http}"}}}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 128}}
  batch: {{timeout: 50ms}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{sink}", tls: {{insecure: true}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], processors: [memory_limiter, batch], exporters: [otlp_grpc]}}
""" + TELEMETRY

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS = 1, 4
MIB = 1 << 20


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def head(path=TRACE_METHOD, more=()):
    return hpack.Encoder().encode([(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"),
                                   ("content-type", "application/grpc"), ("te", "trailers"), *more])


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def h2_connect(port):
    s = connect(port)
    s.sendall(PREFACE + frame(SETTINGS))
    return s


def pour(sock, data, seconds=20):
    """Sends what the peer takes, reads nothing. True when the peer ended the connection."""
    sock.setblocking(False)
    deadline, view = time.monotonic() + seconds, memoryview(data)
    while view and time.monotonic() < deadline:
        try:
            view = view[sock.send(view):]
        except BlockingIOError:
            select.select([], [sock], [], 0.2)
        except OSError:
            return True
    return False


def drain(sock, seconds=20):
    """All that comes until the peer's end; None when it does not end."""
    sock.settimeout(seconds)
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while True:
            try:
                piece = sock.recv(1 << 16)
            except socket.timeout:
                return None
            if not piece:
                break
            got += piece
    return got


def frames(data):
    """[(type, flags, stream, payload)] of bytes that came."""
    out = []
    while len(data) >= 9:
        n = int.from_bytes(data[:3], "big")
        out.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:9 + n]))
        data = data[9 + n:]
    return out


def goaway_code(data):
    codes = [int.from_bytes(p[4:8], "big") for kind, _, _, p in frames(data) if kind == GOAWAY]
    return codes[-1] if codes else None


def resident(gw):
    with open(f"/proc/{gw.child.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4096


def cpu_seconds(gw):
    with open(f"/proc/{gw.child.pid}/stat", encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


class Neighbour(threading.Thread):
    """A well-behaved client beside the attack: it notes when its requests were answered."""

    def __init__(self, gw):
        super().__init__(daemon=True)
        self.gw, self.over, self.answered, self.error = gw, threading.Event(), [time.monotonic()], None
        self.body = request(SpanMaker(seed=61).trace()).SerializeToString()

    def run(self):
        try:
            while not self.over.wait(0.02):
                self.gw.export(self.body, timeout=10)
                self.answered.append(time.monotonic())
        except Exception as e:  # told by assert_unharmed
            self.error = e

    def assert_unharmed(self):
        self.over.set()
        self.join()
        assert self.error is None, self.error
        self.answered.append(time.monotonic())
        longest = max(b - a for a, b in zip(self.answered, self.answered[1:]))
        assert longest < 2, f"no request was answered for {longest:.1f} s"


@pytest.fixture
def besieged(gateway, sink):
    """A gateway, a neighbour who uses it all the time, and at the end the bill."""
    gw = gateway(CONFIG, sink=sink.grpc_port)
    for _ in range(20):
        gw.export(request(SpanMaker(seed=62).trace()))
    stable(lambda: resident(gw) >> 20, quiet=0.3)
    gw.before = resident(gw)
    neighbour = Neighbour(gw)
    neighbour.start()
    yield gw
    neighbour.assert_unharmed()
    grown = resident(gw) - gw.before
    assert grown < 64 * MIB, f"{grown / MIB:.0f} MiB more than before"
    wait_until(lambda: metrics.total(gw.scrape(), "tailrace_memory_reserved_bytes") == 0, what="nothing is reserved")
    ledger.assert_explained(gw.self_metrics)


def hpack_bomb():
    """One entry of 4 KB in the table, named a thousand times by one byte each: 4 MB of head in 5 KB."""
    big = b"\x40" + b"\x03big" + b"\x7f" + hpack.hpack.encode_integer(4000, 7)[1:] + b"v" * 4000
    return head() + big + b"\xbe" * 1000


FLOODS = {
    "ping": frame(PING, payload=b"12345678"),
    "settings": frame(SETTINGS, payload=struct.pack(">HI", 4, 65535)),
    "priority": frame(PRIORITY, stream=1, payload=struct.pack(">IB", 0, 1)),
    "empty data": frame(DATA, stream=1),
    "window update": frame(WINDOW, payload=struct.pack(">I", 1)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_of_frames_that_carry_nothing(besieged, name):
    s = h2_connect(besieged.grpc)
    s.sendall(frame(HEADERS, END_HEADERS, 1, head()))
    ended = pour(s, FLOODS[name] * 200_000)
    got = drain(s) if not ended else b""
    assert got is not None, "the flood was served to its end"
    if goaway_code(got) is not None:
        assert goaway_code(got) in (11, 1)  # ENHANCE_YOUR_CALM
    if name not in ("ping", "settings"):  # nghttp2 ends those first: they want answers
        besieged.child.wait_log("connection ended: too many frames without content")
    s.close()


def test_a_busy_connection_is_no_flood(besieged):
    """Requests that each come with pings and window updates go on for ever."""
    c = H2(besieged.grpc)
    body = framed(request(SpanMaker(seed=63).trace()).SerializeToString())
    for _ in range(300):
        for _ in range(50):
            c.conn.ping(b"12345678")
            c.conn.increment_flow_control_window(1)
        sid = c.open(TRACE_METHOD)
        c.send_all(sid, body)
        c.wait(lambda sid=sid: c.answered(sid), what="answer")
        assert c.grpc_status(sid) == "0"
    c.close()


def test_heads_that_grow(besieged):
    s = h2_connect(besieged.grpc)
    s.sendall(frame(HEADERS, END_HEADERS, 1, hpack_bomb()))
    s.sendall(frame(PING, payload=b"12345678"))
    got = b""
    while not any(k == HEADERS for k, *_ in frames(got)):
        got += s.recv(1 << 16)
    answer = next(p for k, _, _, p in frames(got) if k == HEADERS)
    assert dict(hpack.Decoder().decode(answer))[":status"] == "431"
    s.close()
    s = h2_connect(besieged.grpc)
    s.sendall(frame(HEADERS, 0, 1, head()))
    pour(s, frame(CONTINUATION, 0, 1, hpack.Encoder().encode([("a", "b" * 10)]) * 100) * 2000)
    assert drain(s) is not None, "continuations without end"
    s.close()
    for line in (b"x: " + b"y" * 200_000, b"a: b\r\n" * 20_000):
        s = connect(besieged.http)
        pour(s, b"POST /v1/traces HTTP/1.1\r\n" + line)
        got = drain(s)
        assert got is not None and (got.startswith(b"HTTP/1.1 400 ") or got == b"")
        s.close()


def test_a_head_byte_by_byte_is_not_parsed_each_time(besieged):
    before = cpu_seconds(besieged)
    for _ in range(4):
        s = connect(besieged.http)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(b"POST /v1/traces HTTP/1.1\r\n")
        for _ in range(50):
            s.sendall(b"x" * 8 + b": " + b"y" * 1000 + b"\r\n")
        for _ in range(5000):
            s.send(b"z")
        s.sendall(b": 1\r\n\r\n")
        assert s.recv(100).startswith(b"HTTP/1.1 4")
        s.close()
    assert cpu_seconds(besieged) - before < 3


def test_windows_that_overflow(besieged):
    s = h2_connect(besieged.grpc)
    s.sendall(frame(WINDOW, payload=struct.pack(">I", 0x7FFFFFFF)) * 2)
    assert goaway_code(drain(s)) == 3  # FLOW_CONTROL_ERROR
    s.close()


def test_answers_that_nobody_reads(besieged):
    """Pipelined nonsense by HTTP/1, requests by HTTP/2 with a window of zero: no answer is kept without bound."""
    s = connect(besieged.http)
    pour(s, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 2_000_000, seconds=4)
    q = h2_connect(besieged.grpc)
    q.sendall(frame(SETTINGS, payload=struct.pack(">HI", 4, 0)))
    for i in range(400):
        if pour(q, frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, head("/none")), seconds=1):
            break
    assert resident(besieged) - besieged.before < 48 * MIB
    s.close()
    q.close()


def test_trailers_of_requests(besieged):
    """Fields after the body change nothing, however many; a stream is not opened by them."""
    c = H2(besieged.grpc)
    sid = c.open(TRACE_METHOD)
    c.send(sid, framed(request(SpanMaker(seed=64).trace()).SerializeToString()))
    c.conn.send_headers(sid, [(f"x-{i}", "y" * 30) for i in range(50)], end_stream=True)
    c.flush()
    c.wait(lambda: c.answered(sid), what="answer")
    assert c.grpc_status(sid) == "0"
    c.close()


BODY = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
SMUGGLED = {
    "length and chunks": b"content-length: 4\r\ntransfer-encoding: chunked\r\n",
    "chunks and length": b"transfer-encoding: chunked\r\ncontent-length: 4\r\n",
    "two lengths": b"content-length: 4\r\ncontent-length: 40\r\n",
    "list of lengths": b"content-length: 4, 4\r\n",
    "signed length": b"content-length: +4\r\n",
    "hexadecimal length": b"content-length: 0x4\r\n",
    "blank before the colon": b"content-length : 4\r\n",
    "two codings": b"transfer-encoding: gzip, chunked\r\n",
    "coding twice": b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
    "odd coding": b"transfer-encoding: xchunked\r\n",
    "folded field": b"x: y\r\n transfer-encoding: chunked\r\n",
    "bare CR": b"x: y\rtransfer-encoding: chunked\r\n",
    "NUL": b"x: y\0\r\ncontent-length: 4\r\n",
}


def test_requests_that_can_be_read_in_two_ways(besieged):
    for name, fields in SMUGGLED.items():
        for version in (b"1.1", b"1.0"):
            s = connect(besieged.http)
            s.sendall(b"POST /v1/traces HTTP/" + version + b"\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n" +
                      fields + b"\r\n" + BODY)
            got = drain(s)
            assert got is not None and got.startswith(b"HTTP/1.1 400 ") and got.count(b"HTTP/1.1 ") == 1, (name, got)
            s.close()
    s = connect(besieged.http)  # HTTP/1.0 knows no chunks
    s.sendall(b"POST /v1/traces HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n" + BODY)
    assert drain(s).startswith(b"HTTP/1.1 400 ")


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_thousands_of_idle_connections(many_files, besieged):
    with contextlib.ExitStack() as stack:
        for i in range(2000):
            s = stack.enter_context(connect(besieged.grpc if i % 2 else besieged.http))
            if i % 2:
                s.sendall(PREFACE + frame(SETTINGS))
        wait_until(lambda: len(os.listdir(f"/proc/{besieged.child.pid}/fd")) > 2000, what="all were accepted")
        assert resident(besieged) - besieged.before < 48 * MIB


def test_no_file_descriptors_left(gateway, sink):
    """Who waits to be accepted costs nothing meanwhile, those inside go on, and idle ones make room."""
    gw = gateway(CONFIG, sink=sink.grpc_port, prefix=["prlimit", "--nofile=64:64"])
    gw.export(request(SpanMaker(seed=65).trace()))
    neighbour = Neighbour(gw)
    neighbour.start()
    idle = [connect(gw.http) for _ in range(80)]
    gw.child.wait_log("no file descriptor for a new connection")
    before, began = cpu_seconds(gw), time.monotonic()
    new = connect(gw.http)
    new.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    new.settimeout(60)
    assert new.recv(100).startswith(b"HTTP/1.1 404 ")
    assert cpu_seconds(gw) - before < 0.25 * (time.monotonic() - began) + 0.5
    neighbour.assert_unharmed()
    for s in idle:
        s.close()


def test_peers_who_never_finish_are_given_up(besieged):
    """Half a preface, half heads, bodies drop by drop: each is ended in time, also those that go on."""
    field = b"x: y\r\n"
    http_head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\n"
    starts = {
        "preface": (besieged.grpc, PREFACE[:10], b""),
        "head of HTTP/2": (besieged.grpc, PREFACE + frame(SETTINGS) + frame(HEADERS, 0, 1, head()[:5]), b""),
        "head of HTTP/1": (besieged.http, http_head, field),
        "body": (besieged.http, http_head + b"content-length: 3000000\r\n\r\n", b"\n"),
        "chunks": (besieged.http, http_head + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        "message of gRPC": (besieged.grpc, PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, head()) +
                            frame(DATA, 0, 1, b"\0\0\x20\0\0"), frame(DATA, 0, 1, b"\n")),
    }
    socks, ended, began = {}, {}, time.monotonic()
    for name, (port, start, _) in starts.items():
        socks[name] = connect(port)
        socks[name].sendall(start)

    def step():
        for name, s in socks.items():
            if name in ended:
                continue
            try:
                s.setblocking(False)
                s.send(starts[name][2])
                got = s.recv(1 << 16)
                if not got or any(k == RST for k, *_ in frames(got)):
                    ended[name] = time.monotonic() - began
            except BlockingIOError:
                pass
            except OSError:
                ended[name] = time.monotonic() - began
        return len(ended) == len(socks)
    wait_until(step, 45, "all are ended", interval=0.25)
    for name in ("preface", "head of HTTP/2", "head of HTTP/1"):
        assert 8 < ended[name] < 20, ended
    for name in ("body", "chunks", "message of gRPC"):
        assert 25 < ended[name] < 40, ended
    for s in socks.values():
        s.close()
