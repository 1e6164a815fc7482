"""A steady load for minutes, with reloads and restarts going on: nothing may grow, and nothing may be missing: `make soak`.

    python tests/chaos/soak.py [--time 600] [--rate 20000]

Four streams share the rate. Another config is put in force every five seconds. In the first half the sidecar is restarted every
thirty seconds, by SIGTERM and by SIGKILL in turn; in the second half it lives, and what it holds is measured each second. Resident
memory is judged by its slope there, from a minute after the last restart: the median over all pairs of samples that are a quarter of that
time or more apart (Theil and Sen), which a single peak does not move. Ends with 1 where something grows or is missing.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from itertools import count as numbers
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from daemon import Daemon, until
from generator import Stream, mark
from oracle import Files, count, drain

CONFIG = """
listen: ["tcp:{port}:interface=127.0.0.1"{listen}]
http: false
reload: signal
journal: {{dir: journal, segment_bytes: 8MiB, max_bytes: 256MiB, spill_dir: false}}
{limits}
backends:
  files: {{plugin: filesystem, path: "logs/{{service}}.jsonl"}}
routes: [{{to: [files]}}]
dead_letters: {{dir: dead-letters}}
"""
STREAMS = 4
RELOAD_SECONDS, RESTART_SECONDS, WARM_SECONDS = 5.0, 30.0, 60.0
MOST_SLOPE = 1.0
"""MiB per minute."""
MOST_JOURNAL = 64.0
"""MiB: it holds what is not delivered, and the segments under way."""
MOST_DESCRIPTORS = 8
"""More at the end than at the beginning, since files are opened as they are wanted."""


class Sample(NamedTuple):
    """What the sidecar holds at a moment."""

    seconds: float
    rss: float
    """MiB."""
    descriptors: int
    journal: float
    """MiB on the disk."""


def sample(daemon: Daemon, begun: float) -> Sample:
    assert daemon.process is not None
    pid = daemon.process.pid
    status = Path(f"/proc/{pid}/status").read_text()
    rss = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    journal = sum(entry.stat().st_size for entry in os.scandir(daemon.directory / "journal") if entry.is_file())
    return Sample(time.monotonic() - begun, rss, len(os.listdir(f"/proc/{pid}/fd")), journal / 2**20)


def slope(samples: list[Sample]) -> float:
    """Of resident memory, in MiB per minute."""
    apart = (samples[-1].seconds - samples[0].seconds) / 4
    return statistics.median(
        (b.rss - a.rss) / (b.seconds - a.seconds) * 60
        for i, a in enumerate(samples)
        for b in samples[i + 1 :]
        if b.seconds - a.seconds >= apart
    )


def reload(daemon: Daemon, number: int) -> None:
    """The same with another limit."""
    assert daemon.process is not None
    file = daemon.directory / "wafermon.yaml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("limits:")]
    new = file.with_suffix(".new")
    new.write_text("\n".join([*lines, f"limits: {{max_connections: {1000 + number}}}", ""]))
    new.replace(file)
    daemon.process.send_signal(signal.SIGHUP)


def live(daemon: Daemon, streams: list[Stream], seconds: float) -> list[Sample]:
    """Reloads and restarts; what was measured since the last restart."""
    begun = time.monotonic()
    samples: list[Sample] = []
    reloads, restarts = numbers(1), 0
    next_reload = next_restart = 0.0
    while (now := time.monotonic() - begun) < seconds:
        if now >= next_restart and now < seconds / 2:
            next_restart += RESTART_SECONDS
            if now > 1:
                restarts += 1
                if restarts % 2:
                    daemon.kill()
                else:
                    daemon.stop()
                daemon.start()
                samples.clear()
        if now >= next_reload:
            next_reload += RELOAD_SECONDS
            reload(daemon, next(reloads))
        time.sleep(1)
        samples.append(sample(daemon, begun))
        for stream in streams:
            assert not stream.failure, stream.failure
        if int(now) % 30 == 0:
            acked = sum(stream.claim.acked for stream in streams)
            last = samples[-1]
            print(
                f"{now:5.0f} s: {acked:12,} acknowledged, {restarts} restarts, {last.rss:.1f} MiB resident, "
                f"{last.descriptors} descriptors, journal {last.journal:.1f} MiB",
                flush=True,
            )
    print(f"{next(reloads) - 1} reloads, {restarts} restarts")
    return samples


def judge(samples: list[Sample]) -> list[str]:
    """What grows."""
    warm = [one for one in samples if one.seconds >= samples[0].seconds + min(WARM_SECONDS, len(samples) / 4)]
    growth, journal = slope(warm), max(one.journal for one in samples)
    opened = warm[-1].descriptors - warm[0].descriptors
    print(
        f"in the last {samples[-1].seconds - samples[0].seconds:.0f} s: resident {warm[0].rss:.1f} to {warm[-1].rss:.1f} MiB, "
        f"slope {growth:+.2f} MiB per minute; {warm[0].descriptors} to {warm[-1].descriptors} descriptors; "
        f"journal {journal:.1f} MiB at most, {samples[-1].journal:.1f} at the end"
    )
    found = []
    if growth > MOST_SLOPE and warm[-1].seconds - warm[0].seconds >= WARM_SECONDS:
        found.append(f"memory grows by {growth:.2f} MiB per minute")
    if opened > MOST_DESCRIPTORS:
        found.append(f"{opened} descriptors more than in the beginning")
    if journal > MOST_JOURNAL:
        found.append(f"the journal has taken {journal:.0f} MiB")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__.split("\n")[0])
    parser.add_argument("--time", type=float, default=600, help="seconds (600)")
    parser.add_argument("--rate", type=float, default=20_000, help="messages per second (20000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wafermon-soak-") as directory, Daemon(Path(directory), CONFIG) as daemon:
        address = ("127.0.0.1", daemon.port)
        rate = options.rate / STREAMS
        streams = [Stream(lambda: address, f"stream-{number}", rate, seed=number) for number in range(STREAMS)]
        begun = time.monotonic()
        found = judge(live(daemon, streams, options.time))
        for stream in streams:
            stream.finish()
        until(lambda: all(stream.settled for stream in streams), "acks for everything claimed", 120)
        seconds = time.monotonic() - begun
        for stream in streams:
            stream.stop()
        store = Files(daemon.directory / "logs")
        drain([store], lambda service: mark(address, service), "end", 120)
        verdict = count(store, [stream.claim for stream in streams])
        found += verdict.faults
        assert "Traceback" not in daemon.log(), daemon.log()[-6000:]
    print(f"{verdict.acked:,} acknowledged in {seconds:.0f} s, {verdict.stored:,} stored, {len(verdict.faults)} faults")
    for fault in found:
        print(fault, file=sys.stderr)
    if found:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
