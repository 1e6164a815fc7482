"""The dead letters' own cursor: lines that the receivers refused, and messages that no rule takes."""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.logger import Logger

from wafermon.delivery.backoff import Backoff
from wafermon.delivery.dead_letters import DeadLetters, Letter, letter_of
from wafermon.journal import Cursor, Group, Journal, Outstanding
from wafermon.model.position import Position
from wafermon.routing import Table

CURSOR = "!dead-letters"
FIRST_SECONDS = 1.0
MOST_SECONDS = 30.0
"""Of the backoff while the directory can't be written."""


def letters_in(group: Group, table: Table) -> list[Letter]:
    """What of a group goes to the dead letters. Pure."""
    letters = []
    for offset, one in group.rejected:
        at = group.start._replace(offset=offset)
        letters.append(
            Letter(
                at,
                one.line,
                one.code,
                one.detail,
                one.time,
                one.peer,
                one.client,
                one.seq,
                service=one.service,
                host=one.host,
                pid=one.pid,
            )
        )
    for offset, block in group.blocks:
        if None not in table.ways(block.kinds):
            continue
        lost = set(filter(table.lost, block.kinds))
        at = group.start._replace(offset=offset)
        for line, message, kind in zip(block.raw.split(b"\n"), block.messages, block.each_kind(), strict=False):
            if kind in lost:
                letters.append(letter_of(at, line, message, "no_route", "no rule of `routes` takes it"))
            at = at._replace(offset=at.offset + len(line) + 1)
    return letters


class DeadLetterFollower:
    """Follows the journal and writes what belongs to the dead letters. A `Follower`."""

    log = Logger()
    name = CURSOR
    steps_over = True

    def __init__(
        self,
        journal: Journal,
        dead_letters: DeadLetters,
        tables: Callable[[str], Table],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`tables` turns a routing table's text, as the journal holds it, into the table; `uniform` draws the backoff."""
        self._error = ""
        self._journal = journal
        self._dead_letters = dead_letters
        self._tables = tables
        self._cursor: Cursor | None = None
        self._group: Group | None = None
        self._outstanding = Outstanding(journal.seconds)
        self._backoff = Backoff(FIRST_SECONDS, MOST_SECONDS, uniform)

    @property
    def position(self) -> Position | None:
        return self._group.start if self._group else None

    @property
    def problem(self) -> str:
        return self._error or self._outstanding.late

    async def run(self) -> None:
        self._detach()
        self._group, self._error = None, ""
        self._cursor = cursor = self._journal.cursor(CURSOR)
        while True:
            self._group = group = await cursor.read()
            letters = letters_in(group, self._tables(group.routes))
            if letters:
                await self._write(letters)
            cursor.move(group.end)
            self._group = None

    async def _write(self, letters: list[Letter]) -> None:
        """Until they are durable, however long the disk fails."""
        where = f"the dead letters' directory {self._dead_letters.dir}"
        while True:
            try:
                await self._outstanding.wait(where, self._dead_letters.put(letters))
                break
            except OSError as error:
                if self._error != str(error):
                    self.log.error("Can't write dead letters, trying again: {error}", error=error)
                self._error = str(error)
                await self._journal.sleep(self._backoff.next())
        if self._error:
            self.log.info("Dead letters can be written again")
        self._error = ""
        self._backoff.reset()

    async def step_over(self) -> None:
        if self._group is not None and self._cursor is not None:
            self._cursor.move(self._group.end)
            await self._outstanding.wait("the journal's disk", self._journal.checkpointed())

    async def finish(self) -> None:
        self._detach()

    def _detach(self) -> None:
        if self._cursor is not None:
            self._journal.detach(self._cursor)
            self._cursor = None
