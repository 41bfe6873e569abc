#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The gateway's cost per span beside a reference without features, in the same run.

For each case (payload shape, spans a request, path, offered rate) the system under test runs pinned
to one CPU with load generator and sink on the other, `--runs` times, gateway and reference in turn.
Printed per case: CPU-seconds per million spans (median), resident memory, loss, and the median of
the pairwise ratios, which is the result, since machines differ by a factor of two. Forwarding and
tail sampling are to cost at most twice the reference; what costs more is marked with `>` and
listed at the end.

Paths: forward untouched, one attribute inserted into every span (edit), tail sampling (tail); gzip
is forward with gzip in and out, beside a reference that does the same, and is not among the cases
of a plain run. `lost` counts spans that were acknowledged and are neither at the sink nor, with
tail sampling, among those that the ledger says were decided against; it is never negative.

    make bench                              all cases, five runs (about 31 minutes)
    make bench ARGS="--quick"               shape M, 500 spans, saturation, one short run (20 s)
    make bench ARGS="--shapes M --paths tail --rates 0 --runs 5 --json out.json"
"""

import argparse
import itertools
import json
import math
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
from harness.metrics import scrape  # noqa: E402
from harness.wait import accepts, free_ports, wait_until  # noqa: E402

TOOLS = ROOT / "build" / "gcc" / "test" / "tools"
# A path that holds spans is measured once what it holds no longer grows: fresh pages are dear.
WARM_UP_S = {"forward": 0.5, "edit": 0.5, "gzip": 0.5, "tail": 3.0}
# ... and long enough for memory that grows and shrinks with what is decided to show in full.
SECONDS = {"forward": 1.0, "edit": 1.0, "gzip": 1.0, "tail": 3.0}
LIMIT = {"forward": 2.0, "tail": 2.0}  # times the reference

HEAD = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}", max_recv_msg_size_mib: 16}}}}}}
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{sink}
    tls: {{insecure: true}}
    compression: {compression}
    # At saturation the sink falls behind: a short queue is full, and its memory warm, in no time.
    sending_queue: {{queue_size: 64}}
"""
TAIL = """
processors:
  tail_sampling:
    decision_wait: 1s
    num_traces: 1000000 # a second's, at the highest rate
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
  telemetry:
    logs: {{level: warn}}
    metrics: {{level: basic, readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {metrics}}}}}}}}}]}}
  pipelines: {{traces: {{receivers: [otlp], {processors}exporters: [otlp_grpc]}}}}
"""
PATHS = {
    "forward": HEAD + SERVICE.replace("{processors}", ""),
    "edit": HEAD + EDIT + SERVICE.replace("{processors}", "processors: [attributes], "),
    "tail": HEAD + TAIL + SERVICE.replace("{processors}", "processors: [tail_sampling], "),
}
PATHS["gzip"] = PATHS["forward"]


def configuration(path, port, sink, metrics):
    return PATHS[path].format(port=port, sink=sink, metrics=metrics,
                              compression="gzip" if path == "gzip" else "none")


