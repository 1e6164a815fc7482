"""What programs send, line by line, as the SDKs write it: scripts for load.c."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BASE = 1_790_000_000_000_000
CONNECTION = "\x01"
"""load.c puts the connection's number in its place."""
LEVELS = ("debug", "info", "info", "info", "warning", "error")
SPANS = 10
JOB = 100
"""Messages of a job: starts and ends of nested spans, 48 events, 20 metrics, 10 of progress, 2 of resources."""
Message = dict[str, Any]


def job(name: str, service: str, dice: random.Random) -> Iterator[Message]:
    """The messages of one job, without their times."""
    spans = [f"{dice.getrandbits(64):016x}" for _ in range(SPANS)]
    others = ["event"] * 48 + ["metric"] * 20 + ["progress"] * 10 + ["resource"] * 2
    dice.shuffle(others)
    percent, inside = 0, list[str]()
    head = {"service": service, "host": "fab-tool-07", "pid": 4711, "trace_id": name}
    for step in range(2 * SPANS):
        which = step if step < SPANS else 2 * SPANS - 1 - step
        parent = {"parent_id": spans[which - 1]} if which else {}
        if step < SPANS:
            yield {"type": "span_start", **head, "span_id": spans[which], "name": f"step-{which}", **parent}
            inside.append(spans[which])
        else:
            inside.pop()
            end = {"name": f"step-{which}", "status": "ok", "start": BASE, "duration": 1234.5 + which}
            yield {"type": "span_end", **head, "span_id": spans[which], **end, **parent}
        within = {"span_id": inside[-1]} if inside else {}
        for kind in others[4 * step : 4 * step + 4]:
            percent += 10 * (kind == "progress")
            yield {"type": kind, **head, **within, **body(kind, name, percent, dice)}


def body(kind: str, name: str, percent: int, dice: random.Random) -> Message:
    if kind == "event":
        context = {
            "rows": dice.randrange(10**6),
            "file": "/data/in/" + "y" * dice.randrange(40),
            "ratio": dice.random(),
            "ok": True,
        }
        text = f"wafer {dice.randrange(25)} of lot {dice.randrange(9999)} was measured on the tool"
        return {"level": dice.choice(LEVELS), "message": text, "context": context}
    if kind == "metric":
        return {
            "name": "rows.loaded",
            "value": dice.randrange(10**5) / 2,
            "unit": "1",
            "tags": {"tool": f"etch-{dice.randrange(7)}"},
        }
    if kind == "progress":
        return {"job_id": name, "percent": percent, "status": "running" if percent < 100 else "done"}
    return {"cpu": 100 * dice.random(), "mem": dice.randrange(1 << 30), "disk": 0, "net": dice.randrange(1 << 30)}


def mix(turns: int = 1) -> Iterator[Message]:
    """Jobs of a hundred messages, so many at a time."""
    dice = random.Random(7)
    number, running = 0, list[Iterator[Message]]()
    while True:
        while len(running) < turns:
            number += 1
            running.append(job(f"job-{CONNECTION}-{number}", f"feeder-{CONNECTION}", dice))
        for one in list(running):
            message = next(one, None)
            if message is None:
                running.remove(one)
            else:
                yield message


def without(*names: str) -> Iterator[Message]:
    for message in mix():
        yield {name: value for name, value in message.items() if name not in names}


def with_unknown(every: int) -> Iterator[Message]:
    for number, message in enumerate(mix()):
        yield {**message, "shard": 3} if number % every == 0 else message


def events(services: int = 1, traces: bool = False) -> Iterator[Message]:
    number = 0
    while True:
        number += 1
        trace = {"trace_id": f"job-{CONNECTION}-{number}"} if traces else {}
        head = {"type": "event", "service": f"feeder-{number % services}", "host": "fab1", "pid": 4711, **trace}
        yield {
            **head,
            "level": "info",
            "message": f"file {number}",
            "context": {"rows": number, "file": "x" * (number % 97)},
        }


STREAMS: dict[str, Callable[[], Iterator[Message]]] = {
    "mix": mix,
    "mix, 8 jobs in turn": lambda: mix(8),
    "mix without ts, host, pid": lambda: without("ts", "host", "pid"),
    "mix, an unknown field in each": lambda: with_unknown(1),
    "mix, one in 500 lines": lambda: with_unknown(500),
    "one type": events,
    "100 services in turn": lambda: events(services=100),
    "a new job with each": lambda: events(traces=True),
}


def write(stream: str, count: int, path: Path) -> str:
    """A script of so many lines; answers with its path."""
    messages = STREAMS[stream]()
    with path.open("w") as file:
        for number in range(count):
            message = next(messages)
            timed = (
                {"type": message["type"], "ts": BASE + 37 * number, **message}
                if "without ts" not in stream
                else message
            )
            file.write(
                json.dumps(timed, ensure_ascii=False, separators=(",", ":"))[:-1].replace("\\u0001", CONNECTION) + "\n"
            )
    return str(path)
