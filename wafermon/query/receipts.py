"""Whether all of a trace arrived: what came of it, beside how far each backend is. Pure.

`stored` is worked out when it is asked: a backend has what was routed to it, less its dead letters and what lies in a stretch
that its cursor passed undelivered, once the cursor has passed the last of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from wafermon.correlation import Facts
from wafermon.correlation.ledger import Routed
from wafermon.model.position import Position
from wafermon.model.records import Delivered, GapRecord, Receipt


class Place(NamedTuple):
    """How far a backend is."""

    kept: Position | None
    """Everything before it was delivered or passed; None where there is no cursor of this name."""
    skipped: Sequence[tuple[Position, Position]] = ()
    """From where to where it was not delivered."""


def receipt(facts: Facts, place_of: Callable[[str], Place]) -> Receipt:
    """`place_of` is told a backend's name."""
    account = facts.account
    by_backend: dict[str, list[Routed]] = {name: [] for name in account.dead}
    for names, routed in account.routed.items():
        for name in names.split(","):
            by_backend.setdefault(name, []).append(routed)
    backends = {
        name: _delivered(found, account.dead.get(name, 0), place_of(name)) for name, found in sorted(by_backend.items())
    }
    return {
        "job": facts.trace_id,
        "complete": _complete(facts, backends),
        "running": account.running,
        "sent": facts.sent,
        "received": account.received,
        "rejected": facts.rejected,
        "dropped": facts.dropped,
        "gaps": [_gap(facts, *gap) for gap in facts.gaps],
        "more_gaps": facts.more_gaps,
        "unclosed": list(facts.unclosed),
        "closed": account.closed,
        "unjudged": account.unjudged,
        "unnumbered": account.unnumbered,
        "no_route": account.no_route,
        "begun_before": account.before,
        "services": facts.services,
        "backends": backends,
    }


def _gap(facts: Facts, client: str, first: int, last: int, alone: bool, pending: bool) -> GapRecord:
    return {
        "client": client,
        "first": first,
        "last": last,
        "job": facts.trace_id if alone else None,
        "pending": pending,
    }


def _delivered(routed: Iterable[Routed], dead: int, place: Place) -> Delivered:
    parts = list(routed)
    count = sum(part.count for part in parts)
    least = most = 0
    for part in parts:
        some = _skipped(part, place.skipped)
        least += some[0]
        most += some[1]
    stored: int | None = None
    if all(_passed(part, place) for part in parts) and least == most:
        stored = max(0, count - dead - most)
    return {"routed": count, "stored": stored, "dead": dead, "skipped": most}


def _passed(part: Routed, place: Place) -> bool:
    """Whether the cursor has passed the last of it; where it was let go of, whether it had."""
    kept = place.kept or max((end for _, end in place.skipped), default=None)
    return kept is not None and (kept.segment, kept.offset) >= (part.segment, part.offset)


def _skipped(part: Routed, skipped: Sequence[tuple[Position, Position]]) -> tuple[int, int]:
    """How many of them lie in one of these stretches: at least, at most. Of a segment that lies in one partly it is not known
    which do."""
    least = most = 0
    for segment, count in part.segments.items():
        inside = [
            (start, end)
            for start, end in skipped
            if start.segment <= segment and (end.segment, end.offset) > (segment, 0)
        ]
        whole = any(
            start <= start._replace(segment=segment, offset=0) and end.segment > segment for start, end in inside
        )
        least += count if whole else 0
        most += count if inside else 0
    return least, most


def _complete(facts: Facts, backends: Mapping[str, Delivered]) -> bool | None:
    """False where something is missing, or not there yet; None where that can't be known."""
    account = facts.account
    lost = facts.dropped or facts.rejected or facts.more_gaps or account.no_route
    if (
        lost
        or any(not gap.pending for gap in facts.gaps)
        or any(one["dead"] or one["skipped"] for one in backends.values())
    ):
        return False
    if account.unnumbered or account.before:
        return None
    if facts.gaps or facts.unclosed or account.shares or account.unjudged or account.running:
        return False
    return bool(account.received) and all(one["stored"] == one["routed"] for one in backends.values())
