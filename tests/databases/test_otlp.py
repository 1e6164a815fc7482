"""The otlp backend on a real OpenTelemetry Collector: the contract, and what becomes of each type of message there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

import pytest
from collector import Taken, attributes
from proxy import Proxy

from wafermon.backends.otlp import otlp
from wafermon.contract import BackendContract, awaited, batch, one_of_each


@contextmanager
def cut_off(proxy: Proxy) -> Iterator[None]:
    """Nothing comes through."""
    proxy.rule = lambda pair, chunk, from_client: "cut"
    try:
        yield
    finally:
        proxy.rule = lambda pair, chunk, from_client: "pass"


class TestContract(BackendContract):
    factory = otlp
    more: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def _taken(self, taken: Taken) -> Iterator[None]:
        self.taken = taken
        with Proxy(("127.0.0.1", taken.collector.port)) as self.proxy:
            yield

    def options(self) -> dict[str, Any]:
        return {"url": f"http://127.0.0.1:{self.proxy.port}", "resource": self.taken.resource, **self.more}

    def read_back(self) -> Iterable[tuple[str, int]]:
        return self.taken.uids()

    def unreachable(self) -> AbstractContextManager[None]:
        return cut_off(self.proxy)

    def stuck(self) -> AbstractContextManager[None]:
        return self.taken.collector.frozen()

    @awaited
    async def test_every_type_of_message(self) -> None:
        """Log records alone say which message they are; the others are looked for one by one."""
        backend = await self.opened()
        await backend.write(batch(self.start, one_of_each(1)))
        await self.expect([1, 2, 3, 4, 5, 13])
        assert sorted(name for name, _ in self.taken.points()) == [
            "process.cpu.utilization", "process.disk.io", "process.memory.usage", "process.network.io", "rate", "rate", "rate",
        ]  # fmt: skip
        [(_, span)] = self.taken.spans()
        assert (span["name"], attributes(span)["job.id"]) == ("load", "job-4711")


class TestContractInProtobuf(TestContract):
    more: ClassVar[dict[str, Any]] = {"encoding": "protobuf", "compress": "none"}
