// A program of OpenTelemetry's SDK for Node.js: `node program.js URL NAME json|protobuf` sends a trace.
'use strict';
const { ROOT_CONTEXT, defaultTextMapGetter, SpanStatusCode } = require('@opentelemetry/api');
const { W3CTraceContextPropagator } = require('@opentelemetry/core');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { BatchSpanProcessor, NodeTracerProvider } = require('@opentelemetry/sdk-trace-node');

const [url, name, encoding] = process.argv.slice(2);
const kind = encoding === 'json' ? 'http' : 'proto';
const { OTLPTraceExporter } = require(`@opentelemetry/exporter-trace-otlp-${kind}`);
const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ 'service.name': name, 'process.pid': process.pid }),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url: `${url}/v1/traces` }))],
});
provider.register();
const tracer = provider.getTracer('program');

// The two lines by which a program falls into the job that started it.
const carrier = { traceparent: process.env.TRACEPARENT ?? '' };
const parent = new W3CTraceContextPropagator().extract(ROOT_CONTEXT, carrier, defaultTextMapGetter);
tracer.startActiveSpan('outer', { attributes: { wafers: 25, lots: ['L7', 'L8'] } }, parent, (outer) => {
  tracer.startActiveSpan('inner', (inner) => {
    inner.recordException(new Error('boom'));
    inner.setStatus({ code: SpanStatusCode.ERROR, message: 'it went wrong' });
    inner.end();
  });
  outer.end();
});
provider.shutdown();
