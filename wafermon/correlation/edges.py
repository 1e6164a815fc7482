"""What another sidecar's receipt of a trace says, read from the event that it derived. Pure."""

from __future__ import annotations

from typing import Any

from wafermon.correlation.accounts import Edge

COUNT_MAX = 1 << 53
"""Of what other sidecars say in their receipts."""


def edge_of(record: dict[str, Any]) -> Edge | None:
    """What `receipts.record_of` made elsewhere; None where it can't be read, or says more than can be."""
    sums = ("received", "rejected", "dropped", "more_gaps", "more_unclosed", "unjudged", "unnumbered", "no_route")
    numbers = {name: record.get(name, 0) for name in sums}
    sends, gaps, unclosed = record.get("forwards", {}), record.get("gaps", []), record.get("unclosed", [])
    if not (isinstance(sends, dict) and isinstance(gaps, list) and isinstance(unclosed, list)):
        return None
    missing = [_width(gap) for gap in gaps]
    if not all(map(_is_count, (*numbers.values(), *sends.values(), *missing))):
        return None
    sent = record.get("sent")
    return Edge(
        received=numbers["received"],
        forwarded=max(sends.values(), default=0),
        rejected=numbers["rejected"] + numbers["no_route"],
        dropped=numbers["dropped"],
        gaps=sum(missing) + numbers["more_gaps"],
        unclosed=len(unclosed) + numbers["more_unclosed"] + numbers["unjudged"],
        uncertain=bool(numbers["unnumbered"] or record.get("begun_before")),
        sent=sent if _is_count(sent) else None,
    )


def _is_count(value: Any) -> bool:
    """A number that a JSON reader of any language keeps."""
    return type(value) is int and 0 <= value <= COUNT_MAX


def _width(gap: Any) -> Any:
    """How many numbers a gap of a receipt has; no count where it can't be read."""
    match gap:
        case [_, int(first), int(last), *_]:
            return last - first + 1
    return None
