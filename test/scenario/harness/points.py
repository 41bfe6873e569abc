# SPDX-License-Identifier: Apache-2.0
"""Metrics that a sink got, as tests ask for them."""

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from .capture import attributes


def points(sink, name, **resource_attributes):
    """Newest points of a metric, by resource and attributes, of resources that have these attributes."""
    out = {}
    for resource, _, record in sink.records("metrics"):
        m = Metric.FromString(record)
        if m.name != name or not resource_attributes.items() <= attributes(Resource.FromString(resource)).items():
            continue
        data = getattr(m, m.WhichOneof("data"))
        for p in data.data_points:
            out[resource, tuple(sorted(attributes(p).items()))] = p
    return out


def total(sink, name, **attrs):
    """Sum over points that have these attributes: of counts for histograms."""
    found = [p for (_, a), p in points(sink, name).items() if attrs.items() <= dict(a).items()]
    return sum(p.count if hasattr(p, "count") else p.as_int for p in found)


def quantile(p, q):
    """The bounds (from, to] of the bucket of an exponential histogram in which the quantile lies."""
    base, rank = 2 ** (2 ** -p.scale), q * p.count
    seen = p.zero_count
    if seen >= rank:
        return 0, p.zero_threshold
    for i, n in enumerate(p.positive.bucket_counts):
        seen += n
        if seen >= rank:
            return base ** (p.positive.offset + i), base ** (p.positive.offset + i + 1)
    raise AssertionError(f"counts do not sum up: {p}")
