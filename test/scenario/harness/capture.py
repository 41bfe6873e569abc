# SPDX-License-Identifier: Apache-2.0
"""An agent that captures, the spans it made, and real servers to capture from."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from . import metrics
from .process import Child, program
from .wait import TimeoutExpired, accepts, free_ports, stable, wait_until

CONFIG = """
receivers:
  ebpf:
    metrics_interval: 1s
{selection}
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{sink}
    tls: {{insecure: true}}
service:
  telemetry:
    metrics:
      readers:
        - pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {metrics}}}}}}}
  pipelines:
    traces: {{receivers: [ebpf], exporters: [otlp_grpc]}}
    metrics: {{receivers: [ebpf], exporters: [otlp_grpc]}}
"""


def value_of(v):
    return getattr(v, v.WhichOneof("value")) if v.WhichOneof("value") else None


def attributes(message):
    return {a.key: value_of(a.value) for a in message.attributes}


def bpftool(*args):
    path = "/usr/sbin/bpftool" if pathlib.Path("/usr/sbin/bpftool").exists() else "bpftool"
    return json.loads(subprocess.run([path, "-j", *args], check=True, capture_output=True, text=True).stdout)


class Seen:
    """A span as tests ask for it."""

    def __init__(self, resource, record):
        self.span = Span.FromString(record)
        self.attrs = attributes(self.span)
        self.resource = attributes(Resource.FromString(resource))
        self.is_server = self.span.kind == Span.SPAN_KIND_SERVER
        self.path = self.attrs.get("url.path")
        self.port = self.attrs.get("server.port")
        self.start, self.end = self.span.start_time_unix_nano, self.span.end_time_unix_nano

    def brief(self):
        a = self.attrs
        return (a["http.request.method"], a["url.path"], a.get("http.response.status_code"),
                a.get("http.request.body.size"), a.get("http.response.body.size"))

    def __repr__(self):
        return f"<{'server' if self.is_server else 'client'} {self.brief()} {self.attrs}>"


def ledger_of(samples):
    """{(layer, direction): {term: bytes}} with a 'holes' dict, from an agent's own metrics."""
    out = {}
    for (name, labels), value in samples.items():
        labels = dict(labels)
        key = labels.get("layer"), labels.get("direction")
        if name.startswith("otelcol_ebpf_stream_bytes"):
            out.setdefault(key, {"holes": {}})[labels["fate"]] = int(value)
        elif name.startswith("otelcol_ebpf_stream_hole_bytes"):
            out.setdefault(key, {"holes": {}})["holes"][labels["reason"]] = int(value)
    return out


def assert_stream_ledger(samples):
    """Every byte that passed on selected connections was parsed, skipped, held, or is a hole."""
    for key, a in ledger_of(samples).items():
        assert a["passed"] == a["parsed"] + a["skipped"] + a["held"] + sum(a["holes"].values()), (key, a)


class Observed:
    """What an agent says of its host: .sink has its records, .samples() its own metrics."""

    def spans(self, port=None):
        found = [Seen(res, rec) for res, _, rec in self.sink.records("traces")]
        return [s for s in found if port is None or s.port == port]

    def settled(self, at_least, port=None, timeout=20):
        """All spans, once there are that many and no more come."""
        try:
            wait_until(lambda: len(self.spans(port)) >= at_least, timeout)
        except TimeoutExpired:
            got = self.spans(port)
            raise AssertionError(f"{len(got)} of {at_least} spans in {timeout} s; {self.kernel()} {self.ledger()} "
                                 f"{got!r:.2000}") from None
        stable(lambda: len(self.spans(port)), quiet=0.6)
        return self.spans(port)

    def ledger(self):
        return ledger_of(self.samples())

    def count(self, event, kind="events"):
        """A counter of what the receiver met, or what it holds now."""
        name, label = ("otelcol_ebpf_tracked", "kind") if kind == "now" else ("otelcol_ebpf_events", "event")
        return sum(int(v) for (n, labels), v in self.samples().items()
                   if n.startswith(name) and dict(labels).get(label) == event)

    def kernel(self):
        """{counter: value} of the kernel side."""
        return {dict(labels)["counter"]: int(v) for (name, labels), v in self.samples().items()
                if name.startswith("otelcol_ebpf_kernel_count")}

    def assert_ledger(self):
        assert_stream_ledger(self.samples())


