"""The cloudwatch backend on moto's server: the contract, and what is rejected of a request that is taken."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from moto_server import REGION, LogGroup
from proxy import Proxy

from wafermon.backends.cloudwatch import cloudwatch
from wafermon.contract import BackendContract


@contextmanager
def cut_off(proxy: Proxy) -> Iterator[None]:
    """Nothing comes through."""
    proxy.rule = lambda pair, chunk, from_client: "cut"
    try:
        yield
    finally:
        proxy.rule = lambda pair, chunk, from_client: "pass"


class TestContract(BackendContract):
    factory = cloudwatch

    @pytest.fixture(autouse=True)
    def _group(self, log_group: LogGroup) -> Iterator[None]:
        self.group = log_group
        with Proxy(("127.0.0.1", log_group.server.port)) as self.proxy:
            yield

    def options(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.proxy.port}"
        return {"log_group": self.group.name, "log_stream": "{type}", "endpoint_url": url, "region": REGION}

    def read_back(self) -> Iterable[tuple[str, int]]:
        found = [json.loads(event["message"]) for stream in self.group.streams() for event in self.group.events(stream)]
        return [(message["client"], message["seq"]) for message in found]

    def unreachable(self) -> AbstractContextManager[None]:
        return cut_off(self.proxy)
