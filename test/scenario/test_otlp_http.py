# SPDX-License-Identifier: Apache-2.0
"""otlp_http: what goes out by HTTP/1.1 arrives byte for byte, refusals and lost answers are tried again."""

import itertools

import pytest

from harness import ledger
from harness.gateway import TELEMETRY
from harness.otlp import raw_records
from harness.wait import wait_until
from test_forward import make_request

CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}}}}}
exporters:
  otlp_http:
    endpoint: http://127.0.0.1:{sink}
    compression: {compression}
    retry_on_failure: {{initial_interval: 100ms}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [otlp_http]}}
""" + TELEMETRY


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_spans_arrive_byte_for_byte(gateway, sink, compression):
    gw = gateway(CONFIG, sink=sink.http_port, compression=compression)
    body = make_request()
    gw.export(body)
    wait_until(lambda: sink.span_count() == 50, what="50 spans at the sink")
    assert sink.records() == list(raw_records(body))
    ledger.assert_explained(gw.self_metrics)
    assert gw.stop() == 0


def test_refusals_are_tried_again(gateway, sink):
    answers = itertools.chain([503, 503], itertools.repeat(None))
    sink.fault = lambda signal, body: next(answers)
    gw = gateway(CONFIG, sink=sink.http_port, compression="gzip")
    gw.export(make_request())
    wait_until(lambda: sink.span_count() == 50, what="50 spans at the sink")
    ledger.assert_explained(gw.self_metrics)


def test_a_lost_answer_is_counted_uncertain(gateway, sink):
    """The back end keeps the data and closes without an answer: at least once, and told."""
    answers = itertools.chain(["drop"], itertools.repeat(None))
    sink.fault = lambda signal, body: next(answers)
    gw = gateway(CONFIG, sink=sink.http_port, compression="gzip")
    gw.export(make_request())
    wait_until(lambda: sink.span_count() == 100, what="the spans twice")
    ledger.assert_explained(gw.self_metrics)
    assert ledger.term(gw.scrape(), "exporter/otlp_http", "uncertain") == 50
    assert ledger.term(gw.scrape(), "exporter/otlp_http", "sent") == 50
