# SPDX-License-Identifier: Apache-2.0
"""Plaintext of OpenSSL: whose library, which socket, which bytes, and who pays."""

import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import threading

import pytest

from harness.capture import Nginx
from harness.process import ROOT, Child, program
from harness.wait import free_ports, wait_until

pytestmark = pytest.mark.root

LIBSSL = next(iter(sorted(pathlib.Path("/usr/lib").glob("*/libssl.so.3"))), None)
EACH = 20


@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    where = tmp_path_factory.mktemp("pems")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                    "-keyout", where / "key.pem", "-out", where / "cert.pem"], check=True, capture_output=True)
    return where / "cert.pem", where / "key.pem"


@pytest.fixture
def copy(tmp_path):
    """A library of this test alone: probes of other agents on this host are not in it."""
    if not LIBSSL:
        pytest.skip("needs libssl.so.3")
    where = tmp_path / "lib"
    where.mkdir()
    shutil.copy(LIBSSL, where / "libssl.so.3")
    return where / "libssl.so.3"


@pytest.fixture
def server(tmp_path, pems):
    """A function that starts test/apps/tls_server.py on a library and a port."""
    started = []

    def start(library, port, after=0, before=(), piece=0):
        child = Child([*before, sys.executable, ROOT / "test/apps/tls_server.py", library, port, *pems, after, piece],
                      tmp_path / f"server{len(started)}.log")
        started.append(child)
        return child

    yield start
    for child in started:
        child.stop()


def context():
    c = ssl.create_default_context()
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    return c


