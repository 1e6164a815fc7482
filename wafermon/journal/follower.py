"""What follows the journal, as its supervisor sees it, and what followers need to wait for others safely."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList, FirstError
from twisted.python.failure import Failure

from wafermon.model.position import Position

T = TypeVar("T")
ANSWER_SECONDS = 60.0
"""What was not answered by then is shown in health."""


class Follower(Protocol):
    """A consumer of the journal with a position of its own. One supervisor runs them all."""

    @property
    def name(self) -> str:
        """As health, metrics and the log show it. Unique among those that run."""
        ...

    @property
    def steps_over(self) -> bool:
        """Whether it passes over a group at which it fails again and again. False for a delivery: what was accepted is
        delivered or becomes a dead letter."""
        ...

    @property
    def position(self) -> Position | None:
        """The start of the group that it works on; None between two groups. Failures at one position are counted
        together, so it must be the same when the same group comes again."""
        ...

    @property
    def problem(self) -> str:
        """What hinders it now although it runs, as "No space left on device"; empty where nothing does."""
        ...

    async def run(self) -> None:
        """Follow the journal from the position that is kept. Called again after it failed: whatever an earlier call left
        in memory is thrown away and restored from the checkpoint first. It ends by an exception alone. The
        supervisor's stop cancels it; a CancelledError at any other time is a failure like others."""
        ...

    async def step_over(self) -> None:
        """Pass over the group at which `run` failed, durably: the next `run` goes on after it. It may fail, and is called
        again then. Never called where `steps_over` is False."""
        ...

    async def finish(self) -> None:
        """Save what makes the next start short, and release the journal. Called once the supervisor's stop has ended
        `run`; not where it was stopped between a failure and the next `run`."""
        ...


class CancelledElsewhere(Exception):
    """What was waited for was cancelled, and not by the one that waits. Twisted's time-outs and every HTTP client do that."""


class Outstanding:
    """What a follower waits for from others: a disk, a backend, a thread.

    A CancelledError within a follower means its own stop, and nothing else, as long as it waits for others with `wait`."""

    def __init__(self, seconds: Callable[[], float], patience: float = ANSWER_SECONDS) -> None:
        """`seconds` is a monotone clock; what takes longer than `patience` seconds is `late`."""
        self._seconds = seconds
        self._patience = patience
        self._since: dict[Deferred[Any], tuple[str, float]] = {}

    def wait(self, what: str, answer: Deferred[T]) -> Deferred[T]:
        """The same answer. `what` names what is asked, as "the disk of /var/lib/x". Fails with CancelledElsewhere where `answer` is
        cancelled by anything but a cancel of the Deferred returned here."""
        cancelled = False

        def cancel(_: Deferred[T]) -> None:
            nonlocal cancelled
            cancelled = True
            answer.cancel()

        waiting: Deferred[T] = Deferred(cancel)
        self._since[waiting] = what, self._seconds()

        def answered(result: T | Failure) -> None:
            self._since.pop(waiting, None)
            if isinstance(result, Failure) and isinstance(result.value, CancelledError) and not cancelled:
                error = CancelledElsewhere(f"{what}: the call was cancelled, and not by wafermon's stop")
                result = Failure(error)  # type: ignore[no-untyped-call]
            if isinstance(result, Failure):
                waiting.errback(result)
            else:
                waiting.callback(result)

        answer.addBoth(answered)
        return waiting

    @property
    def late(self) -> str:
        """The oldest that is late, in words: "no answer from the disk of /var/lib/x for 75 s"; else empty."""
        for what, since in self._since.values():
            seconds = self._seconds() - since
            if seconds >= self._patience:
                return f"no answer from {what} for {seconds:.0f} s"
        return ""


async def together(*coroutines: Coroutine[Deferred[Any], Any, None]) -> None:
    """Run them side by side. The first that ends, however it ends, ends the others; its failure is raised."""
    running = [Deferred.fromCoroutine(one) for one in coroutines]
    try:
        await DeferredList(running, fireOnOneCallback=True, fireOnOneErrback=True, consumeErrors=True)
    except FirstError as error:
        _raise(error.subFailure)
    finally:
        for one in running:
            one.cancel()


def _raise(failure: Failure) -> NoReturn:
    failure.raiseException()
