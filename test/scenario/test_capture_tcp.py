"""What the kernel counts of TCP, against what the test itself did."""

import os
import socket

import pytest

from harness.capture import Agent
from harness.points import points, total
from harness.wait import free_ports, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def agent(tmp_path, sink):
    a = Agent(tmp_path, sink, pids=[os.getpid()])
    yield a
    assert a.stop() == 0, a.child.log()[-4000:]


def test_connects_and_failures(agent, sink):
    port, closed = free_ports(2)
    listener = socket.create_server(("127.0.0.1", port))
    n, m = 37, 11
    # A span of our own sink's traffic would be one more connect: this process only accepts there.
    for _ in range(n):
        c = socket.create_connection(("127.0.0.1", port))
        s, _ = listener.accept()
        c.close()
        s.close()
    for _ in range(m):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", closed))
    wait_until(lambda: total(sink, "tcp.connect.duration") >= n, 15, "connects are exported")
    wait_until(lambda: total(sink, "tcp.connect.failures") >= m, 15, "failures are exported")
    assert total(sink, "tcp.connect.duration") == n
    assert total(sink, "tcp.connect.failures", **{"error.type": "refused"}) == m
    assert total(sink, "tcp.connect.failures") == m
    for p in points(sink, "tcp.connect.duration").values():
        assert 0 < p.sum / p.count < 1, "seconds"
        assert p.scale == 2 and sum(p.positive.bucket_counts) == p.count
    listener.close()


def test_syn_retransmits(agent, sink):
    port, = free_ports(1)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        held = [socket.create_connection(("127.0.0.1", port))]
        waiting = []
        for _ in range(5):
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(("127.0.0.1", port))
            waiting.append(s)
        retransmits = lambda: sum(tcp_info_retransmits(s) for s in waiting)
        wait_until(lambda: retransmits() > 0 and total(sink, "tcp.retransmits") > 0, 15, "a SYN is sent again")
        wait_until(lambda: total(sink, "tcp.retransmits") == retransmits(), 15, "the kernel's own count")
        for s in held + waiting:
            s.close()


def tcp_info_retransmits(s):
    """tcpi_total_retrans of the socket."""
    info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[100:104], "little")
