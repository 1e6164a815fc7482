"""The dead letters' own cursor: lines that were refused at the door, and messages that no rule takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from wafermon.delivery.dead_letters import DeadLetters, Letter, letter_of
from wafermon.journal import Group, Journal
from wafermon.model.messages import Kind
from wafermon.routing import APART, NO_ROUTE, Table

CURSOR = "!dead-letters"
RETRY_SECONDS = 1.0


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
            )
        )
    for offset, block in group.blocks:
        lost = {kind for kind in block.kinds if _lost(Kind(*kind), table)}
        if not lost:
            continue
        at = group.start._replace(offset=offset)
        for line, message, kind in zip(block.raw.split(b"\n"), block.messages, block.each_kind(), strict=False):
            if kind in lost:
                letters.append(letter_of(at, line, message, "no_route", "no rule of `routes` takes it"))
            at = at._replace(offset=at.offset + len(line) + 1)
    return letters


def _lost(kind: Kind, table: Table) -> bool:
    if kind.replay_to or kind.type == APART:
        return False
    return table.route(kind.service, kind.type, kind.level, kind.host) is NO_ROUTE


class DeadLetterFollower:
    """Follows the journal and buries what belongs to the dead letters."""

    log = Logger()

    def __init__(
        self,
        journal: Journal,
        dead_letters: DeadLetters,
        tables: Callable[[str], Table],
    ) -> None:
        self.error = ""
        self._journal = journal
        self._dead_letters = dead_letters
        self._tables = tables
        self._running: Deferred[None] | None = None

    def start(self) -> None:
        self._cursor = self._journal.cursor(CURSOR)
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._ended)

    def _ended(self, failure: Any) -> None:
        if not failure.check(CancelledError):
            self.error = f"stopped by a fault of wafermon's own: {failure.value}"
            self.log.failure("The dead letters' cursor stopped", failure)

    async def _run(self) -> None:
        while True:
            group = await self._cursor.read()
            letters = letters_in(group, self._tables(group.routes))
            while letters:
                try:
                    await self._dead_letters.put(letters)
                    letters, self.error = [], ""
                except OSError as error:
                    if not self.error:
                        self.log.error(
                            "Can't write dead letters, trying again: {error}",
                            error=error,
                        )
                    self.error = str(error)
                    await self._journal.sleep(RETRY_SECONDS)
            self._cursor.move(group.end)

    def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            self._running = None
            self._journal.detach(self._cursor)
