# SPDX-License-Identifier: Apache-2.0
"""The walk against a full decode: random messages, mutated on the wire, by the opentelemetry-proto
package and by batch_read. The result equals the decoder's or is refused, never different.

The seed is printed with a failure; TAILRACE_SEED and TAILRACE_ROUNDS change what is run.
"""

import json
import os
import random
import struct
import subprocess

import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from harness.otlp_json import ids_as_base64
from harness.process import ROOT
from harness.random_otlp import REQUESTS, damage, make_request, mutate

SEED = int(os.environ.get("TAILRACE_SEED", "20"))
ROUNDS = int(os.environ.get("TAILRACE_ROUNDS", "12000"))
TOOL = ROOT / "build" / "gcc" / "test" / "tools" / "otlp_dump"

def run(inputs, signal="traces"):
    stream = b"".join(struct.pack("<I", len(i)) + i for i in inputs)
    done = subprocess.run([TOOL, signal], input=stream, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(inputs)
    return [json.loads(line) for line in lines]


def decode(data, signal="traces"):
    try:
        return REQUESTS[signal][0].FromString(data)
    except DecodeError:
        return None


def all_spans(req):
    return [s for r in req.resource_spans for ss in r.scope_spans for s in ss.spans]


def padded(value, n):
    return (value if len(value) == n else b"\0" * n).hex()


def expected(span):
    return {"start": span.start_time_unix_nano, "end": span.end_time_unix_nano,
            "status": span.status.code if 0 <= span.status.code <= 2 else 0,
            "kind": span.kind if 0 <= span.kind <= 5 else 0, "flags": span.flags,
            "trace": padded(span.trace_id, 16), "span": padded(span.span_id, 8),
            "parent": padded(span.parent_span_id, 8), "name": span.name.encode().hex()}


def edited(req):
    """What the tool's edit is meant to do, on the decoded message."""
    def put_attr(attrs, key, value):
        kept = [KeyValue.FromString(a.SerializeToString()) for a in attrs]
        for i, a in enumerate(kept):
            if a.key == key:
                a.value.CopyFrom(value)
                kept = kept[:i + 1] + [b for b in kept[i + 1:] if b.key != key]
                break
        else:
            kept.append(KeyValue(key=key, value=value))
        del attrs[:]
        attrs.extend(kept)
    i = 0
    out = ExportTraceServiceRequest()
    for r in req.resource_spans:
        if not any(ss.spans for ss in r.scope_spans):
            continue
        rs = out.resource_spans.add()
        rs.CopyFrom(r)
        del rs.scope_spans[:]
        put_attr(rs.resource.attributes, "r", AnyValue(string_value="set"))
        for ss in r.scope_spans:
            if not ss.spans:
                continue
            rs.scope_spans.add().CopyFrom(ss)
            for s in rs.scope_spans[-1].spans:
                kept = [KeyValue.FromString(a.SerializeToString()) for a in s.attributes if a.key != "a"]
                del s.attributes[:]
                s.attributes.extend(kept)
                put_attr(s.attributes, "added", AnyValue(int_value=i))
                i += 1
    return out


def test_walk_equals_a_full_decode():
    rng = random.Random(SEED)
    inputs = [damage(rng, mutate(rng, make_request(rng).SerializeToString())) for _ in range(ROUNDS)]
    refused = accepted = 0
    for number, (data, got) in enumerate(zip(inputs, run(inputs))):
        where = f"seed {SEED}, input {number}: {data.hex()}"
        want = decode(data)
        if not got["ok"]:
            refused += 1
            continue
        assert want is not None, f"accepted what the decoder refuses: {where}"
        accepted += 1
        spans = all_spans(want)
        assert got["items"] == len(spans), where
        assert got["spans"] == [expected(s) for s in spans], where
        # Unknown fields of the request itself belong to no record; all others survive.
        want = ExportTraceServiceRequest(resource_spans=want.resource_spans)
        assert decode(bytes.fromhex(got["framed"])) == want, where
        if spans:
            assert decode(bytes.fromhex(got["edited"])) == edited(want), where
            half = all_spans(decode(bytes.fromhex(got["half"])))
            assert half == spans[::2], where
    assert accepted > ROUNDS // 2 and refused > ROUNDS // 50


def all_records(req, signal):
    _, resources, scopes, records, _ = REQUESTS[signal]
    return [x for r in getattr(req, resources) for s in getattr(r, scopes) for x in getattr(s, records)]


def items(record, signal):
    if signal != "metrics":
        return 1
    kind = record.WhichOneof("data")
    return len(getattr(record, kind).data_points) if kind else 0


def same(a, b):
    """Byte for byte: NaN equals no NaN in a comparison of messages."""
    return a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True)


