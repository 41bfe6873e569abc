# SPDX-License-Identifier: Apache-2.0
"""The attributes processor against the Collector's facts: what each action does to values of each type, in
which order, and which spans and log records include and exclude choose.
"""

import hashlib
import struct

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from harness.gateway import TELEMETRY
from harness.otlp import LOGS_METHOD, add_attr
from harness.wait import wait_until


def config(processors, signal="traces"):
    """One pipeline for each processor {name: keys}; all get what the receiver gets."""
    blocks = "".join(f"  attributes/{name}:\n{keys}" for name, keys in processors.items())
    pipelines = "".join(f"    {signal}/{name}: {{receivers: [otlp], processors: [attributes/{name}], "
                        f"exporters: [otlp_grpc]}}\n" for name in processors)
    text = """
receivers:
  otlp: {protocols: {grpc: {endpoint: "127.0.0.1:<grpc>"}}}
exporters:
  otlp_grpc: {endpoint: "127.0.0.1:<sink>", tls: {insecure: true}}
processors:
""" + blocks + "service:\n  pipelines:\n" + pipelines
    text = text.replace("{", "{{").replace("}", "}}")
    return text.replace("<grpc>", "{grpc}").replace("<sink>", "{sink}") + TELEMETRY


def attrs_of(message):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) if a.value.WhichOneof("value") else None
            for a in message.attributes}


def sha(data):
    return hashlib.sha256(data).hexdigest()


ACTIONS = """
    actions:
      - {key: ins.new, action: insert, value: 7}
      - {key: ins.old, action: insert, value: 7}
      - {key: upd.new, action: update, value: x}
      - {key: upd.old, action: UPDATE, value: x}
      - {key: ups.new, action: upsert, value: 2.5}
      - {key: ups.old, action: upsert, value: true}
      - {key: copy, action: upsert, from_attribute: ins.old}
      - {key: copy.none, action: upsert, from_attribute: not.there}
      - {key: copy.default, action: upsert, from_attribute: not.there, default_value: d}
      - {key: del.one, action: delete}
      - {pattern: ^del\\.many, action: delete}
      - {key: h.text, action: hash}
      - {pattern: ^h\\.m, action: hash}
      - {key: h.twice, pattern: ^h\\.tw, action: hash}
      - {key: url, pattern: "^(?P<scheme>\\\\w+)://(?P<host>[^/]+)", action: extract}
      - {key: not.matching, pattern: "^(?P<never>x)$", action: extract}
      - {key: i.text, action: convert, converted_type: int}
      - {key: i.double, action: convert, converted_type: int}
      - {key: i.bool, action: convert, converted_type: int}
      - {key: i.bad, action: convert, converted_type: int}
      - {key: i.blank, action: convert, converted_type: int}
      - {key: d.text, action: convert, converted_type: double}
      - {key: d.int, action: convert, converted_type: double}
      - {key: d.bad, action: convert, converted_type: double}
      - {key: d.hex, action: convert, converted_type: double}
      - {key: d.huge, action: convert, converted_type: double}
      - {key: s.int, action: convert, converted_type: string}
      - {key: s.double, action: convert, converted_type: string}
      - {key: s.small, action: convert, converted_type: string}
      - {key: s.bool, action: convert, converted_type: string}
      - {key: chain, action: insert, value: 1}
      - {key: chain, action: upsert, value: 2}
      - {key: chain, action: convert, converted_type: string}
"""
GIVEN = {"ins.old": "kept", "upd.old": "y", "ups.old": 1, "del.one": 1, "del.many.a": 1, "del.many.b": 2,
         "h.text": "secret", "h.mint": 300, "h.mbool": True, "h.mdouble": 1.5, "h.mempty": "",
         "h.twice": "t", "url": "https://example.org/x", "host": "old", "not.matching": "abc",
         "i.text": "-42", "i.double": 3.9, "i.bool": True, "i.bad": "4x", "i.blank": " 4",
         "d.text": "1e3", "d.int": 5, "d.bad": "x", "d.hex": "0x10", "d.huge": "1e999",
         "s.int": 12, "s.double": 1e21, "s.small": 1e-7, "s.bool": False, "untouched": "u"}
