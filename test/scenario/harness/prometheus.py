# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus server that scrapes what a test gives it."""

import json
import shutil
import urllib.parse
import urllib.request

import pytest

from .process import Child
from .wait import free_ports, wait_until


class Prometheus:
    """Scrapes each of `targets` (host:port) once a second; .query(promql) gives [(labels, value)]."""

    def __init__(self, tmp_path, targets):
        if shutil.which("prometheus") is None:
            pytest.skip("missing program: prometheus")
        (self.port,) = free_ports(1)
        config = tmp_path / "prometheus.yml"
        config.write_text(json.dumps({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "tailrace", "honor_labels": True,
                                "static_configs": [{"targets": list(targets)}]}]}))
        self.child = Child(
            ["prometheus", f"--config.file={config}",
             f"--storage.tsdb.path={tmp_path / 'prometheus-data'}",
             f"--web.listen-address=127.0.0.1:{self.port}"], tmp_path / "prometheus.log")

    def _get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as r:
            return json.load(r)

    def wait_ready(self):
        def ready():
            assert self.child.alive(), self.child.log()[-4000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2):
                    return True
            except OSError:
                return False
        wait_until(ready, 30, "Prometheus is ready")
        return self

    def query(self, promql):
        data = self._get("/api/v1/query?" + urllib.parse.urlencode({"query": promql}))
        assert data["status"] == "success", data
        return [(s["metric"], float(s["value"][1])) for s in data["data"]["result"]]

    def stop(self):
        self.child.stop()
