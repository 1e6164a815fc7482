"""Forwards batches to another sidecar, and answers where that one stands.

The other's mark is a position of this journal and lies there in the same group as the lines: so its welcome is what `open` answers, and its acks are what
`write` waits for. All that is kept here is how far this sidecar may have sent, so that a copy is known for one.

A connection is tried again with jitter for as long as the backend is open, also while there is nothing to send: the other sees who is
there. Without anything under way a frame without lines is sent every second, which the other answers.
"""

from __future__ import annotations

import os
import random
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from wafermon import __version__
from wafermon.backends.forward.cutting import Manner, Packed, idle, pack, plainly
from wafermon.backends.forward.link import Link, LinkState, Refusal, Welcome
from wafermon.backends.forward.options import ForwardOptions, read_token
from wafermon.backends.forward.reach import Reach
from wafermon.interfaces import (
    BackendContext,
    Batch,
    Health,
    IBackend,
    Position,
    PositionMoved,
    Refused,
    RetryableError,
    Superseded,
)
from wafermon.model.messages import dumps
from wafermon.model.onward import beyond, circle
from wafermon.model.repeated import Repeated
from wafermon.net.outgoing import endpoint_to
from wafermon.wire.frames import PLAIN
from wafermon.wire.hello import VERSION

IDLE_SECONDS = 1.0
SILENT_SECONDS = 15.0
"""The other says something every second as long as anything is under way; a connection that is silent for so long is dead."""
GREETING_SECONDS = 30.0
"""For the welcome: the other may have much to make durable before it knows where it stands."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
"""Between two tries to connect, at most; drawn evenly below that, so that a thousand do not come at once."""
INLINE_BYTES = 16 << 10
"""What is smaller is compressed at once; what is larger, in the backend's thread."""


T = TypeVar("T")


class State(Enum):
    """How the backend is doing; the values are those of `Health`."""

    STARTING = "starting"
    OK = "ok"
    FAILING = "failing"
    CLOSED = "closed"


@dataclass(eq=False)
class _Pending:
    """A batch that is not durable there."""

    batch: Batch
    done: Deferred[None] = field(default_factory=Deferred)
    sent: bool = False


