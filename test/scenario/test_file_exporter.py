# SPDX-License-Identifier: Apache-2.0
"""The file exporter: what was sent is in the file, in both formats; rotation; a full disk; the end."""

import json
import random
import signal as signals
import struct
import subprocess

import grpc
import pytest
from google.protobuf import json_format

from harness.gateway import TELEMETRY
from harness.ledger import assert_explained, term
from harness.otlp_json import ids_as_base64
from harness.random_otlp import REQUESTS, make_request
from harness.wait import wait_until

METHODS = {s: f"/opentelemetry.proto.collector.{p}.v1.{n}Service/Export"
           for s, p, n in (("traces", "trace", "Trace"), ("metrics", "metrics", "Metrics"), ("logs", "logs", "Logs"))}

CONFIG = """
receivers:
  otlp: {{protocols: {{grpc: {{endpoint: 127.0.0.1:{grpc}}}}}}}
exporters:
  file: {{path: "{path}", {options}}}
service:
  pipelines:
    traces: {{receivers: [otlp], exporters: [file]}}
    metrics: {{receivers: [otlp], exporters: [file]}}
    logs: {{receivers: [otlp], exporters: [file]}}
""" + TELEMETRY


def items(request, signal):
    """Spans, log records or data points."""
    _, resources, scopes, records, _ = REQUESTS[signal]
    found = [x for r in getattr(request, resources) for s in getattr(r, scopes) for x in getattr(s, records)]
    if signal == "metrics":
        found = [p for m in found for p in getattr(m, m.WhichOneof("data")).data_points]
    return len(found)


def requests_of(rng, signal, n):
    """Random requests that have an item each: others are answered and not delivered."""
    out = []
    while len(out) < n:
        r = make_request(rng, signal)
        if items(r, signal):
            out.append(r)
    return out


def send_all(gw, sent):
    for signal, requests in sent.items():
        for r in requests:
            gw.stub(METHODS[signal])(r.SerializeToString(), timeout=20)


def canonical(messages):
    return sorted(m.SerializeToString(deterministic=True) for m in messages)


def parse_json(text):
    """{signal: [request]} of the lines of a file."""
    keys = {"resourceSpans": "traces", "resourceMetrics": "metrics", "resourceLogs": "logs"}
    out = {s: [] for s in REQUESTS}
    for line in text.splitlines():
        doc = json.loads(line)
        (key,) = doc
        out[keys[key]].append(json_format.ParseDict(ids_as_base64(doc), REQUESTS[keys[key]][0]()))
    return out


def split_frames(data):
    at = 0
    while at < len(data):
        (n,) = struct.unpack_from(">I", data, at)
        yield data[at + 4:at + 4 + n]
        at += 4 + n
    assert at == len(data)


def test_json_lines_are_what_was_sent(gateway, tmp_path):
    """All three signals, NaN and split ids included, in one file; the directory is made."""
    path = tmp_path / "a" / "b" / "out.json"
    gw = gateway(CONFIG, path=path, options="create_directory: true, flush_interval: 1s")
    rng = random.Random(3)
    sent = {s: requests_of(rng, s, 40) for s in REQUESTS}
    send_all(gw, sent)
    # What is acknowledged is in the file already.
    got = parse_json(path.read_text())
    for signal in REQUESTS:
        assert canonical(got[signal]) == canonical(sent[signal]), signal
    assert_explained(gw.self_metrics)
    assert gw.stop() == 0


@pytest.mark.parametrize("options", ["format: proto", "format: proto, compression: zstd", "compression: zstd"])
def test_messages_behind_their_lengths(gateway, tmp_path, options):
    path = tmp_path / "out.pb"
    gw = gateway(CONFIG, path=path, options=options)
    sent = requests_of(random.Random(4), "metrics", 30)
    send_all(gw, {"metrics": sent})
    frames = list(split_frames(path.read_bytes()))
    if "zstd" in options:
        frames = [subprocess.run(["zstd", "-dc"], input=f, capture_output=True, check=True).stdout
                  for f in frames]
    if "proto" in options:
        got = [REQUESTS["metrics"][0].FromString(f) for f in frames]
    else:
        got = parse_json(b"\n".join(frames).decode())["metrics"]
    assert canonical(got) == canonical(sent)


