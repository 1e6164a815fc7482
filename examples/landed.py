"""Shows what landed in each backend beside what the programs sent: landed.py DATA LOG [--dsn DSN] [--jobs N]

DATA holds the files of the backends of sidecar-config.yaml, in `files`, `nfs` and, where there is no database, `db`.
LOG is what the programs wrote to standard error: each says at its end how many messages its SDK was called for. Waits
until all of them have landed and N jobs have their summary. The exit status is 1 where any is missing.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 30.0
"""Seconds. A trace ends 5 s after its last span or job has."""
TABLES = ("events", "metrics", "progress", "resources", "span_starts", "spans", "traces")
OWN = "wafermon"
"""The service of what the sidecar itself writes."""

Key = tuple[str, int | tuple[str, str]]
"""A message's client and seq. The sidecar's own have no seq: where it is, and of which trace, serves."""
SUMMARIES = ("trace", "traces")


@dataclass
class Backend:
    """What one backend holds: messages by place (a file or table) and service, and which of them."""

    places: Counter[tuple[str, str]] = field(default_factory=Counter)
    keys: dict[str, set[Key]] = field(default_factory=dict)

    def add(self, place: str, service: str, key: Key) -> None:
        self.places[place, service] += 1
        self.keys.setdefault(service, set()).add(key)

    def count(self, service: str) -> int:
        return sum(count for (_, who), count in self.places.items() if who == service)


def sent_by(log: Path) -> Counter[str]:
    """Messages that each service says it has sent, over all its processes."""
    sent: Counter[str] = Counter()
    lines = log.read_text().splitlines()
    for line in lines:
        if found := re.fullmatch(r"(\S+): (\d+) messages", line):
            sent[found[1]] += int(found[2])
    return sent


def in_files(folder: Path) -> Backend:
    """The whole lines of all files below a folder."""
    found = Backend()
    for path in sorted(folder.rglob("*.jsonl")):
        data = path.read_bytes()
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            message = json.loads(line)
            number = message.get("seq") or (message["type"], message.get("trace_id", message["ts"]))
            found.add(str(path.relative_to(folder)), message["service"], (message["client"], number))
    return found


def in_database(dsn: str) -> Backend:
    """The rows of all tables. Each is a message, but that a trace has one row however many parts it came in."""
    import psycopg2

    found = Backend()
    connection = psycopg2.connect(dsn)
    try:
        for table in TABLES:
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT service, client, seq, trace_id FROM {table}")
                for service, client, seq, trace_id in cursor:
                    found.add(table, service, (client, seq or (table, trace_id)))
    finally:
        connection.close()
    return found


def look(data: Path, dsn: str | None) -> dict[str, Backend]:
    """The backends by their names in the configuration."""
    return {
        "files": in_files(data / "files"),
        "nfs": in_files(data / "nfs"),
        "db": in_database(dsn) if dsn else in_files(data / "db"),
    }


def somewhere(backends: dict[str, Backend], service: str) -> int:
    """The different messages of a service over all backends."""
    return len(set().union(*(backend.keys.get(service, set()) for backend in backends.values())))


def summaries(backends: dict[str, Backend]) -> int:
    """The traces that the sidecar has summed up."""
    own = set().union(*(backend.keys.get(OWN, set()) for backend in backends.values()))
    return len({number[1] for _, number in own if isinstance(number, tuple) and number[0] in SUMMARIES})


def missing(backends: dict[str, Backend], sent: Counter[str], jobs: int) -> Iterator[str]:
    """What should be there and is not."""
    for service, count in sorted(sent.items()):
        if (found := somewhere(backends, service)) != count:
            yield f"{service} sent {count} messages, {found} of them have landed"
    if (found := summaries(backends)) < jobs:
        yield f"{jobs} jobs ran, {found} of them have a summary"


def show(backends: dict[str, Backend], sent: Counter[str]) -> Iterator[str]:
    services = sorted(set().union(*(backend.keys for backend in backends.values())))
    yield f"  {'service':<18}{'sent':>6}" + "".join(f"{'in ' + name:>10}" for name in backends)
    for service in services:
        said = str(sent[service]) if service in sent else "-"
        yield f"  {service:<18}{said:>6}" + "".join(f"{each.count(service):>10}" for each in backends.values())
    for name, backend in backends.items():
        places: Counter[str] = Counter()
        for (place, _), count in backend.places.items():
            places[place] += count
        yield f"\n  {name}"
        yield from (f"    {count:>6}  {place}" for place, count in sorted(places.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description="Shows what landed in each backend beside what was sent.")
    parser.add_argument("data", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("--dsn")
    parser.add_argument("--jobs", type=int, default=0)
    options = parser.parse_args()
    sent = sent_by(options.log)
    deadline = time.monotonic() + PATIENCE
    while True:
        backends = look(options.data, options.dsn)
        problems = list(missing(backends, sent, options.jobs))
        if not problems or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    print(*show(backends, sent), sep="\n")
    print()
    for problem in problems:
        print(f"MISSING: {problem}")
    if not problems:
        print(f"All {sum(sent.values())} messages have landed, and the summaries of {options.jobs} jobs.")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
