# SPDX-License-Identifier: Apache-2.0
"""TLS between real programs: exporters to grpcio's and Python's servers, curl and grpcio to the receivers. A
client without tls.insecure speaks TLS or fails, as the Collector's does.
"""

import socket
import ssl
import subprocess

import grpc
import pytest

from harness import ledger
from harness.gateway import TELEMETRY
from harness.otlp import TRACE_METHOD, SpanMaker, request
from harness.sink import Sink
from harness.wait import stable, wait_until

EXPORTER = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
exporters:
  {exporter}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [{name}]}}
""" + TELEMETRY

RECEIVER = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}", tls: {{cert_file: {cert}, key_file: {key}}}}}
      http: {{endpoint: "127.0.0.1:{http}", tls: {{cert_file: {cert}, key_file: {key}}}}}
exporters:
  otlp_grpc: {{endpoint: "127.0.0.1:{sink}", tls: {{insecure: true}}}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_grpc]}}
""" + TELEMETRY


class Authority:
    """A certificate authority and server certificates of it, made with openssl."""

    def __init__(self, path, name):
        self.path = path / name
        self.path.mkdir()
        self.ca = self.path / "ca.pem"
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                      f"/CN={name}", "-keyout", self.path / "ca.key", "-out", self.ca)

    def _openssl(self, *args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=60)

    def server(self, name, alternative):
        """(certificate file, key file) of a server with that subjectAltName."""
        key, ask, cert, ext = (self.path / f"{name}.{s}" for s in ("key", "csr", "pem", "ext"))
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key,
                      "-out", ask)
        ext.write_text(f"subjectAltName={alternative}\n")
        self._openssl("x509", "-req", "-days", "2", "-in", ask, "-CA", self.ca, "-CAkey",
                      self.path / "ca.key", "-CAcreateserial", "-extfile", ext, "-out", cert)
        return cert, key


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    path = tmp_path_factory.mktemp("tls")
    ours, others = Authority(path, "ours"), Authority(path, "others")
    return {"ca": ours.ca, "other_ca": others.ca, "local": ours.server("local", "IP:127.0.0.1,DNS:localhost"),
            "named": ours.server("named", "DNS:gateway.test")}


def grpc_credentials(pair):
    cert, key = pair
    return grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])


@pytest.fixture
def secure_sink(certificates):
    """A function that starts a sink with TLS, of the certificate named."""
    started = []

    def start(certificate="local"):
        started.append(Sink(credentials=grpc_credentials(certificates[certificate])))
        return started[-1]
    yield start
    for s in started:
        s.stop()


def spans():
    return request(SpanMaker(seed=4).trace(n=5))


def exporting(gateway, exporter, name="otlp_grpc"):
    """A gateway with that exporter (a line of YAML) that has just got five spans."""
    line = exporter.replace("{", "{{").replace("}", "}}")
    gw = gateway(EXPORTER.replace("{exporter}", line).replace("{name}", name))
    gw.export(spans())
    return gw


GRPC = 'otlp_grpc: {endpoint: "%s", retry_on_failure: {initial_interval: 100ms, max_interval: 200ms}, tls: {%s}}'


def arrives(sink):
    wait_until(lambda: sink.span_count() == 5, 20, "the spans")


def fails(gw, sink, why):
    """The exporter says why, and nothing arrives; the spans are held."""
    wait_until(lambda: why in gw.child.log(), 20, f"'{why}' in the log")
    assert stable(sink.span_count, quiet=0.5) == 0
    assert ledger.term(gw.scrape(), "exporter/", "held") == 5
    gw.child.kill()


def test_a_client_believes_its_authority_only(gateway, secure_sink, certificates):
    sink = secure_sink()
    at = f"127.0.0.1:{sink.grpc_port}"
    exporting(gateway, GRPC % (at, f"ca_file: {certificates['ca']}"))
    arrives(sink)
    sink.clear()
    fails(exporting(gateway, GRPC % (at, f"ca_file: {certificates['other_ca']}")), sink, "certificate")
    fails(exporting(gateway, GRPC % (at, "")), sink, "certificate")  # the system's authorities
    exporting(gateway, GRPC % (at, "insecure_skip_verify: true"))
    arrives(sink)


