"""What was asked of one backend and has not been answered yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure

from wafermon.model.errors import RetryableError

T = TypeVar("T")


class CancelledByBackend(RetryableError):
    """The backend's own Deferred failed with a CancelledError, as Twisted's time-outs and every HTTP client's do."""


@dataclass(frozen=True, eq=False)
class _Call:
    what: str
    since: float


class Calls:
    """A call goes on even if nothing waits for it any more, and nothing of a backend is ever cancelled."""

    def __init__(self, seconds: Callable[[], float], timeout: float) -> None:
        """`seconds` is a monotone clock. A call without an answer for `timeout` seconds is late."""
        self._seconds = seconds
        self._timeout = timeout
        self._under_way: list[_Call] = []
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def ask(self, what: str, call: Callable[..., Deferred[T]], *args: Any) -> Deferred[T]:
        """The answer of ``call(*args)``, which may raise too. `what` names it: ``open``, ``write`` or ``close``. Cancelling it ends
        the waiting alone, so that a CancelledError is always the waiter's own; the backend's is a CancelledByBackend."""
        one = _Call(what, self._seconds())
        self._under_way.append(one)
        answer: Deferred[T] = Deferred()  # once cancelled it takes its late result silently

        def answered(result: T | Failure) -> None:
            self._under_way.remove(one)
            if isinstance(result, Failure) and isinstance(result.value, CancelledError):
                result = Failure(CancelledByBackend(f"{what} was cancelled on the backend's side"))  # type: ignore[no-untyped-call]
            answer.callback(result)
            self._tell()

        maybeDeferred(call, *args).addBoth(answered)
        return answer

    def under_way(self, what: str = "") -> bool:
        """Whether a call of that name, or any, has no answer yet."""
        return any(what in ("", one.what) for one in self._under_way)

    def ended(self, what: str = "") -> Deferred[None]:
        """Fires when all calls of that name, or all at all, have their answer. It may be cancelled."""
        done: Deferred[None] = Deferred()
        self._waiting.append((what, done))
        self._tell()
        return done

    def _tell(self) -> None:
        over = [(what, done) for what, done in self._waiting if not self.under_way(what)]
        self._waiting = [one for one in self._waiting if one not in over]
        for _, done in over:
            if not done.called:
                done.callback(None)

    @property
    def late(self) -> str:
        """What is late, in words: ``write: no answer for 75 s``; empty where nothing is."""
        late = self._under_way and self._seconds() - self._under_way[0].since >= self._timeout
        return self.awaited if late else ""

    @property
    def awaited(self) -> str:
        """What has waited longest for its answer, as `late`, however short that is."""
        if not self._under_way:
            return ""
        oldest = self._under_way[0]
        return f"{oldest.what}: no answer for {self._seconds() - oldest.since:.0f} s"