class Client:
    """One connection, requests one after the other; .port is its own."""

    def __init__(self, port):
        self.to = port
        raw = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.sock = context().wrap_socket(raw)
        self.port = self.sock.getsockname()[1]

    def get(self, path):
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{self.to}\r\n\r\n".encode())
        return self.response()

    def response(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = self.sock.recv(1)
            assert piece, "the server has closed"
            head += piece
        left = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while left:
            left -= len(self.sock.recv(min(left, 65536))) or pytest.fail("the server has closed")

    def close(self):
        self.sock.close()


def loaded(a, child, library="libssl.so.3"):
    """The server has its library, and the agent has probes in it."""
    child.wait_log("loaded")
    a.child.wait_log(f"TLS library {library} in process {child.pid}:")


def ask(port, name, n=EACH):
    c = Client(port)
    for i in range(n):
        c.get(f"/{name}/{i}")
    c.close()


def assert_all_once(spans, name, n=EACH):
    mine = [s for s in spans if s.path.startswith(f"/{name}/")]
    assert sorted(s.path for s in mine) == sorted(f"/{name}/{i}" for i in range(n)), mine
    for s in mine:
        assert s.is_server and s.attrs["http.response.status_code"] == 200
        assert s.attrs["url.scheme"] == "https" and "tailrace.incomplete" not in s.attrs, s


def probes_in(pid, library):
    """Breakpoints in the process's own copy of the library's code."""
    count = 0
    found = False
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, perms, offset, *_ = line.split(maxsplit=5)
        if "x" not in perms or not line.endswith(str(library)):
            continue
        found = True
        begin, end = (int(x, 16) for x in span.split("-"))
        with open(f"/proc/{pid}/mem", "rb") as mem, open(library, "rb") as file:
            mem.seek(begin)
            file.seek(int(offset, 16))
            code = mem.read(end - begin)
            count += sum(a != b for a, b in zip(code, file.read(end - begin)))
    assert found, f"{library} is not mapped in {pid}"
    return count


def workers(master):
    return [int(p) for p in pathlib.Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def test_library_of_another_name_and_namespace_loaded_later(agent, server, tmp_path):
    """Nobody but the process itself can name the file, and it has it two seconds after it began to listen."""
    private = tmp_path / "private"
    private.mkdir()
    port, = free_ports(1)
    a = agent(ports=[port])
    s = server(private / "libtransport.so.7", port, after=2, before=[
        "unshare", "--mount", "--propagation", "private", "sh", "-c",
        f"mount -t tmpfs none {private} && cp {LIBSSL} {private}/libtransport.so.7 && exec \"$@\"", "sh"])
    s.wait_log("listens")
    assert "libtransport" not in a.child.log()
    loaded(a, s, "libtransport.so.7")
    assert not list(private.iterdir()), "the copy is in the server's namespace alone"
    ask(port, "hidden")
    assert_all_once(a.settled(EACH, port), "hidden")


@pytest.mark.parametrize("piece", [0, 4096], ids=["peeked", "read"])
def test_library_loaded_for_its_first_connection(agent, server, copy, piece):
    """The first request may be over before there are probes, and a read that waits for the second was called before, too
    (a peek is not asked for its bytes): these are missed or whole. All others are whole."""
    port, = free_ports(1)
    a = agent(ports=[port])
    s = server(copy, port, piece=piece)
    s.wait_log("listens")
    c = Client(port)
    c.get("/late/0")
    loaded(a, s)
    for i in range(1, EACH):
        c.get(f"/late/{i}")
    c.close()
    missable = {"/late/0", "/late/1"} if piece else {"/late/0"}
    wait_until(lambda: a.count("closes") == 1, 15, "the connection has ended")
    spans = a.settled(EACH - len(missable), port)
    paths = [s.path for s in spans]
    assert len(paths) == len(set(paths)) and missable | set(paths) == {f"/late/{i}" for i in range(EACH)}, paths
    for s in spans:
        assert s.brief() == ("GET", s.path, 200, 0, 5) and "tailrace.incomplete" not in s.attrs, s
    assert a.count("tls_without_plaintext") == 0


def test_connections_without_plaintext_are_counted(agent, tmp_path):
    """What is not understood is not passed over in silence."""
    nginx = Nginx(tmp_path)
    try:
        a = agent(ports=[nginx.port, nginx.tls_port], tls="false")
        for i in range(5):
            ask(nginx.tls_port, f"echo/{i}", 3)
        subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{nginx.port}/echo/plain"], check=True)
        wait_until(lambda: a.count("tls_without_plaintext") == 5, 15, "five connections")
        assert [s.path for s in a.settled(1)] == ["/echo/plain"]
        a.assert_ledger()
    finally:
        nginx.stop()


def test_library_replaced_while_it_is_used(agent, server, copy):
    """Old processes go on with the file that has no name any more; new ones have the new one."""
    ports = free_ports(2)
    a = agent(ports=ports)
    old = server(copy, ports[0])
    loaded(a, old)
    ask(ports[0], "before")
    fresh = copy.with_suffix(".new")
    shutil.copy(copy, fresh)
    fresh.rename(copy)
    new = server(copy, ports[1])
    loaded(a, new)
    ask(ports[0], "old")
    ask(ports[1], "new")
    wait_until(lambda: len(a.spans()) >= 3 * EACH, 20, "spans of both")
    assert_all_once(a.settled(2 * EACH, ports[0]), "before")
    assert_all_once(a.spans(ports[0]), "old")
    assert_all_once(a.spans(ports[1]), "new")


def test_objects_used_again_are_other_connections(agent, server, copy):
    """Requests of 16 connections that share a few SSL addresses: each is told of its own."""
    port, = free_ports(1)
    a = agent(ports=[port])
    s = server(copy, port)
    loaded(a, s)
    by_path = {}
    for i in range(16):
        c = Client(port)
        for k in range(3):
            by_path[f"/reuse/{i}-{k}"] = c.port
            c.get(f"/reuse/{i}-{k}")
        c.close()
    spans = a.settled(48, port)
    assert {s.path: s.attrs["network.peer.port"] for s in spans} == by_path
    assert len(spans) == 48
    addresses = [line.split()[1] for line in s.log().splitlines() if line.startswith("connection")]
    assert len(addresses) == 16 and len(set(addresses)) < 8, "no address was used again: nothing is proven"


def test_a_write_that_is_tried_again_counts_once(agent, server, copy):
    port, = free_ports(1)
    a = agent(ports=[port])
    s = server(copy, port)
    loaded(a, s)
    c = Client(port)
    for i in range(3):
        c.get(f"/slow/{i}")
    c.get("/quick")
    c.close()
    spans = a.settled(4, port)
    assert sorted((x.path, x.attrs["http.response.body.size"]) for x in spans) == \
        [("/quick", 5)] + [(f"/slow/{i}", 3_000_000) for i in range(3)]
    again = [int(line.split()[1]) for line in s.log().splitlines() if line.startswith("again")]
    assert len(again) == 3 and sum(again) > 10, "the writes were not tried again: nothing is proven"
    a.assert_ledger()
    sent = sum(x.attrs["http.response.body.size"] for x in spans)
    wait_until(lambda: a.ledger()["tls", "send"]["passed"] > sent, 10, "the ledger's next turn")
    assert a.ledger()["tls", "send"]["passed"] < sent + 1000


def test_write_out_of_a_mapped_file(agent, server, copy):
    port, = free_ports(1)
    a = agent(ports=[port])
    loaded(a, server(copy, port))
    ask(port, "mapped", 50)
    assert_all_once(a.settled(50, port), "mapped", 50)


def test_plaintext_is_shortened_before_records_are_lost(agent, server, copy):
    """As that of sockets: in a ring that is nearly full what stands behind the first KB of a call is given up first."""
    port, = free_ports(1)
    a = agent(ports=[port], ring_size=262144)
    loaded(a, server(copy, port, piece=4096))
    a.child.pause()
    for i in range(6):  # each too young for its share of undecided bytes to be used up: 16 KB of each answer
        c = Client(port)
        for k in range(4):
            c.get(f"/mapped/{i * 4 + k}")
        c.close()
    a.child.signal(signal.SIGCONT)
    spans = a.settled(24, port)
    assert_all_once(spans, "mapped", 24)
    assert {s.attrs["http.response.body.size"] for s in spans} == {20_000}
    wait_until(lambda: a.ledger()["tls", "send"]["holes"]["limit"] > 0, 10, "what was given up is counted")
    assert a.kernel()["lost_records"] == 0
    a.assert_ledger()


@pytest.mark.parametrize("runtime", ["python", "node"])
def test_plaintext_without_a_socket_is_marked(agent, pems, tmp_path, runtime):
    interpreter, app = {"python": (sys.executable, "tls_in_memory.py"),
                        "node": (shutil.which("node"), "tls_in_memory.js")}[runtime]
    if not interpreter:
        pytest.skip(f"needs {runtime}")
    port, = free_ports(1)
    a = agent(ports=[port])
    child = Child([interpreter, ROOT / "test/apps" / app, port, *pems], tmp_path / "memory.log")
    try:
        child.wait_log("loaded")
        a.child.wait_log(f"in process {child.pid}:")
        for i in range(4):
            ask(port, f"memory{i}", 5)
        wait_until(lambda: len(a.spans()) >= 20, 20, "spans of plaintext in memory")
        for i in range(4):
            assert_all_once(a.settled(20), f"memory{i}", 5)
        for s in a.spans():
            assert s.attrs["tailrace.peer_unknown"] is True and "network.peer.port" not in s.attrs, s
    finally:
        child.stop()


def hand_on(source, target, seen=None):
    try:
        while (data := source.recv(65536)):
            if seen is not None:
                seen += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the other side was quicker


class Relay:
    """Hands bytes on between a client and a server, and keeps them."""

    def __init__(self, to):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.seen = bytearray()
        self.to = to
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        near, _ = self.listener.accept()
        far = socket.create_connection(("127.0.0.1", self.to))
        other = threading.Thread(target=hand_on, args=(far, near, self.seen), daemon=True)
        other.start()
        hand_on(near, far, self.seen)
        other.join()


@pytest.mark.parametrize("joined", [False, True], ids=["new", "joined"])
def test_ciphertext_stays_in_the_kernel(agent, server, copy, tmp_path, joined):
    """Whether the agent has seen the connection begin or not: no record holds what was on the wire."""
    port, = free_ports(1)
    record = tmp_path / "records"
    a = None if joined else agent(ports=[port], record_file=record)
    s = server(copy, port, piece=4096)
    s.wait_log("loaded")
    if a:
        loaded(a, s)
    relay = Relay(port)
    c = Client(relay.port)
    c.get("/first")
    shaken = len(relay.seen)
    if joined:
        a = agent(ports=[port], record_file=record)
        loaded(a, s)
        c.get("/under-way")  # the server was in the call that reads it when the probes came
    for i in range(EACH):
        c.get(f"/secret/{i}")
    c.get("/mapped")
    c.close()
    assert_all_once(a.settled(EACH + 1 + (not joined), relay.port), "secret")
    assert a.stop() == 0
    written = record.read_bytes()
    assert b"/secret/7" in written
    wire = bytes(relay.seen[shaken:])
    assert len(wire) > 20000
    for at in range(0, len(wire) - 24, 16):
        assert wire[at:at + 24] not in written, f"ciphertext at {at}"


def nginx_with(copy, tmp_path, name):
    where = tmp_path / name
    where.mkdir()
    before = os.environ.get("LD_LIBRARY_PATH")
    os.environ["LD_LIBRARY_PATH"] = str(copy.parent)
    try:
        return Nginx(where)
    finally:
        if before is None:
            del os.environ["LD_LIBRARY_PATH"]
        else:
            os.environ["LD_LIBRARY_PATH"] = before


def test_others_with_the_same_library_have_no_probes(agent, copy, tmp_path):
    """Two nginx share a library, one is observed. Its workers are, also those that come later."""
    mine, other = nginx_with(copy, tmp_path, "mine"), nginx_with(copy, tmp_path, "other")
    try:
        a = agent(ports=[mine.tls_port])
        before = workers(mine.child.pid)
        wait_until(lambda: all(probes_in(p, copy) for p in before), 20, "probes in the workers")
        ask(mine.tls_port, "echo")
        os.kill(mine.child.pid, 1)
        wait_until(lambda: len(workers(mine.child.pid)) == 2 and not set(workers(mine.child.pid)) & set(before), 20,
                   "new workers")
        wait_until(lambda: all(probes_in(p, copy) for p in workers(mine.child.pid)), 20, "probes in new workers")
        ask(mine.tls_port, "echo/new")
        ask(other.tls_port, "echo/other")
        for p in (other.child.pid, *workers(other.child.pid)):
            assert probes_in(p, copy) == 0
        spans = a.settled(2 * EACH)
        assert_all_once([s for s in spans if "new" not in s.path], "echo")
        assert_all_once(spans, "echo/new")
        assert len(spans) == 2 * EACH
    finally:
        mine.stop()
        other.stop()


def test_ends_of_calls_behind_the_call(agent, server, copy):
    """Where processes do not outlive return probes."""
    port, = free_ports(1)
    a = agent(ports=[port], tls_returns="behind_call")
    loaded(a, server(copy, port, piece=4096))
    ask(port, "behind")
    assert_all_once(a.settled(EACH, port), "behind")


def test_newer_library(agent, server):
    """OpenSSL 3.3 and later hand on one argument more to what is inside of both writes."""
    library = next(iter(pathlib.Path(sysconfig.get_path("purelib")).glob("psycopg_binary.libs/libssl-*.so.3")), None)
    if not library:
        pytest.skip("needs the wheel psycopg-binary, which brings a newer libssl")
    port, = free_ports(1)
    a = agent(ports=[port])
    loaded(a, server(library, port), library.name)
    assert "the function inside SSL_write" in a.child.log()
    ask(port, "newer")
    assert_all_once(a.settled(EACH, port), "newer")


class Proxy:
    """Answers CONNECT, then hands bytes on, for one client."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        near, _ = self.listener.accept()
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += near.recv(1)
        far = socket.create_connection(("127.0.0.1", int(head.split()[1].split(b":")[1])))
        near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=hand_on, args=(far, near), daemon=True).start()
        hand_on(near, far)


def test_a_connection_that_turns_to_tls(agent, server, copy):
    """After CONNECT the same socket carries TLS: requests inside are told with it."""
    port, = free_ports(1)
    a = agent(exe="['*/curl']")
    server(copy, port).wait_log("loaded")
    proxy = Proxy()
    subprocess.run(["curl", "-s", "-k", "-x", f"http://127.0.0.1:{proxy.port}", "-o", "/dev/null",
                    f"https://127.0.0.1:{port}/t[0-9]"], check=True, timeout=60)
    wait_until(lambda: len([s for s in a.spans() if s.path and s.path.startswith("/t")]) >= 10, 20, "ten spans")
    spans = [s for s in a.spans() if s.path and s.path.startswith("/t")]
    assert sorted(s.path for s in spans) == [f"/t{i}" for i in range(10)]
    for s in spans:
        assert not s.is_server and s.attrs["url.scheme"] == "https"
        assert s.attrs["network.peer.port"] == proxy.port and "tailrace.peer_unknown" not in s.attrs, s


def test_doctor_tells_what_tls_uses(agent, server, copy):
    """The table says how probes come into processes and how ends of calls are seen; so it is done."""
    done = subprocess.run([program("tailrace-agent"), "doctor"], capture_output=True, text=True, timeout=120)
    works = {line.split()[0]: line.split()[2] for line in done.stdout.splitlines()[1:-1]}
    port, = free_ports(1)
    a = agent(ports=[port])
    s = server(copy, port)
    where = f"process {s.pid}" if works["uprobe.multi"] == "yes" else "all processes"
    a.child.wait_log(f"TLS library libssl.so.3 in {where}: probes on the function inside SSL_read")
    assert ("does not outlive a return probe" in a.child.log()) == (works["uretprobe-under-seccomp"] == "no")
    assert f"{LIBSSL}: the function inside SSL_read, the function inside SSL_write" in done.stdout


def test_short_lived_clients(agent, server, copy):
    """A process that is over within milliseconds is seen from its first call to its last."""
    port, = free_ports(1)
    a = agent(exe="['*/curl']")
    server(copy, port).wait_log("loaded")
    for i in range(40):
        subprocess.run(["curl", "-s", "-k", "-o", "/dev/null", f"https://127.0.0.1:{port}/c{i}"], check=True,
                       timeout=20)
    spans = a.settled(40, port)
    assert sorted(s.path for s in spans) == sorted(f"/c{i}" for i in range(40))
    assert all(s.resource["process.executable.name"] == "curl" and not s.is_server for s in spans)
