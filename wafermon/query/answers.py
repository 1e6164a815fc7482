"""Questions as HTTP and the commands ask them: arguments in text, answers in JSON values. docs/http.md shows each.

Every list takes ``limit`` and ``after``, and says with ``next`` how to go on, with ``total`` how many there are and with
``left_out`` how many of them come after it, as far as that is counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wafermon.model.asking import (
    MOST,
    STATES,
    ErrorFilter,
    EventFilter,
    Found,
    JobFilter,
    Page,
    Place,
    error_place,
    event_place,
    job_place,
    parse_moment,
)
from wafermon.model.messages import LEVELS
from wafermon.model.schedules import Schedule
from wafermon.query.compare import critical_path
from wafermon.query.query import Answer, BadQuestion, Query, median_run

LIMIT = 100
MESSAGES = 200
"""Of each type, of one trace."""
PAGING = ("limit", "after", "source")
TIMES = ("since", "until")
JOBS = ("name", "kind", "service", "state", *TIMES, *PAGING)


class NotThere(LookupError):
    """Nothing is known of what was asked for."""

    def __init__(self, why: str, candidates: Sequence[str] = ()) -> None:
        super().__init__(why)
        self.candidates = list(candidates)
        """What may be meant."""


class Unavailable(Exception):
    """Nobody can be asked now; the text says why."""


@dataclass(frozen=True)
class Question:
    """One kind of question."""

    known: tuple[str, ...]
    """The arguments that it takes."""
    ask: Callable[[Query, Mapping[str, str]], Awaitable[dict[str, Any]]]
    """Raises BadQuestion, NotThere, Unavailable."""
    timed: bool = True
    """Whether the answer says when it was given, as ``now``."""


async def answer(query: Query, name: str, given: Mapping[str, str]) -> dict[str, Any]:
    """The answer to one of QUESTIONS. Raises BadQuestion, also for an argument that it does not know; NotThere; Unavailable."""
    question = QUESTIONS[name]
    for key in given:
        if key not in question.known:
            raise BadQuestion(f"unknown argument {key[:64]!r}; {name} takes {', '.join(question.known)}")
    found = await question.ask(query, given)
    return {"now": query.now(), **found} if question.timed else found


# -- arguments


def whole(given: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A whole number from 0 to `most`. Raises BadQuestion."""
    text = given.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and int(text) <= most):
        raise BadQuestion(f"{name}: expected a whole number from 0 to {most}, got {text[:32]!r}")
    return int(text)


def _page(given: Mapping[str, str]) -> Page:
    after = given.get("after", "")
    try:
        return Page(whole(given, "limit", LIMIT, MOST), Place.parse(after) if after else None)
    except ValueError as error:
        raise BadQuestion(str(error) if isinstance(error, BadQuestion) else f"after: {error}") from None


def _moment(query: Query, given: Mapping[str, str], name: str) -> int:
    text = given.get(name, "")
    try:
        return parse_moment(text, query.now()) if text else 0
    except ValueError as error:
        raise BadQuestion(f"{name}: {error}") from None


def _times(query: Query, given: Mapping[str, str]) -> tuple[int, int]:
    since, until = _moment(query, given, "since"), _moment(query, given, "until")
    if until and until <= since:
        raise BadQuestion("until: expected a time after since; nothing lies between the two")
    return since, until


def _job_filter(query: Query, given: Mapping[str, str]) -> JobFilter:
    states = frozenset(filter(None, given.get("state", "").split(",")))
    if unknown := states.difference(STATES):
        raise BadQuestion(f"state: {sorted(unknown)[0][:64]!r} is none; expected some of {','.join(STATES)}")
    since, until = _times(query, given)
    return JobFilter(
        given.get("name", ""), given.get("kind", ""), given.get("service", ""), states, since, until,
    )  # fmt: skip


def _context(text: str) -> dict[str, str]:
    """``wafer=W17`` or several of them, separated by commas."""
    found = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise BadQuestion(f"context: expected KEY=VALUE, or several separated by commas, got {pair[:64]!r}")
        found[key] = value
    return found


# -- answers


def _list(name: str, answer: Answer[Found[Any]], page: Page, place: Callable[[Any], Place]) -> dict[str, Any]:
    found = answer.found
    if answer.problems and not answer.sources:
        raise Unavailable("; ".join(answer.problems))
    following = ""
    if found.more and found.searched:
        following = str(Place(found.searched, ""))
    elif found.more and found.records:
        following = str(place(found.records[-1]))
    first = page.after is None
    return {
        name: list(found.records),
        "total": found.total,
        "left_out": found.total - len(found.records) if first and found.total is not None else None,
        "more": found.more,
        "next": following,
        "searched_to": found.searched,
        **_origin(answer),
    }


def _origin(answer: Answer[Any]) -> dict[str, Any]:
    return {"sources": answer.sources, "problems": answer.problems}


def _unknown(given: str, answer: Answer[Any]) -> Exception:
    """What is raised where nothing was found: a source that could not be asked may know it."""
    if answer.problems:
        return Unavailable("; ".join(dict.fromkeys(answer.problems)))
    return NotThere(f"nothing is known of {given[:64]!r}: it never came, or it is older than what is kept")


def _whole(answer: Answer[Any]) -> dict[str, Any]:
    if answer.problems and not answer.sources:
        raise Unavailable("; ".join(answer.problems))
    return _origin(answer)


async def _jobs(query: Query, given: Mapping[str, str]) -> dict[str, Any]:
    page = _page(given)
    found = await query.jobs(_job_filter(query, given), page, given.get("source", ""))
    return _list("jobs", found, page, job_place)


