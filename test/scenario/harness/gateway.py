# SPDX-License-Identifier: Apache-2.0
"""A running gateway (or an agent without capture) with a configuration of the test's own."""

import grpc

from . import metrics, otlp
from .process import Child, program
from .wait import free_ports, wait_until


class Gateway:
    """Ports: .grpc .http (otlp receiver), .prom (prometheus exporter), .self_metrics, .health.

    `config` is YAML in which {grpc} {http} {prom} {metrics} {health} and the given `values` stand
    for ports; braces of YAML flow maps are therefore doubled.
    """

    def __init__(self, tmp_path, config, name="gateway", env=None, binary="tailrace-gateway",
                 args=(), prefix=(), **values):
        self.grpc, self.http, self.prom, self.self_metrics, self.health = free_ports(5)
        self.values = dict(values, grpc=self.grpc, http=self.http, prom=self.prom,
                           metrics=self.self_metrics, health=self.health)
        self.path = tmp_path / f"{name}.yaml"
        self.write(config)
        self.channel = None
        self.child = Child([*prefix, program(binary), "--config", self.path, *args],
                           tmp_path / f"{name}.log", env=env)

    def write(self, config):
        """Replaces the configuration file (then send SIGHUP)."""
        self.path.write_text(config.format(**self.values))

    def wait_ready(self, timeout=20):
        def ready():
            if not self.child.alive():
                raise AssertionError(f"gateway ended with {self.child.proc.returncode}:\n{self.child.log()[-4000:]}")
            return "Everything is ready" in self.child.log()
        wait_until(ready, timeout, "gateway is ready")
        return self

    def stub(self, method=otlp.TRACE_METHOD):
        if self.channel is None:
            self.channel = grpc.insecure_channel(
                f"127.0.0.1:{self.grpc}", options=[("grpc.max_send_message_length", 64 << 20)])
        return self.channel.unary_unary(method)

    def export(self, request, timeout=20):
        """Sends one request object or its bytes by gRPC and returns the answer's bytes."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        return self.stub()(body, timeout=timeout)

    def scrape(self):
        return metrics.scrape(self.self_metrics)

    def stop(self, timeout=30):
        if self.channel:
            self.channel.close()
            self.channel = None
        return self.child.stop(timeout)


# Every configuration of a test ends in this: self metrics and health on ports of its own.
TELEMETRY = """
  telemetry:
    logs: {{level: info}}
    metrics:
      readers:
        - pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {metrics}}}}}}}
"""