@implementer(IBackend)
class ForwardBackend:
    """See the module."""

    log = Logger()
    outstanding = 4
    exactly_once = True

    def __init__(
        self,
        options: ForwardOptions,
        context: BackendContext,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """`uniform` draws the waits."""
        self._options = options
        self._context = context
        self._reactor: Any = context.reactor
        self._uniform = uniform
        self._state = State.STARTING
        self._detail = ""
        self._link: Link | None = None
        self._links: set[Link] = set()
        """All connections that are not over."""
        self._trying: Deferred[Any] | None = None
        self._next_try: IDelayedCall | None = None
        self._wait = FIRST_WAIT
        self._waiters: list[Deferred[Link]] = []
        self._pending: deque[_Pending] = deque()
        self._pumping = False
        self._confirmed = 0
        """What the other is known to have."""
        self._most: int | None = None
        """No position beyond it was ever sent by this process, or known to the other at its first welcome."""
        self._reach = Reach(context.state_dir, context.journal)
        self._plain_until = 0
        """Up to here frames are sent plainly, since one was refused."""
        self._closing: Deferred[None] | None = None
        self._figures = dict.fromkeys(("frames", "raw_bytes", "wire_bytes", "connections", "longer_lines"), 0)
        self._tick = Repeated(self._reactor, self._every_second)

    # -- what a delivery asks

    def open(self) -> Deferred[Position | None]:
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> Position | None:
        self._state, self._detail = State.STARTING, ""
        self._fail(RetryableError("the backend is opened anew"))
        if not self._tick.running:
            self._tick.start(IDLE_SECONDS, now=False)
        link = await self._connected()
        self._confirmed = link.acked
        return Position.of_number(self._context.journal, link.acked) if link.acked else None

    def write(self, batch: Batch) -> Deferred[None]:
        one = _Pending(batch)
        if self._state is State.CLOSED:
            one.done.errback(RetryableError("the backend is closed"))
            return one.done
        self._pending.append(one)
        if not self._pumping:
            self._pumping = True
            Deferred.fromCoroutine(self._pump())
        return one.done

    def close(self) -> Deferred[None]:
        self._state, self._detail = State.CLOSED, ""
        self._context.onward.found(self._context.name, ())
        error = RetryableError("the backend was closed meanwhile")
        if self._tick.running:
            self._tick.stop()
        if self._next_try is not None:
            self._next_try.cancel()
            self._next_try = None
        if self._trying is not None:
            self._trying.cancel()
        self._tell_waiters(Failure(error))  # type: ignore[no-untyped-call]
        closed: Deferred[None] = Deferred()
        for link in list(self._links):
            link.end(error)
        self._fail(error)
        if not self._links and self._trying is None:
            return succeed(None)
        self._closing = closed
        return closed

    def health(self) -> Health:
        detail = self._detail
        if not detail and self._link is not None and self._state is State.OK:
            detail = _in_words(self._link.about)
            if self._figures["longer_lines"]:
                detail += f"; {self._figures['longer_lines']} lines were longer than the {self._link.about.max_line} bytes that it takes"
        figures: dict[str, float] = {**self._figures, "connected": float(self._link is not None)}
        return Health(self._state.value, detail, figures)

    # -- connections

    def _connected(self) -> Deferred[Link]:
        """The connection that is up; or the next one, should the next try succeed."""
        if self._link is not None:
            return succeed(self._link)
        waiter: Deferred[Link] = Deferred()
        self._waiters.append(waiter)
        if self._trying is None and self._next_try is None:
            self._try()
        return waiter

    def _try(self) -> None:
        self._next_try = None
        self._trying = trying = Deferred.fromCoroutine(self._connect())
        trying.addCallbacks(self._came, self._did_not_come)

    async def _connect(self) -> Link:
        """Raises RetryableError."""
        options = self._options
        try:
            hello = self._hello()
            endpoint = endpoint_to(options.place, options.certificates, self._reactor)
        except ValueError as error:
            raise RetryableError(str(error)) from None
        link = Link(hello, self._reactor.seconds, self._acked, self._gone, self._look_onward)
        try:
            await endpoint.connect(Factory.forProtocol(lambda: link))
        except CancelledError:
            raise
        except Exception as error:
            raise RetryableError(f"can't connect to {options.url}: {_why(error)}") from error
        if link.state is not LinkState.GONE:
            self._links.add(link)
        late = self._reactor.callLater(
            GREETING_SECONDS, link.end, RetryableError(f"{options.url} does not answer the hello")
        )
        try:
            await link.welcomed
        except CancelledError:
            link.end(RetryableError("the backend was closed meanwhile"))
            raise
        finally:
            if late.active():
                late.cancel()
        if (self._most is not None and link.acked > self._most) or not await self._in_thread(
            self._reach.covers, link.acked
        ):
            problem = RetryableError(
                "the sidecar there has more of this journal than was ever sent from here: another sidecar has the same journal's id, a copy of "
                "this one or the one that this is a copy of; stop this one and run `wafermon journal renew DIR`"
            )
            link.end(problem)
            raise problem
        return link

    def _circle(self, link: Link) -> RetryableError | None:
        """What is wrong where the messages would come back to here. Else where they go is told; that holds while the connection is
        lost, too, since what is on its way will go there."""
        paths = beyond(link.stop, link.paths)
        found = circle(self._context.journal, paths)
        self._context.onward.found(self._context.name, () if found else paths)
        if not found:
            return None
        names = ", ".join(f"forwards to {stop}" for stop in found[:-1])
        return RetryableError(
            f"a circle of sidecars: this one, {socket.gethostname()} (journal {self._context.journal}), {names.replace(', ', ', which ')}, "
            "which forwards to this one. Nothing is forwarded here until one of them forwards no more: look at their `url`s and routes"
        )

    def _look_onward(self, link: Link) -> None:
        """The other says anew where messages go on to."""
        if link is not self._link:
            return  # the next connection looks itself
        if problem := self._circle(link):
            link.end(problem)

    def _hello(self) -> bytes:
        context, options = self._context, self._options
        said: dict[str, Any] = {
            "v": VERSION,
            "type": "hello",
            "forward": True,
            "client": context.journal,
            "instance": f"{context.instance}:{context.name}"[:64],
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "sdk": f"wafermon/{__version__}",
            "compress": options.offered,
        }
        if token := read_token(options.token_file):
            said["token"] = token
        return dumps(said).encode() + b"\n"

    def _came(self, link: Link) -> None:
        if link.state is not LinkState.UP:  # it ended while it was looked at
            self._did_not_come(Failure(link.problem))  # type: ignore[no-untyped-call]
            return
        self._trying = None
        if self._state is State.CLOSED:
            link.end(link.problem)
            self._maybe_closed()
            return
        if problem := self._circle(link):  # it may have said so meanwhile
            link.end(problem)
            self._did_not_come(Failure(problem))  # type: ignore[no-untyped-call]
            return
        self._link = link
        self._wait = FIRST_WAIT
        self._most = max(self._most or 0, link.acked)
        self._figures["connections"] += 1
        self._state, self._detail = State.OK, ""
        self.log.info("{name} forwards {where}", name=self._context.name, where=_in_words(link.about))
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(link)

    def _did_not_come(self, failure: Failure) -> None:
        self._trying = None
        if self._state is State.CLOSED:
            self._maybe_closed()
            return
        self._note(failure.value if isinstance(failure.value, Exception) else RetryableError(str(failure.value)))
        self._try_later()
        self._tell_waiters(failure)

    def _tell_waiters(self, failure: Failure) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.errback(failure)

    def _try_later(self) -> None:
        if self._next_try is None and self._state is not State.CLOSED:
            self._next_try = self._reactor.callLater(self._uniform(0.0, self._wait), self._try)
            self._wait = min(2 * self._wait, LONGEST_WAIT)

    def _gone(self, link: Link, problem: Exception) -> None:
        """A connection is over."""
        self._links.discard(link)
        if link is self._link:
            self._link = None
            if isinstance(problem, Refusal) and problem.code == "bad_frame" and self._pending:
                self._plain_until = max(self._plain_until, self._pending[0].batch.end.number)
            self._note(problem)
            self._fail(problem)
            if self._trying is None:
                self._try_later()
        self._maybe_closed()

    def _maybe_closed(self) -> None:
        closing = self._closing
        if closing is not None and not self._links and self._trying is None:
            self._closing = None
            closing.callback(None)

    def _note(self, problem: Exception) -> None:
        if self._state is not State.CLOSED:
            self._state = State.STARTING if self._state is State.STARTING else State.FAILING
            self._detail = str(problem)

    def _every_second(self) -> None:
        link = self._link
        if link is None:
            return
        if self._reactor.seconds() - link.heard > SILENT_SECONDS:
            link.end(RetryableError(f"{self._options.url} has said nothing for {SILENT_SECONDS:.0f} s"))
        elif not self._pending:
            link.send(idle(link.sent, self._now()))

    def _now(self) -> int:
        return int(self._context.wall() * 1e6)

    # -- batches

    async def _pump(self) -> None:
        """Send what is pending, in order."""
        try:
            while (one := next((one for one in self._pending if not one.sent), None)) is not None:
                try:
                    link = await self._connected()
                    if one in self._pending:
                        await self._send(link, one)
                except Exception as error:  # noqa: BLE001  # whatever it is, the delivery knows what to do
                    self._fail(error)
        finally:
            self._pumping = False

    async def _send(self, link: Link, one: _Pending) -> None:
        batch = one.batch
        start, end = batch.start.number, batch.end.number
        if batch.start.journal != self._context.journal:
            raise RetryableError(
                f"this is of the journal {batch.start.journal}, and {self._context.journal} is forwarded"
            )
        if link.acked < self._confirmed:
            raise PositionMoved(
                f"{self._options.url} stands at {link.acked}, and had {self._confirmed}: it was put back, and is asked again"
            )
        if end <= link.acked:
            one.sent = True
            self._acked(link)
            return
        if start < link.sent:
            raise PositionMoved(f"{self._options.url} stands at {link.sent}, within the batch from {start} to {end}")
        self._refuse_long(batch, link.about.max_frame, oldest=one is self._pending[0])
        if not self._reach.includes(end):
            await self._in_thread(self._reach.extend, end)
        packed = await self._pack(batch, self._manner(link, end))
        if link is not self._link or one not in self._pending:
            return
        figures = self._figures
        if packed.longest > link.about.max_line:
            figures["longer_lines"] += sum(len(line) > link.about.max_line for line in batch.lines)
        link.send(packed.data)
        link.sent = end
        self._most = max(self._most or 0, end)
        one.sent = True
        figures["frames"] += packed.frames
        figures["raw_bytes"] += len(batch.raw)
        figures["wire_bytes"] += len(packed.data)

    def _refuse_long(self, batch: Batch, most: int, *, oldest: bool) -> None:
        """A line that is longer than a frame may be can't be sent at all. Raises Refused, or RetryableError where other batches have to
        come there first."""
        if len(batch.raw) <= most:
            return
        detail = f"longer than a frame that {self._options.url} takes, which is {most} bytes"
        reasons = {index: detail for index, line in enumerate(batch.lines) if len(line) >= most}
        if reasons:
            raise Refused(reasons, "too_large") if oldest else RetryableError("a message after these can't be sent")

    def _manner(self, link: Link, end: int) -> Manner:
        about = link.about
        manner = Manner(about.codec or PLAIN, about.max_frame)
        return plainly(manner) if end <= self._plain_until else manner

    def _in_thread(self, call: Callable[[int], T], number: int) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._context.pool, call, number)

    async def _pack(self, batch: Batch, manner: Manner) -> Packed:
        if len(batch.raw) <= INLINE_BYTES or manner.codec == PLAIN:
            return pack(batch, manner, self._now())
        return await deferToThreadPool(self._reactor, self._context.pool, pack, batch, manner, self._now())

    def _acked(self, link: Link) -> None:
        """The other has more than before."""
        if link is not self._link:
            return
        self._confirmed = max(self._confirmed, link.acked)
        while self._pending and self._pending[0].sent and self._pending[0].batch.end.number <= link.acked:
            self._state, self._detail = State.OK, ""
            self._pending.popleft().done.callback(None)

    def _fail(self, error: Exception) -> None:
        """Whatever is pending comes again: the oldest because of this, and the others because of that one."""
        pending, self._pending = self._pending, deque()
        if not pending:
            return
        if isinstance(error, OSError):
            error = RetryableError(f"{error.filename}: {error.strerror or error}")
        if not isinstance(error, (RetryableError, Refused, CancelledError)):
            self.log.failure("Internal error in the backend", Failure(error))  # type: ignore[no-untyped-call]
        self._note(error)
        if self._link is not None:
            # What was sent and not acknowledged may be there or not: a new connection's welcome says it.
            link, self._link = self._link, None
            link.end(RetryableError(f"begun again: {error}"))
            self._try_later()
        for number, one in enumerate(pending):
            one.done.errback(Superseded("a batch before it failed") if number else error)


def _in_words(about: Welcome) -> str:
    return f"to {about.host or 'a sidecar'} (journal {about.sidecar}, wafermon {about.version}), {about.codec or 'not compressed'}"


def _why(error: Exception) -> str:
    reasons = getattr(error, "reasons", None)  # of TLS
    if reasons:
        return ", ".join(str(getattr(one, "value", one)) for one in reasons)
    return str(error) or type(error).__name__
