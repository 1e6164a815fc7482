"""One answer for all who ask the same at the same time, as far as they take one that is a little old: ``Cache-Control: max-age=SECONDS``.

The live page asks so: a hundred viewers of a job cost the sidecar about what one costs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web.server import Request

from wafermon.model.messages import dumps

TURN = 5
"""So many of those who waited for an answer get it before whatever else waits has its turn."""
AGE_MAX = 10.0
"""Seconds; nobody gets an older answer."""
KEPT = 64
"""So many answers are kept."""
KEPT_BYTES = 16 << 20
"""And so much of them, all together."""


class Reply(NamedTuple):
    """An answer before it is written."""

    code: int
    media_type: bytes
    body: bytes


def age_taken(request: Request) -> float:
    """How old an answer may be, in seconds."""
    for word in (request.getHeader("cache-control") or "").lower().replace(" ", "").split(","):
        name, _, value = word.partition("=")
        if name == "max-age" and value.isascii() and value.isdecimal():
            return min(AGE_MAX, float(value[:9]))
    return 0.0


class Lately:
    """A page whose JSON is worked out at once: the latest one, for who takes one that is a little old."""

    def __init__(self, ask: Callable[[], Any], seconds: Callable[[], float]) -> None:
        self._ask = ask
        self._seconds = seconds
        self._at = 0.0
        self._body = b""

    def __call__(self, request: Request) -> bytes:
        now = self._seconds()
        if not self._body or not 0.0 <= now - self._at < age_taken(request):
            self._at, self._body = now, dumps(self._ask()).encode() + b"\n"
        request.setHeader(b"content-type", b"application/json")
        return self._body


class _One:
    """One answer, or a question under way."""

    def __init__(self, at: float) -> None:
        self.at = at
        """When it was asked."""
        self.reply: Reply | None = None
        self.waiting: list[Deferred[Reply]] = []


class Shared:
    """The latest answers, by what was asked."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._seconds: Callable[[], float] = reactor.seconds
        self._known: OrderedDict[Any, _One] = OrderedDict()
        self._bytes = 0

    async def reply(self, key: Any, age: float, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """The answer of a question, at most `age` seconds old. Raises what `ask` raises."""
        now = self._seconds()
        known = self._known.get(key)
        if age <= 0.0:
            return await ask()
        if known is not None and known.reply is not None and 0.0 <= now - known.at <= age:
            return known.reply
        if known is not None and known.reply is None:
            waiting: Deferred[Reply] = Deferred()
            known.waiting.append(waiting)
            return await waiting
        self._forget(key)
        one = self._known[key] = _One(now)
        try:
            reply = await ask()
        except BaseException as error:
            if self._known.get(key) is one:
                self._forget(key)
            self._give(one.waiting, Failure(error))
            raise
        if self._known.get(key) is one:
            one.reply = reply
            self._bytes += len(reply.body)
            while self._known and (len(self._known) > KEPT or self._bytes > KEPT_BYTES):
                self._forget(next(iter(self._known)))
        waiters, one.waiting = one.waiting, []
        self._give(waiters, reply)
        return reply

    def _give(self, waiting: list[Deferred[Reply]], reply: Reply | Failure) -> None:
        """Some now, the others in the next turns of the reactor."""
        for one in waiting[:TURN]:
            one.callback(reply)
        if rest := waiting[TURN:]:
            self._reactor.callLater(0, self._give, rest, reply)

    def _forget(self, key: Any) -> None:
        """Who waits for it is still answered."""
        one = self._known.pop(key, None)
        if one is not None and one.reply is not None:
            self._bytes -= len(one.reply.body)