class Agent(Observed):
    """selection: lines of the receiver's configuration, as a dict of flow-style YAML values."""

    def __init__(self, tmp_path, sink, name="agent", **selection):
        if os.geteuid() != 0 or not pathlib.Path("/sys/kernel/btf/vmlinux").exists():
            pytest.skip("needs root and BTF")
        self.sink = sink
        self.metrics_port, = free_ports(1)
        path = tmp_path / f"{name}.yaml"
        lines = "\n".join(f"    {k}: {v}" for k, v in selection.items())
        path.write_text(CONFIG.format(selection=lines, sink=sink.grpc_port, metrics=self.metrics_port))
        self.child = Child([program("tailrace-agent"), "--config", path], tmp_path / f"{name}.log")
        try:
            self._wait_ready()
        except BaseException:  # a skip, too: whoever asked for an agent has none to end
            self.child.kill()
            raise

    def _wait_ready(self):
        def ready():
            log = self.child.log()
            if "no kernel side" in log:
                pytest.skip("the agent was built without its kernel side")
            if not self.child.alive():
                raise AssertionError(f"agent ended:\n{log[-4000:]}")
            return "Everything is ready" in log
        wait_until(ready, 30, "agent captures")

    def samples(self):
        return metrics.scrape(self.metrics_port)

    def kernel_maps(self, name):
        """Ids of the agent's maps of that name, of which the kernel keeps 15 bytes."""
        return [int(i["map_id"]) for i in self.fdinfo()
                if "map_id" in i and bpftool("map", "show", "id", i["map_id"]).get("name") == name[:15]]

    def fdinfo(self):
        """What the kernel tells of each descriptor of the agent, as dicts."""
        for path in pathlib.Path(f"/proc/{self.child.pid}/fdinfo").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since
                yield dict(re.findall(r"^(\w+):\s*(.*)$", path.read_text(), re.M))

    def kernel_entries(self, name, key):
        """How many entries of its hashes of that name have that 64-bit key."""
        raw = [f"0x{b:02x}" for b in key.to_bytes(8, "little")]
        return sum([f"0x{int(b, 16):02x}" for b in e["key"]] == raw for i in self.kernel_maps(name)
                   for e in bpftool("map", "dump", "id", str(i)))

    def stop(self):
        return self.child.stop()


NGINX = """
daemon off; worker_processes 2; pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  sendfile on; keepalive_requests 100000; client_max_body_size 100k;
  server {{
    listen 127.0.0.1:{port} backlog=1024; listen 127.0.0.1:{tls_port} ssl backlog=1024;
    ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/key.pem;
    root {dir}/www;
    location /status/ {{ return 404 "nothing"; }}
    location /fault/ {{ return 503 "later"; }}
    location /echo/ {{ return 200 "hello"; }}
    location /app/ {{ proxy_pass http://127.0.0.1:{app}; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


class Nginx:
    """A real nginx on .port and, with TLS, on .tls_port; files of .www."""

    def __init__(self, tmp_path, app=1):
        if not shutil.which("nginx") and not pathlib.Path("/usr/sbin/nginx").exists():
            pytest.skip("needs nginx")
        self.dir = tmp_path / "nginx"
        (self.dir / "www").mkdir(parents=True)
        self.dir.chmod(0o755)
        self.www = self.dir / "www"
        (self.www / "big.bin").write_bytes(os.urandom(3_000_000))
        (self.www / "small.txt").write_text("x" * 100)
        self.port, self.tls_port = free_ports(2)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                        "/CN=localhost", "-keyout", self.dir / "key.pem", "-out", self.dir / "cert.pem"],
                       check=True, capture_output=True)
        conf = self.dir / "nginx.conf"
        conf.write_text("user root;" + NGINX.format(dir=self.dir, port=self.port, tls_port=self.tls_port, app=app))
        self.child = Child(["/usr/sbin/nginx", "-c", conf, "-p", self.dir], tmp_path / "nginx.log")
        wait_until(lambda: accepts(self.port), 10, "nginx accepts")

    def stop(self):
        self.child.stop()
