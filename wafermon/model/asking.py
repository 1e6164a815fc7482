"""What can be asked of the past: filters, pages, and answers that say what they leave out. Pure.

The same filters go to the sidecar's memory, to a history and to a database, so that all of them mean the same.
Times are microseconds since the Unix epoch; `since` is included, `until` is not, and 0 is no bound.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from wafermon.model.messages import LEVELS, TS_MAX, dumps
from wafermon.model.records import ErrorRecord, EventRecord, JobRecord
from wafermon.model.units import parse_duration

T = TypeVar("T")
MOST = 10_000
"""The most records of one answer."""
STATES = ("running", "stalled", "gone", "done", "failed", "cancelled", "unfinished")
"""What a job can be. `unfinished`: its trace ended and it had said nothing of its end."""
OPEN = ("running", "stalled")
"""The states of a job that goes on."""


class CannotAsk(Exception):
    """A place can't be read now; the text says why, and what to do."""


class Place(NamedTuple):
    """Where a record stands in a list that goes from the latest to the earliest."""

    time: int
    key: str

    def __str__(self) -> str:
        return f"{self.time}.{quote(self.key, safe='')}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read what ``str()`` wrote. Raises ValueError for anything else."""
        time, dot, key = text.partition(".")
        if not (dot and time.isascii() and time.isdecimal() and len(time) < 20 and len(key) < 1024):
            raise ValueError("this is no cursor that an answer gave")
        return cls(int(time), unquote(key))


@dataclass(frozen=True)
class Page:
    """How much of a list is wanted."""

    limit: int = 100
    after: Place | None = None
    """The last record of the page before; None for the first page."""

    def follows(self, place: Place) -> bool:
        """Whether a record is on this page or a later one."""
        return self.after is None or place < self.after


@dataclass(frozen=True)
class Found(Generic[T]):
    """A page of a list."""

    records: Sequence[T] = ()
    more: bool = False
    """Whether there are further ones after the last of these."""
    total: int | None = None
    """How many the filter takes, on all pages; None where that is not counted."""
    searched: int = 0
    """Where a search was ended before it had looked at everything: nothing before this time was looked at. Else 0."""


def job_key(trace_id: str, job_id: str) -> str:
    """No id holds a space."""
    return f"{trace_id} {job_id}"


def job_place(job: JobRecord) -> Place:
    return Place(job["last_progress"], job_key(job["trace_id"], job["job_id"]))


@dataclass(frozen=True)
class JobFilter:
    """Jobs by the time that they were last heard of."""

    name: str = ""
    """A glob over job ids."""
    kind: str = ""
    """The kind, exactly."""
    service: str = ""
    """A glob over the service that reported its progress last."""
    states: frozenset[str] = frozenset()
    """Some of STATES; empty for all."""
    since: int = 0
    until: int = 0
    traces: frozenset[str] = frozenset()
    """The ids of their traces; empty for all."""
    without: frozenset[str] = frozenset()
    """`job_key`s of those that are known already."""

    def takes(self, job: JobRecord) -> bool:
        return (
            (not self.name or fnmatchcase(job["job_id"], self.name))
            and (not self.kind or job["kind"] == self.kind)
            and (not self.service or fnmatchcase(job["service"], self.service))
            and (not self.states or job["state"] in self.states)
            and job["last_progress"] >= self.since
            and (not self.until or job["last_progress"] < self.until)
            and (not self.traces or job["trace_id"] in self.traces)
            and (not self.without or job_key(job["trace_id"], job["job_id"]) not in self.without)
        )


def as_text(value: Any) -> str:
    """A value of an event's context, as a filter compares it: text as it is, else its JSON."""
    return value if isinstance(value, str) else dumps(value)


def event_place(event: EventRecord) -> Place:
    """By time, then by client and seq; one without those by its text."""
    seq = event.get("seq")
    if isinstance(seq, int):
        return Place(event["ts"], f"{event.get('client', '')}:{seq:016d}")
    return Place(event["ts"], f"{event.get('service', '')}:{event.get('message', '')[:200]}")


