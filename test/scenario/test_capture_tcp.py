# SPDX-License-Identifier: Apache-2.0
"""What the kernel side counts of TCP, against what the test did and what the kernel itself counts of it."""

import errno
import os
import re
import select
import select
import socket
import subprocess
import threading

import pytest

from harness.netns import Netns, Segment, Wire
from harness.points import points, quantile, total
from harness.wait import free_ports, wait_until

pytestmark = pytest.mark.root
CONNECTS, FAILURES, RETRANSMITS, RTT = "tcp.connect.duration", "tcp.connect.failures", "tcp.retransmits", "tcp.rtt"
PEER = "10.99.0.2"


@pytest.fixture
def observer(agent):
    return agent(pids=[os.getpid()])


@pytest.fixture
def wire():
    w = Wire()
    yield w
    w.remove()


@pytest.fixture
def netns():
    n = Netns("tcp")
    yield n
    n.remove()


def by_reason(sink):
    return {dict(a)["error.type"]: p.as_int for (_, a), p in points(sink, FAILURES).items()}


def only_point(sink, name):
    p, = points(sink, name).values()
    return p


def listen(address, backlog=16):
    s = socket.socket()
    s.bind(address)
    s.listen(backlog)
    return s


def begin_connect(address, syn_count=0):
    s = socket.socket()
    s.setblocking(False)
    if syn_count:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, syn_count)
    assert s.connect_ex(address) == errno.EINPROGRESS
    return s


def outcome(s, timeout=20):
    """The error with which the connect ended."""
    assert select.select([], [s], [], timeout)[1], "the connect does not end"
    error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    s.close()
    return errno.errorcode.get(error)


def test_connects_and_failures(observer, sink):
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
    wait_until(lambda: total(sink, CONNECTS) >= n, 15, "connects are exported")
    wait_until(lambda: total(sink, FAILURES) >= m, 15, "failures are exported")
    assert total(sink, CONNECTS) == n
    assert by_reason(sink) == {"refused": m}
    p = only_point(sink, CONNECTS)
    assert 0 < p.sum / p.count < 1, "seconds"
    assert p.scale == 2 and p.zero_count + sum(p.positive.bucket_counts) == p.count
    listener.close()


def test_backlog_that_is_full(observer, sink, netns):
    """SYNs that nobody answers are sent again as often as the kernel says: nobody else is in this namespace."""
    def fill():
        listener = listen(("127.0.0.1", 8080), backlog=0)
        held = [socket.create_connection(("127.0.0.1", 8080))]
        # Until it lies there another one is answered, too, and what is sent again is a SYN-ACK.
        assert select.select([listener], [], [], 10)[0], "the queue is full"
        return [listener, *held], [begin_connect(("127.0.0.1", 8080)) for _ in range(5)]

    held, waiting = netns.run(fill)
    wait_until(lambda: netns.snmp("RetransSegs") >= 10, 30, "each SYN is sent again twice")
    for s in waiting + held:
        s.close()
    again = netns.snmp("RetransSegs")
    wait_until(lambda: total(sink, RETRANSMITS) >= again, 15, "they are exported")
    assert total(sink, RETRANSMITS) == again
    wait_until(lambda: by_reason(sink), 15, "and so are the connects that were given up")
    assert by_reason(sink) == {"canceled": 5}
    assert total(sink, CONNECTS) == 1


def test_segments_that_are_lost(observer, sink, wire):
    """Data on a wire that loses some of it: segments sent again on both sides, as the kernel counts them."""
    counts = [0, 0]

    def lose_some(side, packet):
        counts[side] += 1
        return None if counts[side] % 5 == 0 and counts[side] > 10 else packet

    def send(size):
        with socket.create_connection((PEER, 8080)) as c:
            c.sendall(b"x" * size)
            c.shutdown(socket.SHUT_WR)
            assert c.recv(1) == b""

    def receive(listener, size):
        s, _ = listener.accept()
        got = 0
        while data := s.recv(65536):
            got += len(data)
        s.close()
        assert got == size

    size = 300_000
    listener = wire.b.run(listen, (PEER, 8080))
    receiver = threading.Thread(target=receive, args=(listener, size))
    receiver.start()
    wire.on_packet = lose_some
    wire.a.run(send, size)
    receiver.join()
    listener.close()
    wire.on_packet = lambda side, packet: packet
    quiet = lambda: not wire.a.run(sockets) and not wire.b.run(sockets)
    wait_until(quiet, 30, "both ends are done")
    again = wire.a.snmp("RetransSegs") + wire.b.snmp("RetransSegs")
    assert wire.a.snmp("RetransSegs") > 10
    wait_until(lambda: total(sink, RETRANSMITS) >= again, 15, "they are exported")
    assert total(sink, RETRANSMITS) == again


def sockets():
    """Lines about connections in this namespace, but for those that only wait for their time to pass."""
    out = subprocess.run(["ss", "-tinH", "state", "connected", "exclude", "time-wait"],
                         check=True, capture_output=True, text=True).stdout
    return out.split("\n\t")[1:] if "\n\t" in out else out.splitlines()


