# SPDX-License-Identifier: Apache-2.0
"""An OTLP back end that keeps what it gets, byte for byte, and can be made to misbehave."""

import collections
import gzip
import http.server
import threading
import time
from concurrent import futures

import grpc

from . import otlp

SIGNAL_OF_METHOD = {otlp.TRACE_METHOD: "traces", otlp.METRICS_METHOD: "metrics",
                    otlp.LOGS_METHOD: "logs"}
SIGNAL_OF_PATH = {"/v1/traces": "traces", "/v1/metrics": "metrics", "/v1/logs": "logs"}


class Answer:
    """What a fault may ask for in detail. status: a grpc.StatusCode or an HTTP status; details: bytes of
    grpc-status-details-bin; body: the answer's message. The data is kept if the status is a success."""

    def __init__(self, status, details=b"", headers=(), body=b""):
        self.status, self.details, self.headers, self.body = status, details, dict(headers), body

    def accepts(self):
        return self.status is grpc.StatusCode.OK or (
            isinstance(self.status, int) and 200 <= self.status < 300)


class Sink:
    """gRPC on .grpc_port and HTTP on .http_port of .host, an address of loopback.

    fault: None, or a function (signal, body) -> None to accept, a grpc.StatusCode, an Answer, or "drop"
    to keep the data and close without an answer (HTTP only). credentials: gRPC with TLS.
    """

    def __init__(self, delay=0.0, host="127.0.0.1", grpc_port=0, http_port=0, credentials=None):
        self.host = host
        self.lock = threading.Lock()
        self.requests = collections.defaultdict(list)
        self.delay = delay
        self.fault = None
        self.metadata = []
        self.http_headers = []
        self.arrivals = collections.defaultdict(list)  # times of all attempts, by signal
        self.credentials = credentials
        self.grpc_port = grpc_port
        self.http_port = http_port
        self._grpc = None
        self._http = None
        self.start()

    def start(self):
        self._start_grpc()
        self._start_http()

    def _start_grpc(self):
        sink = self

        class Handler(grpc.GenericRpcHandler):
            def service(self, details):
                signal = SIGNAL_OF_METHOD.get(details.method)
                if signal is None:
                    return None
                return grpc.unary_unary_rpc_method_handler(
                    lambda body, ctx: sink._on_grpc(signal, body, ctx))

        self._grpc = grpc.server(futures.ThreadPoolExecutor(8), options=[
            ("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)])
        self._grpc.add_generic_rpc_handlers((Handler(),))
        address = f"{self.host}:{self.grpc_port}"
        self.grpc_port = (self._grpc.add_secure_port(address, self.credentials) if self.credentials
                          else self._grpc.add_insecure_port(address))
        assert self.grpc_port, "the sink's gRPC port could not be bound"
        self._grpc.start()

    def _start_http(self):
        sink = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                signal = SIGNAL_OF_PATH.get(self.path)
                with sink.lock:
                    sink.http_headers.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                verdict = sink._take(signal, body)
                if verdict == "drop":
                    self.close_connection = True
                    self.connection.close()
                    return
                answer = verdict if isinstance(verdict, Answer) else Answer(503 if verdict else 200)
                self.send_response(answer.status)
                for k, v in {"content-type": "application/x-protobuf", **answer.headers}.items():
                    self.send_header(k, v)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *args):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._http = Server((self.host, self.http_port), Handler)
        self.http_port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def _on_grpc(self, signal, body, ctx):
        with self.lock:
            self.metadata.append(dict(ctx.invocation_metadata()))
        verdict = self._take(signal, body)
        if isinstance(verdict, Answer):
            if verdict.details:
                ctx.set_trailing_metadata((("grpc-status-details-bin", verdict.details),))
            if not verdict.accepts():
                ctx.abort(verdict.status, "made to fail")
            return verdict.body
        if verdict is not None:
            ctx.abort(verdict, "made to fail")
        return b""

    def _take(self, signal, body):
        if self.delay:
            time.sleep(self.delay)
        verdict = self.fault(signal, body) if self.fault else None
        kept = verdict.accepts() if isinstance(verdict, Answer) else verdict in (None, "drop")
        with self.lock:
            self.arrivals[signal].append(time.monotonic())
            if kept:
                self.requests[signal].append(body)
        return verdict

    def records(self, signal="traces"):
        """[(resource, scope, record bytes)] of all that was accepted, in order of arrival."""
        with self.lock:
            bodies = list(self.requests[signal])
        return [r for body in bodies for r in otlp.raw_records(body)]

    def spans(self):
        return [rec for _, _, rec in self.records("traces")]

    def span_count(self):
        return len(self.spans())

    def clear(self):
        with self.lock:
            self.requests.clear()

    def stop(self):
        """Stops answering: connections are refused from here on. start() opens the same ports."""
        if self._grpc:
            self._grpc.stop(0).wait()
            self._grpc = None
        if self._http:
            self._http.shutdown()
            self._http.server_close()
            self._http = None
