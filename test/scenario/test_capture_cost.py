# SPDX-License-Identifier: Apache-2.0
"""What an agent at rest takes of memory, and what it holds of the kernel."""

import os
import re
import subprocess

import pytest

from harness import metrics
from harness.capture import Agent, bpftool
from harness.process import program
from harness.wait import wait_until

pytestmark = pytest.mark.root
MB = 1 << 20


def map_bytes(agent):
    """{map: bytes} by the agent's own account."""
    return {dict(labels)["map"]: v for (name, labels), v in metrics.scrape(agent.metrics_port).items()
            if name.startswith("otelcol_ebpf_map_bytes")}


def resident(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s*(\d+)", f.read())[1]) * 1024


def test_memory_at_rest(tmp_path, sink):
    """At most 32 MB of maps with everything that is on by default and the scheduler, and 20 MB resident."""
    a = Agent(tmp_path, sink, pids=[os.getpid()], scheduler="true")
    try:
        told = wait_until(lambda: map_bytes(a), 20, "the maps are told")
        held = {i["map_id"]: int(i["memlock"]) for i in a.fdinfo() if "map_id" in i}
        names = {bpftool("map", "show", "id", i)["name"] for i in held}
        assert names <= set(told)
        storage = told["conns"] + told["sched_tasks"]
        assert told["sched_tasks"] > 50 * 352  # no host has fewer tasks
        assert sum(held.values()) * 0.9 <= sum(told.values()) - storage <= sum(held.values()) * 1.1
        print(f"maps {sum(told.values()) / MB:.1f} MB, resident {resident(a.child.pid) / MB:.1f} MB", told)
        assert sum(told.values()) <= 32 * MB, told
        assert resident(a.child.pid) <= 20 * MB
    finally:
        assert a.stop() == 0


def doctor():
    """Of doctor's table {program: (its hook, whether it works)}, and the tier."""
    done = subprocess.run([program("tailrace-agent"), "doctor"], capture_output=True, text=True, timeout=120)
    table = {}
    for row in (line.split() for line in done.stdout.splitlines()):
        if len(row) > 2 and row[1].startswith("tr_"):
            table.setdefault(row[1], (row[0], row[2]))
    return table, done.stdout.splitlines()[-1].removeprefix("capture tier: ")


def test_doctors_table_is_what_is_loaded_and_attached(tmp_path, sink):
    """With everything on: what an agent holds of the kernel is what doctor says works, and no more."""
    table, tier = doctor()
    for p in ("tr_sched_switch", "tr_sched_wakeup", "tr_sched_wakeup_new", "tr_sched_new", "tr_sched_exit",
              "tr_sched_seed", "tr_retransmit", "tr_set_state", "tr_destroy_sock"):
        assert p in table
    of_other_tiers = ("tr_fexit_", "tr_kprobe_", "tr_kreturn_", "tr_mint") if tier == "sock_length" else ()
    a = Agent(tmp_path, sink, pids=[os.getpid()], scheduler="true")
    try:
        infos = list(a.fdinfo())
        name = lambda i: bpftool("prog", "show", "id", i["prog_id"])["name"]
        loaded = {name(i) for i in infos if "prog_tag" in i}
        attached = {name(i) for i in infos if "link_type" in i}
    finally:
        assert a.stop() == 0
    works = {p for p, (_, w) in table.items() if w == "yes" and not p.startswith(of_other_tiers)}
    assert works <= loaded
    assert not loaded & {p for p, (_, w) in table.items() if w != "yes"}
    # Iterators are read at start or now and then, and not held. This process has mapped a TLS library.
    assert attached == {p for p in works if not table[p][0].startswith("iter")}
