"""The chart's default configurations are accepted by the programs that run them."""

import subprocess

import pytest
import yaml

from harness.process import ROOT, program

VALUES = yaml.safe_load((ROOT / "helm" / "tailrace" / "values.yaml").read_text())


@pytest.mark.parametrize("role", ["agent", "gateway"])
def test_default_configuration_is_valid(tmp_path, role):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(VALUES[role]["config"]))
    done = subprocess.run([program(f"tailrace-{role}"), "--config", path, "validate"],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
