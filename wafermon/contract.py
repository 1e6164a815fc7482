"""What every backend has to pass. Subclass `BackendContract` in a test module, and pytest collects it:

    class TestMine(BackendContract):
        factory = mine
        def options(self): return {"path": str(self.directory / "out")}
        def read_back(self): return [(client, seq), ...]

It needs pytest with pytest-twisted; importing it needs neither. docs/writing-a-backend.md shows the whole of one. A backend
of version 1, without `outstanding` and `exactly_once`, is held to what that promised.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool
from zope.interface.verify import verifyObject

from wafermon.interfaces import (
    BackendContext,
    Batch,
    ConfigError,
    Health,
    IBackend,
    IBackendFactory,
    IHistory,
    PermanentError,
    Position,
    PositionMoved,
    Refused,
    RetryableError,
    Superseded,
    configure,
    outstanding_of,
)
from wafermon.model.blocks import Block
from wafermon.model.describe import keys
from wafermon.model.messages import dumps, loads
from wafermon.model.settings import BackendKeys

JOURNAL = "5af1c0de5af1c0de"
CLIENT = "9f2c6b1d00e4a873"
STATES = {"ok", "starting", "failing", "closed"}
TRIES = 20
"""Of a batch that fails for now, before the suite takes it for lost."""

T = TypeVar("T")
Contract = TypeVar("Contract", bound="BackendContract")


class Unfit(AssertionError):
    """A backend breaks its promise; the text says which."""


def awaited(test: Callable[[Contract], Awaitable[None]]) -> Callable[[Contract], Deferred[None]]:
    """A coroutine as what test runners that know Deferreds run."""

    @wraps(test)
    def run(self: Contract) -> Deferred[None]:
        async def whole() -> None:
            try:
                await test(self)
            finally:
                await self.close_all()

        return Deferred.fromCoroutine(whole())

    return run


def line(seq: int, **fields: Any) -> bytes:
    """One message as the journal stores it; `fields` over an ordinary event of 2026-11-24."""
    message = {
        "type": "event", "ts": 1_795_500_000_000_000 + seq, "service": "queue-service", "host": "fab1", "pid": 4711,
        "client": CLIENT, "seq": seq, "level": "info", "message": f"wafer {seq}",
    }  # fmt: skip
    return dumps({**message, **fields}).encode()


def batch(start: Position, lines: Iterable[bytes]) -> Batch:
    """Lines as the batch that begins at `start`."""
    lines = list(lines)
    raw = b"".join(line + b"\n" for line in lines)
    end = start._replace(offset=start.offset + len(raw) + 1)
    return Batch(start, end, Block.parse(raw))


def one_of_each(seq: int) -> list[bytes]:
    """All types of message, and what is hard about them, from `seq` on."""
    own = {"trace_id": "job-4711", "span_id": "00f067aa0ba902b7", "level": None, "message": None}
    messages: list[dict[str, Any]] = [
        {"context": {"file": "a.csv", "rows": 3, "nested": {"deep": [1, None, True]}}, "trace_id": "job-4711"},
        {"message": "Größe µm 测试 🚀 \" \\ \t \n", "level": "critical", "truncated": True},
        {"message": "x" * 65_000},
        {"service": "a:b", "host": "../../etc"},
        {"host": ""},
        {**own, "type": "metric", "name": "rate", "value": 0.1, "unit": "1/s", "tags": {"tool": "x", "n": 1}},
        {**own, "type": "metric", "name": "rate", "value": "NaN", "kind": "counter"},
        {**own, "type": "metric", "name": "rate", "value": 1e300},
        {**own, "type": "progress", "job_id": "job-4711", "percent": 42.5, "status": "running"},
        {**own, "type": "resource", "cpu": 12.5, "mem": 1 << 40, "disk": 0, "net": 0},
        {**own, "type": "span_start", "name": "load"},
        {**own, "type": "span_end", "name": "load", "status": "ok", "start": 1_795_500_000_000_000, "duration": 17},
        {
            **own, "type": "trace", "service": "wafermon", "first": 1_795_500_000_000_000, "span_id": None,
            "last": 1_795_500_001_000_000, "services": ["a", "b"], "counts": {"event": 3, "level.error": 1},
            "errors": 1, "status": "done", "part": 1,
        },
    ]  # fmt: skip
    return [without_none(line(seq + i, **fields)) for i, fields in enumerate(messages)]


def without_none(text: bytes) -> bytes:
    """A line without those of its own fields that are null."""
    return dumps({key: value for key, value in loads(text).items() if value is not None}).encode()


def seqs_of(one: Batch) -> list[int]:
    """The numbers of its messages."""
    return [int(loads(text)["seq"]) for text in one.lines]


class BackendContract:
    """Subclass it, give the first three, and the others where the backend can be made to fail."""

    factory: ClassVar[Any]
    """What the plugin module holds."""

    def options(self) -> Mapping[str, Any]:
        """The backend's own keys of a config, for a place that is empty at the start of each test."""
        raise NotImplementedError

    def read_back(self) -> Iterable[tuple[str, int]] | Awaitable[Iterable[tuple[str, int]]]:
        """(client, seq) of everything stored, in any order; what is stored twice, twice."""
        raise NotImplementedError

    def unreachable(self) -> AbstractContextManager[object] | None:
        """While it is entered, the backend can't store anything. None: that can't be arranged, nor then tested."""
        return None

    def lost_reply(self) -> AbstractContextManager[object] | None:
        """While it is entered, what is written is stored, or will be soon after, and the backend is not told: `write` fails.
        None: that can't be arranged."""
        return None

    def stuck(self) -> AbstractContextManager[object] | None:
        """While it is entered, the place answers nothing; afterwards it does. None: that can't be arranged."""
        return None

    def snapshot(self) -> Callable[[], object] | None:
        """Keep the place as it is, and answer with a call that brings that state back, as a restore from a backup does. None:
        that can't be arranged."""
        return None

    def poison(self, seq: int) -> bytes | None:
        """A line that the backend will never take. None: there is no such line."""
        return None

    directory: Path
    """Fresh for each test, and removed after it."""
    places = 600
    """From so many services and hosts messages come at once."""

    # -- the machinery -------------------------------------------------------------------------------------------

    def setup_method(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="wafermon-contract-"))
        self.state_dir = self.directory / "state"
        self.state_dir.mkdir(0o700)
        self.start = Position(JOURNAL, 1, 0)
        self.journal = JOURNAL
        self._built: list[Any] = []

    def teardown_method(self) -> None:
        shutil.rmtree(self.directory)

    def build(self) -> Any:
        """Another backend on the same place and the same state, as after a restart."""
        from twisted.internet import reactor

        pool = ThreadPool(0, 1, "contract")
        pool.start()
        context = BackendContext("contract", self.state_dir, reactor, pool, journal=self.journal, instance="contract")
        backend = self.factory.build(configure(self.factory, self.options()), context)
        self._built.append((backend, pool))
        return backend

    def require_version_2(self, backend: Any) -> None:
        if not hasattr(backend, "outstanding") and not hasattr(backend, "exactly_once"):
            skip("a backend of version 1")

    async def opened(self) -> Any:
        backend = self.build()
        await backend.open()
        return backend

    async def close(self, backend: Any) -> None:
        [found] = [one for one in self._built if one[0] is backend]
        self._built.remove(found)
        try:
            await backend.close()
        finally:
            found[1].stop()

    async def close_all(self) -> None:
        for backend, _ in list(self._built):
            await self.close(backend)

    async def deliver(self, backend: Any, batches: Sequence[Batch]) -> None:
        """As the sidecar does: ask where it stands, write what is pending, one batch after the other, and again."""
        for _ in range(TRIES):
            reached = await backend.open()
            if reached not in (None, *(one.end for one in batches), *(one.start for one in batches)):
                raise Unfit(f"open answers with {reached}, where no batch began or ended")
            try:
                for one in batches:
                    if reached is None or one.end > reached:
                        await backend.write(one)
                return
            except RetryableError:
                await _pause(0.1)
        raise Unfit(f"not stored after {TRIES} tries, though nothing hinders it any more")

    async def expect(self, seqs: Sequence[int]) -> None:
        """What is stored is `seqs`, each once."""
        stored = self.read_back()
        found = sorted(seq for client, seq in (await stored if isinstance(stored, Awaitable) else stored))
        if found != sorted(seqs):
            missing, added = sorted(set(seqs) - set(found)), sorted(set(found) - set(seqs))
            twice = sorted({seq for seq in found if found.count(seq) > 1}) if len(found) < 10_000 else []
            raise Unfit(f"stored is not what was written: missing {missing}, too many {added}, twice {twice}")

    async def expect_failure(self, kind: type[Exception], backend: Any, what: Batch) -> Exception:
        return await self.expect_failure_of(kind, backend.write(what))

    async def expect_failure_of(self, kind: type[Exception], written: Deferred[None]) -> Exception:
        try:
            await written
        except kind as error:
            return error
        except Exception as error:
            raise Unfit(f"write failed with {error!r} where {kind.__name__} is due") from error
        raise Unfit(f"write succeeded where {kind.__name__} is due")

    # -- the promises --------------------------------------------------------------------------------------------

    def test_interfaces(self) -> None:
        verifyObject(IBackendFactory, self.factory)
        verifyObject(IBackend, self.build())
        assert isinstance(self.factory.name, str) and self.factory.name

    def test_attributes(self) -> None:
        backend = self.build()
        assert isinstance(getattr(backend, "outstanding", 1), int) and outstanding_of(backend) >= 1
        assert isinstance(getattr(backend, "exactly_once", True), bool)
        if IHistory.providedBy(backend):
            verifyObject(IHistory, backend)

    def test_declared_options(self) -> None:
        declared = getattr(self.factory, "options", None)
        if declared is None:
            skip("the factory checks its keys itself")
        for key, field in keys(declared).items():
            assert key not in BackendKeys.model_fields, f"{key} is a key that every backend has"
            assert field.description, f"{key} has no description"

    def test_configure_names_every_unknown_key(self) -> None:
        try:
            configure(self.factory, {**self.options(), "no_such_key": 1, "nor_this_one": 2})
        except ConfigError as error:
            assert {"no_such_key", "nor_this_one"} <= {fault.path for fault in error.faults}
            assert all(fault.problem for fault in error.faults)
        else:
            raise Unfit("configure took keys that it does not know")

    @awaited
    async def test_a_new_backend_has_no_position(self) -> None:
        assert await self.build().open() is None
        await self.expect([])

    @awaited
    async def test_what_is_written_is_stored_once(self) -> None:
        backend = await self.opened()
        first = batch(self.start, map(line, range(1, 101)))
        second = batch(first.end, map(line, range(101, 151)))
        await backend.write(first)
        await self.expect(range(1, 101))
        await backend.write(second)
        await self.expect(range(1, 151))

    @awaited
    async def test_every_type_of_message(self) -> None:
        backend = await self.opened()
        lines = one_of_each(1)
        await backend.write(batch(self.start, lines))
        await self.expect(range(1, len(lines) + 1))

    @awaited
    async def test_a_large_batch(self) -> None:
        backend = await self.opened()
        services = [f"service-{n}" for n in range(7)]
        # Over eleven days: some places take nothing that is older than two weeks.
        lines = [
            line(seq, service=services[seq % 7], ts=1_795_500_000_000_000 + seq * 200 * 10**6) for seq in range(1, 5001)
        ]
        await backend.write(batch(self.start, lines))
        await self.expect(range(1, 5001))

    @awaited
    async def test_many_places_at_once(self) -> None:
        backend = await self.opened()
        last = self.places
        lines = [line(seq, service=f"service-{seq}", host=f"fab{seq}") for seq in range(1, last + 1)]
        await backend.write(batch(self.start, lines))
        await backend.write(batch(batch(self.start, lines).end, [line(last + 1)]))
        await self.expect(range(1, last + 2))

    @awaited
    async def test_an_empty_batch_moves_the_position(self) -> None:
        backend = await self.opened()
        empty = Batch(self.start, self.start._replace(offset=4096), Block.parse(b""))
        await backend.write(empty)
        await self.close(backend)
        assert await self.build().open() == empty.end
        await self.expect([])

    @awaited
    async def test_a_restart_after_every_batch(self) -> None:
        position = None
        for n in range(6):
            backend = self.build()
            assert await backend.open() == position
            await self.expect(range(1, n * 10 + 1))
            next_batch = batch(position or self.start, map(line, range(n * 10 + 1, n * 10 + 11)))
            await backend.write(next_batch)
            position = next_batch.end
            await self.close(backend)

    @awaited
    async def test_open_after_close(self) -> None:
        backend = await self.opened()
        first = batch(self.start, [line(1)])
        await backend.write(first)
        await backend.close()
        assert await backend.open() == first.end
        await backend.write(batch(first.end, [line(2)]))
        await self.expect([1, 2])

    @awaited
    async def test_a_position_of_another_segment_or_journal(self) -> None:
        backend = await self.opened()
        first = batch(Position(JOURNAL, 7, 100), [line(1)])
        second = batch(Position("0123456789abcdef", 1, 0), [line(2)])
        await backend.write(first)
        await self.close(backend)
        backend = self.build()
        assert await backend.open() == first.end
        await backend.write(second)
        await self.close(backend)
        assert await self.build().open() == second.end
        await self.expect([1, 2])

    @awaited
    async def test_health(self) -> None:
        backend = self.build()
        assert self._health(backend).state == "starting"
        await backend.open()
        assert self._health(backend).state == "ok"
        await backend.write(batch(self.start, [line(1)]))
        assert self._health(backend).state == "ok"
        await self.close(backend)
        assert self._health(backend).state == "closed"

    def _health(self, backend: Any) -> Health:
        health = backend.health()
        assert isinstance(health, Health) and health.state in STATES
        assert all(isinstance(figure, (int, float)) for figure in health.figures.values())
        return health

    @awaited
    async def test_what_fails_for_now_is_stored_once_in_the_end(self) -> None:
        outage = self.unreachable()
        if outage is None:
            skip("`unreachable` is not given")
        backend = await self.opened()
        first = batch(self.start, map(line, range(1, 11)))
        again = batch(first.end, map(line, range(11, 21)))
        await backend.write(first)
        with outage:
            for _ in range(3):
                error = await self.expect_failure(RetryableError, backend, again)
                assert str(error), "a RetryableError says what a person can do"
                assert self._health(backend).state == "failing" and self._health(backend).detail
        await backend.write(again)
        assert self._health(backend).state == "ok"
        await self.expect(range(1, 21))
        await self.close(backend)
        assert await self.build().open() == again.end

    @awaited
    async def test_a_restart_after_a_failure(self) -> None:
        outage = self.unreachable()
        if outage is None:
            skip("`unreachable` is not given")
        backend = await self.opened()
        first = batch(self.start, map(line, range(1, 11)))
        again = batch(first.end, map(line, range(11, 21)))
        await backend.write(first)
        with outage:
            await self.expect_failure(RetryableError, backend, again)
            await self.close(backend)
        backend = self.build()
        assert await backend.open() in (first.end, again.end), "what was on its way may have come through"
        await self.deliver(backend, [first, again])
        await self.expect(range(1, 21))

    @awaited
    async def test_a_lost_reply(self) -> None:
        loss = self.lost_reply()
        if loss is None:
            skip("`lost_reply` is not given")
        backend = await self.opened()
        first = batch(self.start, map(line, range(1, 11)))
        again = batch(first.end, map(line, range(11, 21)))
        await backend.write(first)
        with loss:
            await self.expect_failure(RetryableError, backend, again)
        await self.deliver(backend, [first, again])
        await self.expect(range(1, 21))
        await self.close(backend)
        assert await self.build().open() == again.end

    @awaited
    async def test_a_lost_reply_before_a_restart(self) -> None:
        loss = self.lost_reply()
        if loss is None:
            skip("`lost_reply` is not given")
        backend = await self.opened()
        first = batch(self.start, map(line, range(1, 11)))
        again = batch(first.end, map(line, range(11, 21)))
        await backend.write(first)
        with loss:
            await self.expect_failure(RetryableError, backend, again)
            await self.close(backend)
        await self.deliver(self.build(), [first, again])
        await self.expect(range(1, 21))

    @awaited
    async def test_a_place_that_is_set_back(self) -> None:
        backend = await self.opened()
        first, second, third = (batch(self.start._replace(offset=n * 10_000), [line(n + 1)]) for n in range(3))
        await backend.write(first)
        restore = self.snapshot()
        if restore is None:
            skip("`snapshot` is not given")
        await backend.write(second)
        restore()
        for _ in range(TRIES):  # the first may only tell that the connection is gone
            try:
                await backend.write(third)
            except PositionMoved:
                break
            except RetryableError:
                await _pause(0.1)
            else:
                raise Unfit("a batch was stored after one that is gone")
        assert await backend.open() == first.end
        await self.deliver(backend, [first, second, third])
        await self.expect([1, 2, 3])

    @awaited
    async def test_several_batches_at_a_time_are_stored_in_order(self) -> None:
        backend = await self.opened()
        count = outstanding_of(backend)
        if count < 2:
            skip("it takes one batch at a time")
        batches, start, fired = [], self.start, list[int]()
        for n in range(count):
            batches.append(batch(start, map(line, range(n * 10 + 1, n * 10 + 11))))
            start = batches[-1].end
        written = [backend.write(one) for one in batches]
        for n, one in enumerate(written):
            one.addCallback(lambda _, n=n: fired.append(n))
        for one in written:
            await one
        assert fired == list(range(count))
        await self.expect(range(1, count * 10 + 1))
        await self.close(backend)
        assert await self.build().open() == start

    @awaited
    async def test_younger_batches_are_superseded_where_an_older_one_fails(self) -> None:
        outage = self.unreachable()
        backend = await self.opened()
        if outage is None or outstanding_of(backend) < 2:
            skip("`unreachable` is not given, or it takes one batch at a time")
        first = batch(self.start, map(line, range(1, 11)))
        second = batch(first.end, map(line, range(11, 21)))
        with outage:
            failing, dropped = backend.write(first), backend.write(second)
            await self.expect_failure_of(RetryableError, failing)
            await self.expect_failure_of(Superseded, dropped)
        await backend.write(first)
        await backend.write(second)
        await self.expect(range(1, 21))

    def several(self, backend: Any, lengths: Sequence[int]) -> list[Batch]:
        """Batches one after the other, of so many messages, from seq 1 on: as many as the backend takes at a time, the last ones
        of these."""
        count = outstanding_of(backend)
        if count < 2:
            skip("it takes one batch at a time")
        batches, start, seq = list[Batch](), self.start, 1
        for length in lengths[-count:]:
            batches.append(batch(start, map(line, range(seq, seq + length))))
            start, seq = batches[-1].end, seq + length
        return batches

    @awaited
    async def test_younger_batches_are_superseded_where_an_older_one_is_refused_for_good(self) -> None:
        backend = await self.opened()
        *older, bad, young = self.several(backend, [10, 10, 10])
        poison = self.poison(1_000)
        if poison is None:
            skip("`poison` is not given")
        bad = batch(bad.start, [*bad.lines, poison])
        young = batch(bad.end, young.lines)
        fired: list[Batch] = []

        def noted(result: object, one: Batch) -> object:
            fired.append(one)
            return result

        written = {id(one): backend.write(one) for one in (*older, bad, young)}
        for one in (*older, bad, young):
            written[id(one)].addBoth(noted, one)
        for one in older:
            await written[id(one)]
        error = await self.expect_failure_of(Exception, written[id(bad)])
        if isinstance(error, (RetryableError, Superseded)):
            raise Unfit(f"write failed with {error!r} where a refusal is due")
        await self.expect_failure_of(Superseded, written[id(young)])
        if fired != [*older, bad, young]:
            raise Unfit("the batches were not answered in their order")
        await self.expect([seq for one in older for seq in seqs_of(one)])
        await backend.write(Batch(bad.start, bad.end, Block.of(b"", [])))
        await backend.write(young)
        await self.expect([seq for one in (*older, young) for seq in seqs_of(one)])

    @awaited
    async def test_younger_batches_are_superseded_where_a_reply_is_lost(self) -> None:
        loss = self.lost_reply()
        backend = await self.opened()
        batches = self.several(backend, [10, 10])
        if loss is None:
            skip("`lost_reply` is not given")
        with loss:
            failing, dropped = (backend.write(one) for one in batches)
            await self.expect_failure_of(RetryableError, failing)
            await self.expect_failure_of(Superseded, dropped)
        await self.deliver(backend, batches)
        await self.expect(range(1, 21))

    @awaited
    async def test_close_while_several_are_under_way(self) -> None:
        backend = await self.opened()
        batches = self.several(backend, [50, 50, 50])
        answered: list[object] = []
        for one in batches:
            backend.write(one).addBoth(answered.append)
        await self.close(backend)
        assert len(answered) == len(batches), "close fired before all writes did"
        failed = [number for number, result in enumerate(answered) if result is not None]
        if failed != list(range(len(batches) - len(failed), len(batches))):
            raise Unfit("a batch was stored after one that failed")
        await self.deliver(self.build(), batches)
        await self.expect([seq for one in batches for seq in seqs_of(one)])

    @awaited
    async def test_close_while_it_opens(self) -> None:
        backend = self.build()
        self.require_version_2(backend)
        opening = backend.open()
        opening.addBoth(lambda _: None)
        await self.close(backend)
        assert opening.called, "close fired before open did"
        first = batch(self.start, [line(1)])
        await self.deliver(self.build(), [first])
        await self.expect([1])

    @awaited
    async def test_close_while_it_writes(self) -> None:
        backend = await self.opened()
        self.require_version_2(backend)
        first = batch(self.start, map(line, range(1, 101)))
        writing = backend.write(first)
        writing.addBoth(lambda _: None)
        await self.close(backend)
        assert writing.called, "close fired before write did"
        await self.deliver(self.build(), [first])
        await self.expect(range(1, 101))

    @awaited
    async def test_close_while_the_place_answers_nothing(self) -> None:
        stuck = self.stuck()
        backend = await self.opened()
        if stuck is None:
            skip("`stuck` is not given")
        self.require_version_2(backend)
        first = batch(self.start, map(line, range(1, 11)))
        with stuck:
            writing = backend.write(first)
            writing.addBoth(lambda _: None)
            closing = self.close(backend)
            closed = Deferred.fromCoroutine(closing)
        await closed
        assert writing.called, "close fired before write did"
        await self.deliver(self.build(), [first])
        await self.expect(range(1, 11))

    @awaited
    async def test_what_fails_for_ever_is_bisected(self) -> None:
        poison = self.poison(13)
        if poison is None:
            skip("`poison` is not given")
        backend = await self.opened()
        lines = [*map(line, range(11, 13)), poison, *map(line, range(14, 21))]
        whole = batch(self.start, lines)
        try:
            await backend.write(whole)
        except Refused as error:
            await self._write_without(backend, whole, lines, error)
            return
        except PermanentError:
            pass
        else:
            raise Unfit("write succeeded where PermanentError or Refused is due")
        await self.expect([])
        before, alone = batch(self.start, lines[:2]), batch(batch(self.start, lines[:2]).end, lines[2:3])
        await backend.write(before)
        await self.expect_failure(PermanentError, backend, alone)
        await self.expect([11, 12])
        await self.close(backend)
        backend = self.build()
        assert await backend.open() == before.end
        await backend.write(batch(alone.end, lines[3:]))
        await self.expect([11, 12, *range(14, 21)])

    async def _write_without(self, backend: Any, whole: Batch, lines: list[bytes], error: Refused) -> None:
        """What comes after a refusal that names the messages."""
        assert list(error.reasons) == [2] and error.reasons[2], "it names the message at fault, and says why"
        await self.expect([])
        rest = Batch(whole.start, whole.end, Block.parse(b"".join(one + b"\n" for one in [*lines[:2], *lines[3:]])))
        await backend.write(rest)
        await self.expect([11, 12, *range(14, 21)])
        await self.close(backend)
        assert await self.build().open() == whole.end


def _pause(seconds: float) -> Deferred[None]:
    from twisted.internet import reactor

    done: Deferred[None] = Deferred()
    reactor.callLater(seconds, done.callback, None)
    return done


def skip(why: str) -> NoReturn:
    import pytest

    pytest.skip(why)
