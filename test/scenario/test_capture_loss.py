# SPDX-License-Identifier: Apache-2.0
"""What was not seen is told, to the byte; what is not ours is never seen."""

import os
import pathlib
import signal
import socket
import subprocess
import threading

import pytest

from harness.capture import Nginx
from harness.traffic import OK, foreign_bytes
from harness.wait import free_ports, stable, wait_until

pytestmark = pytest.mark.root


def test_agent_stopped_under_load(agent, tmp_path):
    """A 256 KB ring and an agent that sleeps for 3 s: holes, incomplete spans, none wrong."""
    nginx = Nginx(tmp_path)
    try:
        a = agent(ports=[nginx.port], ring_size=262144)
        stop = threading.Event()
        sent = []

        def load(c):
            s = socket.create_connection(("127.0.0.1", nginx.port))
            i = 0
            while not stop.is_set():
                kind = (b"echo", 200), (b"status", 404), (b"fault", 503)
                word, _ = kind[i % 3]
                s.sendall(b"GET /%s/%d-%d HTTP/1.1\r\nHost: x\r\n\r\n" % (word, c, i))
                got = b""
                while b"\r\n\r\n" not in got or not got.endswith((b"hello", b"nothing", b"later")):
                    got += s.recv(65536)
                i += 1
            sent.append(i)
            s.close()

        threads = [threading.Thread(target=load, args=(c,)) for c in range(4)]
        for t in threads:
            t.start()
        wait_until(lambda: len(a.spans()) > 100, 20, "spans under load")
        a.child.pause()
        threading.Event().wait(3)  # the case itself
        a.child.signal(signal.SIGCONT)
        before = len(a.spans())
        wait_until(lambda: len(a.spans()) > before + 100, 20, "spans after the stop")
        stop.set()
        for t in threads:
            t.join()
        stable(lambda: len(a.spans()), quiet=1)
        spans = a.spans()
        incomplete = [s for s in spans if "tailrace.incomplete" in s.attrs]
        whole = [s for s in spans if "tailrace.incomplete" not in s.attrs]
        assert len(spans) < sum(sent) and a.ledger()["socket", "send"]["holes"]["ring_full"] > 0
        paths = [s.path for s in whole]
        assert len(set(paths)) == len(paths), "a request twice"
        want = {"echo": (200, 5), "status": (404, 7), "fault": (503, 5)}
        for s in whole:
            status, size = want[s.path.split("/")[1]]
            assert (s.attrs.get("http.response.status_code"), s.attrs.get("http.response.body.size")) == \
                (status, size), s
        for s in incomplete:
            status = s.attrs.get("http.response.status_code")
            assert status in (None, want[s.path.split("/")[1]][0]), s
        a.assert_ledger()
        # What the kernel counted as passed is what is accounted for here, byte for byte.
        def sums():
            k, l = a.kernel(), a.ledger()
            return (k["passed_send_bytes"], k["passed_receive_bytes"]) == \
                (l["socket", "send"]["passed"], l["socket", "receive"]["passed"])
        wait_until(sums, 5, f"both sides count the same: {a.kernel()} {a.ledger()}")
    finally:
        nginx.stop()


@pytest.mark.parametrize("changed", ["nothing", "receiver"])
def test_reload(agent, tmp_path, changed):
    """SIGHUP between requests of a connection: no request twice; with the same keys none lost either."""
    nginx = Nginx(tmp_path)
    try:
        a = agent(ports=[nginx.port])
        s = socket.create_connection(("127.0.0.1", nginx.port))
        n = 0

        def requests(count):
            nonlocal n
            for _ in range(count):
                s.sendall(b"GET /echo/%d HTTP/1.1\r\nHost: x\r\n\r\n" % n)
                got = b""
                while not got.endswith(b"hello"):
                    got += s.recv(65536)
                n += 1

        requests(50)
        wait_until(lambda: len(a.spans()) == 50, 10, "spans before")
        if changed == "receiver":
            path = tmp_path / "agent0.yaml"
            path.write_text(path.read_text().replace("metrics_interval: 1s", "metrics_interval: 2s"))
        a.child.signal(signal.SIGHUP)
        if changed == "nothing":
            requests(500)
        a.child.wait_log("configuration reloaded")
        requests(50)
        wait_until(lambda: len(a.spans()) >= n, 10, "spans after")
        stable(lambda: len(a.spans()))
        assert sorted(int(x.path.split("/")[-1]) for x in a.spans()) == list(range(n))
        s.close()
    finally:
        nginx.stop()


