"""Reading Prometheus endpoints and the ledger."""

import urllib.request

from prometheus_client.parser import text_string_to_metric_families


def scrape(port, path="/metrics"):
    """{(name, frozenset of labels): value} of an exposition."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as r:
        text = r.read().decode()
    out = {}
    for family in text_string_to_metric_families(text):
        for s in family.samples:
            out[(s.name, frozenset(s.labels.items()))] = s.value
    return out


def total(samples, name, **labels):
    """Sum of a metric's series that carry these labels; 0 when there is none."""
    want = set(labels.items())
    return sum(v for (n, ls), v in samples.items() if n == name and want <= ls)


def series(samples, name):
    """[(labels dict, value)] of a metric."""
    return [(dict(ls), v) for (n, ls), v in samples.items() if n == name]
