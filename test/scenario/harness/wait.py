# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition instead of sleeping."""

import os
import random
import socket
import time

# The build with ThreadSanitizer is five to ten times slower: what is awaited may take longer there.
TSAN = "TAILRACE_TSAN" in os.environ
PATIENCE = 4 if TSAN else 1


class TimeoutExpired(AssertionError):
    pass


def wait_until(condition, timeout=20.0, what="condition", interval=0.02):
    """Calls condition() until it returns something true, and returns that."""
    timeout *= PATIENCE
    deadline = time.monotonic() + timeout
    last = None
    while True:
        last = condition()
        if last:
            return last
        if time.monotonic() >= deadline:
            raise TimeoutExpired(f"{what} not met within {timeout} s (last: {last!r})")
        time.sleep(interval)


def stable(read, quiet=0.6, timeout=20.0):
    """Returns read() once it has not changed for `quiet` seconds."""
    quiet, timeout = quiet * PATIENCE, timeout * PATIENCE
    deadline = time.monotonic() + timeout
    value, since = read(), time.monotonic()
    while time.monotonic() - since < quiet:
        if time.monotonic() >= deadline:
            raise TimeoutExpired(f"value still changes after {timeout} s: {value!r}")
        time.sleep(0.05)
        now = read()
        if now != value:
            value, since = now, time.monotonic()
    return value


def free_ports(n):
    """n TCP ports of loopback that were free a moment ago, and that no client is given meanwhile: below those that
    the kernel hands out."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as f:
        low = int(f.read().split()[0])
    socks = []
    while len(socks) < n:
        s = socket.socket()
        try:
            s.bind(("127.0.0.1", random.randrange(max(1024, low - 20000), low) if low > 1024 else 0))
            socks.append(s)
        except OSError:
            s.close()
    ports = [s.getsockname()[1] for s in socks]
    for s in socks:
        s.close()
    return ports


def accepts(port, host="127.0.0.1"):
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False
