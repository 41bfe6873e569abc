# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, measure every cell and lose nothing. Their figures are nobody's business here."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

BENCH = pathlib.Path(__file__).resolve().parents[1] / "bench"


def run(script, tmp_path, *args):
    out = tmp_path / "out.json"
    r = subprocess.run([sys.executable, BENCH / script, "--quick", "--json", out, *args],
                       capture_output=True, text=True, timeout=300)
    assert r.returncode == 0, r.stdout + r.stderr
    return json.loads(out.read_text()), r.stdout


def test_gateway_bench(tmp_path):
    cases, table = run("run.py", tmp_path, "--paths", "forward,edit,tail,gzip")
    assert [(c["shape"], c["spans"], c["path"], c["rate"]) for c in cases] == [
        ("M", 500, p, 0) for p in ("forward", "edit", "tail", "gzip")]
    for c in cases:
        assert c["path"] in table
        for one in c["tailrace"] + c["reference"]:
            assert one["acked"] > 0 and one["failed"] == 0 and one["lost"] == 0, (c["path"], one)
            assert one["cpu_s_per_m"] >= 0 and one["rss_mib"] > 1
        kept = c["tailrace"][0]["delivered"] / c["tailrace"][0]["acked"]
        # Errors, slow ones and a tenth of the rest are kept; the other paths drop nothing.
        assert 0.1 < kept < 0.25 if c["path"] == "tail" else kept == 1, (c["path"], kept)


def test_agent_bench(tmp_path):
    if os.geteuid() != 0 or not pathlib.Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("needs root and BTF")
    if not pathlib.Path("/usr/sbin/nginx").exists():
        pytest.skip("needs nginx")
    cells, _ = run("agent.py", tmp_path)
    by_name = {c["cell"]: c for c in cells}
    assert list(by_name) == ["plain", "tls", "unselected", "rate"]
    for name, cell in by_name.items():
        assert cell["lost"] == 0, cell
        assert cell["median"]["rss_mib"] > 1
        if name != "rate":
            assert cell["median"]["without"] > 0 and cell["median"]["with"] > 0, cell
            assert 0.2 < cell["median"]["ratio"] < 3 and 0.2 < cell["median"]["quiet"] < 3, cell
        if name == "unselected":
            assert cell["median"]["spans"] == 0, cell
    rate = by_name["rate"]["median"]
    assert rate["failed"] == 0 and rate["spans"] == rate["requests"] > 0, rate
    assert rate["agent_us_per_request"] > 0
