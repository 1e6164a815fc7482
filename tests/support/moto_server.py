"""A server that answers as AWS does (moto), in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from typing import Any
from urllib.request import urlopen

import boto3
import pytest
from botocore.config import Config
from daemon import until
from ports import free_port
from s3_server import ACCESS, ENVIRONMENT, SECRET

REGION = "eu-central-1"
NOW = 1_796_500_000.0
"""What its log groups take for now, 2026-12-05 19:46 UTC: the contract suite's messages are of the days before. In seconds."""
SCRIPT = f"""
from datetime import datetime, timezone
import moto.logs.models, moto.server
moto.logs.models.utcnow = lambda: datetime.fromtimestamp({NOW}, timezone.utc).replace(tzinfo=None)
moto.server.main()
"""


class MotoServer:
    """All that it holds is in memory: it is started once."""

    def __init__(self) -> None:
        self.port = free_port()
        self.numbers = count(1)
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the server
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, "-H", "127.0.0.1", "-p", str(self.port)],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        until(self._answers, "a moto server that answers")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            self.log.seek(0)
            raise AssertionError(self.log.read().decode())
        try:
            with urlopen(f"{self.url}/moto-api/data.json", timeout=5):
                return True
        except OSError:
            return False

    def client(self, service: str) -> Any:
        return boto3.client(
            service, endpoint_url=self.url, region_name=REGION, aws_access_key_id=ACCESS, aws_secret_access_key=SECRET,
            config=Config(retries={"total_max_attempts": 1}),
        )  # fmt: skip

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self.log.close()


@pytest.fixture(scope="session")
def moto_server() -> Iterator[MotoServer]:
    server = MotoServer()
    try:
        yield server
    finally:
        server.stop()


class LogGroup:
    """A log group of its own."""

    def __init__(self, server: MotoServer) -> None:
        self.server = server
        self.name = f"/wafermon/test{next(server.numbers)}"
        self.client = server.client("logs")
        self.client.create_log_group(logGroupName=self.name)

    def streams(self) -> list[str]:
        pages = self.client.get_paginator("describe_log_streams").paginate(logGroupName=self.name)
        return [stream["logStreamName"] for page in pages for stream in page["logStreams"]]

    def events(self, stream: str) -> list[dict[str, Any]]:
        """All events of one stream, as the service has them."""
        found: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            page = self.client.get_log_events(
                logGroupName=self.name, logStreamName=stream, startFromHead=True, limit=10_000, **token
            )
            found += page["events"]
            if not page["events"] or {"nextToken": page["nextForwardToken"]} == token:
                return found
            token = {"nextToken": page["nextForwardToken"]}


@pytest.fixture
def log_group(moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> LogGroup:
    """An empty log group, and an environment by which it can be written to."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return LogGroup(moto_server)