@dataclass(frozen=True)
class EventFilter:
    """Events by their own time."""

    since: int = 0
    until: int = 0
    trace_id: str = ""
    service: str = ""
    """A glob."""
    level: str = ""
    """The least one."""
    text: str = ""
    """Occurs in the message, upper and lower case alike."""
    context: Mapping[str, str] = field(default_factory=dict)
    """Keys of the context and the values that they must have, as `as_text` writes them."""

    def takes(self, event: EventRecord) -> bool:
        context = event.get("context") or {}
        return (
            event["ts"] >= self.since
            and (not self.until or event["ts"] < self.until)
            and (not self.trace_id or event.get("trace_id") == self.trace_id)
            and (not self.service or fnmatchcase(event["service"], self.service))
            and (not self.level or LEVELS.index(event["level"]) >= LEVELS.index(self.level))
            and (not self.text or self.text.casefold() in event["message"].casefold())
            and all(key in context and as_text(context[key]) == wanted for key, wanted in self.context.items())
        )


def error_place(error: ErrorRecord) -> Place:
    return Place(error["last"], f"{error['service']} {error['pattern']}")


@dataclass(frozen=True)
class ErrorFilter:
    """Kinds of errors by the time that they were last seen. Counts are kept by the hour: `since` and `until` act on whole
    hours, from the one that `since` lies in to the one that `until` lies in."""

    since: int = 0
    until: int = 0
    service: str = ""
    text: str = ""

    def takes(self, error: ErrorRecord) -> bool:
        return (not self.service or fnmatchcase(error["service"], self.service)) and (
            not self.text or self.text.casefold() in error["message"].casefold()
        )


_AGO = re.compile(r"[0-9]+(?:\.[0-9]+)? ?(?:ms|s|m|h|d)")


def parse_moment(text: str, now: int) -> int:
    """``2h`` (so long before `now`), ``2026-11-28``, ``2026-11-28T10:15`` (UTC where no zone is named), or microseconds since the
    Unix epoch. Raises ValueError."""
    if _AGO.fullmatch(text):
        return max(0, now - round(parse_duration(text) * 1e6))
    if text.isascii() and text.isdecimal() and len(text) > 8:
        if int(text) > TS_MAX:
            raise ValueError(f"{text} is later than the year 2200: times are microseconds since the epoch")
        return int(text)
    try:
        moment = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
    except ValueError:
        wanted = (
            "expected a time ago such as 2h, a date and time such as 2026-11-28T10:15, or microseconds since the epoch"
        )
        raise ValueError(f"{wanted}, got {text[:40]!r}") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return max(0, round(moment.timestamp() * 1e6))


def parse_later(text: str, now: int) -> int:
    """``2h`` (so long after `now`), or a date as `parse_moment` reads it, which has to be later than `now`. Raises ValueError."""
    if _AGO.fullmatch(text):
        return now + round(parse_duration(text) * 1e6)
    try:
        moment = parse_moment(text, now)
    except ValueError:
        wanted = "expected a time from now such as 2h, or a date and time such as 2026-11-28T10:15"
        raise ValueError(f"{wanted}, got {text[:40]!r}") from None
    if moment <= now:
        raise ValueError(f"expected a time to come, and {text[:40]} is over")
    return moment


def page_of(records: Iterable[T], page: Page, place: Callable[[T], Place]) -> Found[T]:
    """One page of records that are all there are, in any order."""
    given = [(place(one), one) for one in records]
    rest = [one for one in given if page.follows(one[0])]
    rest.sort(key=itemgetter(0), reverse=True)
    return Found([one for _, one in rest[: page.limit]], len(rest) > page.limit, len(given))


def merged(answers: Sequence[Found[T]], page: Page, place: Callable[[T], Place]) -> Found[T]:
    """Answers of several sources to one question, which have nothing in common, as one answer."""
    records = sorted((one for answer in answers for one in answer.records), key=place, reverse=True)
    totals = [answer.total for answer in answers]
    total = None if None in totals else sum(total or 0 for total in totals)
    searched = max((answer.searched for answer in answers), default=0)
    if searched:  # what a source has not looked at may stand between the records of another
        records = [one for one in records if place(one).time >= searched]
    more = any(answer.more for answer in answers) or len(records) > page.limit
    return Found(records[: page.limit], more, total, searched)
