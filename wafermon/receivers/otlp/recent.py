"""Requests that were taken lately, by their digests: one that comes again gets the answer of the first, and is not taken twice.

Senders repeat a request whose answer they have not got. That is known for some minutes, and in memory alone: over a restart of the
sidecar a request may be taken twice. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from wafermon.wire.otlp.shapes import PartialSuccess

KEPT_SECONDS = 300.0
KEPT_MOST = 20_000
"""Answered requests that are remembered; beyond it the one that was answered longest ago is forgotten."""


class _Request:
    """One that is being taken, or was."""

    def __init__(self) -> None:
        self.answer: PartialSuccess | None = None
        self.at = 0.0
        self.waiting: list[Deferred[PartialSuccess]] = []


class Recent:
    """See the module."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._taking: dict[bytes, _Request] = {}
        self._answered: OrderedDict[bytes, _Request] = OrderedDict()

    def __len__(self) -> int:
        return len(self._taking) + len(self._answered)

    def find(self, digest: bytes) -> Deferred[PartialSuccess] | None:
        """The answer of the same request, which may still be to come; None where there was none. Fails as that one does."""
        self._forget()
        if known := self._answered.get(digest):
            answered: Deferred[PartialSuccess] = Deferred()
            assert known.answer is not None
            answered.callback(known.answer)
            return answered
        if taking := self._taking.get(digest):
            waiting: Deferred[PartialSuccess] = Deferred()
            taking.waiting.append(waiting)
            return waiting
        return None

    def begin(self, digest: bytes) -> None:
        """It is being taken; `answered` or `failed` follows."""
        self._taking[digest] = _Request()

    def answered(self, digest: bytes, answer: PartialSuccess, *, keep: bool) -> None:
        """It is durable. `keep`: the same request, later, is this one again."""
        request = self._taking.pop(digest)
        if keep:
            request.answer, request.at = answer, self._seconds()
            self._answered[digest] = request
        waiting, request.waiting = request.waiting, []
        for one in waiting:
            one.callback(answer)

    def failed(self, digest: bytes, failure: Failure) -> None:
        """It was not taken."""
        for one in self._taking.pop(digest).waiting:
            one.errback(failure)

    def _forget(self) -> None:
        before = self._seconds() - KEPT_SECONDS
        while self._answered:
            digest, oldest = next(iter(self._answered.items()))
            if len(self._answered) <= KEPT_MOST and oldest.at > before:
                return
            del self._answered[digest]
