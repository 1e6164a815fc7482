"""The forward backend on a real central sidecar: the contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from central import TOKEN, Central
from lost_replies import lost_replies
from proxy import Proxy

from wafermon.backends.forward import forward
from wafermon.contract import BackendContract, awaited, batch, line
from wafermon.interfaces import Position

EDGES = 60
"""Each test is another sidecar's: what was forwarded before it is not its own."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Central]:
    tokens = "".join(f"{TOKEN}-{number} +forward=edge-{number}\n" for number in range(EDGES))
    with Central(tmp_path_factory.mktemp("forward") / "central", tokens=tokens) as central:
        yield central


@pytest.fixture(scope="module")
def numbers() -> Iterator[int]:
    return iter(range(EDGES))


class TestContract(BackendContract):
    factory = forward

    @pytest.fixture(autouse=True)
    def _central(self, running: Central, numbers: Iterator[int]) -> Iterator[None]:
        self.central = running
        self.token = f"{TOKEN}-{next(numbers)}"
        self.before = Counter(running.drained())
        with Proxy(("127.0.0.1", self.central.forward_port)) as self.proxy:
            yield

    def options(self) -> dict[str, Any]:
        token = self.directory / "token"
        token.write_text(f"{self.token}\n")
        return {"url": f"tcp://127.0.0.1:{self.proxy.port}", "token_file": str(token)}

    def read_back(self) -> Iterable[tuple[str, int]]:
        return (Counter(self.central.drained()) - self.before).elements()

    def unreachable(self) -> AbstractContextManager[None]:
        return self.central.down()

    @contextmanager
    def lost_reply(self) -> Iterator[None]:
        with lost_replies(self.proxy):
            yield

    def stuck(self) -> AbstractContextManager[None]:
        return self.central.frozen()

    def snapshot(self) -> Callable[[], object]:
        copy = self.central.keep()
        return lambda: self.central.put_back(copy)

    @awaited
    async def test_a_position_of_another_segment_or_journal(self) -> None:
        """Each journal has a mark of its own there."""
        backend = await self.opened()
        first = batch(Position(self.journal, 7, 100), [line(1)])
        await backend.write(first)
        await self.close(backend)
        self.journal = "0123456789abcdef"
        backend = await self.opened()
        second = batch(Position(self.journal, 1, 0), [line(2)])
        await backend.write(second)
        await self.close(backend)
        assert await self.build().open() == second.end
        await self.expect([1, 2])
