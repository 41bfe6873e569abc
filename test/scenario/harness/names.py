# SPDX-License-Identifier: Apache-2.0
"""A name server of the test's own, and a program that asks it and no other."""

import os
import shutil
import socket
import struct
import threading

import pytest


class NameServer:
    """Answers A queries on UDP port 53 of `host`, an address of loopback.

    addresses: {name: [IPv4 texts]}; fault: None, "nxdomain" or "silent". .asked counts queries.
    """

    def __init__(self, tmp_path, host="127.53.53.53"):
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("missing capability: root and unshare, for a resolv.conf of the test's own")
        self.addresses = {}
        self.fault = None
        self.asked = 0
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((host, 53))
        self._resolv = tmp_path / "resolv.conf"
        self._resolv.write_text(f"nameserver {host}\n")
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def prefix(self):
        """Put in front of a program: it sees this server's resolv.conf in a mount namespace."""
        return ["unshare", "-m", "sh", "-c",
                f'mount --bind {self._resolv} /etc/resolv.conf && exec "$@"', "sh"]

    def _serve(self):
        while True:
            query, peer = self._sock.recvfrom(512)
            if len(query) <= 12:
                return
            self.asked += 1
            if self.fault != "silent":
                self._sock.sendto(self._answer(query), peer)

    def _answer(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += query[at] + 1
        (kind,) = struct.unpack_from(">H", query, at + 1)
        found = self.addresses.get(".".join(labels).lower(), []) if kind == 1 else []
        code = 3 if self.fault == "nxdomain" else 0
        if code:
            found = []
        head = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(found), 0, 0)
        records = b"".join(struct.pack(">HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(a)
                           for a in found)
        return head + query[12:at + 5] + records

    def stop(self):
        self._sock.sendto(b"end", self._sock.getsockname())
        self._thread.join()
        self._sock.close()
