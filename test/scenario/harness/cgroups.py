# SPDX-License-Identifier: Apache-2.0
"""Cgroups that a test makes, in the hierarchy of the CPU controller: version 1's, or the unified one."""

import os
import pathlib
import signal

from .wait import wait_until


def cpu_root():
    """(where the hierarchy is mounted, its version)"""
    unified = None
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        fields, tail = line.split(" - ")
        kind, _, options = tail.split()[:3]
        where = pathlib.Path(fields.split()[4])
        if kind == "cgroup" and "cpu" in options.split(","):
            return where, 1
        if kind == "cgroup2":
            unified = where
    return unified, 2


class Cgroup:
    """A directory below the root, named after this test; ended with what is in it."""

    def __init__(self, name):
        root, self.version = cpu_root()
        self.name = f"/tailrace-{os.getpid()}-{name}"
        self.dir = root / self.name[1:]
        self.dir.mkdir()
        self.id = self.dir.stat().st_ino

    def set(self, key, value):
        (self.dir / key).write_text(str(value))

    def add(self, pid):
        self.set("cgroup.procs", pid)

    def allow_realtime(self):
        if (self.dir / "cpu.rt_runtime_us").exists():  # version 1, by the kernel's configuration
            self.set("cpu.rt_runtime_us", 200000)

    def remove(self):
        if not self.dir.exists():
            return
        for pid in (self.dir / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: not (self.dir / "cgroup.procs").read_text(), 10, "the cgroup is empty")
        self.dir.rmdir()
