"""Notable messages -> alarms; many alarms -> one digest. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from wafermon.interfaces import Alarm
from wafermon.model.alerts import AlertConfig
from wafermon.model.errors import printable
from wafermon.model.notable import Notable

RECOVERED = "recovered"
KEY_MOST = 255
SUMMARY_MOST = 1000
IN_DIGEST = 20
"""So many are named in a digest; the others are counted."""


def alarm_of(one: Notable, place: str) -> Alarm:
    """`place` is where the journal has it: unique, and the same whenever it is read again."""
    event = one.event()
    said = event.get("context")
    context: Mapping[str, Any] = said if isinstance(said, dict) else {}
    service = str(context.get("service") or event.get("service") or "")
    job = str(context.get("job_id") or event.get("job_id") or event.get("trace_id") or "")
    schedule = context.get("schedule")
    if isinstance(schedule, str):
        host = context.get("host")
        key = f"schedule/{schedule}" + (f"/{host}" if isinstance(host, str) and host else "")
    elif job:
        key = f"job/{job}"
    else:
        key = f"service/{service}/{one.kind}"
    text = event.get("message")
    if not isinstance(text, str) or not text:
        text = f"job {job} of {service} failed at {event.get('percent', 0):g} %"
    ts = event.get("ts")
    return Alarm(
        id=place,
        key=short(key),
        action="resolve" if one.kind == RECOVERED else "trigger",
        kind=one.kind,
        summary=printable(text)[:SUMMARY_MOST],
        source=service or str(event.get("host") or "wafermon"),
        ts=ts if isinstance(ts, int) else 0,
        event=event,
    )


def short(key: str) -> str:
    """A key that is too long ends with a hash of all of it."""
    key = printable(key)
    return key if len(key) <= KEY_MOST else key[: KEY_MOST - 17] + "-" + hashlib.sha256(key.encode()).hexdigest()[:16]


def wanted(alarm: Alarm, config: AlertConfig) -> bool:
    """Whether the channel is told of it."""
    if alarm.kind not in config.on:
        return False
    said = alarm.event.get("context")
    context: Mapping[str, Any] = said if isinstance(said, dict) else {}
    match = config.match
    job = str(context.get("job_id") or context.get("run") or alarm.event.get("job_id") or "")
    about = ((match.schedule, str(context.get("schedule") or "")), (match.service, alarm.source), (match.job, job))
    return all(not globs or any(fnmatchcase(text, glob) for glob in globs) for globs, text in about)


def digest_of(held: Sequence[Alarm], name: str, over: int = 0) -> Alarm:
    """One message that says what was held back, of which so many are over by now. `held` is not empty."""
    kinds = Counter(one.kind for one in held)
    words = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    event = {
        "kind": "digest",
        "count": len(held),
        "kinds": dict(kinds),
        "over": over,
        "first": held[0].ts,
        "last": held[-1].ts,
        "summaries": [one.summary for one in held[:IN_DIGEST]],
    }
    return Alarm(
        id=f"digest/{held[0].id}/{len(held)}",
        key=short(f"digest/{name}"),
        action="trigger",
        kind="digest",
        summary=f"{len(held)} {'alarm was' if len(held) == 1 else 'alarms were'} held back: {words}"
        + (f"; {over} {'is' if over == 1 else 'are'} over by now" if over else ""),
        source="wafermon",
        ts=held[-1].ts,
        event=event,
    )


def test_alarm(name: str, action: str, now: int) -> Alarm:
    """What `wafermon alert test` sends: an alarm, and what resolves it."""
    summary = f"test of the channel {name} of wafermon: nothing is wrong"
    event = {"kind": "test", "type": "event", "service": "wafermon", "ts": now, "level": "info", "message": summary}
    return Alarm(f"test/{now}", short(f"test/{name}"), action, "test", summary, "wafermon", now, event)
