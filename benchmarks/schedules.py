"""What schedules cost: a tick of the clock with many of them, and a message. `python benchmarks/schedules.py [schedules]`.

CPU times of one run, beside `ujson.loads` of a progress message in the same run.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import ujson

from wafermon.correlation import Engine, Settings, rules_of
from wafermon.correlation.schedules import said
from wafermon.model.blocks import Block
from wafermon.model.checking import checked
from wafermon.model.messages import Message, decode_stored, dumps
from wafermon.model.schedules import Schedule

S = 1_000_000
T = 1_795_737_600 * S
"""A midnight."""
JOURNAL = "00000000000000aa"


class World:
    """A clock and an engine."""

    def __init__(self, schedules: dict[str, dict[str, Any]]) -> None:
        self.now = T
        settings = Settings(schedules=rules_of({name: checked(Schedule, one) for name, one in schedules.items()}))
        self.engine = Engine(settings, JOURNAL)
        self.observe([said.started(0, JOURNAL, self.now)])
        self.begun = took(self.engine.pending)

    def observe(self, messages: list[Message]) -> None:
        block = Block.of(b"", messages)
        self.engine.begin([block], self.now, self.now)
        self.engine.observe_blocks([block], self.now, self.now)

    def tick(self) -> tuple[float, int]:
        """A second passes -> the seconds of CPU of each look, the longest; and what was told."""
        self.now += S
        longest, told = 0.0, 0
        while True:
            begin = time.process_time()
            told += len(self.engine.advance(self.now))
            longest = max(longest, time.process_time() - begin)
            if not self.engine.behind:
                return longest, told


def took(call: Callable[[], object]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


def row(what: str, seconds: float, unit: str = "ms") -> None:
    print(f"{what:<78} {seconds * (1e3 if unit == 'ms' else 1e6):9.3f} {unit}")


def ticks(what: str, world: World, count: int) -> None:
    found = [world.tick() for _ in range(count)]
    times = sorted(longest for longest, _ in found)
    row(f"{what}: a tick, of {count} the longest ({sum(told for _, told in found):,} transitions told)", times[-1])
    row(f"{what}: a tick, in the middle", times[len(times) // 2])


def progress(n: int, job: str, now: int) -> Message:
    return decode_stored(dumps(body(n, job, now)).encode())


def body(n: int, job: str, now: int) -> dict[str, Any]:
    return {
        "type": "progress",
        "service": "etl",
        "job_id": job,
        "trace_id": job,
        "percent": n % 100,
        "ts": now + n,
        "host": "fab1",
    }


def main() -> None:
    gc.disable()  # as the sidecar, which looks for garbage when nothing else is to be done
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    daily: dict[str, dict[str, Any]] = {
        f"s-{n}": {
            "match": {"job": f"load-{n}-*"},
            "cron": f"{n % 60} {n // 60 % 24} * * *",
            "timezone": "Europe/Berlin",
        }
        for n in range(count)
    }
    world = World(daily)
    row(f"{count:,} schedules begin", world.begun)
    ticks("once a day each, none of them kept", world, 3600)
    messages = [progress(n, f"load-{n % count}-1", world.now) for n in range(count)]
    row(f"{count:,} runs begin, a message each: for each", took(lambda: world.observe(messages)) / count, "us")
    many = [progress(n, f"load-{n % count}-1", world.now) for n in range(count)]
    row("and go on: for each", took(lambda: world.observe(many)) / count, "us")
    alone = Engine(Settings(), JOURNAL)
    alone.observe(messages, world.now)
    row("the same without schedules: for each", took(lambda: alone.observe(many, world.now)) / count, "us")
    lines = [dumps(body(n, "load-1", T)) for n in range(count)]
    row("ujson.loads of one", took(lambda: [ujson.loads(line) for line in lines]) / count, "us")
    other = [progress(n, f"other-{n}", world.now) for n in range(count)]
    row("jobs that no schedule means: for each", took(lambda: world.observe(other)) / count, "us")
    parts: list[float] = []
    begin = time.process_time()
    for _ in world.engine.snapshot_in_parts():
        parts.append(time.process_time() - begin)
        begin = time.process_time()
    row("a checkpoint of all of it", sum(parts))
    row("its longest part", max(parts))
    world = World(
        {f"s-{n}": {"match": {"service": f"service-{n}"}, "every": "10m", "start_grace": 0} for n in range(count)}
    )
    ticks("services, each due at the same moment", world, 601)
    hours = {
        f"s-{n}": {"match": {"job": f"load-{n}-*"}, "cron": "0 * * * *", "start_grace": "1m"} for n in range(count)
    }
    ticks("on the hour, each due at the same moment", World(hours), 3700)


if __name__ == "__main__":
    main()
