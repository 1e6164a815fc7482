"""The s3 backend on a real S3 server: the contract, and what becomes of intents, late requests and changed configs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from lost_replies import lost_replies
from proxy import Proxy
from pytest_twisted import ensureDeferred
from s3_server import Bucket, S3Server
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.threadpool import ThreadPool

from wafermon.backends.s3 import s3
from wafermon.contract import JOURNAL, BackendContract, batch, line
from wafermon.interfaces import BackendContext, Position, configure


class TestContract(BackendContract):
    factory = s3

    @pytest.fixture(autouse=True)
    def _bucket(self, bucket: Bucket) -> Iterator[None]:
        self.bucket = bucket
        with Proxy(bucket.server.socket) as self.proxy:
            yield

    def options(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.proxy.port}"
        return {"bucket": self.bucket.name, "prefix": "wafermon/", "endpoint_url": url, "region": "us-east-1"}

    def read_back(self) -> Iterable[tuple[str, int]]:
        return self.bucket.stored()

    def unreachable(self) -> AbstractContextManager[None]:
        return self.bucket.server.down()

    @contextmanager
    def lost_reply(self) -> Iterator[None]:
        with lost_replies(self.proxy):
            yield

    def stuck(self) -> AbstractContextManager[None]:
        return self.bucket.server.frozen()


@pytest.fixture(params=["plain", "tls"])
def server(
    request: pytest.FixtureRequest, s3_server: S3Server, tmp_path: Path
) -> Iterator[tuple[S3Server, dict[str, str]]]:
    """A server, and what the config says of its certificate."""
    if request.param == "plain":
        yield s3_server, {}
        return
    authority = Authority(tmp_path, "fab")
    other = S3Server(beside=s3_server, certificate=authority.issue("server", server=True), ca_file=authority.path)
    other.start()
    try:
        yield other, {"ca_file": str(authority.path)}
    finally:
        other.kill()


@ensureDeferred
async def test_a_close_ends_a_request_that_has_no_answer(
    bucket: Bucket, server: tuple[S3Server, dict[str, str]], tmp_path: Path
) -> None:
    """Without that it would wait for the time-out, which is longer than any test may take."""
    from twisted.internet import reactor

    pool = ThreadPool(0, 1, "s3")
    pool.start()
    asked, more = server
    given = {"bucket": bucket.name, "prefix": "w/", "endpoint_url": asked.url, "region": "us-east-1", **more}
    context = BackendContext("archive", tmp_path, reactor, pool, timeout=3600.0)
    backend = s3.build(configure(s3, given), context)
    try:
        await backend.open()
        with asked.frozen():
            writing: Deferred[Any] = backend.write(batch(Position(JOURNAL, 1, 0), [line(1)]))
            writing.addBoth(str)
            await deferLater(reactor, 2.0)  # by then it waits for the answer; sooner does no harm
            await backend.close()
        assert "closed meanwhile" in await writing
        assert backend.health().state == "closed"
    finally:
        pool.stop()
