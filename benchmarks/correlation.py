"""What correlation costs a message, beside `ujson.loads` of the same lines in the same run: a ratio that carries over
to other machines. `python benchmarks/correlation.py [messages]`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import ujson

from wafermon.correlation import Engine, Ledger, Settings
from wafermon.correlation.recent import Recent
from wafermon.journal import Group, Mark
from wafermon.model.blocks import Block
from wafermon.model.messages import Message, decode_stored, dumps
from wafermon.model.notable import notables
from wafermon.model.position import Position
from wafermon.routing import Rule, Table

T = 1_700_000_000_000_000
GROUP = 500
ROUNDS = 5


def event(n: int) -> dict[str, Any]:
    context = {"file": f"/data/lot-{n}.dat", "rows": n, "ok": True}
    return head("event", n) | {"level": "info", "message": "file received and queued", "context": context}


def metric(n: int) -> dict[str, Any]:
    return head("metric", n) | {"name": "rows", "value": n * 0.5, "unit": "1", "tags": {"tool": "etch-4"}}


def head(kind: str, n: int) -> dict[str, Any]:
    shared = {"v": 2, "type": kind, "ts": T + n, "service": f"service-{n % 4}", "host": "fab1", "pid": 4711}
    return shared | {"client": "9f2c000000000000", "seq": n + 1}


def untraced(count: int) -> Iterator[dict[str, Any]]:
    for n in range(count):
        yield event(n) if n % 2 else metric(n)


def traced(traces: int) -> Callable[[int], Iterator[dict[str, Any]]]:
    def bodies(count: int) -> Iterator[dict[str, Any]]:
        for n, body in enumerate(untraced(count)):
            yield body | {"trace_id": f"job-{n % traces}"}

    return bodies


def work(count: int) -> Iterator[dict[str, Any]]:
    """Jobs of 20 messages, 100 at a time: a span around ten events, eight progress messages."""
    for n in range(count):
        job, step = f"job-{n // 2000}-{n % 100}", n // 100 % 20
        span = {"span_id": f"{n // 2000:08x}{n % 100:08x}", "name": "load"}
        if step == 0:
            body = head("span_start", n) | span
        elif step == 18:
            body = head("span_end", n) | span | {"status": "ok", "start": T, "duration": 1234.5}
        elif step % 2:
            body = event(n)
        else:
            body = head("progress", n) | {"job_id": job, "percent": step * 5, "status": "loading"}
        yield body | {"trace_id": job}


def best(action: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def observe(groups: list[list[Message]]) -> None:
    engine = Engine(Settings(), "00000000000000aa")
    for number, group in enumerate(groups):
        engine.observe(group, T + number * 5_000)


def look_back(blocks: list[Block]) -> None:
    """What the memory of the recent and the search for notable messages cost beside the engine."""
    recent = Recent()
    for number, block in enumerate(blocks):
        recent.observe([block], T + number * 5_000)
        for _ in notables(block):
            pass


def account(groups: list[Group]) -> None:
    """What the ledger of receipts costs beside both."""
    ledger, table = Ledger("00000000000000aa"), Table([Rule(("db",), level=(">=info",)), Rule(("db", "files"))])
    for group in groups:
        ledger.observe(group, table)


def as_group(number: int, block: Block) -> Group:
    start = Position("j", 1, number * 1_000)
    mark = Mark("", "9f2c000000000000", int(block.messages[-1].seq or 0))
    return Group(
        start, start._replace(offset=start.offset + 900), T, "", [(0, block)], marks=[mark], elapsed=T + number * 5_000
    )


def main(count: int) -> None:
    cases = {
        "without a trace": untraced,
        "100 traces": traced(100),
        "20,000 traces": traced(20_000),
        "spans and jobs": work,
        "every message its own trace": traced(count),
    }
    print(
        f"{count:,} messages, best of {ROUNDS}\n{'':30}{'ujson.loads':>12}{'observe':>12}{'ratio':>8}{'recent':>12}{'ratio':>8}{'ledger':>12}{'ratio':>8}"
    )
    for name, bodies in cases.items():
        lines = [dumps(body).encode() for body in bodies(count)]
        messages = list(map(decode_stored, lines))
        groups = [messages[at : at + GROUP] for at in range(0, count, GROUP)]
        read = best(lambda lines=lines: [ujson.loads(line) and None for line in lines]) / count * 1e6
        cost = best(lambda groups=groups: observe(groups)) / count * 1e6
        raws = [b"\n".join([*lines[at : at + GROUP], b""]) for at in range(0, count, GROUP)]
        blocks = [Block.of(raw, group) for raw, group in zip(raws, groups, strict=True)]
        beside = best(lambda blocks=blocks: look_back(blocks)) / count * 1e6
        whole = [as_group(number, block) for number, block in enumerate(blocks)]
        kept = best(lambda whole=whole: account(whole)) / count * 1e6
        print(
            f"{name:30}{read:>9.2f} µs{cost:>9.3f} µs{cost / read:>8.2f}{beside:>9.3f} µs{beside / read:>8.2f}"
            f"{kept:>9.3f} µs{kept / read:>8.2f}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
