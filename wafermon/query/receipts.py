"""Whether all of a trace arrived: what came of it, beside how far each backend is. Pure.

`stored` is worked out when it is asked: a backend has what was routed to it, less its dead letters and what lies in a stretch
that its cursor passed undelivered, once the cursor has passed the last of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from wafermon.correlation.receipts import KIND
from wafermon.model.messages import OWN_SERVICE, TERMINAL
from wafermon.model.position import Position
from wafermon.model.records import Delivered, EdgeRecord, EventRecord, GapRecord, Receipt, TraceRecord

DEAD_LETTER = "dead_letter"


class Place(NamedTuple):
    """How far a backend is."""

    kept: Position | None
    """Everything before it was delivered or passed; None where there is no cursor of this name."""
    skipped: Sequence[tuple[Position, Position]] = ()
    """From where to where it was not delivered."""


class _Routed(NamedTuple):
    """What goes the same way: how many, the last one's place, and how many of them are in each segment."""

    messages: int
    segment: int
    offset: int
    segments: Mapping[str, int]


def receipt(trace_id: str, record: Mapping[str, Any], place_of: Callable[[str], Place]) -> Receipt:
    """`record` is what `correlation.receipts.record_of` made; `place_of` is told a backend's name."""
    by_backend: dict[str, list[_Routed]] = {name: [] for name, count in record["dead"].items() if count}
    for names, routed in record["routed"].items():
        for name in names.split(","):
            by_backend.setdefault(name, []).append(_Routed(*routed))
    backends = {
        name: _delivered(found, record["dead"].get(name, 0), place_of(name))
        for name, found in sorted(by_backend.items())
    }
    return {
        "job": trace_id,
        "complete": _complete(record, backends),
        "running": record["running"],
        "sent": _sent(record),
        "received": record["received"],
        "rejected": record["rejected"],
        "dropped": record["dropped"],
        "gaps": [_gap(trace_id, *gap) for gap in record["gaps"]],
        "more_gaps": record["more_gaps"],
        "unclosed": list(record["unclosed"]),
        "more_unclosed": record["more_unclosed"],
        "closed": record["closed"],
        "unjudged": record["unjudged"],
        "unnumbered": record["unnumbered"],
        "no_route": record["no_route"],
        "begun_before": record["begun_before"],
        "services": record["services"],
        "forwarded": record.get("forwarded", 0),
        "edges": {journal: _edge(edge) for journal, edge in record.get("edges", {}).items()},
        "edge_unknown": _edge_unknown(record),
        "backends": backends,
    }


def stored_record(events: Iterable[EventRecord]) -> dict[str, Any] | None:
    """What the journal kept of a trace, from the trace's events, in order: the last receipt among them, with the dead letters that
    came after it. None where there is none."""
    found: dict[str, Any] | None = None
    for event in events:
        context = event.get("context") if event.get("service") == OWN_SERVICE else None
        if not isinstance(context, dict):
            continue
        if context.get("kind") == KIND:
            found = {**context, "dead": dict(context["dead"])}
        elif context.get("kind") == DEAD_LETTER and found is not None:
            found["dead"][context["backend"]] = found["dead"].get(context["backend"], 0) + context["count"]
    return found


def _sent(record: Mapping[str, Any]) -> int | None:
    """What all programs were asked to send, wherever they are connected."""
    forwarded = record.get("forwarded", 0)
    if not forwarded:
        own: int | None = record["sent"]
        return own
    parts = [edge["sent"] for edge in record["edges"].values()]
    if record["received"] > forwarded:
        parts.append(record["sent"])
    known = [part for part in parts if part is not None]
    return None if _edge_unknown(record) or len(known) < len(parts) else sum(known)


def _edge(edge: Mapping[str, Any]) -> EdgeRecord:
    return {
        "received": edge["received"],
        "forwarded": edge["forwarded"],
        "sent": edge["sent"],
        "rejected": edge["rejected"],
        "dropped": edge["dropped"],
        "gaps": edge["gaps"],
        "unclosed": edge["unclosed"],
    }


def _edge_unknown(record: Mapping[str, Any]) -> int:
    """Messages that came from other sidecars of which none has told a receipt, or not of all of them."""
    told = sum(edge["forwarded"] for edge in record.get("edges", {}).values())
    return max(0, int(record.get("forwarded", 0)) - int(told))


def record_without_one(trace: TraceRecord) -> dict[str, Any]:
    """For a trace of which messages are known and no receipt was kept: nobody can know whether they are all."""
    counts = trace["counts"]
    return {
        "received": sum(count for kind, count in counts.items() if "." not in kind),
        "sent": None,
        **dict.fromkeys(("rejected", "dropped", "more_gaps", "more_unclosed", "closed", "unjudged", "unnumbered", "no_route", "open"), 0),
        "gaps": [],
        "unclosed": [],
        "begun_before": True,
        "running": any(job["status"] not in TERMINAL for job in trace["jobs"]),
        "services": {},
        "routed": {},
        "dead": {},
    }  # fmt: skip


def _gap(trace_id: str, client: str, first: int, last: int, alone: bool, pending: bool) -> GapRecord:
    return {"client": client, "first": first, "last": last, "job": trace_id if alone else None, "pending": pending}


def _delivered(parts: Sequence[_Routed], dead: int, place: Place) -> Delivered:
    count = sum(part.messages for part in parts)
    least = most = 0
    for part in parts:
        some = _skipped(part, place.skipped)
        least += some[0]
        most += some[1]
    stored: int | None = None
    if all(_passed(part, place) for part in parts) and least == most:
        stored = max(0, count - dead - most)
    return {"routed": count, "stored": stored, "dead": dead, "skipped": most}


def _passed(part: _Routed, place: Place) -> bool:
    """Whether the cursor has passed the last of it; where it was dropped, whether it had."""
    kept = place.kept or max((end for _, end in place.skipped), default=None)
    return kept is not None and (kept.segment, kept.offset) >= (part.segment, part.offset)


def _skipped(part: _Routed, skipped: Sequence[tuple[Position, Position]]) -> tuple[int, int]:
    """How many of them lie in one of these stretches: at least, at most. Of a segment that lies in one partly it is not known
    which do."""
    least = most = 0
    for key, count in part.segments.items():
        segment = int(key)
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


def _complete(record: Mapping[str, Any], backends: Mapping[str, Delivered]) -> bool | None:
    """False where something is missing, or not there yet; None where that can't be known."""
    lost = record["dropped"] or record["rejected"] or record["more_gaps"] or record["no_route"]
    pending = [gap for gap in record["gaps"] if gap[-1]]
    if lost or len(pending) < len(record["gaps"]) or any(one["dead"] or one["skipped"] for one in backends.values()):
        return False
    edges = list(record.get("edges", {}).values())
    if any(edge[key] for edge in edges for key in ("rejected", "dropped", "gaps")):
        return False
    uncertain = _edge_unknown(record) or any(edge["uncertain"] for edge in edges)
    if record["unnumbered"] or record["begun_before"] or uncertain:
        return None
    if any(edge["unclosed"] for edge in edges):
        return False
    if sum(edge["forwarded"] for edge in edges) > record.get("forwarded", 0):
        return False
    if pending or record["open"] or record["unjudged"] or record["running"]:
        return False
    return bool(record["received"]) and all(one["stored"] == one["routed"] for one in backends.values())
