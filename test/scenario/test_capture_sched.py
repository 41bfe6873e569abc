# SPDX-License-Identifier: Apache-2.0
"""Run-queue latency by cgroup, against what the kernel itself counts of the same tasks."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from harness.cgroups import Cgroup
from harness.points import points, quantile
from harness.wait import wait_until

pytestmark = pytest.mark.root
METRIC = "sched.runqueue.duration"

# Each begins when it is told to, so that its cgroup has all of its waits since then.
BUSY = "import sys\nsys.stdin.read(1)\nwhile True: pass"
SLEEPER = "import sys, time\nsys.stdin.read(1)\nwhile True: time.sleep(0.002)"


class Task:
    """A Python program that waits until it is told to go; its waits for a CPU are counted from there on."""

    def __init__(self, program, cgroup, cpu):
        self.proc = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
        self.pid = self.proc.pid
        os.sched_setaffinity(self.pid, {cpu})
        # It sleeps in its read of stdin: system call 0 of descriptor 0.
        wait_until(lambda: self._read("syscall").split()[:2] == ["0", "0x0"], 20, "the task waits")
        cgroup.add(self.pid)
        self.before = self._waits()

    def _read(self, name):
        return pathlib.Path(f"/proc/{self.pid}/{name}").read_text()

    def _waits(self):
        """(seconds, times) that it waited for a CPU, by the kernel's own account."""
        _, ns, times = self._read("schedstat").split()
        return int(ns) / 1e9, int(times)

    def go(self):
        self.proc.stdin.write(b"x")
        self.proc.stdin.flush()

    def waited(self):
        seconds, times = self._waits()
        return seconds - self.before[0], times - self.before[1]

    def freeze(self):
        """Nothing moves any more: what is counted now can be compared."""
        os.kill(self.pid, signal.SIGSTOP)
        wait_until(lambda: self._read("stat").rsplit(")", 1)[1].split()[0] == "T", 20, "it stands still")

    def end(self):
        self.proc.kill()
        self.proc.wait()
        self.proc.stdin.close()


@pytest.fixture
def cgroup():
    made = []

    def make(name):
        made.append(Cgroup(name))
        return made[-1]

    yield make
    for g in made:
        g.remove()


@pytest.fixture
def observer(agent):
    return agent(pids=[os.getpid()], scheduler="true")


def histograms(sink, group):
    return list(points(sink, METRIC, **{"cgroup.path": group.name}).values())


def exports(sink, n):
    """That many more, since other tasks of the host wait all the time: the third one reads what is there now."""
    before = len(sink.requests["metrics"])
    wait_until(lambda: len(sink.requests["metrics"]) >= before + n, 30, "exports go on")


def settled(sink, group, tasks):
    """The cgroup's histogram and the kernel's figures, when nothing moves any more."""
    for t in tasks:
        t.freeze()
    exports(sink, 3)
    h, = histograms(sink, group)
    assert h.scale == 2 and h.zero_count + sum(h.positive.bucket_counts) == h.count
    return h, *(sum(x) for x in zip(*[t.waited() for t in tasks]))


def test_two_cgroups(observer, sink, cgroup):
    """Two loops on one CPU wait for each other; a task of a higher class on the other CPU hardly waits."""
    cpus = sorted(os.sched_getaffinity(0))
    crowded, calm = cgroup("crowded"), cgroup("calm")
    tasks = []
    try:
        loops = [Task(BUSY, crowded, cpus[0]) for _ in range(2)]
        sleeper = Task(SLEEPER, calm, cpus[-1])
        tasks = [*loops, sleeper]
        calm.allow_realtime()
        os.sched_setscheduler(sleeper.pid, os.SCHED_FIFO, os.sched_param(10))
        for t in tasks:
            t.go()
        for t in tasks:
            wait_until(lambda: t.waited()[1] >= 200, 90, f"200 waits of {t.pid}")

        h, seconds, times = settled(sink, crowded, loops)
        assert abs(h.count - times) <= 5 + 0.05 * times, (h.count, times)
        assert abs(h.sum - seconds) <= 0.05 * seconds, (h.sum, seconds)
        assert quantile(h, 0.5)[0] >= 0.001, h

        # The kernel's clock of a run queue stands still between wake-up and preemption: its sum of short
        # waits is too low, so only the number is compared.
        h, seconds, times = settled(sink, calm, [sleeper])
        assert abs(h.count - times) <= 5 + 0.05 * times, (h.count, times)
        assert h.sum >= seconds * 0.95, (h.sum, seconds)
        assert quantile(h, 0.5)[1] < 0.0002, h
    finally:
        for t in tasks:
            t.end()


def test_a_cgroup_that_is_gone(observer, sink, cgroup):
    """Its series end, its place in the kernel's table is free, and it is named to the last."""
    group = cgroup("short")
    task = Task(BUSY, group, sorted(os.sched_getaffinity(0))[0])
    try:
        task.go()
        wait_until(lambda: histograms(sink, group), 30, "its waits are exported")
        assert observer.kernel_entries("runqueue_by_cgroup", group.id) == 1
    finally:
        task.end()
    group.remove()
    wait_until(lambda: observer.kernel_entries("runqueue_by_cgroup", group.id) == 0, 30, "it has left the table")
    exports(sink, 3)
    sink.clear()
    exports(sink, 3)
    assert not histograms(sink, group)


def test_off_by_default(agent):
    a = agent(pids=[os.getpid()])
    assert a.kernel()["sched_unseen"] == 0
    assert not a.kernel_maps("runqueue_by_cgroup") and not a.kernel_maps("sched_tasks")
