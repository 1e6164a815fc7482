"""Waiting for what may never come."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


def at_most(reactor: Any, seconds: float, awaited: Deferred[Any]) -> Deferred[bool]:
    """Fires once `awaited` has fired, however, with True, or after so many seconds with False: it goes on then, and nobody is told
    what comes of it. The caller handles its failures."""
    waiting: Deferred[bool] = Deferred()

    def over(ended: bool) -> None:
        if timer.active():
            timer.cancel()
        if not waiting.called:
            waiting.callback(ended)

    timer = reactor.callLater(seconds, over, False)

    def fired(result: object) -> object:
        over(True)
        return result

    awaited.addBoth(fired)
    return waiting
