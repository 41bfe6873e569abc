# SPDX-License-Identifier: Apache-2.0
"""Mistakes in a configuration: each is refused with file:line:column, path and, where a word was meant, the
nearest one. One valid file, and what becomes of it when one thing in it is written wrongly.
"""

import os
import re
import subprocess

import pytest
import yaml

from harness.process import ROOT, program

GOOD = """\
receivers:
  otlp:
    protocols:
      grpc: {endpoint: localhost:4317}
      http:
processors:
  batch:
    timeout: 1s
    send_batch_size: 100
  memory_limiter: {check_interval: 1s, limit_mib: 100}
  attributes:
    actions:
      - {key: a, action: insert, value: 1}
  tail_sampling:
    decision_wait: 5s
    policies:
      - {name: one, type: latency, latency: {threshold_ms: 5}}
connectors:
  span_metrics:
    histogram: {unit: s}
exporters:
  otlp_grpc:
    endpoint: backend:4317
    sending_queue: {queue_size: 10}
  otlp_http: {endpoint: "http://backend:4318"}
  load_balancing:
    protocol: {otlp: {tls: {insecure: true}}}
    resolver: {static: {hostnames: [a, b]}}
  prometheus: {endpoint: "localhost:8889"}
extensions:
  health_check:
service:
  extensions: [health_check]
  telemetry:
    logs: {level: info}
  pipelines:
    traces:
      receivers: [otlp]
      processors: [memory_limiter, attributes, tail_sampling, batch]
      exporters: [otlp_grpc, otlp_http, load_balancing, span_metrics]
    metrics: {receivers: [span_metrics], exporters: [prometheus]}
"""