def points(req):
    """Every data point with its metric's name and kind, in order."""
    out = []
    for m in all_records(req, "metrics"):
        kind = m.WhichOneof("data")
        out += [(m.name, kind, p.SerializeToString()) for p in getattr(m, kind).data_points] if kind else []
    return out


@pytest.mark.parametrize("signal", ["metrics", "logs"])
def test_walk_of_metrics_and_logs_equals_a_full_decode(signal):
    rng = random.Random(SEED + 2)
    rounds = ROUNDS // 2
    inputs = [damage(rng, mutate(rng, make_request(rng, signal).SerializeToString(), signal))
              for _ in range(rounds)]
    refused = accepted = 0
    for number, (data, got) in enumerate(zip(inputs, run(inputs, signal))):
        where = f"{signal}, seed {SEED + 2}, input {number}: {data.hex()}"
        want = decode(data, signal)
        if not got["ok"]:
            refused += 1
            continue
        assert want is not None, f"accepted what the decoder refuses: {where}"
        accepted += 1
        records = all_records(want, signal)
        assert got["items"] == sum(items(r, signal) for r in records), where
        want = type(want)(**{REQUESTS[signal][1]: getattr(want, REQUESTS[signal][1])})
        assert same(decode(bytes.fromhex(got["framed"]), signal), want), where
        if records:
            half = all_records(decode(bytes.fromhex(got["half"]), signal), signal)
            assert len(half) == len(records[::2]), where
            assert all(same(a, b) for a, b in zip(half, records[::2])), where
        if "head" in got:
            head, tail = (decode(bytes.fromhex(got[k]), signal) for k in ("head", "tail"))
            assert got["head_items"] == sum(items(r, signal) for r in all_records(head, signal)), where
            if signal == "metrics":
                assert points(head) + points(tail) == points(want), where
            else:
                parts = all_records(head, signal) + all_records(tail, signal)
                assert len(parts) == len(records) and all(map(same, parts, records)), where
    assert accepted > rounds // 2 and refused > rounds // 50


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_json_equals_protobufs_mapping(signal):
    """Parsed, it is what json_format writes, ids apart."""
    rng = random.Random(SEED + 3)
    inputs = [mutate(rng, make_request(rng, signal).SerializeToString(), signal) for _ in range(ROUNDS // 4)]
    compared = 0
    for number, (data, got) in enumerate(zip(inputs, run(inputs, signal))):
        where = f"{signal}, seed {SEED + 3}, input {number}: {data.hex()}"
        want = decode(data, signal)
        if want is None or not got["ok"]:
            continue
        text = bytes.fromhex(got["json"]).decode()
        assert "\n" not in text
        want = json_format.MessageToDict(want, use_integers_for_enums=True)
        key = {"traces": "resourceSpans", "metrics": "resourceMetrics", "logs": "resourceLogs"}[signal]
        want.setdefault(key, [])
        assert repr_of(ids_as_base64(json.loads(text))) == repr_of(want), where
        compared += 1
    assert compared > len(inputs) * 0.9


def repr_of(value):
    """Comparable, with numbers by value: 5 and 5.0 are one number, 0 and -0.0 are not."""
    if isinstance(value, dict):
        return {k: repr_of(v) for k, v in value.items()}
    if isinstance(value, list):
        return [repr_of(v) for v in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(float(value))  # 64-bit integers are strings
    return value


def test_what_was_not_damaged_is_accepted():
    """Another way of writing the same message is no reason to refuse it."""
    for signal in REQUESTS:
        rng = random.Random(SEED + 1)
        inputs = [mutate(rng, make_request(rng, signal).SerializeToString(), signal)
                  for _ in range(ROUNDS // 3)]
        for number, (data, got) in enumerate(zip(inputs, run(inputs, signal))):
            assert got["ok"] or decode(data, signal) is None, f"seed {SEED + 1}, input {number}: {got}"
