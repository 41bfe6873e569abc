#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What observing costs: nginx with and without the agent, in the same run.

One nginx worker on CPU 0; load generator, agent and sink on CPU 1. Four cells, `--pairs` of each. A
pair alternates: one run without the agent, then `--turns` times one with it and one without.

  plain       an observed nginx at saturation: its requests a second with the agent over without
  tls         the same over TLS, read by probes in libssl
  unselected  TLS at saturation on an nginx that is not selected while another one, which uses the same
              libssl, is: nobody should pay for probes that are not his
  rate        10,000 requests a second offered to the observed nginx: the agent's CPU, in per cent
              of a core and microseconds a request, its memory, and spans against requests

`ratio` is of requests a second, each run with the agent between its neighbours, the median of the turns,
and the result. `quiet` is the same of the fastest fifth of a pair's quarter seconds, on either side:
others of the same machine only ever slow nginx down, for tenths of a second or for many. It helps to
tell noise from cost, and is no result: what the agent does once a second is not in all of them.
`busy` tells which share of its CPU nginx used: only where it is about 1 in both runs does the ratio
speak of nginx. The generator (test/tools/http_closed.c) sees to that: it is never woken by an answer,
since two virtual CPUs that wake each other are bistable, and it rests often and shortly, so that the
agent, which shares its CPU, holds nobody up for a whole tick. `us/req` is nginx's CPU time a request
of whole runs, the kernel side in it; `keeps` is the ratio of these.

    make bench-agent                        five pairs of all cells (about nine minutes), needs root
    make bench-agent ARGS="--quick"         one short pair
    make bench-agent ARGS="--cells plain,rate --pairs 3 --json out.json"
