"""The events that say what an expectation has come to, and what they are known by when the journal brings them back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from wafermon.correlation.schedules.expectation import Expectation, Run
from wafermon.correlation.schedules.rules import Rule
from wafermon.model.cron import zone_of
from wafermon.model.messages import OWN_SERVICE, Event, Message, dumps
from wafermon.model.schedules import DONE, PAUSED, RESUMED, RUNNING, TOLD

KINDS = frozenset({RUNNING, DONE, RESUMED, PAUSED, *TOLD})
"""Of the events that are derived. What an operator asked for is a `paused` or `resumed` with `by` in its context."""
STARTED = "started"
"""The kind of the event that says that the sidecar began, and how long it was away."""
CLOCK = "clock_set"
"""The kind of the one that is journalled where the date was set and nothing else is."""
RUN_TEXT = 128


def event(
    state: str,
    expectation: Expectation,
    words: str,
    *,
    alarm: bool,
    due: int,
    run: Run | None,
    client: str,
    ts: int,
    more: Mapping[str, Any],
) -> Event:
    """One transition. `due` is 0 where there is none."""
    context: dict[str, Any] = {"kind": state, "schedule": expectation.name, "times": expectation.times[state]}
    if expectation.host:
        context["host"] = expectation.host
    if due:
        context["due"] = due
    if run is not None:
        context |= {"run": run.id, "percent": run.percent, "service": run.service, "started": run.started}
    who = f"{expectation.name} on {expectation.host}" if expectation.host else expectation.name
    made = Event(
        v=2,
        ts=ts,
        service=OWN_SERVICE,
        client=client,
        level="warning" if alarm else "info",
        message=f"schedule {who}: {words}",
        context={**context, **more},
    )
    if run is not None:
        made.trace_id = run.trace_id
    return made


def key(context: dict[str, Any], ts: Any) -> str | None:
    """What is the same whenever the same transition is derived, and for no other; None where it is none that is derived."""
    if context.get("kind") not in KINDS or "schedule" not in context or "by" in context:
        return None
    names = ("schedule", "host", "due", "run", "kind", "times")
    return "schedule " + dumps([*(context.get(name) for name in names), ts])


def started(away: int, client: str, ts: int) -> Event:
    """The sidecar began, after so many microseconds."""
    words = f"wafermon has started; it was away for {span(away)}"
    return _own(words, {"kind": STARTED, "away": away}, client, ts)


def clock_set(by: int, client: str, ts: int) -> Event:
    """The date was set by so many microseconds since a message came last."""
    words = f"the date is {span(abs(by))} {'further' if by > 0 else 'back'} since a message came last"
    return _own(words, {"kind": CLOCK, "by": by}, client, ts)


def asked(kind: str, schedule: str, until: int, by: str, client: str, ts: int) -> Event:
    """An operator wants a schedule `paused` (until a date; 0: until it is resumed) or `resumed`."""
    words = f"schedule {schedule}: {kind} by {by}"
    context = {"kind": kind, "schedule": schedule, "by": by, **({"until": until} if until else {})}
    return _own(words, context, client, ts)


def _own(words: str, context: dict[str, Any], client: str, ts: int) -> Event:
    return Event(v=2, ts=ts, service=OWN_SERVICE, client=client, level="info", message=words, context=context)


def is_asked(message: Event) -> bool:
    """Whether it says that an operator wants a schedule paused or resumed."""
    context: Any = message.context or {}
    return context.get("kind") in (PAUSED, RESUMED) and "by" in context


def gap_of(message: Message) -> int | None:
    """How long the sidecar was away, says the event of its start; None where it is another message."""
    if not isinstance(message, Event) or not message.context or message.context.get("kind") != STARTED:
        return None
    gap = message.context.get("away")
    return gap if type(gap) is int and gap >= 0 else None


def moment(at: int, rule: Rule) -> str:
    """A date as people read it, in the schedule's time zone."""
    return datetime.fromtimestamp(at // 1_000_000, zone_of(rule.zone)).strftime("%Y-%m-%d %H:%M:%S %Z")


def span(microseconds: int) -> str:
    """A duration, roughly: ``2h 5m``, ``2.5s``."""
    if microseconds < 10_000_000:
        return f"{max(0, microseconds) / 1e6:.2g}s"
    seconds = round(microseconds / 1e6)
    parts = [(seconds // 86_400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    told = [(count, unit) for count, unit in parts if count]
    return " ".join(f"{count}{unit}" for count, unit in told[:2])