# (what is wrong, text in GOOD, what stands there instead, a line of the answer without the file's name)
MISTAKES = [
    ('section', 'processors:\n  batch',
     'procesors:\n  batch',
     "6:1: unknown key 'procesors' (did you mean 'processors'?)"),
    ('key of a receiver', 'protocols:',
     'protocol:',
     "3:5: receivers::otlp: unknown key 'protocol' (did you mean 'protocols'?)"),
    ('key of a protocol', 'grpc: {endpoint: localhost:4317}',
     'grpc: {endpont: localhost:4317}',
     "4:14: receivers::otlp::protocols::grpc: unknown key 'endpont' (did you mean 'endpoint'?)"),
    ('protocol', '      http:\n',
     '      htpp:\n',
     "5:7: receivers::otlp::protocols: unknown key 'htpp' (did you mean 'http'?)"),
    ('key of a processor', 'send_batch_size',
     'send_batch_sise',
     "9:5: processors::batch: unknown key 'send_batch_sise' (did you mean 'send_batch_size'?)"),
    ('key in a list of mappings', 'threshold_ms',
     'treshold_ms',
     "17:46: processors::tail_sampling::policies[0]::latency: unknown key 'treshold_ms' (did "
     "you mean 'threshold_ms'?)"),
    ('key of an action', 'action: insert',
     'acton: insert',
     "13:18: processors::attributes::actions[0]: unknown key 'acton' (did you mean 'action'?)"),
    ('enum', 'type: latency',
     'type: latancy',
     "17:27: processors::tail_sampling::policies[0]::type: 'latancy' is none of always_sample,"
     " latency, probabilistic, status_code, string_attribute, and (did you mean 'latency'?)"),
    ('action', 'action: insert',
     'action: insrt',
     "13:26: processors::attributes::actions[0]::action: 'insrt' is none of insert, update, "
     "upsert, delete, hash, extract, convert (did you mean 'insert'?)"),
    ('unit', '{unit: s}',
     '{unit: min}',
     "20:23: connectors::span_metrics::histogram::unit: 'min' is none of ms, s (did you mean "
     "'ms'?)"),
    ('key of a queue', '{queue_size: 10}',
     '{queue_sise: 10}',
     "24:21: exporters::otlp_grpc::sending_queue: unknown key 'queue_sise' (did you mean "
     "'queue_size'?)"),
    ('key of tls', '{insecure: true}',
     '{insecur: true}',
     "27:29: exporters::load_balancing::protocol::otlp::tls: unknown key 'insecur' (did you "
     "mean 'insecure'?)"),
    ('telemetry', 'logs: {level: info}',
     'log: {level: info}',
     "35:5: service::telemetry: unknown key 'log' (did you mean 'logs'?)"),
    ('log level', 'level: info',
     'level: inf',
     "35:19: service::telemetry::logs::level: 'inf' is none of debug, info, warn, error (did "
     "you mean 'info'?)"),
    ('key of service', '  pipelines:',
     '  pipeline:',
     "36:3: service: unknown key 'pipeline' (did you mean 'pipelines'?)"),
    ('key of a pipeline', '      receivers: [otlp]\n      proc',
     '      reciever: [otlp]\n      proc',
     "38:7: service::pipelines::traces: unknown key 'reciever' (did you mean 'receivers'?)"),
    ('signal', '    traces:\n',
     '    trace:\n',
     "37:5: service::pipelines::trace: 'trace' is no signal of this build (did you mean "
     "'traces'?)"),
    ('list for a text', 'endpoint: backend:4317',
     'endpoint: [backend:4317]',
     '23:15: exporters::otlp_grpc::endpoint: expected a text, found a list'),
    ('mapping for a text', 'endpoint: backend:4317',
     'endpoint: {a: b}',
     '23:15: exporters::otlp_grpc::endpoint: expected a text, found a mapping'),
    ('text for a number', 'send_batch_size: 100',
     'send_batch_size: many',
     "9:22: processors::batch::send_batch_size: expected an integer, found 'many'"),
    ('quoted number', 'send_batch_size: 100',
     'send_batch_size: "100"',
     "9:22: processors::batch::send_batch_size: expected an integer, found the text '100'"),
    ('negative', 'send_batch_size: 100',
     'send_batch_size: -1',
     '9:22: processors::batch::send_batch_size: expected an integer that is not negative and '
     "fits 64 bits, found '-1'"),
    ('fraction', 'send_batch_size: 100',
     'send_batch_size: 1.5',
     "9:22: processors::batch::send_batch_size: expected an integer, found '1.5'"),
    ('too large', 'send_batch_size: 100',
     'send_batch_size: 99999999999999999999',
     '9:22: processors::batch::send_batch_size: expected an integer that is not negative and '
     "fits 64 bits, found '99999999999999999999'"),
    ('text for a bool', 'insecure: true',
     'insecure: "true"',
     '27:39: exporters::load_balancing::protocol::otlp::tls::insecure: expected true or false,'
     " found the text 'true'"),
    ('number for a bool', 'insecure: true',
     'insecure: 1',
     '27:39: exporters::load_balancing::protocol::otlp::tls::insecure: expected true or false,'
     " found '1'"),
    ('yes is no bool', 'insecure: true',
     'insecure: yes',
     '27:39: exporters::load_balancing::protocol::otlp::tls::insecure: expected true or false,'
     " found 'yes'"),
    ('text for a mapping', 'resolver: {static: {hostnames: [a, b]}}',
     'resolver: static',
     '28:15: exporters::load_balancing::resolver: expected a mapping of keys, found a single '
     'value'),
    ('mapping for a list', 'policies:\n      - {name: one,',
     'policies:\n      {x: 1}\n      #',
     '17:7: processors::tail_sampling::policies: expected a list'),
    ('list for a mapping', '  batch:\n    timeout: 1s\n    send_batch_size: 100',
     '  batch: [a]',
     '7:10: processors::batch: expected a mapping of keys, found a list'),
    ('scalar for a section', 'extensions:\n  health_check:\n',
     'extensions: 5\n',
     '30:13: extensions: expected a mapping of component ids'),
    ('pipelines as a list', '    traces:\n      receivers: [otlp]',
     '    - traces:\n      receivers: [otlp]',
     "41:5: not YAML: did not find expected '-' indicator while parsing a block collection "
     '(line 37)'),
    ('duration without unit word', 'timeout: 1s',
     'timeout: 1 second',
     '8:14: processors::batch::timeout: expected a duration such as 200ms, 5s or 1m30s, found '
     "'1 second'"),
    ('unknown unit', 'timeout: 1s',
     'timeout: 1d',
     '8:14: processors::batch::timeout: expected a duration such as 200ms, 5s or 1m30s, found '
     "'1d'"),
    ('negative duration', 'timeout: 1s',
     'timeout: -1s',
     "8:14: processors::batch::timeout: expected a duration from 0 to 292 years, found '-1s'"),
    ('empty duration', 'timeout: 1s',
     'timeout: ""',
     '8:14: processors::batch::timeout: expected a duration such as 200ms, 5s or 1m30s, found '
     "the text ''"),
    ('huge duration', 'timeout: 1s',
     'timeout: 9999999h',
     '8:14: processors::batch::timeout: expected a duration from 0 to 292 years, found '
     "'9999999h'"),
    ('bool for a duration', 'timeout: 1s',
     'timeout: true',
     '8:14: processors::batch::timeout: expected a duration such as 200ms, 5s or 1m30s, found '
     "'true'"),
    ('percentage', 'limit_mib: 100',
     'limit_percentage: 101',
     '10:58: processors::memory_limiter::limit_percentage: 101 is not in the range from 0 to '
     '100'),
    ('no limit', 'limit_mib: 100',
     'limit_mib: 0',
     '10:3: processors::memory_limiter: limit_mib or limit_percentage must be greater than '
     'zero'),
    ('spike over limit', 'limit_mib: 100',
     'limit_mib: 100, spike_limit_mib: 100',
     '10:3: processors::memory_limiter: the spike limit must be smaller than the limit'),
    ('no check interval', 'check_interval: 1s, ',
     '',
     '10:3: processors::memory_limiter: check_interval must be greater than zero'),
    ('max below size', 'send_batch_size: 100',
     'send_batch_size: 100\n    send_batch_max_size: 50',
     '7:3: processors::batch: send_batch_max_size must be at least send_batch_size'),
    ('queue of nothing', '{queue_size: 10}',
     '{queue_size: 0}',
     '24:33: exporters::otlp_grpc::sending_queue::queue_size: 0 is not in the range from 1 to '
     '1e+15'),
    ('no consumers', '{queue_size: 10}',
     '{num_consumers: 0}',
     '24:36: exporters::otlp_grpc::sending_queue::num_consumers: 0 is not in the range from 1 '
     'to 10000'),
    ('batch over queue', '{queue_size: 10}',
     '{queue_size: 10, sizer: items, batch: {min_size: 100}}',
     '22:3: exporters::otlp_grpc: sending_queue::batch::min_size must be at most queue_size'),
    ('batch of requests', '{queue_size: 10}',
     '{sizer: requests, batch: {min_size: 1}}',
     '22:3: exporters::otlp_grpc: sending_queue::batch::sizer: must be items or bytes; without'
     ' it sending_queue::sizer is taken'),
    ('max below min', '{queue_size: 10}',
     '{batch: {min_size: 10, max_size: 5}}',
     '22:3: exporters::otlp_grpc: sending_queue::batch::max_size must be at least min_size, or'
     ' 0'),
    ('elapsed below interval', '    sending_queue: {queue_size: 10}',
     '    retry_on_failure: {max_elapsed_time: 1s}',
     '22:3: exporters::otlp_grpc: retry_on_failure::max_elapsed_time must be at least '
     'initial_interval, or 0'),
    ('factor over one', '    sending_queue: {queue_size: 10}',
     '    retry_on_failure: {randomization_factor: 1.5}',
     '24:46: exporters::otlp_grpc::retry_on_failure::randomization_factor: 1.5 is not in the '
     'range from 0 to 1'),
    ('storage', '{queue_size: 10}',
     '{storage: file_storage}',
     "24:21: exporters::otlp_grpc::sending_queue: the Collector's key 'storage' is not "
     'supported here'),
    ('two resolvers', '{static: {hostnames: [a, b]}}',
     '{static: {hostnames: [a]}, dns: {hostname: b}}',
     '26:3: exporters::load_balancing: resolver: exactly one of static and dns is needed'),
    ('no resolver', '{static: {hostnames: [a, b]}}',
     '{}',
     '26:3: exporters::load_balancing: resolver: exactly one of static and dns is needed'),
    ('empty hostnames', '[a, b]',
     '[]',
     '26:3: exporters::load_balancing: resolver::static::hostnames: at least one is needed'),
    ('routing key', '    protocol: {otlp',
     '    routing_key: traceid2\n    protocol: {otlp',
     '27:18: exporters::load_balancing::routing_key: \'traceid2\' is none of "", traceID, '
     "service (did you mean 'traceID'?)"),
    ('endpoint of a backend', '{tls: {insecure: true}}',
     '{endpoint: x:1}',
     "26:3: exporters::load_balancing: protocol::otlp::endpoint is each backend's own: name "
     'them under resolver'),
    ('no port', 'endpoint: backend:4317',
     'endpoint: backend',
     "22:3: exporters::otlp_grpc: endpoint 'backend': needs a port"),
    ('port 70000', 'localhost:8889',
     'localhost:70000',
     "29:26: exporters::prometheus::endpoint: 'localhost:70000' is no endpoint: its port is "
     'not a number from 0 to 65535'),
    ('endpoint scheme', 'http://backend:4318',
     'backend:4318',
     "25:3: exporters::otlp_http: endpoint 'backend:4318': must begin with http:// or https://"),
    ('unix endpoint', 'endpoint: backend:4317',
     'endpoint: unix:///run/x.sock',
     "22:3: exporters::otlp_grpc: endpoint 'unix:///run/x.sock': Unix sockets do not exist in "
     'this build'),
    ('buckets out of order', '{unit: s}',
     '{explicit: {buckets: [1s, 500ms]}}',
     '19:3: connectors::span_metrics: histogram: explicit: buckets must ascend'),
    ('duplicate dimension', '    histogram: {unit: s}',
     '    dimensions: [{name: a}, {name: a}]',
     "19:3: connectors::span_metrics: dimensions[1]: 'a' is a dimension already"),
    ('no policies', '    policies:\n      - {name: one, type: latency, latency: {threshold_ms: 5}}',
     '    policies: []',
     '14:3: processors::tail_sampling: policies: at least one is needed'),
    ('policy without name', 'name: one, ',
     '',
     "17:9: processors::tail_sampling::policies[0]: key 'name' is required"),
    ('policy twice', 'threshold_ms: 5}}',
     'threshold_ms: 5}}\n      - {name: one, type: always_sample}',
     "14:3: processors::tail_sampling: policies[1]: duplicate name 'one'"),
    ('missing block', 'type: latency, latency: {threshold_ms: 5}',
     'type: string_attribute',
     "14:3: processors::tail_sampling: policies[0] 'one': string_attribute: key and values are"
     ' needed'),
    ('bad regex', 'type: latency, latency: {threshold_ms: 5}',
     "type: string_attribute, string_attribute: {key: k, values: ['(a'], enabled_regex_matching: true}",
     "14:3: processors::tail_sampling: policies[0] 'one': string_attribute: values[0] '(a': "
     'offset 2: missing closing parenthesis'),
    ('backreference', 'action: insert, value: 1',
     "action: extract, pattern: '(?P<x>a)\\1'",
     "11:3: processors::attributes: actions[0]: pattern '(?P<x>a)\\1': offset 8: RE2 does not "
     'know a back-reference'),
    ('lookahead', 'action: insert, value: 1',
     "action: extract, pattern: '(?P<x>a)(?=b)'",
     "11:3: processors::attributes: actions[0]: pattern '(?P<x>a)(?=b)': offset 8: RE2 does "
     'not know look-ahead'),
    ('unnamed group', 'action: insert, value: 1',
     "action: extract, pattern: '(a)'",
     "11:3: processors::attributes: actions[0]: pattern '(a)': every group needs a name"),
    ('insert without value', ', value: 1',
     '',
     '11:3: processors::attributes: actions[0]: insert needs either value or from_attribute'),
    ('delete with value', 'action: insert, value: 1',
     'action: delete, value: 1',
     '11:3: processors::attributes: actions[0]: delete takes neither value nor from_attribute'),
    ('list as value', 'value: 1',
     'value: [1]',
     '13:41: processors::attributes::actions[0]::value: expected a single value, found a list'),
    ('convert without type', 'action: insert, value: 1',
     'action: convert',
     '11:3: processors::attributes: actions[0]: convert needs converted_type'),
    ('unknown component', '  health_check:\nservice',
     '  healthcheck2:\nservice',
     '31:3: extensions::healthcheck2: no such extension in this build (did you mean '
     "'health_check'?)"),
    ('component of the Collector', '  batch:\n    timeout',
     '  filter: {}\n  batch:\n    timeout',
     '7:3: processors::filter: no such processor in this build'),
    ('undefined exporter', 'exporters: [otlp_grpc,',
     'exporters: [otlp_grcp,',
     "40:19: service::pipelines::traces::exporters[0]: exporter 'otlp_grcp' is not defined "
     "(did you mean 'otlp_grpc'?)"),
    ('undefined extension', 'extensions: [health_check]',
     'extensions: [helth_check]',
     "33:16: service::extensions[0]: extension 'helth_check' is not defined (did you mean "
     "'health_check'?)"),
    ('undefined receiver', 'receivers: [otlp]',
     'receivers: [oltp]',
     "38:19: service::pipelines::traces::receivers[0]: receiver 'oltp' is not defined (did you"
     " mean 'otlp'?)"),
    ('defined under another kind', 'processors: [memory_limiter,',
     'processors: [otlp, memory_limiter,',
     "39:20: service::pipelines::traces::processors[0]: processor 'otlp' is not defined"),
    ('processor twice', 'tail_sampling, batch]',
     'tail_sampling, batch, batch]',
     "39:70: service::pipelines::traces::processors[4]: processor 'batch' stands twice in this"
     ' pipeline'),
    ('no receivers', '      receivers: [otlp]\n',
     '      receivers: []\n',
     '38:18: service::pipelines::traces::receivers: a pipeline needs at least one receiver'),
    ('no exporters', ', exporters: [prometheus]',
     '',
     '41:5: service::pipelines::metrics::exporters: a pipeline needs at least one exporter'),
    ('no pipelines', '  pipelines:\n',
     '  pipelines:\n  x_unused:\n',
     '33:3: service::pipelines: at least one pipeline is needed'),
    ('bad id', '  otlp_http:',
     '  otlp_http/:',
     "25:3: exporters::otlp_http/: the name after '/' has 1 to 1024 characters"),
    ('bad type in an id', '  otlp_http:',
     '  9otlp:',
     '25:3: exporters::9otlp: an id is a type ([A-Za-z][0-9A-Za-z_]*), or type/name'),
    ('connector on one side', '    metrics: {receivers: [span_metrics], exporters: [prometheus]}\n',
     '',
     "19:3: connectors::span_metrics: exporter of pipeline 'traces', but receiver of no "
     'pipeline that it can make traces into'),
    ('connector as exporter id', '  otlp_http: {',
     '  span_metrics: {endpoint: x}\n  otlp_http: {',
     "25:3: exporters::span_metrics: no such exporter in this build ('span_metrics' is a "
     'connector)'),
    ('signal not supported', 'metrics: {receivers: [span_metrics], exporters: [prometheus]}',
     'metrics: {receivers: [span_metrics], processors: [attributes], exporters: [prometheus]}',
     "41:55: service::pipelines::metrics::processors[0]: processor 'attributes' does not take "
     'metrics'),
    ('profiles', '    metrics: {',
     '    profiles: {receivers: [otlp], exporters: [otlp_grpc]}\n    metrics: {',
     "41:5: service::pipelines::profiles: 'profiles' is no signal of this build"),
    ('unsupported key', 'timeout: 1s',
     'metadata_keys: [a]',
     "8:5: processors::batch: the Collector's key 'metadata_keys' is not supported here"),
    ('unsupported json', '{endpoint: "http://backend:4318"}',
     '{endpoint: "http://backend:4318", encoding: json}',
     "25:58: exporters::otlp_http::encoding: 'json' is none of proto"),
    ('compression', 'endpoint: backend:4317',
     'endpoint: backend:4317\n    compression: snappy',
     "24:18: exporters::otlp_grpc::compression: 'snappy' is none of gzip, zstd, none"),
    ('duplicate key', '    timeout: 1s',
     '    timeout: 1s\n    timeout: 2s',
     "9:5: key 'timeout' stands twice in this mapping (first at line 8)"),
    ('tab', '    timeout: 1s',
     '\ttimeout: 1s',
     '8:1: not YAML: found character that cannot start any token while scanning for the next '
     'token (line 8)'),
    ('unclosed flow', '[otlp_grpc, otlp_http',
     '[otlp_grpc, {otlp_http',
     "40:70: not YAML: did not find expected ',' or '}' while parsing a flow mapping (line 40)"),
    ('unclosed quote', 'endpoint: "localhost:8889"',
     'endpoint: "localhost:8889',
     '42:1: not YAML: found unexpected end of stream while scanning a quoted scalar (line 29)'),
    ('bad indentation', '    send_batch_size: 100',
     '   send_batch_size: 100',
     '9:4: not YAML: did not find expected key while parsing a block mapping (line 7)'),
    ('undefined alias', 'timeout: 1s', 'timeout: *x', '8:14: alias of an anchor that does not exist'),
    ('tag', 'timeout: 1s', 'timeout: !duration 1s', '8:14: this tag is not supported'),
    ('merge of a scalar', '    timeout: 1s', '    <<: 5', "8:9: '<<' wants a mapping or a list of mappings"),
    ('two documents', 'service:\n', '---\nservice:\n', '32:1: a second document in one file'),
    ('control character', 'timeout: 1s',
     'timeout: \x01',
     '8:14: not YAML: control characters are not allowed'),
    ('not utf-8', 'timeout: 1s', 'timeout: \udcff', '8:14: not YAML: invalid leading UTF-8 octet'),
    ('list key', '    timeout: 1s', '    ? [a]\n    : 1s', '8:7: a key must be a scalar'),
    ('unset variable in a number', 'send_batch_size: 100',
     'send_batch_size: ${env:NO_SUCH_VAR}',
     '9:22: processors::batch::send_batch_size: expected an integer, found nothing'),
    ('variable of a wrong type', 'send_batch_size: 100',
     'send_batch_size: ${env:T_WORD}',
     "9:22: processors::batch::send_batch_size: expected an integer, found the text 'word'"),
    ('bad variable name', 'send_batch_size: 100',
     'send_batch_size: ${env:1X}',
     "9:22: '1X' is no name of an environment variable ([A-Za-z_][A-Za-z0-9_]*); a literal $ "
     'before { is written $$'),
    ('missing file', 'send_batch_size: 100',
     'send_batch_size: ${file:/no/such/file}',
     '9:22: cannot read /no/such/file: No such file or directory'),
    ('unknown scheme', 'send_batch_size: 100',
     'send_batch_size: ${vault:x}',
     "9:22: scheme 'vault' is not supported: use file, env or yaml"),
    ('unclosed reference', 'send_batch_size: 100',
     'send_batch_size: ${env:T_WORD',
     "9:22: processors::batch::send_batch_size: expected an integer, found '${env:T_WORD'"),
    ('mapping inside a text', 'endpoint: backend:4317',
     'endpoint: x${yaml:{a: 1}}:4317',
     '23:25: not YAML: mapping values are not allowed in this context'),
    ('recursion', 'endpoint: backend:4317',
     'endpoint: ${env:T_LOOP}',
     '23:15: more than 1000 substitutions: do they refer to each other?'),
]

