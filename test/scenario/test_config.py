# SPDX-License-Identifier: Apache-2.0
"""The command line and the configuration of the real programs: what is accepted, what is refused and how."""

import json
import pathlib
import subprocess

import pytest
import yaml

from harness.process import program

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"

# A configuration that both programs accept, with a place for one mistake.
SMALL = """receivers:
  otlp:
    protocols:
      grpc:
processors:
  batch:
    {batch}
exporters:
  {exporter}:
    {exporter_key}
service:
  pipelines:
    traces:
      receivers: [otlp]
      processors: [batch]
      exporters: [{ref}]
"""
GOOD = {"batch": "timeout: 1s", "exporter": "otlp_grpc", "exporter_key": "endpoint: backend:4317",
        "ref": "otlp_grpc"}


def run(*args, env=None, name="tailrace-gateway"):
    return subprocess.run([program(name), *map(str, args)], capture_output=True, text=True,
                          timeout=60, env=env)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_example_is_accepted_as_it_is(path):
    name = "tailrace-agent" if path.stem.startswith("agent") else "tailrace-gateway"
    r = run("--config", path, "validate", name=name)
    assert r.returncode == 0, r.stderr
    for line in r.stderr.splitlines():
        assert "warning: " in line or "\tinfo\t" in line, line


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_what_is_printed_is_accepted_again(path, tmp_path):
    name = "tailrace-agent" if path.stem.startswith("agent") else "tailrace-gateway"
    once = run("--config", path, "print-config", "--mode", "unredacted", name=name)
    assert once.returncode == 0, once.stderr
    again = tmp_path / "again.yaml"
    again.write_text(once.stdout)
    twice = run("--config", again, "print-config", "--mode", "unredacted", name=name)
    assert twice.returncode == 0, twice.stderr
    assert once.stdout == twice.stdout
    assert set(yaml.safe_load(once.stdout)) >= {"receivers", "exporters", "service"}


@pytest.mark.parametrize("change, line", [
    ({"batch": "send_batch_sise: 5"},
     "7:5: processors::batch: unknown key 'send_batch_sise' (did you mean 'send_batch_size'?)"),
    ({"batch": "timeout: 5 parsecs"},
     "7:14: processors::batch::timeout: expected a duration such as 200ms, 5s or 1m30s, found "
     "'5 parsecs'"),
    ({"exporter": "kafkaesque", "exporter_key": "brokers: [x]", "ref": "kafkaesque"},
     "9:3: exporters::kafkaesque: no such exporter in this build"),
    ({"ref": "otlp_grcp"},
     "16:19: service::pipelines::traces::exporters[0]: exporter 'otlp_grcp' is not defined (did you "
     "mean 'otlp_grpc'?)"),
    ({"exporter_key": "compression: gzip"}, "9:3: exporters::otlp_grpc: key 'endpoint' is required"),
    ({"exporter_key": "endpoint: a:1\n    endpoint: b:1"},
     "11:5: key 'endpoint' stands twice in this mapping (first at line 10)"),
    ({"batch": "timeout: [1s"}, None),
])
def test_mistake_is_refused_by_place(tmp_path, change, line):
    path = tmp_path / "c.yaml"
    path.write_text(SMALL.format(**{**GOOD, **change}))
    for command in (["validate"], []):
        r = run("--config", path, *command)
        assert r.returncode == 1
        assert r.stderr.startswith(f"{path}:"), r.stderr
        if line:
            assert f"{path}:{line}\n" in r.stderr


def test_sources_are_laid_over_each_other(tmp_path):
    base, over = tmp_path / "base.yaml", tmp_path / "over.yaml"
    base.write_text(SMALL.format(**GOOD))
    over.write_text("processors: {batch: {timeout: '${env:T_TIMEOUT:-3s}'}}\n")
    r = run("--config", base, "--set", "exporters.otlp_grpc.endpoint=site:4317", "--config", over,
            "print-config")
    config = yaml.safe_load(r.stdout)
    assert config["processors"]["batch"]["timeout"] == "3s"
    assert config["exporters"]["otlp_grpc"]["endpoint"] == "site:4317"


def test_secrets_are_redacted(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(SMALL.format(**{**GOOD, "exporter_key":
                                    "endpoint: b:1\n    headers: {authorization: hunter2}"}))
    assert "hunter2" not in run("--config", path, "print-config").stdout
    assert "hunter2" in run("--config", path, "print-config", "--mode", "unredacted").stdout


def test_components_as_the_collector_lists_them():
    r = run("components")
    listed = yaml.safe_load(r.stdout)
    assert listed["buildinfo"]["command"] == "tailrace-gateway"
    names = {c["name"]: c for c in listed["exporters"]}
    assert names["otlp_grpc"]["stability"]["traces"] == "Stable"
    assert "otlp" not in names and "loadbalancing" not in names
    for kind in ("receivers", "processors", "exporters", "connectors", "extensions"):
        for c in listed[kind]:
            assert run("components", c["name"]).returncode == 0


def test_schema_is_json():
    schema = json.loads(run("components", "--schema").stdout)
    assert "processors" in schema["properties"]
    assert schema["additionalProperties"] is False


def test_help_and_version():
    r = run("--help")
    assert r.returncode == 0 and "--config" in r.stdout and "otlp_grpc" in r.stdout
    assert run("--version").stdout.startswith("tailrace-gateway version ")
    r = run("--bogus")
    assert r.returncode == 1 and "unknown flag --bogus" in r.stderr
