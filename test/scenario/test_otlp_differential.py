"""The walk against a full decode: random messages, mutated on the wire, by the opentelemetry-proto
package and by batch_read. The result equals the decoder's or is refused, never different.

The seed is printed with a failure; TAILRACE_SEED and TAILRACE_ROUNDS change what is run.
"""

import json
import os
import random
import struct
import subprocess

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from harness.otlp import fields
from harness.process import ROOT

SEED = int(os.environ.get("TAILRACE_SEED", "20"))
ROUNDS = int(os.environ.get("TAILRACE_ROUNDS", "12000"))
TOOL = ROOT / "build" / "gcc" / "test" / "tools" / "otlp_dump"

# Field numbers of messages inside messages, as far as the mutations go down.
NESTED = {"request": {1: "resource_spans"}, "resource_spans": {1: "resource", 2: "scope_spans"},
          "scope_spans": {1: "scope", 2: "span"}, "span": {9: "kv", 11: "event", 15: "status"},
          "resource": {1: "kv"}, "scope": {3: "kv"}, "event": {3: "kv"}, "kv": {2: "any"}}
SCALARS = {"span": {6: 0, 7: 1, 8: 1, 10: 0, 16: 5}, "status": {3: 0}, "event": {1: 1}}


def text(rng):
    return "".join(rng.choice("abcdez é€😀") for _ in range(rng.randrange(8)))


def any_value(rng, depth=0):
    v = AnyValue()
    kind = rng.randrange(7 if depth < 3 else 5)
    if kind == 0:
        v.string_value = text(rng)
    elif kind == 1:
        v.bool_value = rng.random() < 0.5
    elif kind == 2:
        v.int_value = rng.getrandbits(64) - (1 << 63)
    elif kind == 3:
        v.double_value = rng.random() * 10 ** rng.randrange(-5, 20)
    elif kind == 4:
        v.bytes_value = rng.randbytes(rng.randrange(5))
    elif kind == 5:
        v.array_value.values.extend(any_value(rng, depth + 1) for _ in range(rng.randrange(3)))
    else:
        v.kvlist_value.values.extend(KeyValue(key=text(rng), value=any_value(rng, depth + 1))
                                     for _ in range(rng.randrange(3)))
    return v


def attributes(rng, n=4):
    keys = rng.sample(["a", "b", "c", "http.request.method", "r", "é", ""], rng.randrange(n))
    return [KeyValue(key=k, value=any_value(rng)) for k in keys]


def make_span(rng):
    s = Span(trace_id=rng.randbytes(16), span_id=rng.randbytes(8), name=text(rng),
             kind=rng.randrange(6), start_time_unix_nano=rng.getrandbits(60),
             end_time_unix_nano=rng.getrandbits(60), trace_state=text(rng), flags=rng.getrandbits(32))
    if rng.random() < 0.6:
        s.parent_span_id = rng.randbytes(8)
    s.attributes.extend(attributes(rng))
    for _ in range(rng.randrange(2)):
        s.events.add(time_unix_nano=rng.getrandbits(40), name=text(rng)).attributes.extend(attributes(rng))
    for _ in range(rng.randrange(2)):
        s.links.add(trace_id=rng.randbytes(16), span_id=rng.randbytes(8))
    if rng.random() < 0.4:
        s.status.code = rng.randrange(3)
        s.status.message = text(rng)
    return s


def make_request(rng):
    req = ExportTraceServiceRequest()
    for _ in range(rng.randrange(3)):
        rs = req.resource_spans.add(schema_url=text(rng))
        rs.resource.attributes.extend(attributes(rng))
        for _ in range(rng.randrange(3)):
            ss = rs.scope_spans.add(schema_url=text(rng))
            ss.scope.name = text(rng)
            ss.spans.extend(make_span(rng) for _ in range(rng.randrange(4)))
    return req


def varint(rng, v, overlong, longest=9):
    out = bytearray()
    while True:
        out.append(v & 0x7F | (0x80 if v > 0x7F else 0))
        v >>= 7
        if not v:
            break
    if overlong and len(out) < longest and rng.random() < 0.3:
        out[-1] |= 0x80
        out += b"\x80" * rng.randrange(longest - len(out)) + b"\x00"
    return bytes(out)


def put(rng, number, kind, payload, overlong):
    tag = varint(rng, number << 3 | kind, False)
    if kind == 2:
        return tag + varint(rng, len(payload), overlong, longest=5) + payload
    if kind == 0:
        return tag + varint(rng, payload, overlong)
    return tag + struct.pack("<Q" if kind == 1 else "<I", payload)


def unknown(rng):
    number = rng.choice([1000, 77, 536870911])
    kind = rng.randrange(4)
    if kind == 3:
        inner = put(rng, 5, 0, 7, False)
        return varint(rng, number << 3 | 3, False) + inner + varint(rng, number << 3 | 4, False)
    return put(rng, number, [0, 1, 2][kind], [9, 9, b"xyz"][kind], False)


def splits(data):
    """Whether it has no group, which fields() does not read."""
    try:
        list(fields(data))
        return True
    except ValueError:
        return False


def mutate(rng, data, level="request"):
    """The same message written in another way, or nearly: order, splits, repeats, unknown fields."""
    parts = []
    for number, kind, payload in list(fields(data)):
        inner = NESTED.get(level, {}).get(number)
        if inner and rng.random() < 0.7:
            payload = mutate(rng, payload, inner)
        if inner in ("resource", "scope", "status", "any") and rng.random() < 0.2 and splits(payload):
            # A singular message in two pieces merges. An AnyValue is a oneof: the last one wins.
            halves = list(fields(payload))
            cut = rng.randrange(len(halves) + 1)
            for half in (halves[:cut], halves[cut:]):
                parts.append(put(rng, number, kind, b"".join(put(rng, *f, True) for f in half), True))
            continue
        if SCALARS.get(level, {}).get(number) == kind and rng.random() < 0.1:
            parts.append(put(rng, number, kind, rng.getrandbits(3), True))  # the last one wins
        parts.append(put(rng, number, kind, payload, True))
    if rng.random() < 0.2:
        parts.insert(rng.randrange(len(parts) + 1), unknown(rng))
    if level in ("resource_spans", "scope_spans", "span") and rng.random() < 0.3:
        singles = [p for p in parts]
        # Order among different fields is free; among the same field it is not: rotate by field.
        order = sorted(range(len(singles)), key=lambda i: (singles[i][0] * 7919) % 13)
        parts = [singles[i] for i in order]
    out = b"".join(parts)
    return out


def damage(rng, data):
    if not data or rng.random() < 0.75:
        return data
    data = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data))
        data[at] = rng.randrange(256)
    return bytes(data[:rng.randrange(len(data) + 1)] if rng.random() < 0.3 else data)


def run(inputs):
    stream = b"".join(struct.pack("<I", len(i)) + i for i in inputs)
    done = subprocess.run([TOOL], input=stream, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(inputs)
    return [json.loads(line) for line in lines]


def decode(data):
    try:
        return ExportTraceServiceRequest.FromString(data)
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


def test_what_was_not_damaged_is_accepted():
    """Another way of writing the same message is no reason to refuse it."""
    rng = random.Random(SEED + 1)
    inputs = [mutate(rng, make_request(rng).SerializeToString()) for _ in range(ROUNDS // 3)]
    for number, (data, got) in enumerate(zip(inputs, run(inputs))):
        assert got["ok"] or decode(data) is None, f"seed {SEED + 1}, input {number}: {got}"
