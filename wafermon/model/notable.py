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
_FAILED, _KIND, _ESCAPE = b'"failed"', b'"kind"', b"\\u"
"""One of them is in the line of each; an escape may say anything."""
_POSSIBLE = {("progress", ""), ("event", "warning")}
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
    if not any(_possible(kind) for kind in block.kinds):
        return
    places = block.places({kind for kind in block.kinds if _possible(kind)})
    lines = block.lines_at(places)
    found = [
        place for place, line in zip(places, lines, strict=True) if _FAILED in line or _KIND in line or _ESCAPE in line
    ]
    for line, message in zip(block.lines_at(found), block.at(found), strict=True):
        if kind := _kind(message):
            yield Notable(kind, line, message)


def _possible(kind: tuple[Any, ...]) -> bool:
    if (kind[_TYPE], kind[_LEVEL]) in _POSSIBLE:
        return True
    return (kind[_SERVICE], kind[_TYPE], kind[_LEVEL]) == (OWN_SERVICE, "event", "info")


def _kind(message: Message) -> str:
    if isinstance(message, Progress):
        return "job_failed" if message.status == "failed" else ""
    if not isinstance(message, Event) or not message.context:
        return ""
    kind = message.context.get("kind")
    if message.level != ("info" if kind == RECOVERED else "warning"):
        return ""
    if isinstance(kind, str) and kind in _DERIVED:
        return str(kind) if message.service == OWN_SERVICE else ""
    return "dropped" if kind == "dropped" else ""
