# SPDX-License-Identifier: Apache-2.0
"""Capture on this host's kernel: real nginx and curl, nothing changed in them."""

import collections
import http.client
import os
import subprocess
import threading
import time

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from harness.gateway import TELEMETRY, Gateway
from harness.process import Child, program
from harness.wait import PATIENCE, accepts, free_ports, stable, wait_until

pytestmark = pytest.mark.root

AGENT = """
receivers:
  ebpf: {{{selection}}}
exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{sink}
    tls: {{insecure: true}}
service:
  pipelines:
    traces: {{receivers: [ebpf], exporters: [otlp_grpc]}}
""" + TELEMETRY

NGINX = """
user root;
worker_processes 2;
daemon off;
pid {dir}/pid;
error_log {dir}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  keepalive_requests 100000;
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 "hello\\n"; }}
    location /missing {{ return 404 "no\\n"; }}
    location /broken {{ return 503 "sorry\\n"; }}
    location /file {{ root {dir}; sendfile on; }}
  }}
}}
"""


def may_capture():
    return os.geteuid() == 0 and os.path.exists("/sys/kernel/btf/vmlinux")


@pytest.fixture(autouse=True)
def needs_bpf():
    if not may_capture():
        pytest.skip("missing capability: root with CAP_BPF and kernel BTF")


@pytest.fixture
def nginx(tmp_path):
    (port,) = free_ports(1)
    folder = tmp_path / "nginx"
    (folder / "file").mkdir(parents=True)
    folder.chmod(0o755)
    tmp_path.chmod(0o755)
    (folder / "file" / "big").write_bytes(b"x" * 300_000)
    conf = folder / "nginx.conf"
    conf.write_text(NGINX.format(dir=folder, port=port))
    child = Child(["nginx", "-e", folder / "error.log", "-c", conf], tmp_path / "nginx.log")
    child.port = port
    wait_until(lambda: accepts(port), what="nginx accepts")
    yield child
    child.stop()


@pytest.fixture
def agent(tmp_path, sink):
    started = []

    def start(selection):
        a = Gateway(tmp_path, AGENT, name=f"agent{len(started)}", binary="tailrace-agent",
                    selection=selection, sink=sink.grpc_port)
        started.append(a)
        a.child.wait_log("Everything is ready")
        return a

    yield start
    for a in started:
        if a.child.alive():
            assert a.stop() == 0, a.child.log()[-4000:]


def attributes(span):
    out = {}
    for a in span.attributes:
        which = a.value.WhichOneof("value")
        out[a.key] = getattr(a.value, which) if which else None
    return out


def spans_of(sink, kind=None):
    spans = [Span.FromString(s) for s in sink.spans()]
    return [s for s in spans if kind is None or s.kind == kind]


def test_requests_are_server_spans(agent, nginx, sink):
    """Keep-alive, 8 clients in parallel: as many spans as requests, none twice, none missing."""
    agent(f"port: [{nginx.port}]")
    n, url = 4000, f"http://127.0.0.1:{nginx.port}"
    load = subprocess.run(["ab", "-q", "-k", "-c", "8", "-n", str(n), f"{url}/load?q=1"],
                          capture_output=True, text=True, timeout=60)
    assert "Complete requests:      4000" in load.stdout, load.stdout + load.stderr
    wait_until(lambda: sink.span_count() >= n, 30, f"{n} spans")
    assert stable(sink.span_count) == n
    spans = spans_of(sink)
    assert {s.kind for s in spans} == {Span.SPAN_KIND_SERVER}
    assert len({s.span_id for s in spans}) == n
    kinds = collections.Counter(
        (a["http.request.method"], a["url.path"], a["http.response.status_code"], a["server.port"],
         a["http.response.body.size"]) for a in map(attributes, spans))
    assert kinds == {("GET", "/load", 200, nginx.port, 6): n}
    assert all(s.start_time_unix_nano <= s.end_time_unix_nano for s in spans)


def test_spans_wait_for_each_other(agent, nginx, sink):
    """Under a trickle a batch is handed on every 200 ms, not after each drain of the rings: it costs as
    much as a hundred spans. The first of a batch does not wait much longer."""
    agent(f"port: [{nginx.port}]")
    client, pace, n = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=20), threading.Event(), 0
    began = time.monotonic()
    while (took := time.monotonic() - began) < 3:
        client.request("GET", "/trickle")
        assert client.getresponse().read() == b"hello\n"
        n += 1
        pace.wait(0.02)
    client.close()
    wait_until(lambda: sink.span_count() >= n, 20, f"{n} spans")
    requests, arrivals = len(sink.requests["traces"]), sink.arrivals["traces"]
    print(f"{n} spans in {requests} requests, {took:.2f} s")
    assert 2 <= requests <= took / 0.2 + 1
    assert arrivals[0] - began < 1.5 * PATIENCE


