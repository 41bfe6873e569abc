# SPDX-License-Identifier: Apache-2.0
"""The agent as people start it: without a file, and with nginx in front of a service."""

import subprocess
import sys

import pytest

from harness.capture import Agent, Nginx, Seen
from harness.process import Child, program
from harness.wait import accepts, free_ports, stable, wait_until

pytestmark = pytest.mark.root

SERVICE = """
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\\r\\n%s\\r\\n0\\r\\n\\r\\n" % (len(body), body))
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""


def test_nginx_before_a_python_service(tmp_path, sink):
    app, = free_ports(1)
    service = Child([sys.executable, "-c", SERVICE, app], tmp_path / "service.log",
                    env={"OTEL_SERVICE_NAME": "orders", "OTEL_RESOURCE_ATTRIBUTES": "team=a"})
    nginx = Nginx(tmp_path, app=app)
    a = None
    try:
        wait_until(lambda: accepts(app), 10, "the service accepts")
        a = Agent(tmp_path, sink, ports=[nginx.port, app], exe="['*/curl']")
        n = 60
        for i in range(n):
            post = ["-d", "x" * 50] if i % 2 else []
            subprocess.run(["curl", "-s", "-o", "/dev/null", *post, f"http://127.0.0.1:{nginx.port}/app/{i}"],
                           check=True)
        spans = [s for s in a.settled(4 * n) if s.path and s.path.startswith("/app/")]
        rows = {}
        for s in spans:
            rows.setdefault((s.resource["service.name"], s.is_server), []).append(s)
        assert {k: len(v) for k, v in rows.items()} == {
            ("curl", False): n, ("nginx", True): n, ("nginx", False): n, ("orders", True): n}
        for who, got in rows.items():
            assert {s.path for s in got} == {f"/app/{i}" for i in range(n)}, who
            for s in got:
                odd = int(s.path.split("/")[-1]) % 2
                assert s.attrs["http.request.method"] == ("POST" if odd else "GET")
                assert s.attrs["http.response.status_code"] == (201 if odd else 200)
                assert s.attrs["http.request.body.size"] == (50 if odd else 0)
                assert s.attrs["http.response.body.size"] == (50 if odd else len(s.path))
        assert {s.resource.get("team") for s in rows["orders", True]} == {"a"}
        order = [("curl", False), ("nginx", True), ("nginx", False), ("orders", True)]
        for i in range(n):
            chain = [next(s for s in rows[k] if s.path == f"/app/{i}") for k in order]
            assert [s.start for s in chain] == sorted(s.start for s in chain), chain
        a.assert_ledger()
    finally:
        if a:
            assert a.stop() == 0
        nginx.stop()
        service.kill()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_without_a_file(tmp_path, sink, protocol):
    nginx = Nginx(tmp_path)
    port = sink.grpc_port if protocol == "grpc" else sink.http_port
    child = Child([program("tailrace-agent"), "--port", nginx.port, "--set",
                   "service::telemetry::metrics::level=none"], tmp_path / "agent.log",
                  env={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                       "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                       "OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"})
    try:
        child.wait_log("Everything is ready")
        for i in range(5):
            subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{nginx.port}/echo/{i}"], check=True)
        seen = lambda: [Seen(res, rec) for res, _, rec in sink.records("traces")]
        wait_until(lambda: len(seen()) >= 5, 20, "spans")
        stable(lambda: len(seen()))
        assert [s.path for s in sorted(seen(), key=lambda s: s.start)] == [f"/echo/{i}" for i in range(5)]
        assert {s.resource["service.name"] for s in seen()} == {"shop"}
        assert {s.resource["deployment.environment.name"] for s in seen()} == {"test"}
    finally:
        assert child.stop() == 0, child.log()[-3000:]
        nginx.stop()


RULES = """
rules:
  - name: front
    namespace: shop
    ports: [{port}]
    attributes: [{{key: team, value: web}}]
  - name: never
    executables: ["*/nginx"]
  - executables: ["*/curl"]
    namespace: people
"""


def test_discovery_rules_select_and_name(tmp_path, sink):
    nginx = Nginx(tmp_path)
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES.format(port=nginx.port))
    child = Child([program("tailrace-agent"), "--discovery", rules, "--set",
                   "service::telemetry::metrics::level=none"], tmp_path / "agent.log",
                  env={"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink.grpc_port}",
                       "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    try:
        child.wait_log("Everything is ready")
        for i in range(5):
            subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{nginx.port}/echo/{i}"], check=True)
        seen = lambda: [s for s in (Seen(res, rec) for res, _, rec in sink.records("traces"))
                        if s.port == nginx.port]
        wait_until(lambda: len(seen()) >= 10, 20, "spans")
        stable(lambda: len(seen()))
        servers = [s.resource for s in seen() if s.is_server]
        clients = [s.resource for s in seen() if not s.is_server]
        assert len(servers) == len(clients) == 5
        assert {(r["service.name"], r["service.namespace"], r["team"]) for r in servers} == {("front", "shop", "web")}
        assert {(r["service.name"], r["service.namespace"], r.get("team")) for r in clients} == {("curl", "people", None)}
    finally:
        assert child.stop() == 0, child.log()[-3000:]
        nginx.stop()


def test_a_bad_rule_is_told_with_its_place(tmp_path):
    rules, config = tmp_path / "rules.yaml", tmp_path / "agent.yaml"
    rules.write_text("rules:\n  - name: front\n    ports: [80]\n    exe: [x]\n")
    config.write_text(f"""
receivers:
  ebpf: {{discovery_file: {rules}}}
exporters: {{debug: }}
service: {{pipelines: {{traces: {{receivers: [ebpf], exporters: [debug]}}}}}}
""")
    done = subprocess.run([program("tailrace-agent"), "--config", config, "validate"],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert f"{config}:3:" in done.stderr and f"{rules}:4:5: Unexpected key: exe" in done.stderr, done.stderr