def test_connects_that_fail(observer, sink, wire):
    """Each reason by what really causes it."""
    def timed_out():
        wire.on_packet = lambda side, packet: None
        return outcome(begin_connect((PEER, 81), syn_count=1))

    def unreachable():
        wire.on_packet = lambda side, packet: packet
        return outcome(begin_connect(("10.98.0.1", 82)))  # the peer is the way there, and knows none

    def reset():
        """Two connects that cross, of which the other one is then given up."""
        def cross(side, packet):
            s = Segment(packet)
            if s.flags == Segment.SYN:
                wire.inject(side, s.answer(s.seq, 0, Segment.SYN))
            elif s.flags == Segment.SYN | Segment.ACK:
                wire.inject(side, s.answer(s.ack, 0, Segment.RST))
        wire.on_packet = cross
        return outcome(begin_connect((PEER, 83)))

    wire.b.sysctl("ipv4/ip_forward", 1)
    wire.b.ip("route", "add", "unreachable", "10.98.0.0/24")
    wire.a.ip("route", "add", "10.98.0.0/24", "dev", "wire")
    assert wire.a.run(timed_out) == "ETIMEDOUT"
    assert wire.a.run(unreachable) == "EHOSTUNREACH"
    assert wire.a.run(reset) == "ECONNRESET"
    wire.on_packet = lambda side, packet: packet
    with pytest.raises(ConnectionRefusedError):
        wire.a.run(socket.create_connection, (PEER, 84))
    wait_until(lambda: total(sink, FAILURES) >= 4, 15, "failures are exported")
    assert by_reason(sink) == {"timed_out": 1, "unreachable": 1, "reset": 1, "refused": 1}
    assert total(sink, CONNECTS) == 0


def test_connects_that_cross(observer, sink, wire):
    """A simultaneous open is a connect like others."""
    def cross(side, packet):
        s = Segment(packet)
        if s.flags == Segment.SYN:
            wire.inject(side, s.answer(s.seq, 0, Segment.SYN))
        elif s.flags == Segment.SYN | Segment.ACK:
            wire.inject(side, s.answer(s.seq, s.seq + 1, Segment.SYN | Segment.ACK))

    wire.on_packet = cross
    assert wire.a.run(lambda: outcome(begin_connect((PEER, 83)))) is None
    wait_until(lambda: total(sink, CONNECTS), 15, "it is exported")
    assert total(sink, CONNECTS) == 1 and total(sink, FAILURES) == 0


def rtts(text):
    """(estimates, smallest ones) in seconds of all connections that ss tells of."""
    found = lambda key: [float(x) / 1000 for x in re.findall(rf"\b{key}:([\d.]+)", text)]
    return found("rtt"), found("minrtt")


def exchange(listener, address, n):
    """n connections, all open, with some data to and fro."""
    pairs = []
    for _ in range(n):
        c = socket.create_connection(address)
        s, _ = listener.accept()
        pairs.append((c, s))
    for _ in range(4):
        for c, s in pairs:
            c.sendall(b"x" * 100)
            assert s.recv(100)
            s.sendall(b"y" * 100)
            assert c.recv(100)
    return pairs


def ss():
    """What ss says once all is acknowledged: the last answer's acknowledgement comes late, and is an RTT, too."""
    read = lambda: subprocess.run(["ss", "-tin"], check=True, capture_output=True, text=True).stdout
    wait_until(lambda: "unacked:" not in read(), 20, "all is acknowledged")
    return read()


def assert_rtt(sink, estimates, smallest):
    n = len(estimates)
    wait_until(lambda: total(sink, RTT) >= n, 15, "they are exported")
    p = only_point(sink, RTT)
    assert p.count == n
    assert sum(estimates) / 2 <= p.sum <= sum(estimates) * 2
    for q, i in ((0.5, (n - 1) // 2), (1.0, n - 1)):  # the bucket of the median and of the largest one
        low, high = quantile(p, q)
        assert low / 2 <= sorted(estimates)[i] <= high * 2, (low, high, sorted(estimates))
    assert p.sum >= sum(smallest) / 2


def test_rtt_of_loopback(observer, sink, netns):
    def both():
        listener = listen(("127.0.0.1", 8080))
        pairs = exchange(listener, ("127.0.0.1", 8080), 8)
        found = rtts(ss())
        for c, s in pairs:
            c.close()
            s.close()
        listener.close()
        return found

    estimates, smallest = netns.run(both)
    assert len(estimates) == 16
    assert_rtt(sink, estimates, smallest)


def test_rtt_of_a_wire_with_delay(observer, sink, wire):
    wire.delay = 0.03
    listener = wire.b.run(listen, (PEER, 8080))
    pairs = wire.a.run(exchange, listener, (PEER, 8080), 4)
    ours, theirs = rtts(wire.a.run(ss)), rtts(wire.b.run(ss))
    for c, s in pairs:
        c.close()
        s.close()
    listener.close()
    estimates, smallest = ours[0] + theirs[0], ours[1] + theirs[1]
    assert len(estimates) == 8 and min(estimates) >= 0.06
    assert_rtt(sink, estimates, smallest)
    p = only_point(sink, CONNECTS)
    assert p.count == 4 and p.sum >= 4 * 0.06 and quantile(p, 0.01)[1] >= 0.06