def test_status_and_body_sizes(agent, nginx, sink):
    agent(f"port: [{nginx.port}]")
    url = f"http://127.0.0.1:{nginx.port}"
    for args in (["/missing"], ["/broken"], ["/file/big"], ["-X", "POST", "-d", "y" * 5000, "/post"],
                 ["-I", "/head"]):
        subprocess.run(["curl", "-s", "-o", "/dev/null", *args[:-1], url + args[-1]], check=True,
                       timeout=20)
    wait_until(lambda: sink.span_count() >= 5, 20, "5 spans")
    by_path = {attributes(s)["url.path"]: (s, attributes(s)) for s in spans_of(sink)}
    assert by_path["/missing"][1]["http.response.status_code"] == 404
    assert by_path["/missing"][0].status.code == 0
    assert by_path["/broken"][1]["http.response.status_code"] == 503
    assert by_path["/broken"][0].status.code == 2
    assert by_path["/file/big"][1]["http.response.body.size"] == 300_000
    assert by_path["/post"][1]["http.request.body.size"] == 5000
    assert by_path["/post"][1]["http.request.method"] == "POST"
    assert by_path["/head"][1]["http.request.method"] == "HEAD"


def test_short_lived_clients(agent, nginx, sink):
    """300 curl processes, one after the other: 300 client spans, named."""
    agent("exe: ['*/curl']")
    n = 300
    for i in range(n):
        subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{nginx.port}/c{i}"],
                       check=True, timeout=20)

    def ours():  # others on this host may call curl, too
        return [s for s in spans_of(sink, Span.SPAN_KIND_CLIENT)
                if attributes(s).get("server.port") == nginx.port]

    wait_until(lambda: len(ours()) >= n, 30, f"{n} spans")
    assert stable(lambda: len(ours())) == n
    spans = ours()
    assert {attributes(s)["url.path"] if "url.path" in attributes(s) else attributes(s)["url.full"].split(str(nginx.port))[1]
            for s in spans} == {f"/c{i}" for i in range(n)}
    resources = {r for r, _, _ in sink.records()}
    assert all(b"curl" in r for r in resources)


def test_doctor_tells_what_capturing_uses():
    """What the table says works is what the agent then attaches: its tier is the one it runs by."""
    done = subprocess.run([program("tailrace-agent"), "doctor"], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[1:-1]]
    works = {(r[0], r[1]): r[2] for r in rows}
    assert works[("tp_btf/sock_send_length", "tr_send_length")] == "yes"
    assert works[("tp_btf/sock_recv_length", "tr_recv_length")] == "yes"
    assert done.stdout.splitlines()[-1] == "capture tier: sock_length"


def doctor():
    done = subprocess.run([program("tailrace-agent"), "doctor"], capture_output=True, text=True, timeout=60)
    return {line.split()[1]: line.split()[2] for line in done.stdout.splitlines()[1:-1]}


@pytest.mark.parametrize("tier,programs", [
    ("sock_length", ["tr_send_length", "tr_recv_length"]),
    ("fexit", ["tr_fexit_send", "tr_fexit_recv"]),
    ("kprobe", ["tr_kprobe_send", "tr_kreturn_recv"]),
])
def test_a_tier_that_is_forced_runs_or_is_an_error_that_names_it(tmp_path, tier, programs):
    """As doctor says: it captures by that tier, or does not start, and never by another one."""
    works = doctor()
    child = Child([program("tailrace-agent"), "--port", "1", "--capture-tier", tier, "--set",
                   "service.telemetry.metrics.level=none"], tmp_path / "log",
                  env=dict(os.environ, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1"))
    try:
        if all(works[p] == "yes" for p in programs):
            child.wait_log(f"capturing by tier {tier}\n")
        else:
            assert child.wait(30) == 1
            assert f"capture_tier: {tier}: tr_" in child.log()
            assert "capturing by" not in child.log()
    finally:
        child.stop()


def test_a_tier_that_is_not_in_this_build_is_refused_by_name():
    done = subprocess.run([program("tailrace-agent"), "--port", "1", "--capture-tier", "syscall", "--set",
                           "service.telemetry.metrics.level=none"], capture_output=True, text=True,
                          timeout=30, env=dict(os.environ, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1"))
    assert done.returncode == 1
    assert "capture_tier: syscall" in done.stderr + done.stdout


def test_another_pid_namespace_is_an_error_not_silence(tmp_path):
    """There the kernel's numbers of processes mean nothing, and nothing would ever be seen."""
    child = Child(["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", program("tailrace-agent"),
                   "--port", "1", "--set", "service.telemetry.metrics.level=none"], tmp_path / "log",
                  env=dict(os.environ, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1"))
    try:
        assert child.wait(30) == 1
        assert "not in the host's PID namespace" in child.log() and "hostPID: true" in child.log()
    finally:
        child.stop()
