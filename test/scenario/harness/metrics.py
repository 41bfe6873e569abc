# SPDX-License-Identifier: Apache-2.0
"""Reading Prometheus endpoints and the ledger."""

import re
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


LINE = re.compile(r'([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)(?: \d+)?$')
LABEL = re.compile(r'([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"')


def scrape(port, path="/metrics"):
    """{(name, frozenset of labels): value} of an exposition, names as they are written."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as r:
        return parse(r.read().decode())


def parse(text):
    """The same of a text that was read already."""
    for _ in text_string_to_metric_families(text):
        pass  # Prometheus' own parser must take every line; it renames counters, so names come below
    out = {}
    for line in text.splitlines():
        m = LINE.match(line)
        if line.startswith("#") or not line:
            continue
        assert m, f"not an exposition line: {line!r}"
        key = m[1], frozenset(LABEL.findall(m[2] or ""))
        assert key not in out, f"written twice: {line!r}"
        out[key] = float(m[3])
    return out


def total(samples, name, **labels):
    """Sum of a metric's series that carry these labels; 0 when there is none."""
    want = set(labels.items())
    return sum(v for (n, ls), v in samples.items() if n == name and want <= ls)


def series(samples, name):
    """[(labels dict, value)] of a metric."""
    return [(dict(ls), v) for (n, ls), v in samples.items() if n == name]