SMALL = "receivers: {otlp: {protocols: {grpc: }}}\n"

# (what is wrong, whole text, a line of the answer)
TEXTS = [
    ("empty", "", ": service::pipelines: at least one pipeline is needed"),
    ("a list", "- a\n", ":1:1: a configuration is a mapping with receivers, exporters, service ..."),
    ("a scalar", "hello\n", ":1:1: a configuration is a mapping with receivers, exporters, service ..."),
    ("cycle through connectors", SMALL + """\
connectors: {forward/a: , forward/b: }
exporters: {debug: }
service:
  pipelines:
    traces/1: {receivers: [otlp, forward/a], exporters: [forward/b]}
    traces/2: {receivers: [forward/b], exporters: [forward/a, debug]}
""", ":6:5: service::pipelines::traces/1: its output comes back to it through connectors"),
    ("a pipeline into itself", SMALL + """\
connectors: {forward: }
service: {pipelines: {traces: {receivers: [otlp, forward], exporters: [forward]}}}
""", ":3:23: service::pipelines::traces: its output comes back to it through connectors"),
    ("mistake behind an alias", SMALL + """\
exporters:
  otlp_grpc/a: &a {endpoint: "a:1", tsl: {insecure: true}}
  otlp_grpc/b: *a
service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc/a, otlp_grpc/b]}}}
""", ":3:37: exporters::otlp_grpc/b: unknown key 'tsl' (did you mean 'tls'?)"),
    ("nested 3,000 deep", "a: " + "{a: " * 3000 + "1" + "}" * 3000, ":1:400: nested too deeply"),
    ("aliases that multiply",
     "a: &a [" + ",".join("x" * 9) + "]\n" + "".join(
         f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)),
     ":1:10: more than 200000 values, aliases and references counted where they are used"),
    ("five megabytes", GOOD + "# " + "x" * (5 << 20), ": larger than 4194304 bytes"),
]