def test_quiet_host_exports_nothing(agent, sink):
    """--all sees its own exporter's host, too: nothing may come of that."""
    a = agent(all="true")
    sink.clear()
    threading.Event().wait(60)  # the case itself
    # Others may be busy on this host; nothing may come of ourselves, the exporter and this test.
    ports = (sink.grpc_port, sink.http_port, a.metrics_port)
    assert not [s for s in a.spans() if s.resource.get("process.pid") in (os.getpid(), a.child.pid) or
                s.port in ports or s.attrs.get("network.peer.port") in ports or
                s.resource.get("process.executable.name", "").startswith("tailrace-")]


def test_no_foreign_bytes(agent, tmp_path):
    """Peeks, truncated receives, urgent data and error queues bring no byte that was not on the stream."""
    record = tmp_path / "records"
    port, = free_ports(1)
    a = agent(pids=[os.getpid()], record_file=record)
    secret = foreign_bytes(port, tmp_path / "log")
    wait_until(lambda: len(a.spans(port)) >= 2, 10, "the spans")
    assert b"GET /secret" in record.read_bytes() and OK in record.read_bytes()
    assert secret.encode() not in record.read_bytes()
    a.assert_ledger()


URING = r"""
#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <unistd.h>
#include <fcntl.h>
#include <pthread.h>
#include <arpa/inet.h>
#include <sys/socket.h>
int main(int argc, char **argv)
{
    struct io_uring ring;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    int l = socket(AF_INET, SOCK_STREAM, 0), one = 1, log = open(argv[2], O_WRONLY | O_CREAT, 0600), s;
    char buf[4096];
    inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(l, (void *)&a, sizeof(a)) || listen(l, 10) || io_uring_queue_init(8, &ring, 0))
        return 2;
    printf("ready\n");
    fflush(stdout);
    s = accept(l, NULL, NULL);
    for (int i = 0; i < 200; i++) {
        struct io_uring_sqe *e = io_uring_get_sqe(&ring);
        struct io_uring_cqe *c;
        io_uring_prep_recv(e, s, buf, sizeof(buf), 0);
        io_uring_submit(&ring);
        for (int k = 0; k < 2000; k++) {
            if (write(log, argv[3], strlen(argv[3])) < 0)
                return 3;
            if (io_uring_peek_cqe(&ring, &c) == 0)
                break;
        }
        if (io_uring_wait_cqe(&ring, &c) || c->res <= 0)
            break;
        io_uring_cqe_seen(&ring, c);
        if (send(s, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 38, 0) < 0)
            break;
    }
    return 0;
}
"""


def test_io_uring_with_a_log(agent, tmp_path):
    """Task work of io_uring runs at the exit of any syscall: the log's buffer is not the socket's."""
    source, binary, record = tmp_path / "uring.c", tmp_path / "uring", tmp_path / "records"
    source.write_text(URING)
    built = subprocess.run(["cc", "-o", binary, source, "-luring"], capture_output=True)
    if built.returncode:
        pytest.skip("needs liburing")
    port, = free_ports(1)
    secret = "SECRET-" + os.urandom(8).hex()
    a = agent(ports=[port], record_file=record)
    p = subprocess.Popen([binary, str(port), tmp_path / "log", secret], stdout=subprocess.PIPE)
    try:
        if p.stdout.readline() != b"ready\n":
            pytest.skip("needs io_uring")
        c = socket.create_connection(("127.0.0.1", port))
        for i in range(200):
            c.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % i)
            assert c.recv(1000)
        c.close()
        assert p.wait(20) == 0
    finally:
        if p.poll() is None:
            p.kill()
        p.wait()
    wait_until(lambda: a.ledger()["socket", "receive"]["holes"]["no_user_buffer"] > 0, 10, "holes are told")
    a.assert_ledger()
    assert secret.encode() not in pathlib.Path(record).read_bytes()
