"""The JSON that HTTP routes and commands answer with, as types: docs/json.md and its schemas are made of these, the tests compare what a
running sidecar says with them, and the commands know by them which numbers are times. Nothing is decoded by them."""

from __future__ import annotations

import msgspec

from wafermon.model.shapes.base import NotKnown, Span, Time, TimeOrZero, fields
from wafermon.model.shapes.commands import ConfigDifference, Finding
from wafermon.model.shapes.jobs import (
    Comparison,
    Errors,
    EventFound,
    Events,
    Job,
    Jobs,
    Kinds,
    Receipt,
    Runs,
    Services,
    SpanOfTrace,
    Trace,
)
from wafermon.model.shapes.schedules import Rehearsed, Schedules
from wafermon.model.shapes.sidecar import Clients, Drained, Forgotten, Forwarders, Letters, Process, Status

ANSWERS: tuple[type[msgspec.Struct], ...] = (
    Jobs, Kinds, Runs, Comparison, Trace, Receipt, Events, Errors, Services, Clients, Forwarders, Letters, Schedules, Rehearsed, Status, Process, Drained, Forgotten, NotKnown,
    Finding, ConfigDifference,
)  # fmt: skip
"""What is printed as a whole, or as the entries of a list."""

__all__ = [
    "ANSWERS",
    "Clients",
    "Comparison",
    "ConfigDifference",
    "Drained",
    "Errors",
    "EventFound",
    "Events",
    "Finding",
    "Forgotten",
    "Forwarders",
    "Job",
    "Jobs",
    "Kinds",
    "Letters",
    "NotKnown",
    "Process",
    "Receipt",
    "Rehearsed",
    "Runs",
    "Schedules",
    "Services",
    "Span",
    "SpanOfTrace",
    "Status",
    "Time",
    "TimeOrZero",
    "Trace",
    "fields",
]
