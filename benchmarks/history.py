"""What the backend `history` costs, and how fast it answers: rows per CPU second, bytes per row, memory, and each question timed.

    nice python benchmarks/history.py DIR [ROWS]

Lines as a fab's programs send them: jobs of about 480 messages over three services, forty at a time, on days of about a million.
They are written to DIR through the backend's own store, batch by batch; parsing is not counted, since a sidecar's other parts
need it too. The questions go to the files then, from this process.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from wafermon.backends.history.reading import Reader
from wafermon.backends.history.store import Store
from wafermon.interfaces import Batch, Position
from wafermon.model.asking import ErrorFilter, EventFilter, JobFilter, Page, job_place
from wafermon.model.blocks import Block
from wafermon.model.kinds import Kinds

SERVICES = (
    "file-receiver", "parser", "db-loader", "etl-monitor", "recipe-check", "spc-chart", "queue-service", "config-loader",
)  # fmt: skip
LEVELS = ("debug",) * 20 + ("info",) * 60 + ("warning",) * 14 + ("error",) * 5 + ("critical",)
TEXTS = (
    "row %d of lot N23A%03d is short", "file N23A%03d_%d.csv received", "header read, %d columns, lot %d",
    "inserted %d rows into wafer_measurement, %d skipped", "limit check of site %d on wafer %d out of control",
)  # fmt: skip
METRICS = (
    ("yield", "%"),
    ("median_vth_v", "V"),
    ("bytes_received", "By"),
    ("temperature", "Cel"),
    ("rows_per_s", "1/s"),
)
BATCH = 5_000
AT_A_TIME = 40
T0 = 1_790_000_000_000_000
ROUND_SECONDS = 1_600
"""So long do forty jobs take: about a million messages per day."""


def job(number: int, start: int, chance: random.Random) -> list[tuple[int, str]]:
    """One job's lines, each with its time."""
    trace, ts = f"lot-{number:07d}", start
    services = chance.sample(SERVICES, 3)
    clients = [f"{chance.getrandbits(64):016x}" for _ in services]
    seqs, pids, host = (
        [0, 0, 0],
        [chance.randint(1000, 60_000) for _ in services],
        f"fab1-srv{chance.randrange(12):02d}",
    )
    lines: list[tuple[int, str]] = []

    def say(which: int, kind: str, rest: str) -> None:
        seqs[which] += 1
        head = f'{{"v":2,"type":"{kind}","ts":{ts},"service":"{services[which]}","host":"{host}","pid":{pids[which]},"trace_id":"{trace}"'
        lines.append((ts, f'{head},"client":"{clients[which]}","seq":{seqs[which]},{rest}}}'))

    root = f"{chance.getrandbits(64):016x}"
    say(0, "span_start", f'"span_id":"{root}","name":"lot"')
    say(0, "progress", f'"job_id":"{trace}","percent":0,"status":"running"')
    for part in range(21):
        which, span, began = part % 3, f"{chance.getrandbits(64):016x}", ts
        say(which, "span_start", f'"span_id":"{span}","parent_id":"{root}","name":"step {part % 7}"')
        for _ in range(20):
            ts += chance.randint(500_000, 4_000_000)
            draw = chance.random()
            if draw < 0.6:
                text = chance.choice(TEXTS) % (chance.randint(1, 25), chance.randint(1, 999))
                context = f'{{"file":"N23A{chance.randint(0, 999):03d}.csv","wafer":"W{chance.randint(1, 25)}","site":{chance.randint(1, 99)}}}'
                say(
                    which,
                    "event",
                    f'"span_id":"{span}","level":"{chance.choice(LEVELS)}","message":"{text}","context":{context}',
                )
            elif draw < 0.95:
                name, unit = chance.choice(METRICS)
                tags = f'{{"tool":"CVD-{chance.randint(1, 20):02d}","zone":{chance.randint(1, 5)}}}'
                say(
                    which,
                    "metric",
                    f'"span_id":"{span}","name":"{name}","value":{chance.random() * 100:.4f},"unit":"{unit}","tags":{tags}',
                )
            else:
                use = f'"cpu":{chance.random() * 100:.1f},"mem":{chance.randint(20, 400) << 20},"disk":{chance.randint(0, 10**9)}'
                say(which, "resource", use)
        status = "error" if chance.random() < 0.03 else "ok"
        say(
            which,
            "span_end",
            f'"span_id":"{span}","parent_id":"{root}","name":"step {part % 7}","status":"{status}","start":{began},"duration":{ts - began}',
        )
        say(which, "progress", f'"job_id":"{trace}","percent":{(part + 1) * 4.5:g},"status":"running"')
    say(0, "span_end", f'"span_id":"{root}","name":"lot","status":"ok","start":{start},"duration":{ts - start}')
    end = "failed" if chance.random() < 0.05 else "done"
    say(0, "progress", f'"job_id":"{trace}","percent":100,"status":"{end}"')
    last = ts
    ts += 5_000_000
    named = ",".join(f'"{one}"' for one in services)
    lines.append(
        (
            ts,
            f'{{"v":2,"type":"trace","ts":{ts},"service":"wafermon","client":"0123456789abcdef","trace_id":"{trace}","first":{start},"last":{last},"services":[{named}],"counts":{{"event":250,"metric":150}},"errors":{chance.randint(0, 9)},"status":"{end}","part":1}}',
        )
    )
    return lines


