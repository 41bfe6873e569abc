# SPDX-License-Identifier: Apache-2.0
"""Sends COUNT spans with the unmodified OpenTelemetry SDK for Python, then shuts it down.

usage: sdk_python.py grpc|http ENDPOINT COUNT
"""

import sys

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode


def exporter_for(protocol, endpoint):
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        return OTLPSpanExporter(endpoint=endpoint, insecure=True)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    return OTLPSpanExporter(endpoint=endpoint)


def main(protocol, endpoint, count):
    provider = TracerProvider(resource=Resource.create({"service.name": "sdk-python"}))
    provider.add_span_processor(
        BatchSpanProcessor(exporter_for(protocol, endpoint), max_queue_size=100_000))
    tracer = provider.get_tracer("scenario", "1.0")
    for i in range(count // 2):
        with tracer.start_as_current_span(f"work {i}", kind=SpanKind.SERVER,
                                          attributes={"i": i}):
            with tracer.start_as_current_span("step", kind=SpanKind.CLIENT) as child:
                child.set_status(Status(StatusCode.ERROR, "näht"))
    if not provider.force_flush(20_000):
        sys.exit("not flushed in time")
    provider.shutdown()
    print("flushed")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
