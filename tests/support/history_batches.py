"""Batches of three days, the same in every process."""

from __future__ import annotations

from wafermon.contract import JOURNAL, batch, line
from wafermon.interfaces import Batch, Position

BATCHES = 60


PER_BATCH = 40


JOBS = 11


DAY = 86_400


T0 = 1_795_500_000


def batches() -> list[Batch]:
    """The same ones in every process: three days, jobs that go on over midnight, now and then an empty batch."""
    at = Position(JOURNAL, 1, 0)
    found = []
    for n in range(BATCHES):
        received = (T0 + 3 * DAY * n // BATCHES) * 1_000_000
        seqs = range(n * PER_BATCH + 1, (n + 1) * PER_BATCH + 1) if n % 7 != 3 else range(0)
        lines = [
            line(seq, ts=received + seq, type="progress", job_id=f"job-{seq % JOBS}", trace_id=f"job-{seq % JOBS}",
                 percent=100 * n / BATCHES, level=None, message=None)
            if seq % 3 == 0 else line(seq, ts=received + seq, trace_id=f"job-{seq % JOBS}", context={"wafer": seq % 5})
            for seq in seqs
        ]  # fmt: skip
        lines = [text.replace(b'"level":null,', b"").replace(b',"message":null', b"") for text in lines]
        one = batch(at, lines)
        found.append(Batch(one.start, one.end, one.block, (received, received) if lines else (0, 0)))
        at = found[-1].end
    return found
