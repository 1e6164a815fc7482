"""A program of OpenTelemetry's Python SDK: `otel_program.py URL NAME [HEADERS]` sends a trace, logs and metrics, and says its ids."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator


def main(url: str, name: str) -> None:
    resource = Resource.create({"service.name": name, "host.name": "fab7", "process.pid": os.getpid(), "line": 7})
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{url}/v1/traces")))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{url}/v1/metrics"), export_interval_millis=60_000)
    meters = MeterProvider([reader], resource=resource)
    logger = with_logs(url, resource)

    # The two lines by which a program falls into the job that started it.
    parent = TraceContextTextMapPropagator().extract({"traceparent": os.environ.get("TRACEPARENT", "")})
    tracer = tracers.get_tracer("program")
    with tracer.start_as_current_span("outer", parent, attributes={"wafers": 25, "good": True}) as outer:
        logger.warning("from %s", name, extra={"lot": "L7"})
        with tracer.start_as_current_span("inner", kind=trace.SpanKind.CLIENT) as inner:
            inner.record_exception(ValueError("boom"))
            inner.set_status(trace.StatusCode.ERROR, "it went wrong")
    meter = meters.get_meter("program")
    meter.create_counter("wafers", "{wafer}").add(25, {"tool": "x"})
    meter.create_histogram("seconds", "s").record(0.5)
    for one in (tracers, meters):
        one.shutdown()
    context: Any = outer.get_span_context()
    print(json.dumps({"trace": f"{context.trace_id:032x}", "outer": f"{context.span_id:016x}"}))


def with_logs(url: str, resource: Resource) -> logging.Logger:
    """The SDK's names for logs begin with an underscore: they are said to change."""
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

    provider = LoggerProvider(resource=resource)
    provider.add_log_record_processor(SimpleLogRecordProcessor(OTLPLogExporter(f"{url}/v1/logs")))
    logger = logging.getLogger("program")
    logger.addHandler(LoggingHandler(logger_provider=provider))
    return logger


if __name__ == "__main__":
    main(*sys.argv[1:3])