def batches(rows: int) -> Iterator[tuple[bytes, int]]:
    """Lines in the order of their time, and when the last of them came."""
    chance = random.Random(1)
    start, number, told, rest = T0, 0, 0, list[tuple[int, str]]()
    while told < rows:
        lines = rest
        for _ in range(AT_A_TIME):
            number += 1
            lines = lines + job(number, start + chance.randint(0, ROUND_SECONDS) * 1_000_000, chance)
        start += ROUND_SECONDS * 1_000_000
        lines.sort(key=lambda line: line[0])
        at = 0
        while len(lines) - at >= BATCH and told < rows and lines[at + BATCH - 1][0] < start:
            part = lines[at : at + BATCH]
            yield "".join(f"{line}\n" for _, line in part).encode(), part[-1][0]
            at += BATCH
            told += BATCH
        rest = lines[at:]


def fill(directory: Path, rows: int) -> None:
    clock = [T0 / 1e6]
    store = Store(
        directory, keep=0, max_bytes=0, index=("wafer",), kinds=Kinds(), compress="auto", wall=lambda: clock[0]
    )
    at, written, cpu, slowest, plain = store.open() or Position("5af1c0de5af1c0de", 1, 0), 0, 0.0, 0.0, 0
    for raw, last in batches(rows):
        block = Block.parse(raw)
        clock[0] = last / 1e6
        end = at._replace(offset=at.offset + len(raw))
        began, wall = time.process_time(), time.perf_counter()
        store.write(Batch(at, end, block, (last, last)))
        cpu += time.process_time() - began
        slowest = max(slowest, time.perf_counter() - wall)
        at, written, plain = end, written + block.count, plain + len(raw)
        if written % 1_000_000 < BATCH:
            print(f"  {written:,} rows, {written / cpu:,.0f} per CPU second", flush=True)
    store.close()
    size = sum(path.stat().st_size for path in directory.glob("*.db*"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{written:,} rows of {plain / written:.0f} bytes in {len(list(directory.glob('*.db')))} files: {written / cpu:,.0f} rows per CPU second"
    )
    print(
        f"{size / 2**30:.2f} GiB, {size / written:.1f} bytes per row; slowest batch {slowest * 1e3:.0f} ms; {memory:.0f} MiB of memory"
    )


def timed(name: str, question: Callable[[int], Any], times: int = 7) -> None:
    walls, cpus, answer = [], [], None
    for number in range(times):
        cpu, wall = time.process_time(), time.perf_counter()
        answer = question(number)
        walls.append((time.perf_counter() - wall) * 1e3)
        cpus.append((time.process_time() - cpu) * 1e3)
    print(
        f"  {name}: first {walls[0]:.1f} ms, in the middle {median(walls):.1f} ms, {median(cpus):.1f} ms of CPU; {answer}",
        flush=True,
    )


def ask(directory: Path) -> None:
    reader = Reader(directory, patience=60)
    jobs = reader.jobs(JobFilter(), Page(10_000))
    newest = jobs.records[0]["last_progress"]
    print(f"questions, over {jobs.total:,} jobs:")
    name = [job["job_id"] for job in jobs.records]
    second = Page(100, job_place(jobs.records[99]))
    timed("the last 100 jobs", lambda n: len(reader.jobs(JobFilter(), Page(100)).records))
    timed("the next 100", lambda n: len(reader.jobs(JobFilter(), second).records))
    timed("the last 10,000 jobs", lambda n: len(reader.jobs(JobFilter(), Page(10_000)).records), 3)
    timed(
        "the last 100 that failed",
        lambda n: len(reader.jobs(JobFilter(states=frozenset({"failed"})), Page(100)).records),
    )
    timed(
        "the last 10 runs of a kind",
        lambda n: len(reader.jobs(JobFilter(kind="lot-*", states=frozenset({"done"})), Page(10)).records),
    )
    timed("the kinds of jobs", lambda n: len(reader.kinds(0, 0)))
    timed(
        "one trace, with its messages",
        lambda n: len((reader.trace(name[n * 97 % len(name)], 10_000) or {"events": []})["events"]),
        15,
    )
    timed(
        "one trace, its steps alone",
        lambda n: len((reader.trace(name[n * 97 % len(name)], 0) or {"spans": []})["spans"]),
        15,
    )
    timed("the beginning of an id", lambda n: len(reader.find("lot-00012", 11)))
    timed("errors, of all time", lambda n: len(reader.errors(ErrorFilter(), Page(100)).records))
    timed(
        "errors of the last day",
        lambda n: len(reader.errors(ErrorFilter(since=newest - 86_400_000_000), Page(100)).records),
    )
    timed("services, by the hour", lambda n: len(reader.services(0, 0)))
    timed("the newest 100 events", lambda n: len(reader.events(EventFilter(), Page(100)).records))
    timed(
        "100 errors of a service",
        lambda n: len(reader.events(EventFilter(level="error", service="parser"), Page(100)).records),
    )
    timed("100 events with a text", lambda n: len(reader.events(EventFilter(text="OUT OF control"), Page(100)).records))
    timed(
        "100 events of a wafer",
        lambda n: len(reader.events(EventFilter(context={"wafer": f"W{n + 1}"}), Page(100)).records),
    )
    timed(
        "a text that is nowhere",
        lambda n: (
            f"searched {'all' if not reader.events(EventFilter(text='no such text'), Page(100)).searched else 'in part'}"
        ),
        1,
    )
    print(f"  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB of memory after all questions")


if __name__ == "__main__":
    place, wanted = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    if not list(place.glob("*.db")):
        fill(place, wanted)
    ask(place)
