"""Whose turn it is. A batch is made ready in one thread while the one before it is stored in another; it is stored after that
one, and only if that one is."""

from __future__ import annotations

from enum import IntEnum
from threading import Event

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from wafermon.interfaces import Position, Superseded


class Stage(IntEnum):
    """How far a batch is."""

    WAITING = 0
    LOADING = 1
    """A thread has it. It may still turn out that it is not stored by that."""
    ENDED = 2


class Turn:
    """One batch's, among those that are under way. `wait` and `leave` are for the threads, all else is the reactor's."""

    def __init__(self, end: Position, before: Turn | None, reactor: IReactorTime) -> None:
        """`before` is the turn of the batch before, where that is under way."""
        self.end = end
        """Where the batch ends."""
        self.loaded = False
        """Whether it was stored by its thread; set there, before it leaves."""
        self._before = before
        self._reactor = reactor
        self._stage = Stage.WAITING
        self._handed = self._failed = False
        self._waiting: list[Deferred[None]] = []
        self._left = Event()

    @property
    def before(self) -> Turn | None:
        """The turn of the batch before, as long as that is under way."""
        return self._before

    async def nears(self) -> None:
        """Wait until a thread has the one before, or that one has ended. Raises Superseded where it failed."""
        await self._until(Stage.LOADING)

    async def comes(self) -> None:
        """Wait until the one before has ended. Raises Superseded where it failed."""
        await self._until(Stage.ENDED)

    async def _until(self, stage: Stage) -> None:
        before = self._before
        if before is None:
            return
        while before._stage < stage:
            reached: Deferred[None] = Deferred()
            before._waiting.append(reached)
            await reached
        if before._failed:
            raise Superseded("an older batch failed")
        if before._stage is Stage.ENDED:
            self._before = None

    def hand_over(self) -> None:
        """A thread has it."""
        self._handed = True
        self._stage = Stage.LOADING
        self._wake()

    def end_as(self, stored: bool) -> None:
        """It is stored, or has failed. The one after it goes on a turn of the reactor later, when this one has been answered."""
        self._failed = not stored
        self._stage = Stage.ENDED
        if self._waiting:
            self._reactor.callLater(0, self._wake)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.called:
                one.callback(None)

    @property
    def in_thread(self) -> bool:
        """Whether a thread was given it, and is not done with it."""
        return self._handed and not self._left.is_set()

    def wait(self) -> None:
        """Block until the thread that had it is done with it."""
        self._left.wait()

    def leave(self) -> None:
        """The thread is done with it, however that came out."""
        self._left.set()
