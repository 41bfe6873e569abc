# SPDX-License-Identifier: Apache-2.0
"""Network namespaces, and a wire between two of them that can delay and lose packets (the kernel may have no netem).

Code runs in a namespace on a thread of this process, so that its sockets are this process's.
"""

import ctypes
import fcntl
import os
import pathlib
import queue
import select
import struct
import subprocess
import threading
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
libc = ctypes.CDLL(None, use_errno=True)


class Netns:
    def __init__(self, name):
        self.name = f"tailrace-{os.getpid()}-{name}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.ip("link", "set", "lo", "up")

    def ip(self, *args):
        subprocess.run(["ip", "-n", self.name, *args], check=True)

    def run(self, fn, *args):
        """What fn returns or raises, called in this namespace."""
        answer = queue.Queue()

        def inside():
            try:
                with open(f"/run/netns/{self.name}") as f:
                    if libc.setns(f.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                answer.put((fn(*args), None))
            except BaseException as e:  # noqa: B902 (the caller raises it)
                answer.put((None, e))

        t = threading.Thread(target=inside)
        t.start()
        t.join()
        value, error = answer.get()
        if error:
            raise error
        return value

    def sysctl(self, key, value):
        self.run(lambda: pathlib.Path("/proc/sys/net", key).write_text(str(value)))

    def snmp(self, name):
        """A counter of this namespace's TCP."""
        lines = self.run(lambda: pathlib.Path("/proc/thread-self/net/snmp").read_text()).splitlines()
        names, values = [line.split() for line in lines if line.startswith("Tcp:")]
        return int(values[names.index(name)])

    def remove(self):
        subprocess.run(["ip", "netns", "del", self.name], check=True)


def open_tun(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


class Wire:
    """Namespaces .a (10.99.0.1) and .b (10.99.0.2). on_packet(side, packet) is asked about each packet that a side
    sent: what it returns is passed on, None is lost; it may call inject(side, packet) to answer by itself."""

    def __init__(self, delay=0.0):
        self.delay = delay
        self.on_packet = lambda side, packet: packet
        self.a, self.b = Netns("a"), Netns("b")
        self.fds = []
        for ns, mine, other in ((self.a, "10.99.0.1", "10.99.0.2"), (self.b, "10.99.0.2", "10.99.0.1")):
            self.fds.append(ns.run(open_tun, "wire"))
            ns.ip("addr", "add", mine, "peer", other, "dev", "wire")
            ns.ip("link", "set", "wire", "up")
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._shuffle)
        self.thread.start()

    def inject(self, side, packet):
        os.write(self.fds[side], packet)

    def _take(self, side, waiting):
        try:
            packet = os.read(self.fds[side], 65536)
        except BlockingIOError:
            return
        if packet[0] >> 4 == 4:  # IPv6's own chatter stays where it is
            packet = self.on_packet(side, packet)
            if packet:
                waiting.append((time.monotonic() + self.delay, 1 - side, packet))

    def _shuffle(self):
        waiting = []
        while not self.stopping.is_set():
            timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.05
            ready, _, _ = select.select(self.fds, [], [], min(timeout, 0.05))
            for fd in ready:
                self._take(self.fds.index(fd), waiting)
            while waiting and waiting[0][0] <= time.monotonic():
                _, side, packet = waiting.pop(0)
                self.inject(side, packet)

    def remove(self):
        self.stopping.set()
        self.thread.join()
        for fd in self.fds:
            os.close(fd)
        self.a.remove()
        self.b.remove()


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return 0xffff ^ total


class Segment:
    """The TCP segment in an IPv4 packet without options, to read, turn round and change."""

    SYN, RST, ACK = 2, 4, 16

    def __init__(self, packet):
        self.head, tcp = packet[:20], packet[20:]
        self.ports, self.seq, self.ack, self.flags = tcp[:4], *struct.unpack("!II", tcp[4:12]), tcp[13]

    def answer(self, seq, ack, flags):
        """A packet without data from the one that this one went to."""
        head = bytearray(self.head[:12] + self.head[16:20] + self.head[12:16])
        head[2:4], head[10:12] = struct.pack("!H", 40), b"\0\0"
        head[10:12] = struct.pack("!H", checksum(bytes(head)))
        tcp = bytearray(self.ports[2:] + self.ports[:2] +
                        struct.pack("!IIBBHHH", seq & 0xffffffff, ack & 0xffffffff, 0x50, flags, 65535, 0, 0))
        tcp[16:18] = struct.pack("!H", checksum(bytes(head[12:20]) + struct.pack("!BBH", 0, 6, 20) + bytes(tcp)))
        return bytes(head + tcp)