"""

import argparse
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile

from run import ROOT, TOOLS, cpu_seconds, drain, pinned, rss_mib, sink_stats
from harness.wait import accepts, free_ports, stable, wait_until

CONNECTIONS = 64
CELLS = ("plain", "tls", "unselected", "rate")
# What is wanted of a cell: (result, at least or at most, bound).
WANTED = {"plain": ("ratio", ">=", 0.90), "tls": ("ratio", ">=", 0.60), "unselected": ("ratio", ">=", 0.97),
          "rate": ("core_percent", "<=", 2.0)}
NGINX = """
daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_temp_path {dir}/body;
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    listen 127.0.0.1:{tls_port} ssl backlog=1024;
    ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;
    root {dir};
    location = /load {{ return 200 "{{}}"; }}
  }}
}}
"""
AGENT = """
receivers:
  ebpf: {{ports: [{port}]}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{sink}", tls: {{insecure: true}}, compression: {compression}}}
service:
  telemetry: {{logs: {{level: info}}, metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [ebpf], exporters: [otlp_grpc]}}
    metrics: {{receivers: [ebpf], exporters: [otlp_grpc]}}
"""


class Nginx:
    def __init__(self, tmp):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="nginx-", dir=tmp))
        self.dir.chmod(0o755)
        self.port, self.tls_port = free_ports(2)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                        "-keyout", self.dir / "key.pem", "-out", self.dir / "cert.pem"],
                       check=True, capture_output=True)
        (self.dir / "index.html").write_text("x" * 1024)
        conf = self.dir / "nginx.conf"
        conf.write_text(NGINX.format(dir=self.dir, port=self.port, tls_port=self.tls_port))
        self.child = pinned(0, ["/usr/sbin/nginx", "-c", conf, "-p", self.dir],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: accepts(self.port) and accepts(self.tls_port), 20, "nginx accepts")

        children = f"/proc/{self.child.pid}/task/{self.child.pid}/children"
        self.worker, = (int(pid) for pid in pathlib.Path(children).read_text(encoding="ascii").split())

    def stop(self):
        end(self.child)


def end(child):
    child.send_signal(signal.SIGTERM)
    child.wait(30)


class Observer:
    """The agent on CPU 1 with a sink of its own; selects whoever listens on the port."""

    def __init__(self, tmp, port, compression):
        self.sink_port, = free_ports(1)
        self.sink = pinned(1, [TOOLS / "sink", "--port", self.sink_port])
        wait_until(lambda: accepts(self.sink_port), 20, "sink listens")
        config, self.log = pathlib.Path(tmp) / "agent.yaml", pathlib.Path(tmp) / "agent.log"
        config.write_text(AGENT.format(port=port, sink=self.sink_port, compression=compression))
        with open(self.log, "w", encoding="utf-8") as log:
            self.child = pinned(1, [ROOT / "bin" / "tailrace-agent", "--config", config],
                                stdout=log, stderr=log)
        try:
            wait_until(self._ready, 60, "agent is ready")
        except BaseException:
            self.stop()
            raise
        self.cpu_at_start = cpu_seconds(self.child.pid)

    def _ready(self):
        text = self.log.read_text(encoding="utf-8")
        if self.child.poll() is not None:
            raise RuntimeError(f"agent ended: {text[-2000:]}")
        return "Everything is ready" in text

    def spans(self):
        return sink_stats(self.sink_port)["spans"]

    def finish(self, requests):
        """Its cost until the last span was sent; then whether more come than there should."""
        drain(self.spans, requests, quiet=2.0)
        cpu = cpu_seconds(self.child.pid) - self.cpu_at_start
        stable(self.spans, quiet=0.5)
        out = {"agent_cpu_s": cpu, "agent_us_per_request": cpu / max(1, requests) * 1e6,
               "rss_mib": rss_mib(self.child.pid), "requests": requests, "spans": self.spans()}
        out["lost"] = requests - out["spans"]  # less than none: something was told twice
        self.stop()
        return out

    def stop(self):
        for child in (self.child, self.sink):
            if child.poll() is None:
                end(child)


def saturate(nginx, tls, seconds):
    """What nginx does at most, and what it takes."""
    port = nginx.tls_port if tls else nginx.port
    out = subprocess.run(["taskset", "-c", "1", TOOLS / "http_closed", "--port", str(port), "--seconds", str(seconds),
                          "--connections", str(CONNECTIONS), "--watch", str(nginx.worker), *(["--tls"] * tls)],
                         check=True, capture_output=True, text=True).stdout
    out = json.loads(out)
    rate, us = out["requests"] / out["elapsed_s"], out["cpu_s"] / out["requests"] * 1e6
    return {"rate": rate, "requests": out["requests"], "us": us, "busy": us * rate / 1e6,
            "slices": out["slices"]}


def http_load(port, rate, seconds):
    out = subprocess.run(["taskset", "-c", "1", TOOLS / "http_load", "--port", str(port), "--rate",
                          str(rate), "--seconds", str(seconds)],
                         check=True, capture_output=True, text=True).stdout
    return json.loads(out)


def saturated_pair(cell, a, tmp, observed, other):
    """Turns of runs with the agent, each between two without."""
    target, tls = (other if cell == "unselected" else observed), cell != "plain"
    saturate(target, tls, a.seconds)
    without, with_agent, costs = [saturate(target, tls, a.seconds)], [], []
    for _ in range(a.turns):
        observer = Observer(tmp, observed.port if cell == "plain" else observed.tls_port, a.compression)
        try:
            with_agent.append(saturate(target, tls, a.seconds))
            costs.append(observer.finish(0 if cell == "unselected" else with_agent[-1]["requests"]))
        finally:
            observer.stop()
        without.append(saturate(target, tls, a.seconds))
    around = [{k: (before[k] + after[k]) / 2 for k in ("rate", "us", "busy")}
              for before, after in zip(without, without[1:])]
    turns = [{"without": o["rate"], "with": w["rate"], "ratio": w["rate"] / o["rate"],
              "busy_without": o["busy"], "busy_with": w["busy"], "us_without": o["us"], "us_with": w["us"],
              "keeps": o["us"] / w["us"], **c}
             for o, w, c in zip(around, with_agent, costs)]
    return {"quiet": fastest(with_agent) / fastest(without),
            **{k: statistics.median(t[k] for t in turns) for k in turns[0]},
            **{k: sum(t[k] for t in turns) for k in ("requests", "spans", "lost")}}


def fastest(runs):
    """Requests a second of the fastest fifth of the runs' slices."""
    slices = sorted((s for r in runs for s in r["slices"]), reverse=True)
    return statistics.mean(slices[:max(1, len(slices) // 5)])


def rate_run(a, tmp, observed):
    observer = Observer(tmp, observed.port, a.compression)
    try:
        load = http_load(observed.port, a.rate, 2 * a.seconds)
        cost = observer.finish(load["requests"])
    finally:
        observer.stop()
    # At the rate that was reached: the cost of a request, times the rate that is asked for.
    return {"core_percent": cost["agent_us_per_request"] * a.rate / 1e6 * 100,
            "failed": load["failed"], "p50_ms": load["p50_ms"], "p99_ms": load["p99_ms"], **cost}


def show(cell, runs):
    median = {k: statistics.median(r[k] for r in runs) for k in runs[0]}
    lost = sum(r["lost"] for r in runs)
    us = f"{median['agent_us_per_request']:7.2f}" if cell != "unselected" else "      -"
    core = f"{median['core_percent']:6.2f} %" if cell == "rate" else " " * 8
    nginx = " " * 69 if cell == "rate" else (
        "{without:9.0f} {with:9.0f} {ratio:6.3f} {quiet:5.3f} | {busy_without:5.3f} {busy_with:5.3f} | "
        "{us_without:6.2f} {us_with:6.2f} | {keeps:5.3f}").format(**median)
    print(f"{cell:10} | {nginx} | {us} {core} {median['rss_mib']:8.1f} {lost:6}", flush=True)
    return {"cell": cell, "median": median, "lost": lost, "runs": runs}


def judge(cell, runs):
    """Whether the median is what is wanted, and between which of its pairs it stands."""
    what, sign, bound = WANTED[cell]
    values = [r[what] for r in runs]
    value = statistics.median(values)
    met = value >= bound if sign == ">=" else value <= bound
    print(f"{cell + ':':12} {value:.3f} ({min(values):.3f} to {max(values):.3f}), wanted {sign} {bound:.2f}: "
          f"{'met' if met else 'NOT met'}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--cells", default=",".join(CELLS))
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--turns", type=int, default=5, help="runs with the agent in a pair")
    p.add_argument("--seconds", type=float, default=1.5, help="of a run; twice that of one at a rate")
    p.add_argument("--rate", type=int, default=10000, help="requests a second of the cell `rate`")
    p.add_argument("--compression", default="gzip", choices=("gzip", "zstd", "none"))
    p.add_argument("--json", type=pathlib.Path)
    p.add_argument("--quick", action="store_true")
    a = p.parse_args()
    if a.quick:
        a.pairs, a.turns, a.seconds = 1, 1, 1
    cells = a.cells.split(",")
    runs = {c: [] for c in cells}
    with tempfile.TemporaryDirectory() as tmp:
        pathlib.Path(tmp).chmod(0o755)
        observed, other = Nginx(tmp), Nginx(tmp)
        try:
            for _ in range(a.pairs):
                for cell in cells:
                    runs[cell].append(rate_run(a, tmp, observed) if cell == "rate" else
                                      saturated_pair(cell, a, tmp, observed, other))
        finally:
            observed.stop()
            other.stop()
    print(f"{'':10} | {'nginx, without and with the agent':69} | agent\n"
          f"{'cell':10} | {'without/s':>9} {'with/s':>9} {'ratio':>6} {'quiet':>5} | {'busy':>11} | {'us/req':>13} | "
          f"{'keeps':>5} | {'us/req':>7} {'core':>8} {'RSS MiB':>8} {'lost':>6}")
    results = [show(cell, runs[cell]) for cell in cells]
    for cell in cells:
        judge(cell, runs[cell])
    if a.json:
        a.json.write_text(json.dumps(results, indent=1))
        print(f"written: {a.json}")


if __name__ == "__main__":
    sys.exit(main())
