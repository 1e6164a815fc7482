"""How docs/backends/s3.md says that an archive is read: its own examples, on what the backend has stored."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from daemon import ROOT
from s3_server import Bucket
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool

from wafermon.backends.s3 import s3
from wafermon.backends.s3.store import S3Store
from wafermon.contract import JOURNAL, batch, line, one_of_each
from wafermon.interfaces import BackendContext, Position, configure

PAGE = (ROOT / "docs" / "backends" / "s3.md").read_text()
SIX = 1_795_500_000_000_000
"""2026-11-24 06:00 UTC, in microseconds."""
HOUR = 3_600_000_000


def example(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


@pytest.fixture(params=["gzip", "zstd"])
def archive(request: pytest.FixtureRequest, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An archive of three hours of one day and one of the next, and a copy of it where the page has one."""
    store_in(bucket, tmp_path, request.param)
    shutil.copytree(bucket.server.root / bucket.name / "wafermon", tmp_path / "archive" / "wafermon")
    monkeypatch.chdir(tmp_path)
    return bucket


def store_in(bucket: Bucket, directory: Path, compress: str) -> None:
    options = {"bucket": bucket.name, "prefix": "wafermon/", "endpoint_url": bucket.server.url, "compress": compress}
    (directory / "state").mkdir()
    store = S3Store(configure(s3, options), BackendContext("archive", directory / "state", Clock(), ThreadPool()))
    store.open()
    start, seq = Position(JOURNAL, 1, 0), 1
    for hours in (0, 1, 2, 20):
        lines = [
            line(n, ts=SIX + hours * HOUR + n, level="error" if n % 10 == 0 else "info") for n in range(seq, seq + 50)
        ]
        lines += one_of_each(seq + 50)
        stored = replace(batch(start, lines), received=(SIX + hours * HOUR,) * 2)
        store.write(stored)
        start, seq = stored.end, seq + len(lines)


def missing(what: str) -> None:
    """Skipped where it is not there; in CI a failure."""
    problem = f"{what} is missing: pip install -e '.[readers]', or the package of tests/run"
    pytest.fail(problem) if os.environ.get("CI") else pytest.skip(problem)


def test_with_pandas_from_the_bucket(archive: Bucket) -> None:
    try:
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError:
        missing("pandas or pyarrow")
    where = f'endpoint_override="127.0.0.1:{archive.server.port}", scheme="http", region="us-east-1"'
    code = example("python").replace('region="eu-central-1"', where).replace('"fab-archive/', f'"{archive.name}/')
    found: dict[str, Any] = {}
    exec(code, found)
    errors = found["errors"]
    expected = sorted(
        message["seq"]
        for message in archive.messages()
        if message.get("level") == "error" and message["ts"] < SIX + 3 * HOUR
    )
    assert sorted(errors["seq"]) == expected and len(expected) == 15
    assert str(errors["ts"].min())[:16] == "2026-11-24 06:00"


def test_with_duckdb_from_a_copy(archive: Bucket) -> None:
    try:
        import duckdb
    except ImportError:
        missing("duckdb")
    relation: Any = duckdb.sql(example("sql"))
    rows = relation.fetchall()
    by_hour: dict[str, int] = {}
    for _, hour, _, messages, _ in rows:
        by_hour[str(hour)] = by_hour.get(str(hour), 0) + messages
    assert by_hour == {"06": 63, "07": 63, "08": 63}
    assert sum(row[4] for row in rows) == 15


def test_with_r_from_a_copy(archive: Bucket) -> None:
    if shutil.which("Rscript") is None:
        missing("Rscript")
    if any(key.endswith(".zst") for key in archive.all_keys()):
        pytest.skip("R reads no zstd")
    done = subprocess.run(
        ["Rscript", "-e", example("r") + "\ncat(nrow(errors), nrow(archive))"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "15 189", done.stderr
