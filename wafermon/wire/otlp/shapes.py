"""The requests of OTLP/HTTP, named and nested as opentelemetry's proto has them, in the shape of its JSON.

A 64-bit number is a decimal string in JSON, and may come as a number; an id is hexadecimal; bytes are base64. What a field is not
used for here is left out: unknown keys are passed over, as OTLP wants it.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Signal = Literal["logs", "metrics", "traces"]
SIGNALS: tuple[Signal, ...] = ("logs", "metrics", "traces")
Long = int | str
Double = float | str
"""A number, or one of the strings ``NaN``, ``Infinity``, ``-Infinity``."""

DELTA, CUMULATIVE = 1, 2
"""Of `Sum.aggregation_temporality`."""
KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
"""Of `Span.kind`, by its number."""
STATUS_ERROR = 2


class _Shape(Struct, rename="camel", omit_defaults=True, gc=False):
    """A message of the proto: what has its default is not written."""


class AnyValue(_Shape):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: Long | None = None
    double_value: Double | None = None
    array_value: ArrayValue | None = None
    kvlist_value: KeyValueList | None = None
    bytes_value: str | None = None


class KeyValue(_Shape):
    key: str = ""
    value: AnyValue | None = None


class ArrayValue(_Shape):
    values: list[AnyValue] = []


class KeyValueList(_Shape):
    values: list[KeyValue] = []


class Resource(_Shape):
    attributes: list[KeyValue] = []


class Scope(_Shape):
    name: str = ""
    version: str = ""


# -- logs


class LogRecord(_Shape):
    time_unix_nano: Long = 0
    observed_time_unix_nano: Long = 0
    severity_number: int = 0
    severity_text: str = ""
    event_name: str = ""
    body: AnyValue | None = None
    attributes: list[KeyValue] = []
    trace_id: str = ""
    span_id: str = ""


class ScopeLogs(_Shape):
    scope: Scope | None = None
    log_records: list[LogRecord] = []


class ResourceLogs(_Shape):
    resource: Resource | None = None
    scope_logs: list[ScopeLogs] = []


class Logs(_Shape):
    """A request to ``/v1/logs``."""

    resource_logs: list[ResourceLogs] = []


# -- traces


class SpanEvent(_Shape):
    time_unix_nano: Long = 0
    name: str = ""
    attributes: list[KeyValue] = []


class Link(_Shape):
    trace_id: str = ""
    span_id: str = ""


class Status(_Shape):
    message: str = ""
    code: int = 0


class Span(_Shape):
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    name: str = ""
    kind: int = 0
    start_time_unix_nano: Long = 0
    end_time_unix_nano: Long = 0
    attributes: list[KeyValue] = []
    events: list[SpanEvent] = []
    links: list[Link] = []
    status: Status | None = None


class ScopeSpans(_Shape):
    scope: Scope | None = None
    spans: list[Span] = []


class ResourceSpans(_Shape):
    resource: Resource | None = None
    scope_spans: list[ScopeSpans] = []


class Traces(_Shape):
    """A request to ``/v1/traces``."""

    resource_spans: list[ResourceSpans] = []


# -- metrics


class Exemplar(_Shape):
    time_unix_nano: Long = 0
    as_double: Double | None = None
    as_int: Long | None = None
    span_id: str = ""
    trace_id: str = ""


NO_VALUE = 1
"""Of a point's `flags`: it has none."""


class NumberDataPoint(_Shape):
    start_time_unix_nano: Long = 0
    time_unix_nano: Long = 0
    as_double: Double | None = None
    as_int: Long | None = None
    attributes: list[KeyValue] = []
    exemplars: list[Exemplar] = []
    flags: int = 0


class Gauge(_Shape):
    data_points: list[NumberDataPoint] = []


class Sum(_Shape):
    data_points: list[NumberDataPoint] = []
    aggregation_temporality: int = 0
    is_monotonic: bool = False


class CountedPoint(_Shape):
    """A point of a histogram of either kind, or of a summary: how often, and the sum. Buckets and quantiles are passed over."""

    start_time_unix_nano: Long = 0
    time_unix_nano: Long = 0
    count: Long = 0
    sum: Double | None = None
    attributes: list[KeyValue] = []
    flags: int = 0


class Histogram(_Shape):
    data_points: list[CountedPoint] = []
    aggregation_temporality: int = 0


class Summary(_Shape):
    data_points: list[CountedPoint] = []


class Metric(_Shape):
    name: str = ""
    unit: str = ""
    gauge: Gauge | None = None
    sum: Sum | None = None
    histogram: Histogram | None = None
    exponential_histogram: Histogram | None = None
    summary: Summary | None = None


class ScopeMetrics(_Shape):
    scope: Scope | None = None
    metrics: list[Metric] = []


class ResourceMetrics(_Shape):
    resource: Resource | None = None
    scope_metrics: list[ScopeMetrics] = []


class Metrics(_Shape):
    """A request to ``/v1/metrics``."""

    resource_metrics: list[ResourceMetrics] = []


Request = Logs | Metrics | Traces
REQUESTS: dict[Signal, type[Request]] = {"logs": Logs, "metrics": Metrics, "traces": Traces}


# -- answers


class PartialSuccess(_Shape):
    """Present and empty is a success."""

    rejected_log_records: Long = 0
    rejected_data_points: Long = 0
    rejected_spans: Long = 0
    error_message: str = ""

    @property
    def rejected(self) -> int:
        return max(int(self.rejected_log_records), int(self.rejected_data_points), int(self.rejected_spans))


class Answer(_Shape):
    """To a request that was taken."""

    partial_success: PartialSuccess | None = None


class Failure(_Shape):
    """To one that was not: google.rpc.Status."""

    code: int = 0
    message: str = ""
