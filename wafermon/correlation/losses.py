"""How many messages SDKs say that they had to drop: by events (``context.kind: dropped``) and by stats lines, each loss once.

Both tell of the same losses: an event says how many since the last one, where the SDK could send it; a stats line how many since the SDK
began. Of each SDK the greater of both sums counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from msgspec import Struct

from wafermon.model.blocks import Block
from wafermon.model.messages import Stats
from wafermon.model.notable import notables

SDKS = 10_000
"""So many that lost something are told apart, those heard of last."""


class _Told(Struct, gc=False):
    """What one SDK told since the start."""

    by_events: int = 0
    by_stats: int = 0
    before: int = -1
    """What its stats lines had told before the start; -1 until one comes."""

    @property
    def lost(self) -> int:
        return max(self.by_events, self.by_stats)


class Losses:
    """The sum since the start."""

    def __init__(self) -> None:
        self.total = 0
        self._told: OrderedDict[str, _Told] = OrderedDict()

    def take(self, blocks: Iterable[Block], sdk_of: Callable[[str], str], said: Callable[[str], int]) -> None:
        """A group's messages. `sdk_of`: a stream -> the stream of the SDK whose it is; `said`: how many a stream's stats lines had told
        before this group."""
        for block in blocks:
            for one in notables(block):
                if one.dropped:
                    told = self._of(sdk_of(str(one.message.client or "")))
                    self._grow(told, by_events=told.by_events + one.dropped)
            for message in block.of_types((Stats.type,)):
                if isinstance(message, Stats) and message.client and message.dropped:
                    sdk = sdk_of(message.client)
                    told = self._of(sdk)
                    if told.before < 0:
                        told.before = max(said(sdk), said(message.client))
                    self._grow(told, by_stats=message.dropped - told.before)

    def _of(self, sdk: str) -> _Told:
        told = self._told.setdefault(sdk, _Told())
        self._told.move_to_end(sdk)
        if len(self._told) > SDKS:
            self._told.popitem(last=False)
        return told

    def _grow(self, told: _Told, by_events: int = 0, by_stats: int = 0) -> None:
        before = told.lost
        told.by_events = max(told.by_events, by_events)
        told.by_stats = max(told.by_stats, by_stats)
        self.total += told.lost - before
