# SPDX-License-Identifier: Apache-2.0
"""Unmodified OpenTelemetry SDKs export to the gateway, by gRPC and by HTTP."""

import shutil
import subprocess
import sys

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from harness.metrics import total
from harness.process import ROOT
from harness.wait import wait_until
from test_forward import FORWARD

APPS = ROOT / "test" / "apps"
COUNT = 2000


def python_app():
    return [sys.executable, APPS / "sdk_python.py"]


def node_app():
    """Installs the SDK's packages once; the lock file names registries and is not kept."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("missing program: node with npm")
    app = APPS / "sdk_node"
    if not (app / "node_modules").is_dir():
        subprocess.run(["npm", "install", "--silent"], cwd=app, check=True, timeout=300)
    return ["node", app / "index.js"]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("app,service", [(python_app, "sdk-python"), (node_app, "sdk-node")],
                         ids=["python", "node"])
def test_sdk_spans_arrive(gateway, sink, app, service, protocol):
    gw = gateway(FORWARD, sink=sink.grpc_port)
    endpoint = (f"http://127.0.0.1:{gw.grpc}" if protocol == "grpc"
                else f"http://127.0.0.1:{gw.http}/v1/traces")
    done = subprocess.run([*map(str, app()), protocol, endpoint, str(COUNT)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "flushed" in done.stdout, done.stdout + done.stderr

    wait_until(lambda: sink.span_count() >= COUNT, what=f"{COUNT} spans at the sink")
    records = sink.records()
    assert len(records) == COUNT
    spans = [Span.FromString(rec) for _, _, rec in records]
    assert all(f"{service}".encode() in res for res, _, _ in records)
    children = [s for s in spans if s.kind == Span.SPAN_KIND_CLIENT]
    assert len(children) == COUNT // 2
    assert {(s.status.code, s.status.message) for s in children} == {
        (Status.STATUS_CODE_ERROR, "näht")}
    parents = {s.span_id for s in spans if s.kind == Span.SPAN_KIND_SERVER}
    assert {s.parent_span_id for s in children} == parents
    accepted = total(gw.scrape(), "otelcol_receiver_accepted_spans")
    assert accepted == COUNT
