"""A real S3 server of the tests' own (versitygw), whose objects are files in a directory that goes away with it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
import zstandard
from botocore.config import Config
from built_server import BuiltServer, program
from daemon import until
from ports import free_port

ACCESS, SECRET = "testkey", "testsecret"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_EC2_METADATA_DISABLED": "true"}


class S3Server(BuiltServer):
    """One server. `start` it; `remove` ends it and takes its directory away."""

    def __init__(
        self, beside: S3Server | None = None, certificate: Path | None = None, ca_file: Path | None = None
    ) -> None:
        """`beside`: another one for the same buckets, as S3 itself has many. With a `certificate`, whose key is beside it and whose
        authority is in `ca_file`, it speaks TLS."""
        self._certificate, self._ca_file = certificate, ca_file
        self.binary = program("versitygw")
        self.directory = Path(tempfile.mkdtemp(prefix="wafermon-s3-"))
        self.root: Path = beside.root if beside else self.directory / "buckets"
        self.root.mkdir(exist_ok=True)
        self.port = free_port()
        self._numbers = count(1)

    @property
    def url(self) -> str:
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        return self.directory / "socket"

    def start(self) -> None:
        """Returns when it answers."""
        self.socket.unlink(missing_ok=True)
        tls = ["--cert", self._certificate, "--key", self._certificate.with_suffix(".key")] if self._certificate else []
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.binary), "--quiet", "--keep-alive", "--port", f"127.0.0.1:{self.port}", "--port", str(self.socket), *map(str, tls), "posix", str(self.root)],
                env={"PATH": os.environ["PATH"], "ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET},
                cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        until(self._answers, "an S3 server that answers")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "server.log").read_text()
        try:
            self.client().list_buckets()
        except Exception:  # noqa: BLE001  # whatever it is, it does not answer yet
            return False
        return self.socket.exists()

    def client(self) -> Any:
        return boto3.client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=ACCESS, aws_secret_access_key=SECRET,
            verify=str(self._ca_file) if self._ca_file else None,
            config=Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 1}),
        )  # fmt: skip

    def create(self) -> Bucket:
        """A bucket of its own."""
        name = f"bucket{next(self._numbers)}"
        self.client().create_bucket(Bucket=name)
        return Bucket(self, name)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Bucket:
    """One bucket of a server."""

    def __init__(self, server: S3Server, name: str) -> None:
        self.server = server
        self.name = name
        self._read: dict[str, list[dict[str, Any]]] = {}

    def all_keys(self) -> list[str]:
        """Of all objects, without what a probe leaves."""
        pages = self.server.client().get_paginator("list_objects_v2").paginate(Bucket=self.name)
        found = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return [key for key in found if "/_wafermon/" not in f"/{key}"]

    def body(self, key: str) -> bytes:
        read: bytes = self.server.client().get_object(Bucket=self.name, Key=key)["Body"].read()
        return read

    def metadata(self, key: str) -> dict[str, str]:
        found: dict[str, str] = self.server.client().head_object(Bucket=self.name, Key=key)["Metadata"]
        return found

    def put(self, key: str, body: bytes, **metadata: str) -> None:
        self.server.client().put_object(Bucket=self.name, Key=key, Body=body, Metadata=metadata)

    def messages(self) -> list[dict[str, Any]]:
        """All lines of all objects. An object that was read once is not read again: none ever changes."""
        for key in self.all_keys():
            if key not in self._read:
                self._read[key] = [json.loads(line) for line in unpacked(key, self.body(key)).splitlines()]
        return [message for messages in self._read.values() for message in messages]

    def stored(self) -> list[tuple[str, int]]:
        """(client, seq) of everything; what is there twice, twice."""
        return [(message["client"], message["seq"]) for message in self.messages()]

    def counted(self) -> dict[str, Counter[int]]:
        """How often each seq of each client is there; the sidecar's own messages are left out."""
        found: dict[str, Counter[int]] = {}
        for message in self.messages():
            if message["service"] != "wafermon":
                found.setdefault(message["client"], Counter())[message["seq"]] += 1
        return found


def unpacked(key: str, body: bytes) -> bytes:
    if key.endswith(".gz"):
        return gzip.decompress(body)
    if key.endswith(".zst"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    return body


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A running server that all tests share. Who stops it starts it again."""
    server = S3Server()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, and an environment by which it can be written to."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return s3_server.create()
