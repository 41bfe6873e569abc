#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What `scheduler: true` costs a context switch: two processes that wake each other, on one CPU.

Each pair is a run beside an agent with it and one beside an agent without, in turn; the figure of a
run is the shortest of its batches. Needs root and a kernel with BTF.

    make tools all && test/bench/sched.py [PAIRS]
"""

import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "scenario"))
from harness.process import Child, program, tool  # noqa: E402

CONFIG = """
receivers: {{ebpf: {{pids: [1], scheduler: {scheduler}}}}}
exporters: {{debug: {{}}}}
service: {{telemetry: {{metrics: {{level: none}}}}, pipelines: {{metrics: {{receivers: [ebpf], exporters: [debug]}}}}}}
"""


def switch_ns(scheduler):
    with tempfile.TemporaryDirectory() as tmp:
        return run(scheduler, pathlib.Path(tmp))


def run(scheduler, tmp):
    path = tmp / "agent.yaml"
    path.write_text(CONFIG.format(scheduler=scheduler))
    agent = Child([program("tailrace-agent"), "--config", path], tmp / "agent.log")
    try:
        agent.wait_log("Everything is ready")
        return int(subprocess.run([tool("pingpong"), "1", "1000"], check=True, capture_output=True, text=True).stdout)
    finally:
        agent.stop()


def main():
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    rows = [(switch_ns("false"), switch_ns("true")) for _ in range(pairs)]
    for without, with_it in rows:
        print(f"without {without} ns, with {with_it} ns, {with_it - without:+} ns")
    print(f"median of the differences: {statistics.median(b - a for a, b in rows):+} ns a switch")


if __name__ == "__main__":
    main()
