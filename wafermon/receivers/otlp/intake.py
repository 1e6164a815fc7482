"""A request's way into the journal: unpacked, read, made into lines, judged line by line, and answered once all of it is durable."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from math import ceil
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from wafermon.journal import Entry, Journal, Rejected
from wafermon.model.errors import printable
from wafermon.model.lograte import LogRate
from wafermon.model.settings import Limits
from wafermon.net.principals import Principal
from wafermon.receivers.otlp.mapping import Made, lines_of
from wafermon.receivers.otlp.recent import Recent
from wafermon.receivers.otlp.senders import Sender, Senders
from wafermon.receivers.otlp.traces import TraceHashes
from wafermon.wire.lines import Origin
from wafermon.wire.otlp import bodies
from wafermon.wire.otlp.shapes import PartialSuccess, Signal
from wafermon.wire.scanned import reader

SLICE_BYTES = 1 << 18
"""Lines go into the journal in blocks of about this size, as those of connections do."""
SMALL_BYTES = 1 << 15
"""A body of no more than this is read at once, others in a thread."""
PAUSE_SECONDS = 1.0
"""How long a request waits for receivers that pause, before it is told to come again."""
RETRY_SECONDS = 2
"""When it should come again."""
ALLOWANCES = 20_000
"""Senders whose allowance is remembered; beyond it the one that was told longest ago is forgotten."""
REASONS_SHOWN = 3
"""Of the records that are refused."""
_REJECTED = {"logs": "rejected_log_records", "metrics": "rejected_data_points", "traces": "rejected_spans"}
T = TypeVar("T")


class Paused(Exception):
    """Nothing is taken just now; the text says why."""

    def __init__(self, why: str, after: int = RETRY_SECONDS) -> None:
        """`after`: in how many seconds the request should come again."""
        super().__init__(why)
        self.after = after


class Asked(NamedTuple):
    """A request as it came."""

    signal: Signal
    media_type: str
    """`bodies.JSON` or `bodies.PROTOBUF`."""
    encoding: str
    body: bytes
    principal: Principal
    host: str
    """The address that it comes from, without the port; empty for a Unix socket."""
    peer: str
    agent: str = ""
    """Its User-Agent."""


@dataclass
class Figures:
    """Counters since the start."""

    requests: int = 0
    """Those that were taken."""
    messages: int = 0
    rejected: int = 0
    """Lines that were refused."""
    repeated: int = 0
    """Requests that had come before."""
    refused: dict[int, int] = field(default_factory=dict)
    """Requests that were not taken, by the status of their answers."""


class Intake:
    """Of all listeners for OTLP."""

    log = Logger()

    def __init__(
        self,
        journal: Journal,
        limits: Callable[[], Limits],
        live: Callable[[], Iterable[str]],
        reactor: Any,
        threads: ThreadPool | None = None,
    ) -> None:
        """`live` are the ids of the traces that live. `threads` read large requests; without them that is done at once."""
        self.figures = Figures()
        self.senders = Senders()
        self.limits = limits
        self._journal = journal
        self._reactor = reactor
        self._threads = threads
        self._hashes = TraceHashes(live, reactor.seconds)
        self._recent = Recent(reactor.seconds)
        self._taking = 0
        self.held_bytes = 0
        """Of bodies that are not answered yet."""
        self._idle: list[Deferred[None]] = []
        self._allowed: OrderedDict[tuple[str, str], float] = OrderedDict()
        """When the rate limit takes something again, by principal and host."""
        self._about_requests = LogRate(reactor.seconds)
        self.stopping = False

    def take(self, asked: Asked) -> Deferred[PartialSuccess]:
        """Fires once all that was accepted is durable, however long that takes; what it answers with says what was not. Fails with
        bodies.Unreadable or Paused. It goes on when nobody waits for it any more."""
        self._taking += 1
        return Deferred.fromCoroutine(self._take(asked)).addBoth(self._taken)

    def _taken(self, result: PartialSuccess | Failure) -> PartialSuccess | Failure:
        self._taking -= 1
        if not self._taking:
            waiting, self._idle = self._idle, []
            for one in waiting:
                one.callback(None)
        return result

    def hold(self, size: int) -> bool:
        """Count bytes of bodies that have come and are not answered; False where they would be too many."""
        most = self.limits().partial_bytes
        if most and self.held_bytes + size > most:
            return False
        self.held_bytes += size
        return True

    def let_go(self, size: int) -> None:
        self.held_bytes -= size

    def settled(self) -> Deferred[None]:
        """Fires once nothing is being taken."""
        done: Deferred[None] = Deferred()
        if self._taking:
            self._idle.append(done)
        else:
            done.callback(None)
        return done

    async def _take(self, asked: Asked) -> PartialSuccess:
        self._check_rate(asked)
        await self._until_not_paused()
        body, digest = await self._apart(len(asked.body), _unpacked, asked)
        if (again := self._recent.find(digest)) is not None:
            self.figures.repeated += 1
            return await again
        self._recent.begin(digest)
        try:
            answer, timed = await self._take_new(asked, body)
        except BaseException:
            self._recent.failed(digest, Failure())
            raise
        self._recent.answered(digest, answer, keep=timed)
        return answer

    async def _take_new(self, asked: Asked, body: bytes) -> tuple[PartialSuccess, bool]:
        """The answer; and whether the same request, later, is this one again."""
        self._hashes.refresh()
        made = await self._apart(len(body), self._made, asked, body)
        read = reader(Origin(), _unless_allowed(asked.principal) if asked.principal.services is not None else None)
        refused: dict[int, str] = {}
        """By the number of a record, why."""
        settled: Deferred[None] | None = None
        for first, lines in _slices(made.lines):
            await self._relief()
            now = self._journal.now()
            found = read.read(b"\n".join([*lines, b""]), now)
            rejected: list[Rejected] = []
            for at, (line, error) in found.refused.items():
                refused.setdefault(made.records[first + at], error.detail)
                rejected.append(Rejected(error.code, error.detail, line, asked.peer, now))
            settled = Deferred()
            block = found.block if found.block.count else None
            self._journal.append(Entry(block, rejected, settled=_firing(settled)))
            self.figures.messages += found.block.count
            self.figures.rejected += len(rejected)
        self._allow(asked, len(made.lines))
        if settled is not None:
            await settled
        self.figures.requests += 1
        self._note_senders(asked, made.senders)
        return self._answer(asked, refused), made.timed and bool(made.lines)

    def _note_senders(self, asked: Asked, sent: Mapping[Sender, int]) -> None:
        self.senders.heard(asked.principal.name, asked.host, asked.peer, asked.agent, sent, self._journal.now())

    def _made(self, asked: Asked, body: bytes) -> Made:
        """Raises bodies.Unreadable."""
        request = bodies.read(asked.signal, asked.media_type, body)
        try:
            return lines_of(request, self._hashes.find, self.limits().max_line_bytes)
        except (ValueError, OverflowError) as error:
            raise bodies.Unreadable(400, f"a value is not what it should be: {printable(error)}") from None

    def _answer(self, asked: Asked, refused: dict[int, str]) -> PartialSuccess:
        if not refused:
            return PartialSuccess()
        reasons = list(dict.fromkeys(refused.values()))
        shown = "; ".join(reasons[:REASONS_SHOWN]) + ("; …" if len(reasons) > REASONS_SHOWN else "")
        self.complain(asked.peer, f"{len(refused)} {asked.signal} refused: {shown}")
        answer = PartialSuccess(error_message=shown)
        setattr(answer, _REJECTED[asked.signal], len(refused))
        return answer

    # -- `limits.messages_per_second`: of one principal at one host

    def _check_rate(self, asked: Asked) -> None:
        """Raises Paused."""
        wait = self._allowed.get((asked.principal.name, asked.host), 0.0) - self._reactor.seconds()
        if wait > 0:
            raise Paused("more messages than limits.messages_per_second allows", ceil(wait))

    def _allow(self, asked: Asked, count: int) -> None:
        """So many messages were taken."""
        rate, key = self.limits().messages_per_second, (asked.principal.name, asked.host)
        before = self._allowed.pop(key, 0.0)
        if rate:
            self._allowed[key] = max(before, self._reactor.seconds()) + count / rate
        if len(self._allowed) > ALLOWANCES:
            self._allowed.popitem(last=False)

    # -- waiting

    @property
    def paused(self) -> str:
        """Why nothing is taken just now; empty where it is."""
        if self.stopping:
            return "the sidecar stops"
        if self._journal.full:
            return "the journal is full, and receivers pause until the backends have caught up"
        return "the journal's disk fails" if self._journal.failing else ""

    async def _until_not_paused(self) -> None:
        """Raises Paused. A moment's pause is waited for."""
        until = self._reactor.seconds() + PAUSE_SECONDS
        while (why := self.paused) or self._journal.congested:
            left = until - self._reactor.seconds()
            if left <= 0 or self.stopping:
                raise Paused(why or "more comes in than the journal's disk takes")
            await self._journal.sleep(min(left, 0.05))

    async def _relief(self) -> None:
        """Wait as long as the journal wants no more."""
        while self._journal.congested:
            relief: Deferred[None] = Deferred()
            self._journal.on_relief(_firing(relief))
            await relief

    async def _apart(self, size: int, call: Callable[..., T], *args: Any) -> T:
        """The answer of a call that takes long where `size` in bytes is large."""
        if self._threads is None or size <= SMALL_BYTES:
            return call(*args)
        answer: T = await deferToThreadPool(self._reactor, self._threads, call, *args)
        return answer

    # -- what is said

    def refused(self, peer: str, status: int, why: str) -> None:
        """A request was not taken."""
        self.figures.refused[status] = self.figures.refused.get(status, 0) + 1
        self.complain(peer, f"refused: {status}: {why}")

    def failed(self, failure: Failure) -> None:
        """An internal error ends a request; its sender sends it again."""
        self._about_requests.log(lambda: self.log.failure("Internal error in a request by OTLP", failure), self._tell)

    def complain(self, peer: str, problem: str) -> None:
        """Log what is wrong with a sender, within bounds."""
        shown = printable(problem)
        self._about_requests.log(lambda: self.log.warn("{peer}: {problem}", peer=peer, problem=shown), self._tell)

    def _tell(self, what: str) -> None:
        self.log.warn("About OTLP: {what}", what=what)


def _unpacked(asked: Asked) -> tuple[bytes, bytes]:
    """The body and its digest. Raises bodies.Unreadable."""
    body = bodies.unpack(asked.body, asked.encoding)
    digest = sha256(f"{asked.principal.name}\n{asked.signal}\n{asked.media_type}\n".encode())
    digest.update(body)
    return body, digest.digest()


def _slices(lines: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Lines in blocks, each with the number of its first."""
    first, size = 0, 0
    for number, line in enumerate(lines):
        size += len(line) + 1
        if size >= SLICE_BYTES:
            yield first, lines[first : number + 1]
            first, size = number + 1, 0
    if first < len(lines):
        yield first, lines[first:]


def _firing(deferred: Deferred[None]) -> Callable[[], None]:
    return lambda: None if deferred.called else deferred.callback(None)


def _unless_allowed(principal: Principal) -> Callable[[str], tuple[str, str] | None]:
    def unless(service: str) -> tuple[str, str] | None:
        problem = principal.unless_allowed(service)
        return (principal.code, problem) if problem else None

    return unless
