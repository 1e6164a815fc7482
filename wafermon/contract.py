"""What every backend has to pass. Subclass `BackendContract` in a test module, and pytest collects it:

    class TestMine(BackendContract):
        factory = mine
        def options(self): return {"path": str(self.directory / "out")}
        def read_back(self): return [(client, seq), ...]

It needs pytest with pytest-twisted; importing it needs neither. docs/writing-a-backend.md shows the whole of one.
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
from zope.interface.verify import verifyObject

from wafermon.interfaces import BackendContext, Batch, Health, IBackend, IBackendFactory, Position
from wafermon.model.blocks import Block
from wafermon.model.errors import ConfigError, PermanentError, RetryableError
from wafermon.model.messages import dumps, loads

JOURNAL = "5af1c0de5af1c0de"
CLIENT = "9f2c6b1d00e4a873"
STATES = {"ok", "starting", "failing", "closed"}

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

    def poison(self, seq: int) -> bytes | None:
        """A line that the backend will never take. None: there is no such line."""
        return None

    directory: Path
    """Fresh for each test, and removed after it."""

    # -- the machinery -------------------------------------------------------------------------------------------

    def setup_method(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="wafermon-contract-"))
        self.state_dir = self.directory / "state"
        self.state_dir.mkdir(0o700)
        self.start = Position(JOURNAL, 1, 0)
        self._built: list[Any] = []

    def teardown_method(self) -> None:
        shutil.rmtree(self.directory)

    def build(self) -> Any:
        """Another backend on the same place and the same state, as after a restart."""
        from twisted.internet import reactor

        context = BackendContext("contract", self.state_dir, reactor, reactor.getThreadPool())  # type: ignore[attr-defined]
        backend = self.factory.build(self.factory.configure(self.options()), context)
        self._built.append(backend)
        return backend

    async def opened(self) -> Any:
        backend = self.build()
        await backend.open()
        return backend

    async def close(self, backend: Any) -> None:
        self._built.remove(backend)
        await backend.close()

    async def close_all(self) -> None:
        for backend in list(self._built):
            await self.close(backend)

    async def expect(self, seqs: Sequence[int]) -> None:
        """What is stored is `seqs`, each once."""
        stored = self.read_back()
        found = sorted(seq for client, seq in (await stored if isinstance(stored, Awaitable) else stored))
        if found != sorted(seqs):
            missing, added = sorted(set(seqs) - set(found)), sorted(set(found) - set(seqs))
            twice = sorted({seq for seq in found if found.count(seq) > 1}) if len(found) < 10_000 else []
            raise Unfit(f"stored is not what was written: missing {missing}, too many {added}, twice {twice}")

    async def expect_failure(self, kind: type[Exception], backend: Any, what: Batch) -> Exception:
        try:
            await backend.write(what)
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

    def test_configure_names_every_unknown_key(self) -> None:
        try:
            self.factory.configure({**self.options(), "no_such_key": 1, "nor_this_one": 2})
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
        lines = [line(seq, service=services[seq % 7], ts=1_795_500_000_000_000 + seq * 10**9) for seq in range(1, 5001)]
        await backend.write(batch(self.start, lines))
        await self.expect(range(1, 5001))

    @awaited
    async def test_many_places_at_once(self) -> None:
        backend = await self.opened()
        lines = [line(seq, service=f"service-{seq}", host=f"fab{seq}") for seq in range(1, 601)]
        await backend.write(batch(self.start, lines))
        await backend.write(batch(batch(self.start, lines).end, [line(601)]))
        await self.expect(range(1, 602))

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
        assert await backend.open() == first.end
        await self.expect(range(1, 11))
        await backend.write(again)
        await self.expect(range(1, 21))

    @awaited
    async def test_what_fails_for_ever_is_bisected(self) -> None:
        poison = self.poison(13)
        if poison is None:
            skip("`poison` is not given")
        backend = await self.opened()
        lines = [*map(line, range(11, 13)), poison, *map(line, range(14, 21))]
        whole = batch(self.start, lines)
        await self.expect_failure(PermanentError, backend, whole)
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


def skip(why: str) -> NoReturn:
    import pytest

    pytest.skip(why)
