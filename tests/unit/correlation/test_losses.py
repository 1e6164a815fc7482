"""What SDKs say that they had to drop is counted once, whichever way they say it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wafermon.correlation import losses as module
from wafermon.correlation.losses import Losses
from wafermon.model.blocks import Block

T = 1_700_000_000_000_000
OTHER = "b" * 16


def event(count: int, client: str = "a" * 16) -> dict[str, Any]:
    return {
        "type": "event",
        "level": "warning",
        "message": "m",
        "context": {"kind": "dropped", "count": count},
        "client": client,
    }


def stats(dropped: int, client: str = "a" * 16) -> dict[str, Any]:
    return {"type": "stats", "called": 99, "dropped": dropped, "unsent": 0, "last": 1, "streams": [], "client": client}


def counted(*messages: dict[str, Any], before: int = 0, owners: dict[str, str] | None = None) -> int:
    """Each message as a group; `before`: what all stats lines had told before."""
    found, said = Losses(), dict[str, int]()
    for message in messages:
        block = Block.parse(json.dumps({"ts": T, "service": "s", **message}).encode() + b"\n")
        found.take([block], lambda client: (owners or {}).get(client, client), lambda client: said.get(client, before))
        if message["type"] == "stats":  # as the ledger, which takes the group afterwards
            said[message["client"]] = max(said.get(message["client"], before), message["dropped"])
    return found.total


@pytest.mark.parametrize(("messages", "total"), [
    ([], 0),
    ([event(3), event(4)], 7),
    ([stats(0), stats(3), stats(3), stats(7)], 7),
    ([event(3), stats(3), event(4), stats(7)], 7),
    ([stats(3), event(3), stats(7), event(4)], 7),
    ([event(3), stats(5)], 5),
    ([stats(5), event(3)], 5),
    ([event(3), stats(3), event(2, OTHER), stats(2, OTHER)], 5),
])  # fmt: skip
def test_the_greater_of_what_both_say_counts(messages: list[dict[str, Any]], total: int) -> None:
    assert counted(*messages) == total


def test_what_was_told_before_the_start_does_not_count() -> None:
    assert counted(stats(5), stats(6), before=5) == 1


def test_the_streams_of_one_sdk_tell_of_the_same() -> None:
    assert counted(stats(5), stats(6, OTHER), event(1, OTHER), owners={OTHER: "a" * 16}) == 6


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SDKS", 3)
    found = Losses()
    for number in range(9):
        block = Block.parse(json.dumps({"ts": T, "service": "s", **event(1, f"{number:016x}")}).encode() + b"\n")
        found.take([block], str, lambda _: 0)
    assert (found.total, len(found._told)) == (9, 3)