def validate(*args):
    env = dict(os.environ, T_WORD="word", T_LOOP="${env:T_LOOP}")
    env.pop("NO_SUCH_VAR", None)
    r = subprocess.run([program("tailrace-gateway"), *map(str, args), "validate"], capture_output=True,
                       text=True, errors="replace", timeout=60, env=env)
    return r.returncode, r.stderr.splitlines()


@pytest.mark.parametrize("old, new, line", [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_mistake(tmp_path, old, new, line):
    assert GOOD.count(old), "the mistake changes nothing"
    path = tmp_path / "c.yaml"
    path.write_bytes(GOOD.replace(old, new, 1).encode("utf-8", "surrogateescape"))
    code, answer = validate("--config", path)
    assert code == 1
    assert f"{path}:{line}" in answer


@pytest.mark.parametrize("text, line", [t[1:] for t in TEXTS], ids=[t[0] for t in TEXTS])
def test_text(tmp_path, text, line):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    code, answer = validate("--config", path)
    assert code == 1 and f"{path}{line}" in answer


@pytest.mark.parametrize("args, line", [
    (["--config", "/no/such.yaml"], "cannot read /no/such.yaml: No such file or directory"),
    (["--config", "/tmp"], "cannot read /tmp: Is a directory"),
    (["--config", "http://host/file"], "scheme 'http' is not supported: use file, env or yaml"),
    (["--set", "nonsense"], "--set nonsense: write --set path.to.key=value"),
    (["--set", "processors.batch.timeouts=1s"],
     "--set processors.batch.timeouts=1s:1:1: processors::batch: unknown key 'timeouts' (did you mean "
     "'timeout'?)"),
    (["--config", "yaml:processors: {batch: {timeout: x}}"],
     "yaml:1:31: processors::batch::timeout: expected a duration such as 200ms, 5s or 1m30s, found 'x'"),
], ids=lambda x: x[1] if isinstance(x, list) else "")
def test_source(tmp_path, args, line):
    path = tmp_path / "c.yaml"
    path.write_text(GOOD)
    code, answer = validate("--config", path, *args)
    assert code == 1 and line in answer


def test_all_mistakes_are_told_at_once_in_their_order(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(GOOD.replace("timeout: 1s", "timeout: x").replace("{unit: s}", "{unit: m}")
                    .replace("exporters: [prometheus]", "exporters: [promethius]"))
    code, answer = validate("--config", path)
    places = [line[len(str(path)) + 1:].split(":")[0] for line in answer if line.startswith(str(path))]
    assert code == 1 and places == ["8", "20", "41"]


def test_what_is_right_passes(tmp_path):
    """The file itself; anchors, aliases and merge keys; a byte order mark; an unset variable in a text."""
    for text in (GOOD, "\ufeff" + GOOD, GOOD.replace("backend:4317", "${env:NO_SUCH_VAR:-b:1}"), SMALL + """\
exporters:
  otlp_grpc/a: &a {endpoint: "a:1", tls: &t {insecure: true}}
  otlp_grpc/b: {<<: *a, endpoint: "b:1"}
  otlp_grpc/c: {endpoint: "c:1", tls: *t}
service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc/a, otlp_grpc/b, otlp_grpc/c]}}}
"""):
        path = tmp_path / "c.yaml"
        path.write_text(text)
        code, answer = validate("--config", path)
        assert code == 0, answer


def refused_keys():
    """[(section, component, keys)] that the reference pages call refused, from all pages."""
    out = []
    for page in sorted((ROOT / "docs" / "reference").glob("*s.md")):
        name = None
        for line in page.read_text().splitlines():
            if line.startswith("## "):
                name = line[3:].strip()
            elif line.startswith("Keys of the Collector that are refused:"):
                out.append((page.stem, name, re.findall(r"`([^`]+)`", line)))
    return out


@pytest.mark.parametrize("section, name, keys", refused_keys(), ids=lambda x: x if isinstance(x, str) else "")
def test_keys_that_the_pages_call_refused_are_refused_by_name(section, name, keys):
    listed = subprocess.run([program("tailrace-gateway"), "components"], capture_output=True, text=True,
                            timeout=60).stdout
    binary = "tailrace-gateway" if f"name: {name}\n" in listed else "tailrace-agent"
    tree = {}
    for key in keys:
        at = tree
        *path, last = key.split("::")
        for part in path:
            if part.endswith("[]"):
                at = at.setdefault(part[:-2], [{}])[0]
            else:
                at = at.setdefault(part, {})
        at[last] = 1
    text = f"{section}: {{{name}: {yaml.safe_dump(tree, default_flow_style=True).strip()}}}"
    r = subprocess.run([program(binary), "--config", f"yaml:{text}", "validate"], capture_output=True,
                       text=True, timeout=60)
    for key in keys:
        last = key.split("::")[-1]
        assert f"the Collector's key '{last}' is not supported here" in r.stderr, (key, r.stderr)


def test_components_that_are_called_missing_are_refused_by_name():
    rows = re.findall(r"^\| (receivers|processors|exporters|connectors|extensions) \| (.+) \|$",
                      (ROOT / "docs" / "missing.md").read_text(), re.M)
    assert len(rows) == 5
    for section, names in rows:
        ids = names.split(", ")
        code, answer = validate("--config", f"yaml:{section}: {{{', '.join(f'{i}: ' for i in ids)}}}")
        for i in ids:
            assert any(f"{section}::{i}: no such {section[:-1]} in this build" in line for line in answer), i
