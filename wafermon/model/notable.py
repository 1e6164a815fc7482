"""The few messages that should not wait until someone looks: stalled, failed and gone jobs, abandoned spans, messages that
an SDK had to drop, schedules that are not kept. Pure; blocks that can hold none are not looked into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from wafermon.model.blocks import Block
from wafermon.model.messages import OWN_SERVICE, Event, Kind, Message, Progress, decode_object
from wafermon.model.schedules import RECOVERED, TOLD

KINDS = ("job_stalled", "gone", "job_failed", "span_abandoned", "dropped", *TOLD)
"""What is told of schedules comes last: `context.schedule` names the one, and `recovered` says that all is over."""
_DERIVED = frozenset({"job_stalled", "gone", "span_abandoned", *TOLD})
_KIND, _ESCAPE = b'"kind"', b"\\u"
"""One of them is in the line of each event; an escape may say anything."""
_SERVICE, _TYPE, _LEVEL = map(Kind._fields.index, ("service", "type", "level"))


class Notable(NamedTuple):
    """One of them."""

    kind: str
    """One of KINDS."""
    line: bytes
    """The message as it is stored."""
    message: Message

    def event(self) -> dict[str, Any]:
        """As an object: ``kind`` and the message's own fields."""
        return {"kind": self.kind, **decode_object(self.line)}

    @property
    def dropped(self) -> int:
        """How many messages an SDK says that it dropped; 0 in the other kinds."""
        if self.kind != "dropped" or not isinstance(self.message, Event) or not self.message.context:
            return 0
        count = self.message.context.get("count")
        return count if type(count) is int and count > 0 else 0


def notables(block: Block) -> Iterator[Notable]:
    """Those of a block, in order."""
    found = _events(block)
    if Progress.type in block.types and any(
        _failed(message) for message in block.followed if type(message) is Progress
    ):
        found += block.places({kind for kind in block.kinds if kind[_TYPE] == Progress.type})
        found.sort()
    for line, message in zip(block.lines_at(found), block.at(found), strict=True):
        if kind := _kind(message):
            yield Notable(kind, line, message)


def _events(block: Block) -> list[int]:
    """The places of those that may be notable."""
    kinds = set(filter(_possible, block.kinds))
    if not kinds:
        return []
    places = block.places(kinds)
    lines = zip(places, block.lines_at(places), strict=True)
    if b"\\" not in block.raw:
        return [place for place, line in lines if _KIND in line]
    return [place for place, line in lines if _KIND in line or _ESCAPE in line]


def _possible(kind: tuple[Any, ...]) -> bool:
    """Whether an event of that kind may be."""
    if (kind[_TYPE], kind[_LEVEL]) == ("event", "warning"):
        return True
    return (kind[_SERVICE], kind[_TYPE], kind[_LEVEL]) == (OWN_SERVICE, "event", "info")


def _failed(message: Message) -> bool:
    return isinstance(message, Progress) and message.status == "failed"


def _kind(message: Message) -> str:
    if _failed(message):
        return "job_failed"
    if not isinstance(message, Event) or not message.context:
        return ""
    kind = message.context.get("kind")
    if message.level != ("info" if kind == RECOVERED else "warning"):
        return ""
    if isinstance(kind, str) and kind in _DERIVED:
        return str(kind) if message.service == OWN_SERVICE else ""
    return "dropped" if kind == "dropped" else ""
