"""The messages that the engine derives, and the keys by which they are known again when the journal brings them back.

A key is made of fields that the protocol names, so that it can be read from the stored message alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET

from wafermon.correlation.facts import Facts
from wafermon.correlation.receipts import KEPT, KIND, in_words, record_of
from wafermon.correlation.schedules import said
from wafermon.correlation.traces import Job, LiveTrace, Span
from wafermon.model.messages import OWN_SERVICE, Event, Message, Trace

EVICTED = "traces_evicted"
WHICH = {"span_abandoned": "span_id", "job_stalled": "job_id", "gone": "job_id", KIND: "number", EVICTED: "minute"}
"""The kinds of derived events, each with the field of its context that says what it is about."""
ALARMS = ("span_abandoned", "job_stalled", "gone")
OLDER = ("span_abandoned", "job_stalled")
"""Those that sidecars of 2.0.0 know in a snapshot."""


OPEN_SPANS = 20
"""So many of the spans that a program left open are named with its job."""


class Derived(NamedTuple):
    """A message that the sidecar is to append to its journal."""

    key: str
    """Says which fact of which trace this is; unique, and the same whenever it is derived again."""
    message: Trace | Event
    """Whole, as it is to be stored."""


def derived(message: Trace | Event) -> Derived:
    """A message made by one of the functions below -> the same with its key."""
    if isinstance(message, Trace):
        return Derived(_key("trace", message.trace_id, message.part, message.ts), message)
    context: Any = message.context
    kind = context["kind"]
    if scheduled := said.key(context, message.ts):
        return Derived(scheduled, message)
    return Derived(_key(kind, message.trace_id, context[WHICH[kind]], message.ts), message)


def is_older(message: Message) -> bool:
    """Whether sidecars of 2.0.0 know what it is."""
    return not isinstance(message, Event) or not message.context or message.context.get("kind") in OLDER


def is_alarm(message: Message) -> bool:
    """Whether it says that something of a trace went wrong."""
    context = message.context if isinstance(message, Event) else UNSET
    return context is not UNSET and context.get("kind") in ALARMS


def is_of_schedule(message: Message) -> bool:
    """Whether it says something of a schedule."""
    return isinstance(message, Event) and bool(message.context) and "schedule" in (message.context or {})


def key_of(message: Message) -> str | None:
    """A message of the sidecar's own, as stored -> its key; None where no engine derived it."""
    if isinstance(message, Trace):
        return _key("trace", message.trace_id, message.part, message.ts)
    if isinstance(message, Event) and message.context:
        kind = message.context.get("kind")
        if isinstance(kind, str) and kind in said.KINDS:
            return said.key(message.context, message.ts)
        if isinstance(kind, str) and kind in WHICH:
            return _key(kind, message.trace_id, message.context.get(WHICH[kind]), message.ts)
    return None


def _key(kind: str, trace_id: Any, which: Any, ts: Any) -> str:
    """No id holds a space, so that no two facts share a key."""
    return f"{kind} {trace_id} {which} {ts}"


def trace_ended(trace: LiveTrace, client: str, ts: int, status: Any) -> Trace:
    """The summary of a trace."""
    return Trace(
        v=2,
        ts=ts,
        service=OWN_SERVICE,
        client=client,
        trace_id=trace.id,
        first=trace.first,
        last=trace.last,
        services=list(trace.services),
        counts=trace.tally(),
        errors=trace.errors(),
        status=status,
        part=trace.part,
    )


def span_abandoned(trace: LiveTrace, span_id: str, span: Span, client: str, ts: int, *, gone: bool) -> Event:
    """`gone`: its program ended without saying so."""
    context: dict[str, Any] = {"name": span.name, "service": span.service, "started": span.started}
    message = f"span {span.name} of {span.service} was still open when its trace was given up"
    if gone:
        context["gone"] = True
        message += ": its program is gone"
    return _warning("span_abandoned", span_id, message, context, trace, client, ts)


def job_stalled(trace: LiveTrace, job_id: str, job: Job, client: str, ts: int, schedules: Sequence[str] = ()) -> Event:
    """`schedules`: those that follow it, by name."""
    context = _about(job, schedules)
    message = f"job {job_id} makes no progress: {job.percent:g} % {job.status}".rstrip()
    return _warning("job_stalled", job_id, message, context, trace, client, ts)


def job_gone(trace: LiveTrace, job_id: str, job: Job, client: str, ts: int, schedules: Sequence[str] = ()) -> Event:
    """`schedules`: those for which a run of it has failed by that, by name."""
    context = _about(job, schedules)
    spans = [span.name for span in trace.spans.values() if span.program == job.program]
    if spans:
        context["open_spans"] = spans[:OPEN_SPANS]
    message = f"job {job_id} is gone: its program {job.service} ended at {job.percent:g} % without saying so".rstrip()
    return _warning("gone", job_id, message, context, trace, client, ts)


def _about(job: Job, schedules: Sequence[str]) -> dict[str, Any]:
    context: dict[str, Any] = {"percent": job.percent, "service": job.service, "last_progress": job.ts}
    if job.status:
        context["status"] = job.status
    if schedules:
        context["schedules"] = list(schedules)
    return context


def traces_evicted(minute: int, count: int, client: str, ts: int) -> Event:
    """So many traces ended without a summary in a minute of journal time, which is counted from its beginning."""
    return Event(
        v=2,
        ts=ts,
        service=OWN_SERVICE,
        client=client,
        level="warning",
        message=f"{count} traces that had neither a span nor a job ended early and without a summary: `correlation.max_traces` are followed",
        context={"kind": EVICTED, "minute": minute, "count": count},
    )


def receipt(facts: Facts, client: str, ts: int, forwards: Collection[str] = ()) -> Event:
    """`forwards`: the backends that forward to other sidecars."""
    record = record_of(facts, KEPT, forwards)
    return Event(
        v=2,
        ts=ts,
        service=OWN_SERVICE,
        client=client,
        trace_id=facts.trace_id,
        level="info",
        message=in_words(record),
        context={"kind": KIND, "number": facts.account.told, **record},
    )


def _warning(
    kind: str, which: str, message: str, context: dict[str, Any], trace: LiveTrace, client: str, ts: int
) -> Event:
    return Event(
        v=2,
        ts=ts,
        service=OWN_SERVICE,
        client=client,
        trace_id=trace.id,
        level="warning",
        message=message,
        context={"kind": kind, WHICH[kind]: which, **context},
    )
