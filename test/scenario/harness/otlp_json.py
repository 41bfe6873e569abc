# SPDX-License-Identifier: Apache-2.0
"""OTLP/JSON as protobuf's JSON mapping has it: that of OTLP has hex where this has base64."""

import base64

ID_KEYS = ("traceId", "spanId", "parentSpanId")


def ids_as_base64(value):
    """A parsed OTLP/JSON document with its trace and span ids turned from hex to base64."""
    if isinstance(value, dict):
        return {k: base64.b64encode(bytes.fromhex(v)).decode() if k in ID_KEYS and isinstance(v, str)
                else ids_as_base64(v) for k, v in value.items()}
    if isinstance(value, list):
        return [ids_as_base64(v) for v in value]
    return value
