#!/usr/bin/env python3
"""The gateway's cost per span beside a reference without features, in the same run.

For each case (payload shape, spans a request, path, offered rate) the system under test runs pinned
to one CPU with load generator and sink on the other, `--runs` times, gateway and reference in turn.
Printed per case: CPU-seconds per million spans (median), resident memory, loss, and the median of
the pairwise ratios, which is the result, since machines differ by a factor of two.

    make bench                              all cases, five runs (about 40 minutes)
    make bench ARGS="--quick"               shape M, 500 spans, saturation, three runs
    test/bench/run.py --shapes M --paths tail --rates 0 --runs 5 --json out.json
"""

import argparse
import itertools
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "test" / "scenario"))
from harness.wait import accepts, free_ports, wait_until  # noqa: E402

TOOLS = ROOT / "build" / "gcc" / "test" / "tools"
TICK = os.sysconf("SC_CLK_TCK")
# A path that holds spans is measured once what it holds no longer grows: fresh pages are dear.
WARM_UP_S = {"forward": 1.0, "edit": 1.0, "tail": 3.0}

HEAD = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}", max_recv_msg_size_mib: 16}}}}}}
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{sink}
    tls: {{insecure: true}}
    compression: none
    # At saturation the sink falls behind: a short queue is full, and its memory warm, in no time.
    sending_queue: {{queue_size: 64}}
"""
TAIL = """
processors:
  tail_sampling:
    decision_wait: 1s
    num_traces: 2000000
    policies:
      - {{name: errors, type: status_code, status_code: {{status_codes: [ERROR]}}}}
      - {{name: slow, type: latency, latency: {{threshold_ms: 1000}}}}
      - {{name: some, type: probabilistic, probabilistic: {{sampling_percentage: 10}}}}
"""
EDIT = """
processors:
  attributes:
    actions:
      - {{key: bench.added, value: yes-please, action: insert}}
"""
SERVICE = """
service:
  telemetry: {{logs: {{level: warn}}, metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], {processors}exporters: [otlp_grpc]}}}}
"""
PATHS = {
    "forward": HEAD + SERVICE.replace("{processors}", ""),
    "edit": HEAD + EDIT + SERVICE.replace("{processors}", "processors: [attributes], "),
    "tail": HEAD + TAIL + SERVICE.replace("{processors}", "processors: [tail_sampling], "),
}


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        for line in f:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def sink_stats(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=10) as r:
        return json.load(r)


def pinned(cpu, argv, **kw):
    return subprocess.Popen(["taskset", "-c", str(cpu), *map(str, argv)], **kw)


def measure(system, case, seconds):
    """One run: {cpu_s_per_m, rss_mib, sent, acked, kept, lost, p99_ms}."""
    shape, spans, path, rate = case
    warm_up = WARM_UP_S[path]
    port, sink_port = free_ports(2)
    with tempfile.TemporaryDirectory() as tmp:
        sink = pinned(0, [TOOLS / "sink", "--port", sink_port])
        if system == "reference":
            argv = [TOOLS / "reference", "--port", port, "--target", sink_port]
        else:
            config = pathlib.Path(tmp) / "bench.yaml"
            config.write_text(PATHS[path].format(port=port, sink=sink_port))
            argv = [ROOT / "bin" / "tailrace-gateway", "--config", config]
        log = open(pathlib.Path(tmp) / "log", "w+", encoding="utf-8")
        sut = pinned(1, argv, stdout=log, stderr=log)
        try:
            wait_until(lambda: accepts(sink_port) and accepts(port), 20, "sink and system listen")
            load = pinned(0, [TOOLS / "load", "--port", port, "--shape", shape, "--spans", spans,
                              "--rate", rate, "--seconds", seconds + warm_up],
                          stdout=subprocess.PIPE, text=True)
            marks = []
            for line in load.stdout:
                report = json.loads(line)
                marks.append((report["acked_spans"], cpu_seconds(sut.pid), report))
            load.wait()
            if not marks or not marks[-1][2].get("end"):
                raise RuntimeError(f"load ended early ({system}): {marks[-1:]}")
            first = next((m for m in marks if m[2]["elapsed_s"] >= warm_up), marks[0])
            acked, cpu, report = marks[-1]
            wait_until(lambda: drained(sut, path, sink_port, system, acked), 30, "drained")
            got = sink_stats(sink_port)["spans"]
            rss = rss_mib(sut.pid)
        finally:
            for p in (sut, sink):
                p.send_signal(signal.SIGTERM)
            for p in (sut, sink):
                p.wait(30)
    lost = acked - got if path != "tail" or system == "reference" else 0
    return {"cpu_s_per_m": (cpu - first[1]) / max(1, acked - first[0]) * 1e6,
            "spans_per_s": (acked - first[0]) / (report["elapsed_s"] - first[2]["elapsed_s"]),
            "rss_mib": rss, "sent": report["sent_spans"], "acked": acked, "delivered": got,
            "lost": lost, "p99_ms": report["p99_ms"]}


def drained(sut, path, sink_port, system, acked):
    """All that will come has come."""
    if path != "tail" or system == "reference":
        return sink_stats(sink_port)["spans"] >= acked
    before = sink_stats(sink_port)["spans"]
    time.sleep(1.5)  # longer than decision_wait: nothing new means that nothing is held
    return before > 0 and sink_stats(sink_port)["spans"] == before


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--shapes", default="S,M,L")
    p.add_argument("--spans", default="500,10")
    p.add_argument("--paths", default="forward,edit,tail")
    p.add_argument("--rates", default="50000,200000,0", help="spans a second; 0 = saturation")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--seconds", type=float, default=3)
    p.add_argument("--json", type=pathlib.Path)
    p.add_argument("--quick", action="store_true")
    a = p.parse_args()
    if a.quick:
        a.shapes, a.spans, a.rates, a.runs = "M", "500", "0", 3
    cases = list(itertools.product(a.shapes.split(","), map(int, a.spans.split(",")),
                                   a.paths.split(","), map(int, a.rates.split(","))))
    print(f"{'shape':5} {'spans':>5} {'path':8} {'rate':>8} | {'CPU-s/M':>8} {'reference':>9} "
          f"{'ratio':>6} | {'spans/s':>9} {'RSS MiB':>8} {'lost':>6} {'p99 ms':>7}")
    results = []
    for case in cases:
        ours, reference = [], []
        for _ in range(a.runs):
            ours.append(measure("tailrace", case, a.seconds))
            reference.append(measure("reference", case, a.seconds))
        median = {k: statistics.median(r[k] for r in ours) for k in ours[0]}
        ratio = statistics.median(o["cpu_s_per_m"] / r["cpu_s_per_m"]
                                  for o, r in zip(ours, reference) if r["cpu_s_per_m"])
        ref = statistics.median(r["cpu_s_per_m"] for r in reference)
        shape, spans, path, rate = case
        print(f"{shape:5} {spans:5} {path:8} {rate or 'max':>8} | {median['cpu_s_per_m']:8.3f} "
              f"{ref:9.3f} {ratio:6.2f} | {median['spans_per_s']:9.0f} {median['rss_mib']:8.1f} "
              f"{sum(r['lost'] for r in ours):6} {median['p99_ms']:7.2f}", flush=True)
        results.append({"shape": shape, "spans": spans, "path": path, "rate": rate,
                        "ratio": ratio, "tailrace": ours, "reference": reference})
    if a.json:
        a.json.write_text(json.dumps(results, indent=1))
        print(f"written: {a.json}")


if __name__ == "__main__":
    main()