def cpu_seconds(pid):
    """All threads' time on a CPU, by the scheduler's nanoseconds: ticks are too coarse."""
    return sum(int(f.read_text(encoding="ascii").split()[0])
               for f in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


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


def decided_against(metrics_port):
    """Spans that tail sampling dropped, by its own books."""
    return sum(v for (name, labels), v in scrape(metrics_port).items()
               if name == "tailrace_ledger_items" and ("term", "dropped") in labels
               and any(k == "reason" and r.startswith("not_sampled") for k, r in labels))


def accounted(sink_port, metrics_port):
    return sink_stats(sink_port)["spans"] + (decided_against(metrics_port) if metrics_port else 0)


def drain(read, want, quiet=3.0):
    """Waits for read() to be `want`, or for it not to change any more; what is missing then."""
    last, since = read(), time.monotonic()
    while last < want and time.monotonic() - since < quiet:
        time.sleep(0.05)
        now = read()
        if now != last:
            last, since = now, time.monotonic()
    return max(0, int(want - last))


def start(system, path, ports, tmp):
    port, sink_port, metrics_port = ports
    if system == "reference":
        argv = [TOOLS / "reference", "--port", port, "--target", sink_port]
    else:
        config = pathlib.Path(tmp) / "bench.yaml"
        config.write_text(configuration(path, port, sink_port, metrics_port))
        argv = [ROOT / "bin" / "tailrace-gateway", "--config", config]
    with open(pathlib.Path(tmp) / "log", "w", encoding="utf-8") as log:
        return pinned(1, argv, stdout=log, stderr=log)


def measure(system, case, seconds, warm_up):
    """One run: {cpu_s_per_m, rss_mib, sent, acked, delivered, lost, p99_ms}."""
    shape, spans, path, rate = case
    port, sink_port, metrics_port = ports = free_ports(3)
    with tempfile.TemporaryDirectory() as tmp:
        sink = pinned(0, [TOOLS / "sink", "--port", sink_port])
        sut = start(system, path, ports, tmp)
        try:
            wait_until(lambda: accepts(sink_port) and accepts(port), 20, "sink and system listen")
            load = pinned(0, [TOOLS / "load", "--port", port, "--shape", shape, "--spans", spans,
                              "--rate", rate, "--seconds", seconds + warm_up,
                              "--gzip", int(path == "gzip")],
                          stdout=subprocess.PIPE, text=True)
            marks = []
            for line in load.stdout:
                report = json.loads(line)
                marks.append((report["acked_spans"], cpu_seconds(sut.pid), report))
            load.wait()
            if not marks or not marks[-1][2].get("end"):
                raise RuntimeError(f"load ended early ({system}): {marks[-1:]}")
            first = next((m for m in marks if m[2]["elapsed_s"] >= warm_up), marks[0])
            # The last line comes after the last answers; what counts is the time of offering.
            inside = [m for m in marks if m[2]["elapsed_s"] <= warm_up + seconds + 0.01]
            last = (inside or marks)[-1]
            acked, report = marks[-1][0], marks[-1][2]
            books = metrics_port if path == "tail" and system != "reference" else None
            lost = drain(lambda: accounted(sink_port, books), acked)
            got = sink_stats(sink_port)["spans"]
            rss = rss_mib(sut.pid)
        finally:
            for p in (sut, sink):
                p.send_signal(signal.SIGTERM)
            for p in (sut, sink):
                p.wait(30)
    n, elapsed = last[0] - first[0], last[2]["elapsed_s"] - first[2]["elapsed_s"]
    return {"cpu_s_per_m": (last[1] - first[1]) / max(1, n) * 1e6,
            "spans_per_s": n / max(1e-3, elapsed),
            "rss_mib": rss, "sent": report["sent_spans"], "acked": acked, "delivered": got,
            "failed": report["failed_spans"], "lost": lost, "p99_ms": report["p99_ms"]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--shapes", default="S,M,L")
    p.add_argument("--spans", default="500,10")
    p.add_argument("--paths", default="forward,edit,tail")
    p.add_argument("--rates", default="50000,200000,0", help="spans a second; 0 = saturation")
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--seconds", type=float, help="default: 1; tail 3")
    p.add_argument("--json", type=pathlib.Path)
    p.add_argument("--quick", action="store_true")
    a = p.parse_args()
    warm_up = WARM_UP_S
    if a.quick:
        a.shapes, a.spans, a.rates, a.runs, a.seconds = "M", "500", "0", 1, 1.0
        warm_up = dict.fromkeys(WARM_UP_S, 0.5)
    cases = list(itertools.product(a.shapes.split(","), map(int, a.spans.split(",")),
                                   a.paths.split(","), map(int, a.rates.split(","))))
    print(f"{'shape':5} {'spans':>5} {'path':8} {'rate':>8} | {'CPU-s/M':>8} {'reference':>9} "
          f"{'ratio':>6} | {'spans/s':>9} {'RSS MiB':>8} {'lost':>6} {'p99 ms':>7}")
    results, over = [], []
    for case in cases:
        ours, reference = [], []
        seconds = a.seconds or SECONDS[case[2]]
        for _ in range(a.runs):
            ours.append(measure("tailrace", case, seconds, warm_up[case[2]]))
            reference.append(measure("reference", case, seconds, warm_up[case[2]]))
        median = {k: statistics.median(r[k] for r in ours) for k in ours[0]}
        # A very short run on a busy machine may have measured nothing.
        ratio = statistics.median(o["cpu_s_per_m"] / max(r["cpu_s_per_m"], 1e-3)
                                  for o, r in zip(ours, reference))
        ref = statistics.median(r["cpu_s_per_m"] for r in reference)
        shape, spans, path, rate = case
        is_over = ratio > LIMIT.get(path, math.inf)
        if is_over:
            over.append(f"{shape} {spans} {path} {rate or 'max'}: {ratio:.2f}")
        print(f"{shape:5} {spans:5} {path:8} {rate or 'max':>8} | {median['cpu_s_per_m']:8.3f} "
              f"{ref:9.3f} {'>' if is_over else ' '}{ratio:5.2f} | "
              f"{median['spans_per_s']:9.0f} {median['rss_mib']:8.1f} "
              f"{sum(r['lost'] for r in ours):6} {median['p99_ms']:7.2f}", flush=True)
        results.append({"shape": shape, "spans": spans, "path": path, "rate": rate,
                        "ratio": ratio, "tailrace": ours, "reference": reference})
    print("over twice the reference: " + ("; ".join(over) or "nothing"))
    if a.json:
        a.json.write_text(json.dumps(results, indent=1))
        print(f"written: {a.json}")
    return int(any(r["lost"] for case in results for r in case["tailrace"] + case["reference"]))


if __name__ == "__main__":
    sys.exit(main())
