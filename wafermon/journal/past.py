"""What the journal still holds of the past, for whoever only wants to have seen it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from wafermon.journal.groups import Group
from wafermon.journal.journal import Journal
from wafermon.journal.segments import Reader
from wafermon.model.position import Position


async def groups_before(journal: Journal, until: Position, most: int) -> AsyncIterator[Group]:
    """The groups from the start of some segment up to `until`: the newest segments that hold at most so many bytes
    before it, or the last one alone. Nothing is held for this: where a segment goes meanwhile, the rest is left out."""
    reader = Reader(journal.dir, journal.id)
    at = journal.segment_before(until, most)
    with suppress(OSError, KeyError):
        while at < until:
            groups = await journal.read(reader, at, None)
            for group in groups:
                if group.start < until:
                    yield group
            at = journal.follow(groups[-1].end) if groups else until
    # Not where this is cancelled: a thread may still be reading, and the process is about to end.
    reader.close()
