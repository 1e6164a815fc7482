"""What the journal still holds of the past, for a reader that only wants to have seen it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from twisted.logger import Logger

from wafermon.journal.groups import Group
from wafermon.journal.journal import Journal
from wafermon.journal.segments import Reader
from wafermon.model.position import Position

log = Logger()


async def groups_before(journal: Journal, until: Position, most: int) -> AsyncIterator[Group]:
    """The groups from the start of some segment up to `until`: the newest segments that hold at most so many bytes
    before it, or the last one alone. Nothing is held for this: where a segment goes meanwhile, or can't be read, the rest is
    left out."""
    reader = Reader(journal.dir, journal.id, journal.files)
    at = journal.segment_before(until, most)
    try:
        while at < until:
            groups = await journal.read(reader, at, None)
            for group in groups:
                if group.start < until:
                    yield group
            at = journal.follow(groups[-1].end) if groups else until
    except OSError as error:
        log.warn("What the journal holds of the past can't be read at {at}: {error}", at=str(at), error=error)
    finally:
        reader.close()