WANTED = {"ins.new": 7, "ins.old": "kept", "upd.old": "x", "ups.new": 2.5, "ups.old": True,
          "copy": "kept", "copy.default": "d",
          "h.text": sha(b"secret"), "h.mint": sha(struct.pack("<q", 300)), "h.mbool": sha(b"\1"),
          "h.mdouble": sha(struct.pack("<d", 1.5)), "h.mempty": "",
          "h.twice": sha(sha(b"t").encode()), "url": "https://example.org/x", "scheme": "https",
          "host": "example.org", "not.matching": "abc",
          "i.text": -42, "i.double": 3, "i.bool": 1, "i.bad": "4x", "i.blank": " 4",
          "d.text": 1000.0, "d.int": 5.0, "d.bad": "x", "d.hex": "0x10", "d.huge": "1e999",
          "s.int": "12", "s.double": "1e+21", "s.small": "1e-7", "s.bool": "false",
          "chain": "2", "untouched": "u"}


def test_actions(sink, gateway):
    gw = gateway(config({"all": ACTIONS}), sink=sink.grpc_port)
    req = ExportTraceServiceRequest()
    span = req.resource_spans.add().scope_spans.add().spans.add(
        trace_id=b"t" * 16, span_id=b"s" * 8, name="op", status=Status(code=2))
    for k, v in GIVEN.items():
        add_attr(span.attributes, k, v)
    gw.export(req)
    wait_until(sink.span_count, 20, "the span")
    out = Span.FromString(sink.spans()[0])
    assert len(out.attributes) == len({a.key for a in out.attributes}), "a key twice"
    assert attrs_of(out) == WANTED
    assert (out.name, out.status.code, out.trace_id) == ("op", 2, b"t" * 16)


def test_lists_and_mappings_as_texts(sink, gateway):
    """Converted to a text they are JSON, keys sorted, bytes as base64."""
    gw = gateway(config({"all": """
    actions: [{key: m, action: convert, converted_type: string}, {key: b, action: convert, converted_type: string}]
"""}), sink=sink.grpc_port)
    req = ExportTraceServiceRequest()
    span = req.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8)
    m = span.attributes.add(key="m").value.kvlist_value
    m.values.add(key="b").value.array_value.values.extend(
        [AnyValue(int_value=1), AnyValue(string_value='x"'), AnyValue(double_value=0.5)])
    m.values.add(key="a").value.bool_value = True
    span.attributes.add(key="b").value.bytes_value = b"\xff\x00"
    gw.export(req)
    wait_until(sink.span_count, 20, "the span")
    assert attrs_of(Span.FromString(sink.spans()[0])) == {"m": '{"a":true,"b":[1,"x\\"",0.5]}', "b": "/wA="}


def choose(what, value=1):
    return f"""
    actions: [{{key: hit, action: upsert, value: {value}}}]
    {what}
"""


