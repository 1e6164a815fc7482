"""The s3 backend on another server (moto): the contract, and what only a server with AWS's options can be asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from lost_replies import lost_replies
from moto_server import REGION, MotoServer
from proxy import Proxy
from s3_server import ENVIRONMENT, unpacked
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool

from wafermon.backends.s3 import s3
from wafermon.backends.s3.store import S3Store
from wafermon.contract import JOURNAL, BackendContract, batch, line
from wafermon.interfaces import BackendContext, Position, configure


class Archive:
    """A bucket of its own."""

    def __init__(self, server: MotoServer) -> None:
        self.client = server.client("s3")
        self.name = f"archive-{next(server.numbers)}"
        self.client.create_bucket(Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": REGION})

    def keys(self) -> Iterator[str]:
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix="wafermon/dt="):
            yield from (found["Key"] for found in page.get("Contents", []))

    def stored(self) -> Iterator[tuple[str, int]]:
        for key in self.keys():
            body = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
            for message in map(json.loads, unpacked(key, body).splitlines()):
                yield message["client"], message["seq"]


@pytest.fixture
def archive(moto_server: MotoServer, monkeypatch: pytest.MonkeyPatch) -> Archive:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return Archive(moto_server)


class TestContract(BackendContract):
    factory = s3

    @pytest.fixture(autouse=True)
    def _archive(self, archive: Archive, moto_server: MotoServer) -> Iterator[None]:
        self.archive = archive
        with Proxy(("127.0.0.1", moto_server.port)) as self.proxy:
            yield

    def options(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.proxy.port}"
        return {
            "bucket": self.archive.name,
            "prefix": "wafermon/",
            "endpoint_url": url,
            "region": REGION,
            "compress": "zstd",
        }

    def read_back(self) -> Iterable[tuple[str, int]]:
        return list(self.archive.stored())

    def lost_reply(self) -> AbstractContextManager[None]:
        return lost_replies(self.proxy)


@pytest.mark.parametrize(("options", "told"), [
    ({"storage_class": "STANDARD_IA", "encryption": "AES256"}, {"StorageClass": "STANDARD_IA", "ServerSideEncryption": "AES256"}),
    (
        {"encryption": "aws:kms", "kms_key": "alias/fab", "checksum": "md5"},
        {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/fab"},
    ),
])  # fmt: skip
def test_how_objects_are_kept(
    archive: Archive, moto_server: MotoServer, tmp_path: Path, options: dict[str, str], told: dict[str, str]
) -> None:
    given = {
        "bucket": archive.name,
        "prefix": "wafermon/",
        "endpoint_url": moto_server.url,
        "region": REGION,
        **options,
    }
    store = S3Store(configure(s3, given), BackendContext("archive", tmp_path, Clock(), ThreadPool()))
    store.open()
    store.write(batch(Position(JOURNAL, 1, 0), [line(1), line(2)]))
    [key] = archive.keys()
    found = archive.client.head_object(Bucket=archive.name, Key=key)
    assert {name: found[name] for name in told} == told
    assert found["ContentType"] == "application/x-ndjson"
