"""Snapshots of many live traces, which are encoded in parts while the sidecar goes on."""

from __future__ import annotations

import json

from wafermon.correlation.engine import PART, Engine
from wafermon.correlation.snapshot import Settings
from wafermon.model.messages import decode_stored

T = 1_795_500_000_000_000


def test_a_snapshot_leaves_others_their_turn() -> None:
    first, second = Engine(Settings(), "journal"), Engine(Settings(), "journal")
    lines = [
        {
            "type": "event",
            "service": "s",
            "level": "info",
            "message": "m",
            "ts": T + n,
            "trace_id": f"t{n}",
            "client": "c",
        }
        for n in range(2 * PART + 1)
    ]
    first.observe([decode_stored(json.dumps(line).encode()) for line in lines], T)
    *parts, snapshot = first.snapshot_in_parts()
    assert parts == [b"", b""]
    second.restore(snapshot)
    assert second.traces(10_000) == first.traces(10_000)
    assert len(first.traces(10_000)) == len(lines)
