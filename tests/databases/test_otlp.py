"""The otlp backend on a real OpenTelemetry Collector: the contract, and what becomes of each type of message there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from certificates import Authority
from collector import Collector, Taken, attributes
from proxy import Proxy
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool

from wafermon.backends.otlp import otlp
from wafermon.backends.otlp.examine import problems
from wafermon.backends.otlp.store import OtlpStore
from wafermon.contract import JOURNAL, BackendContract, awaited, batch, line, one_of_each
from wafermon.interfaces import BackendContext, Position, RetryableError, configure


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


def test_tls_with_a_clients_certificate(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path, "fab"), Authority(tmp_path, "other")
    client = authority.issue("client")
    collector = Collector(authority.issue("server", server=True), authority.path)
    one = batch(Position(JOURNAL, 1, 0), [line(1)])
    shown = {"certificate": str(client), "key": str(client.with_suffix(".key"))}
    try:
        collector.start()
        taken = collector.place()

        def store(**more: str) -> OtlpStore:
            given = {"url": collector.url, "resource": taken.resource, **more}
            context = BackendContext("o", tmp_path / "state", Clock(), ThreadPool(0, 1), timeout=30.0)
            return OtlpStore(configure(otlp, given), context)

        for words, more in [
            ("names the authority", {"ca_file": str(other.path), **shown}),
            ("tried again|speaks TLS", {"ca_file": str(authority.path)}),
            ("name a file", {"ca_file": str(tmp_path / "none")}),
            ("no PEM", {"ca_file": str(client.with_suffix(".key"))}),
        ]:
            with pytest.raises(RetryableError, match=words):
                store(**more).write(one)
        good = store(ca_file=str(authority.path), **shown)
        good.write(one)
        good.close()
        assert len(taken.uids()) == 1
        assert problems(configure(otlp, {"url": collector.url, "ca_file": str(authority.path), **shown})) == []
        assert len(problems(configure(otlp, {"url": collector.url, "ca_file": str(other.path)}))) == 1
    finally:
        collector.remove()
