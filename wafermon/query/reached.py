"""Whether memory and a stored place have what was acknowledged before a question was asked.

A program's message is acknowledged once it is in the journal; memory and backends follow. So a question that finds nothing may have come
too early: at a start, right after an acknowledgement, or where memory dropped a job that a backend does not have yet. Such a question
waits until both have read the journal up to the moment at which it was asked, and is then asked again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from wafermon.model.position import Position
from wafermon.model.slices import Sleep

SECONDS = 5.0
"""So long a question about one thing is asked again."""
LIST_SECONDS = 1.0
"""So long a list waits."""
AGAIN_SECONDS = 0.02


class Answered(Protocol):
    """What was found, why a source could not be asked, and whether it is what was meant."""

    found: Any
    problems: list[str]
    sure: bool


A = TypeVar("A", bound=Answered)


class Followers(Protocol):
    """Those who follow the journal: memory, and backends by name."""

    def has_read(self, until: Position) -> bool:
        """Whether memory has everything before it."""

    def has_stored(self, backend: str, until: Position) -> bool:
        """Whether a backend has, or has passed it."""


class Reached:
    """What must have been read: by memory up to one position, by each of some backends up to another."""

    def __init__(self, followers: Followers, until: Position, backends: Mapping[str, Position]) -> None:
        self._followers = followers
        self._until = until
        self._backends = backends

    def missing(self) -> list[str]:
        """In words, who has not; none where all have."""
        missing = []
        if not self._followers.has_read(self._until):
            missing.append("the sidecar has not read its journal up to now yet; ask again")
        missing += [
            f"{name} does not have yet everything that was acknowledged; ask again, or see `wafermon status`"
            for name, until in self._backends.items()
            if not self._followers.has_stored(name, until)
        ]
        return missing

    async def wait(self, sleep: Sleep) -> list[str]:
        """For a list: waits for `LIST_SECONDS` at most, and answers as `missing` does then."""
        missing = self.missing()
        for _ in range(round(LIST_SECONDS / AGAIN_SECONDS)):
            if not missing:
                break
            await sleep(AGAIN_SECONDS)
            missing = self.missing()
        return missing

    async def ask(self, question: Callable[[], Awaitable[A]], sleep: Sleep) -> A:
        """The answer to a question about one thing. Where it finds nothing that is sure it is asked again, for `SECONDS` at most, once all have what
        they must and can be asked; what keeps it from being sure then is among its problems."""
        missing = self.missing()
        answer = await question()
        for _ in range(round(SECONDS / AGAIN_SECONDS)):
            if (answer.found and answer.sure) or not (missing or answer.problems):
                return answer
            await sleep(AGAIN_SECONDS)
            missing = self.missing()
            if not missing:
                answer = await question()
        answer.problems += missing
        return answer
