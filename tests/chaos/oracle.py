"""Counts. It knows what senders claim and what backends put out, and nothing of what lies between."""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psycopg2
import zstandard
from claims import Claim

Row = tuple[str, int, str]
"""(service, number, text)"""
OWN = "wafermon"
MARK = "mark-"
SHOWN = 10
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Store(Protocol):
    """What a backend has put out."""

    name: str

    def rows(self) -> Iterator[Row]:
        """Everything there, in the order in which it stands there. Raises ValueError for what is torn."""

    def holds(self, service: str) -> bool:
        """Whether there is a message of this service."""


class Files:
    """The lines of JSON below a directory."""

    def __init__(self, directory: Path) -> None:
        self.name = f"files in {directory.name}"
        self.directory = directory

    def rows(self) -> Iterator[Row]:
        for path in sorted(self.directory.rglob("*.jsonl")):
            with path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        raise ValueError(f"{path}: ends in {line[:200]!r}")
                    yield row_of(path, line)

    def holds(self, service: str) -> bool:
        return any(path.read_bytes().endswith(b"\n") for path in self.directory.rglob(f"{service}.jsonl"))


def row_of(path: Path, line: bytes) -> Row:
    try:
        message = json.loads(line)
        service = message["service"]
        own = service == OWN or message["type"] == "stats"  # stats lines are the SDKs', and only a history keeps them
        return (OWN, 0, "") if own else (service, int(message["context"]["i"]), message["message"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {line[:200]!r} is no message that was sent: {error!r}") from None


class History:
    """The lines in a history's files of a day, by sqlite3 alone."""

    def __init__(self, directory: Path) -> None:
        self.name = f"history in {directory.name}"
        self.directory = directory

    def rows(self) -> Iterator[Row]:
        for path, data in self._query("SELECT data FROM chunks ORDER BY id"):
            for line in _decompressed(data).splitlines():
                yield row_of(path, line)

    def holds(self, service: str) -> bool:
        return any(self._query("SELECT '' FROM service_chunks WHERE service = ? LIMIT 1", service))

    def _query(self, sql: str, *parameters: str) -> Iterator[tuple[Path, bytes]]:
        for path in sorted(self.directory.glob("*.db")):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
                for (data,) in connection.execute(sql, parameters):
                    yield path, data


def _decompressed(data: bytes) -> bytes:
    if data.startswith(ZSTD_MAGIC):
        return zstandard.ZstdDecompressor().decompress(data)
    return zlib.decompress(data)


class Table:
    """The rows of a PostgreSQL database's `events`."""

    def __init__(self, dsn: str) -> None:
        self.name = "database"
        self.dsn = dsn

    def rows(self) -> Iterator[Row]:
        found = self._query("SELECT service, (context->>'i')::bigint, message FROM events WHERE service <> %s", OWN)
        return iter([(str(service), int(number), str(text)) for service, number, text in found])  # type: ignore[call-overload]

    def holds(self, service: str) -> bool:
        return bool(self._query("SELECT 1 FROM events WHERE service = %s LIMIT 1", service))

    def _query(self, sql: str, parameter: str) -> list[tuple[object, ...]]:
        connection = psycopg2.connect(self.dsn, connect_timeout=10)
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql, (parameter,))
                return cursor.fetchall()
        except psycopg2.errors.UndefinedTable:
            return []
        finally:
            connection.close()


@dataclass
class Verdict:
    """What a count found in one store."""

    store: str
    acked: int = 0
    """Acknowledged messages."""
    stored: int = 0
    """Messages that are there and were sent."""
    faults: list[str] = field(default_factory=list)
    by_service: dict[str, int] = field(default_factory=dict)
    """What is there of each service."""


def count(store: Store, claims: Iterable[Claim]) -> Verdict:
    """Every acknowledged message once, no other twice, none that was not sent, none in pieces, each stream in order."""
    known = {claim.service: claim for claim in claims}
    found = {service: bytearray(claim.claimed + 1) for service, claim in known.items()}
    last = dict.fromkeys(known, 0)
    verdict = Verdict(store.name)
    disorder: dict[str, str] = {}
    try:
        for service, number, text in store.rows():
            claim = known.get(service)
            if claim is None:
                if service != OWN and not service.startswith(MARK):
                    verdict.faults.append(f"{service} never sent anything: {text[:80]!r}")
                continue
            if not 1 <= number <= claim.claimed:
                verdict.faults.append(f"{service} never sent {number}")
                continue
            if text != claim.text(service, number):
                verdict.faults.append(f"{service} {number} says {text[:80]!r}")
            times = found[service]
            times[number] = min(255, times[number] + 1)
            if number < last[service] and claim.ordered and isinstance(store, Files):
                disorder.setdefault(service, f"{service}: {number} stands behind {last[service]}")
            last[service] = number
    except ValueError as error:
        verdict.faults.append(f"torn: {error}")
    for service, claim in known.items():
        times = found[service]
        must = [number for number in range(1, claim.acked + 1) if not times[number] and number not in claim.lost]
        verdict.faults += _some(service, "is missing", must)
        verdict.faults += _some(service, "is there twice", [number for number, n in enumerate(times) if n > 1])
        verdict.acked += claim.acked - len(claim.lost)
        verdict.by_service[service] = len(times) - times.count(0)
        verdict.stored += verdict.by_service[service]
    verdict.faults += disorder.values()
    return verdict


def _some(service: str, what: str, numbers: Sequence[int]) -> list[str]:
    if not numbers:
        return []
    shown = ", ".join(map(str, numbers[:SHOWN])) + (", …" if len(numbers) > SHOWN else "")
    return [f"{service}: {len(numbers)} times one {what}: {shown}"]


def drain(stores: Iterable[Store], mark: Callable[[str], None], name: str, patience: float) -> None:
    """Wait until every store has what was acknowledged before this call. `mark` has a message of a service acknowledged.

    A backend takes batches in the journal's order, but writes a batch in any: so the first mark may be seen before what
    came with it. Once the second one is there, the first one's batch is complete."""
    deadline = time.monotonic() + patience
    for half in ("a", "b"):
        service = f"{MARK}{name}{half}"
        mark(service)
        for store in stores:
            while not _holds(store, service):
                assert time.monotonic() < deadline, f"{store.name} has not caught up within {patience:g} s"
                time.sleep(0.02)


def _holds(store: Store, service: str) -> bool:
    try:
        return store.holds(service)
    except (OSError, psycopg2.OperationalError, sqlite3.OperationalError):
        return False