async def _runs(query: Query, given: Mapping[str, str]) -> dict[str, Any]:
    """Without a name the kinds that there are."""
    source = given.get("source", "")
    if not given.get("of"):
        since, until = _times(query, given)
        kinds = await query.kinds(since, until, source)
        limit = whole(given, "limit", LIMIT, MOST)
        origin = _whole(kinds)
        left_out = max(0, len(kinds.found) - limit)
        return {"kinds": kinds.found[:limit], "total": len(kinds.found), "left_out": left_out, **origin}
    page = _page(given)
    kind, found = await query.runs(given["of"], page, _job_filter(query, given), source)
    done = [run for run in found.found.records if run["state"] == "done"]
    return {"kind": kind, "median": median_run(done), **_list("runs", found, page, job_place)}


async def _trace(query: Query, given: Mapping[str, str]) -> dict[str, Any]:
    trace_id = await one_trace(query, given.get("id", ""), given.get("source", ""))
    stored = given.get("stored", "")
    if stored not in ("", "kept", "no"):
        raise BadQuestion(f"stored: expected kept or no, or leave it out, got {stored[:32]!r}")
    limit = whole(given, "limit", MESSAGES, MOST)
    if stored == "no":
        answer = await query.trace_now(trace_id, limit)
    else:
        answer = await query.trace(trace_id, limit, given.get("source", ""), kept=stored == "kept")
    if answer.found is None:
        raise _unknown(given.get("id", ""), answer)
    return {**answer.found, "critical_path": critical_path(answer.found), **_origin(answer)}


async def one_trace(query: Query, given: str, source: str) -> str:
    """The one trace that is meant. Raises NotThere, also where there are several."""
    if not given:
        raise BadQuestion("missing: the id of a trace or a job, or the beginning of one")
    meant = await query.resolve(given, source)
    if not meant.found:
        raise _unknown(given, meant)
    if len(meant.found) > 1:
        shown = ", ".join(meant.found[:10]) + (", …" if len(meant.found) > 10 else "")
        raise NotThere(f"{given!r} is the beginning of several: {shown}", meant.found[:10])
    return meant.found[0]


async def _receipt(query: Query, given: Mapping[str, str]) -> dict[str, Any]:
    found = await query.receipt(given.get("id", ""), given.get("source", ""))
    if found.found is None:
        raise _unknown(given.get("id", ""), found)
    return {**found.found}


async def _compare(query: Query, given: Mapping[str, str]) -> dict[str, Any]:
    source = given.get("source", "")
    run = await one_trace(query, given.get("run", ""), source)
    other = await one_trace(query, given["other"], source) if given.get("other") else ""
    if run == other:
        raise BadQuestion(f"run and other are both {run}; name two runs")
    found = await query.compare(run, other, source)
    if found.found is None:
        raise _unknown(other or run, found)
    return {**found.found, **_origin(found)}


async def _events(query: Query, given: Mapping[str, str]) -> dict[str, Any]:
    page, (since, until) = _page(given), _times(query, given)
    level = given.get("level", "")
    if level and level not in LEVELS:
        raise BadQuestion(f"level: expected the least one, of {', '.join(LEVELS)}, got {level[:32]!r}")
    wanted = EventFilter(
        since, until, given.get("trace", ""), given.get("service", ""), level, given.get("text", ""),
        _context(given.get("context", "")),
    )  # fmt: skip
    return _list("events", await query.events(wanted, page, given.get("source", "")), page, event_place)


async def _errors(query: Query, given: Mapping[str, str]) -> dict[str, Any]:
    page, (since, until) = _page(given), _times(query, given)
    wanted = ErrorFilter(since, until, given.get("service", ""), given.get("text", ""))
    return _list("errors", await query.errors(wanted, page, given.get("source", "")), page, error_place)


async def _services(query: Query, given: Mapping[str, str]) -> dict[str, Any]:
    found = await query.services(*_times(query, given), given.get("source", ""))
    return {"services": found.found, **_whole(found)}


DAYS = 30
"""So far back a schedule is judged where nothing else is asked for."""


async def _rehearsal(query: Query, given: Mapping[str, str]) -> dict[str, Any]:
    name = given.get("name", "")
    since, until = _times(query, given)
    until = until or query.now()
    since = since or until - DAYS * 86_400_000_000
    found = await query.rehearse(name, since, until, given.get("source", ""))
    if found.found is None:
        raise NotThere(f"no schedule {name[:64]!r} is in the config", list(query.schedules()))
    schedule = query.schedules()[name]
    notes = ["hosts are not stored: match.host and per_host are left out"] if _goes_by_host(schedule) else []
    if not schedule.of_jobs:
        notes.append("a service that sends neither events nor progress looks silent here")
    return {"schedule": name, "since": since, "until": until, **found.found, "notes": notes, **_whole(found)}


def _goes_by_host(schedule: Schedule) -> bool:
    return bool(schedule.match.host) or schedule.per_host


QUESTIONS: Mapping[str, Question] = {
    "jobs": Question(JOBS, _jobs),
    "runs": Question(("of", *(key for key in JOBS if key != "kind")), _runs),
    "trace": Question(("id", "limit", "stored", "source"), _trace),
    "receipt": Question(("id", "source"), _receipt, timed=False),
    "compare": Question(("run", "other", "source"), _compare),
    "events": Question(("trace", "service", "level", "text", "context", *TIMES, *PAGING), _events),
    "errors": Question(("service", "text", *TIMES, *PAGING), _errors),
    "services": Question((*TIMES, "source"), _services),
    "rehearsal": Question(("name", *TIMES, "source"), _rehearsal),
}
"""By name."""