CHOICES = {
    "strict name": ("include: {match_type: strict, span_names: [op-1]}", {1}),
    "strict is whole": ("include: {match_type: strict, span_names: [op]}", set()),
    "regexp is part": ("include: {match_type: regexp, span_names: ['p-[12]']}", {1, 2}),
    "or within": ("include: {match_type: strict, span_names: [op-0, op-2]}", {0, 2}),
    "and between": ("include: {match_type: strict, span_names: [op-0, op-1], services: [shop-1]}", {1}),
    "service regexp": ("include: {match_type: regexp, services: ['shop-[01]']}", {0, 1}),
    "kind": ("include: {match_type: strict, span_kinds: [SPAN_KIND_SERVER]}", {0, 2}),
    "attribute there": ("include: {match_type: strict, attributes: [{key: odd}]}", {1, 3}),
    "attribute value": ("include: {match_type: strict, attributes: [{key: n, value: 2}]}", {2}),
    "attribute type": ("include: {match_type: strict, attributes: [{key: n, value: '2'}]}", set()),
    "attributes and": ("include: {match_type: strict, attributes: [{key: odd}, {key: n, value: 3}]}", {3}),
    "regexp of a number": ("include: {match_type: regexp, attributes: [{key: n, value: '^[13]$'}]}", {1, 3}),
    "resource": ("include: {match_type: strict, resources: [{key: zone, value: a}]}", {0, 2}),
    "library": ("include: {match_type: strict, libraries: [{name: lib, version: '2'}]}", {1, 3}),
    "any version": ("include: {match_type: strict, libraries: [{name: lib}]}", {0, 1, 2, 3}),
    "exclude": ("exclude: {match_type: strict, span_names: [op-1]}", {0, 2, 3}),
    "include then exclude": ("include: {match_type: regexp, span_names: ['op-[012]']}\n"
                             "    exclude: {match_type: strict, attributes: [{key: odd}]}", {0, 2}),
}


def test_who_is_chosen(sink, gateway):
    processors = {str(i): choose(what, i) for i, (what, _) in enumerate(CHOICES.values())}
    gw = gateway(config(processors), sink=sink.grpc_port)
    req = ExportTraceServiceRequest()
    for n in range(4):
        rs = req.resource_spans.add()
        add_attr(rs.resource.attributes, "service.name", f"shop-{n}")
        add_attr(rs.resource.attributes, "zone", "b" if n % 2 else "a")
        ss = rs.scope_spans.add()
        ss.scope.name, ss.scope.version = "lib", str(1 + n % 2)
        span = ss.spans.add(trace_id=b"t" * 16, span_id=bytes([n + 1] * 8), name=f"op-{n}",
                            kind=Span.SPAN_KIND_CLIENT if n % 2 else Span.SPAN_KIND_SERVER)
        add_attr(span.attributes, "n", n)
        if n % 2:
            add_attr(span.attributes, "odd", True)
    gw.export(req)
    wait_until(lambda: sink.span_count() == 4 * len(CHOICES), 20, "all spans of all pipelines")
    chosen = {name: set() for name in CHOICES}
    names = list(CHOICES)
    for record in sink.spans():
        attrs = attrs_of(Span.FromString(record))
        if "hit" in attrs:
            chosen[names[attrs["hit"]]].add(attrs["n"])
    assert chosen == {name: want for name, (_, want) in CHOICES.items()}


@pytest.mark.parametrize("what, want", [
    ("include: {match_type: regexp, log_bodies: [err]}", {0}),
    ("include: {match_type: strict, log_severity_texts: [INFO]}", {1}),
    ("exclude: {match_type: strict, attributes: [{key: n, value: 2}]}", {0, 1}),
])
def test_log_records(sink, gateway, what, want):
    gw = gateway(config({"logs": choose(what)}, signal="logs"), sink=sink.grpc_port)
    req = ExportLogsServiceRequest()
    logs = req.resource_logs.add().scope_logs.add().log_records
    for n, (text, body) in enumerate([("ERROR", "some err"), ("INFO", "fine"), ("WARN", 5)]):
        r = logs.add(severity_text=text)
        if isinstance(body, str):
            r.body.string_value = body
        else:
            r.body.int_value = body
        add_attr(r.attributes, "n", n)
    gw.stub(LOGS_METHOD)(req.SerializeToString(), timeout=20)
    wait_until(lambda: len(sink.records("logs")) == 3, 20, "the log records")
    all_attrs = [attrs_of(LogRecord.FromString(r)) for _, _, r in sink.records("logs")]
    assert {a["n"] for a in all_attrs if "hit" in a} == want
