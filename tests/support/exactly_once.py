"""Whether everything is stored once."""

from __future__ import annotations

from collections import Counter

from daemon import Daemon, Load, read_lines, until


def check_exactly_once(daemon: Daemon, loads: list[Load]) -> int:
    """Every acknowledged message is in the files, none twice, no line torn. Answers with their number."""
    for load in loads:
        path = daemon.directory / "logs" / f"{load.service}.jsonl"
        until(lambda p=path, n=load.acked: p.exists() and p.read_bytes().count(b"\n") >= n, "what was acknowledged")  # type: ignore[misc]
    total = 0
    for load in loads:
        path = daemon.directory / "logs" / f"{load.service}.jsonl"
        seqs = [line["seq"] for line in read_lines(path)]
        doubles = [seq for seq, times in Counter(seqs).items() if times > 1]
        assert doubles == []
        assert set(range(1, load.acked + 1)) <= set(seqs)
        assert seqs == sorted(seqs)
        total += len(seqs)
    return total
