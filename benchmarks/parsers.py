"""What it costs to read a line of others: msgspec's typed decode beside ujson and all that ujson would need with it.

    python benchmarks/parsers.py [--rounds 7] [--lines 20000]

ujson takes what neither jq nor PostgreSQL read: NaN, 01, 1., lone surrogates, raw control characters. To be as strict as
msgspec, each line must be scanned for those, and the fields must be checked: here by msgspec.convert, which is in C. The
ways take turns in each round; what counts is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import msgspec
import ujson

from wafermon.model.messages import BY_TYPE
from wafermon.wire.lines import decode_wire

CONTROLS = bytes(range(32))
NUMBER = re.compile(rb"[:,\[ -](?:0[0-9]|[0-9]+\.[^0-9]|NaN|Inf)").search
"""Finds every number that is none, and text that looks like one: then json decides."""

LOOSE = [
    b'{"type":"resource","cpu":NaN}', b'{"type":"resource","cpu":01}', b'{"type":"resource","cpu":1.}',
    b'{"type":"event","level":"info","message":"\\ud800"}', b'{"type":"event","level":"info","message":"a\x01b"}',
]  # fmt: skip
"""What ujson may take, and a strict reader must not."""


def strictly(line: bytes) -> Any:
    """ujson, made as strict as msgspec by the cheapest means that were found."""
    line.decode()
    if line.translate(None, CONTROLS) != line:
        raise ValueError("a control character")
    if NUMBER(line) or b"\\u" in line:
        value = json.loads(line, parse_constant=no_json)
        json.dumps(value, ensure_ascii=False).encode()
    else:
        value = ujson.loads(line)
    return msgspec.convert(value, BY_TYPE[value["type"]])


def no_json(token: str) -> Any:
    raise ValueError(token)


def lines(count: int) -> list[bytes]:
    """What a parser of wafer lots sends: events, metrics, progress and ends of spans."""
    shared = {"service": "parser", "host": "fab1", "pid": 4711, "trace_id": "job-4711", "client": "9f2c6b1d00e4a873"}
    bodies: list[dict[str, Any]] = [
        {"type": "event", "level": "info", "message": "lot parsed", "context": {"file": "N23A017.csv", "rows": 111}},
        {"type": "metric", "name": "yield", "value": 94.59, "unit": "%", "tags": {"lot": "N23A017", "wafer": 4}},
        {"type": "progress", "job_id": "job-4711", "percent": 62.5, "status": "running"},
        {"type": "span_end", "name": "parse", "span_id": "00f067aa0ba902b7", "status": "ok", "start": 1795500000000000,
         "duration": 140600},
    ]  # fmt: skip
    return [
        json.dumps({**bodies[seq % 4], **shared, "ts": 1_795_500_000_000_000 + seq, "seq": seq + 1}).encode()
        for seq in range(count)
    ]


def nanoseconds(way: Callable[[bytes], Any], data: list[bytes]) -> float:
    """Of CPU time, for each line."""
    begun = time.process_time_ns()
    for line in data:
        way(line)
    return (time.process_time_ns() - begun) / len(data)


def taken(way: Callable[[bytes], Any], line: bytes) -> bool:
    try:
        way(line)
    except (ValueError, msgspec.DecodeError):
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--lines", type=int, default=20_000)
    options = parser.parse_args()
    ways: dict[str, Callable[[bytes], Any]] = {
        "msgspec, typed": decode_wire,
        "ujson alone": ujson.loads,
        "ujson, scans, checks": strictly,
    }
    data = lines(options.lines)
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            costs[name].append(nanoseconds(way, data))
    for name, way in ways.items():
        loose = sum(taken(way, line) for line in LOOSE)
        print(f"{name:21} {median(costs[name]):7,.0f} ns a line; takes {loose} of {len(LOOSE)} lines that are no JSON")
    ratio = median(costs["ujson, scans, checks"]) / median(costs["msgspec, typed"])
    print(f"ujson with what it needs / msgspec: {ratio:.2f}")


if __name__ == "__main__":
    main()
