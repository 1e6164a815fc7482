"""Shows what the sidecar's files say of one job, and checks that nothing is missing: show.py FILES JOB CALLED

FILES is the folder of JSONL files, JOB the trace, CALLED how many messages the programs handed over. Waits for the
sidecar's own summary of the trace. The exit status is 1 where anything is missing.
"""

import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE = float(os.environ.get("DEMO_PATIENCE", "40"))
"""Seconds. A trace with nothing left to do ends 5 s after its last span."""
SERVICES = ("db-loader", "file-receiver", "parser")
TYPES = ("event", "metric", "progress", "resource", "span_end", "span_start")
Message = dict[str, Any]


def read(files: Path) -> list[Message]:
    """All whole lines of all files."""
    found = []
    for path in sorted(files.glob("*.jsonl")):
        data = path.read_bytes()
        found += [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]
    return found


def of_job(messages: list[Message], job: str) -> tuple[list[Message], list[Message]]:
    """The programs' messages in time order, and the sidecar's own."""
    mine = sorted((m for m in messages if m.get("trace_id") == job), key=lambda m: (m["ts"], m.get("seq", 0)))
    return [m for m in mine if m["service"] != "wafermon"], [m for m in mine if m["service"] == "wafermon"]


def wait_for(files: Path, job: str, called: int) -> tuple[list[Message], list[Message]]:
    """Until every message and the summary are in the files, or patience is at its end."""
    deadline = time.monotonic() + PATIENCE
    while True:
        messages, own = of_job(read(files), job)
        complete = len(messages) >= called and any(m["type"] == "trace" for m in own)
        if complete or time.monotonic() > deadline:
            return messages, own
        time.sleep(0.1)


def said(m: Message) -> str:
    """What a message says, in a few words."""
    if m["type"] == "event":
        context = " ".join(f"{k}={v}" for k, v in m.get("context", {}).items() if k != "sha256")
        return f"{m['level']:<8} {m['message']}  {context}"
    if m["type"] == "metric":
        tags = " ".join(f"{k}={v}" for k, v in m.get("tags", {}).items())
        return f"{m['name']} = {m['value']:.6g} {m.get('unit', '')}  {tags}"
    if m["type"] == "progress":
        return f"{m['percent']:.0f} % {m.get('status', '')}"
    if m["type"] == "resource":
        return f"cpu {m.get('cpu', 0):.0f} %  memory {m.get('mem', 0) / 2**20:.1f} MiB"
    if m["type"] == "span_start":
        return f"{m['name']} begins"
    return f"{m['name']} ends: {m['status']} after {m['duration'] / 1000:.1f} ms"


def timeline(messages: list[Message]) -> Iterator[str]:
    first = messages[0]["ts"] if messages else 0
    for m in messages:
        yield f"{(m['ts'] - first) / 1000:9.1f} ms  {m['service']:<13} {m['type']:<10} {said(m)}"


def span_tree(spans: list[Message]) -> Iterator[str]:
    inside: dict[str, list[Message]] = defaultdict(list)
    for span in sorted(spans, key=lambda m: m["start"]):
        inside[span.get("parent_id", "")].append(span)

    def draw(parent: str, depth: int) -> Iterator[str]:
        for span in inside.get(parent, []):
            tags = " ".join(f"{k}={v}" for k, v in span.get("tags", {}).items())
            name = "  " * depth + f"{span['name']} ({span['service']})"
            yield f"  {name:<36} {span['duration'] / 1000:8.1f} ms  {span['status']:<5}  {tags}".rstrip()
            yield from draw(span["span_id"], depth + 1)

    yield from draw("", 0)


def missing(messages: list[Message], own: list[Message], called: int) -> Iterator[str]:
    """What should be there and is not."""
    streams = Counter((m["client"], m["seq"]) for m in messages)
    if len(messages) != called or len(streams) != called:
        yield f"{called} messages were handed over, {len(messages)} are stored, {len(streams)} of them different"
    for service in SERVICES:
        for kind in set(TYPES) - ({"progress"} if service != "file-receiver" else set()):
            if not any(m["service"] == service and m["type"] == kind for m in messages):
                yield f"{service} has no {kind}"
    ends = {m["span_id"]: m for m in messages if m["type"] == "span_end"}
    for m in messages:
        if m["type"] == "span_start" and m["span_id"] not in ends:
            yield f"the span {m['name']} of {m['service']} has no end"
        if "parent_id" in m and m["parent_id"] not in ends:
            yield f"the span {m['name']} of {m['service']} lies in one that is not there"
    if sum("parent_id" not in m for m in ends.values()) != 1:
        yield "the spans are not one tree"
    progress = [m for m in messages if m["type"] == "progress"]
    if not progress or progress[-1].get("status") != "done":
        yield "the job did not end as done"
    traces = [m for m in own if m["type"] == "trace"]
    if len(traces) != 1:
        yield f"the sidecar wrote {len(traces)} summaries of the trace, not one"
    for trace in traces:
        counted = {kind: count for kind, count in trace["counts"].items() if not kind.startswith("level.")}
        if counted != Counter(m["type"] for m in messages) or sorted(trace["services"]) != sorted(SERVICES):
            yield f"the sidecar's summary counts something else: {trace}"


def main(files: Path, job: str, called: int) -> int:
    messages, own = wait_for(files, job, called)
    print(f"\n== {job}: all services, in time order\n")
    print(*timeline(messages), sep="\n")
    print("\n== Its spans\n")
    print(*span_tree([m for m in messages if m["type"] == "span_end"]), sep="\n")
    print("\n== Its progress\n")
    for m in messages:
        if m["type"] == "progress":
            print(f"  [{'#' * round(m['percent'] / 2.5):<40}] {said(m)}")
    print("\n== Messages by service and type\n")
    print(" " * 15, *(f"{kind:>10}" for kind in TYPES))
    for service in SERVICES:
        counts = Counter(m["type"] for m in messages if m["service"] == service)
        print(f"  {service:<13}", *(f"{counts[kind]:>10}" for kind in TYPES))
    print("\n== What the sidecar itself wrote of it\n")
    for m in own:
        print(f"  {json.dumps(m)}")
    problems = list(missing(messages, own, called))
    print()
    for problem in problems:
        print(f"MISSING: {problem}")
    if not problems:
        print(f"All {called} messages are there, each exactly once.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
