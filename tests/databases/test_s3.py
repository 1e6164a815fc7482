"""The s3 backend on a real S3 server: the contract, and what becomes of intents, late requests and changed configs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from lost_replies import lost_replies
from proxy import Proxy
from s3_server import Bucket

from wafermon.backends.s3 import s3
from wafermon.contract import BackendContract


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
