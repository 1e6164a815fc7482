"""Why a request is not answered, and answers that are held back for a while."""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.web.server import NOT_DONE_YET, Request

WAITING_MAX = 256
"""Refusals that wait to be said at one port; beyond that they are said at once."""


class Refusal(NamedTuple):
    """Why a request is not answered."""

    code: int
    why: str
    after: float = 0.0
    """Seconds to wait before it is said."""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Delays:
    """Answers that are held back for a while."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._waiting = 0

    def say(self, request: Request, body: bytes, after: float) -> Any:
        """What a resource's `render` returns."""
        if not after or self._waiting >= WAITING_MAX:
            return body
        self._waiting += 1
        saying = self._reactor.callLater(after, self._now, request, body)
        request.notifyFinish().addBoth(self._over, saying)
        return NOT_DONE_YET

    def _now(self, request: Request, body: bytes) -> None:
        request.write(body)
        request.finish()

    def _over(self, _: object, saying: Any) -> None:
        self._waiting -= 1
        if saying.active():
            saying.cancel()
