# SPDX-License-Identifier: Apache-2.0
"""The ledger: in + made = out + sent + dropped + held at every node, given = taken on every edge."""

from . import metrics
from .wait import wait_until


def unexplained(samples):
    """[(labels, items)] of all nodes and edges that do not add up."""
    names = ("tailrace_ledger_unexplained", "tailrace_ledger_edge_unexplained")
    return [(dict(labels), v) for (name, labels), v in samples.items() if name in names and v]


def term(samples, node, term_name, **labels):
    """Items of one term, summed over the nodes whose name begins with `node`."""
    return sum(v for (name, ls), v in samples.items()
               if name == "tailrace_ledger_items" and dict(ls)["term"] == term_name
               and dict(ls)["node"].startswith(node) and set(labels.items()) <= ls)


def assert_explained(port, timeout=10):
    """Waits until nothing is under way and asserts that nothing was lost."""
    samples = metrics.scrape(port)
    assert any(name == "tailrace_ledger_items" for name, _ in samples), "no ledger is exposed"

    def settled():
        return not unexplained(metrics.scrape(port))
    try:
        wait_until(settled, timeout, "ledger")
    except AssertionError:
        raise AssertionError(f"ledger: {unexplained(metrics.scrape(port))}") from None