def test_rotation_keeps_size_and_number(gateway, tmp_path):
    path = tmp_path / "out.json"
    gw = gateway(CONFIG, path=path, options="rotation: {max_megabytes: 1, max_backups: 2}")
    request = REQUESTS["logs"][0]()
    records = request.resource_logs.add().scope_logs.add().log_records
    for _ in range(30):
        records.add().body.string_value = "x" * 10000
    send_all(gw, {"logs": [request] * 10})  # 0.3 MB each: three to a file
    rotated = sorted(tmp_path.glob("out-*.json"))
    assert len(rotated) == 2 and rotated[0].name > "out-20"  # of three that were filled
    assert [len(parse_json(p.read_text())["logs"]) for p in (*rotated, path)] == [3, 3, 1]
    assert all(p.stat().st_size <= 1 << 20 for p in rotated)
    assert_explained(gw.self_metrics)


def test_append_keeps_and_truncation_empties(gateway, tmp_path):
    path = tmp_path / "out.json"
    sent = requests_of(random.Random(5), "traces", 2)
    for options, lines in (("append: false", 1), ("append: true", 2), ("append: false", 1)):
        gw = gateway(CONFIG, path=path, options=options)
        send_all(gw, {"traces": sent[:1]})
        assert gw.stop() == 0
        assert len(path.read_text().splitlines()) == lines


def test_a_full_disk_is_the_senders_to_retry(gateway):
    gw = gateway(CONFIG, path="/dev/full", options="append: true")
    (request,) = requests_of(random.Random(6), "traces", 1)
    with pytest.raises(grpc.RpcError) as e:
        gw.export(request)
    assert e.value.code() == grpc.StatusCode.UNAVAILABLE
    wait_until(lambda: "No space left on device" in gw.child.log(), what="the reason in the log")
    samples = gw.scrape()
    spans = items(request, "traces")
    assert term(samples, "exporter/file", "dropped") == spans
    assert sum(v for (name, _), v in samples.items() if name == "otelcol_exporter_send_failed_spans") == spans
    assert_explained(gw.self_metrics)


def test_a_short_write_leaves_whole_messages(gateway, tmp_path):
    """The file may not grow beyond a limit: what is written short is taken back."""
    path = tmp_path / "out.json"
    gw = gateway(CONFIG, path=path, options="append: true",
                 prefix=["/bin/sh", "-c", "trap '' XFSZ; ulimit -f 64; exec \"$@\"", "sh"])
    request = REQUESTS["logs"][0]()
    request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = "y" * 20000
    results = []
    for _ in range(4):
        try:
            gw.stub(METHODS["logs"])(request.SerializeToString(), timeout=20)
            results.append("ok")
        except grpc.RpcError as e:
            results.append(e.code())
    written = parse_json(path.read_text())["logs"]
    assert len(written) == results.count("ok") and 0 < len(written) < 4
    assert set(results) == {"ok", grpc.StatusCode.UNAVAILABLE}


BATCHED = CONFIG.replace("service:", "processors:\n  batch: {{timeout: 60s}}\nservice:").replace(
    "receivers: [otlp], exporters", "receivers: [otlp], processors: [batch], exporters")


def test_sigterm_writes_what_is_held(gateway, tmp_path):
    path = tmp_path / "out.json"
    gw = gateway(BATCHED, path=path, options="append: true")
    sent = requests_of(random.Random(7), "logs", 20)
    send_all(gw, {"logs": sent})
    assert path.read_text() == ""  # the batch processor holds it
    assert gw.stop() == 0
    got = parse_json(path.read_text())["logs"]

    def records(requests):
        return sorted(x.SerializeToString(deterministic=True) for r in requests for g in r.resource_logs
                      for s in g.scope_logs for x in s.log_records)
    assert records(got) == records(sent)


def test_a_reload_goes_on_in_the_same_file(gateway, tmp_path):
    path = tmp_path / "out.json"
    gw = gateway(CONFIG, path=path, options="append: false")
    sent = requests_of(random.Random(8), "traces", 2)
    gw.export(sent[0])
    gw.write(CONFIG.replace("level: info", "level: debug"))
    gw.child.signal(signals.SIGHUP)
    gw.child.wait_log("configuration reloaded")
    gw.export(sent[1])
    assert canonical(parse_json(path.read_text())["traces"]) == canonical(sent)


@pytest.mark.parametrize("options, text", [
    ("append: true, rotation: {}", "append and rotation"),
    ("append: true, compression: zstd", "append and compression"),
    ("group_by: {enabled: true}", "group_by"),
    ('directory_permissions: "9"', "directory_permissions"),
])
def test_what_cannot_be_is_refused(gateway, tmp_path, options, text):
    gw = gateway(CONFIG, path=tmp_path / "out.json", options=options, wait=False)
    assert gw.child.proc.wait(20) == 1
    assert text in gw.child.log()