def test_the_name_must_be_the_certificates(gateway, secure_sink, certificates):
    sink = secure_sink("named")
    at, ca = f"127.0.0.1:{sink.grpc_port}", f"ca_file: {certificates['ca']}"
    fails(exporting(gateway, GRPC % (at, ca)), sink, "certificate")
    exporting(gateway, GRPC % (at, f"{ca}, server_name_override: gateway.test"))
    arrives(sink)


def test_a_client_refuses_plain_text(gateway, sink):
    """A back end without TLS gets nothing, not even from a client that would accept any certificate."""
    at = f"127.0.0.1:{sink.grpc_port}"
    fails(exporting(gateway, GRPC % (at, "insecure_skip_verify: true")), sink, "Will retry")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_scheme_decides(gateway, sink, secure_sink, certificates, scheme):
    """http:// means plain text and https:// TLS, whatever tls.insecure says."""
    where = sink if scheme == "http" else secure_sink()
    keys = "insecure: false" if scheme == "http" else f"insecure: true, ca_file: {certificates['ca']}"
    exporting(gateway, GRPC % (f"{scheme}://localhost:{where.grpc_port}", keys))
    arrives(where)


def test_otlp_http_over_https(gateway, sink, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates["local"])
    sink._http.socket = context.wrap_socket(sink._http.socket, server_side=True)
    line = 'otlp_http: {endpoint: "https://localhost:%d", tls: {ca_file: %s}}'
    exporting(gateway, line % (sink.http_port, certificates["ca"]), name="otlp_http")
    arrives(sink)
    line = ('otlp_http: {endpoint: "http://localhost:%d", '
            'retry_on_failure: {initial_interval: 100ms, max_interval: 200ms}}')
    sink.clear()
    fails(exporting(gateway, line % sink.http_port, name="otlp_http"), sink, "Will retry")


def test_receivers_with_real_clients(gateway, sink, certificates, tmp_path):
    cert, key = certificates["local"]
    gw = gateway(RECEIVER, sink=sink.grpc_port, cert=cert, key=key)
    body = spans().SerializeToString()
    credentials = grpc.ssl_channel_credentials(certificates["ca"].read_bytes())
    with grpc.secure_channel(f"localhost:{gw.grpc}", credentials) as channel:
        assert channel.unary_unary(TRACE_METHOD)(body, timeout=20) == b""
    wait_until(lambda: sink.span_count() == 5, 20, "spans by gRPC")
    data = tmp_path / "body"
    data.write_bytes(body)
    for version in ("--http1.1", "--http2"):
        done = subprocess.run(
            ["curl", "-sS", version, "--cacert", certificates["ca"], "-o", "/dev/null", "-w",
             "%{http_code} %{http_version}", "-H", "content-type: application/x-protobuf",
             "--data-binary", f"@{data}", f"https://localhost:{gw.http}/v1/traces"],
            capture_output=True, text=True, timeout=30)
        assert done.stdout == f"200 {version.removeprefix('--http')}", done.stderr
    wait_until(lambda: sink.span_count() == 15, 20, "spans by HTTP")
    # ALPN: gRPC's port speaks h2 alone, the other one both.
    for port, offered, agreed in [(gw.grpc, ["h2"], "h2"), (gw.http, ["h2", "http/1.1"], "h2"),
                                  (gw.http, ["http/1.1"], "http/1.1")]:
        context = ssl.create_default_context(cafile=certificates["ca"])
        context.set_alpn_protocols(offered)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw, \
                context.wrap_socket(raw, server_hostname="localhost") as s:
            assert s.selected_alpn_protocol() == agreed and s.version() in ("TLSv1.2", "TLSv1.3")
    # Plain text on these ports is no request.
    with pytest.raises(grpc.RpcError):
        gw.export(body, timeout=5)
    with socket.create_connection(("127.0.0.1", gw.http), timeout=10) as s:
        s.sendall(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        assert b"HTTP/1.1 200" not in s.recv(1000)
    assert sink.span_count() == 15
