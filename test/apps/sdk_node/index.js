// SPDX-License-Identifier: Apache-2.0
// Sends COUNT spans (a parent and its children) with the unmodified SDK, then shuts it down.
// usage: node index.js grpc|http ENDPOINT COUNT
'use strict';

const { SpanKind, SpanStatusCode, context, trace } = require('@opentelemetry/api');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { BatchSpanProcessor, NodeTracerProvider } = require('@opentelemetry/sdk-trace-node');

const [protocol, endpoint, count] = process.argv.slice(2);
const { OTLPTraceExporter } = require(
  protocol === 'grpc' ? '@opentelemetry/exporter-trace-otlp-grpc'
                      : '@opentelemetry/exporter-trace-otlp-proto');

const exporter = new OTLPTraceExporter({ url: endpoint });
const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ 'service.name': 'sdk-node' }),
  spanProcessors: [new BatchSpanProcessor(exporter, { maxQueueSize: 100000 })],
});
provider.register();

const tracer = trace.getTracer('scenario', '1.0');
for (let i = 0; i < Number(count) / 2; i++) {
  const parent = tracer.startSpan(`work ${i}`, { kind: SpanKind.SERVER, attributes: { i } });
  const child = tracer.startSpan('step', { kind: SpanKind.CLIENT },
                                 trace.setSpan(context.active(), parent));
  child.setStatus({ code: SpanStatusCode.ERROR, message: 'näht' });
  child.end();
  parent.end();
}
provider.forceFlush().then(() => provider.shutdown()).then(
  () => console.log('flushed'),
  (e) => { console.error('failed', e); process.exit(1); });
