"""Which sidecars forward to here, and which are let in."""

from __future__ import annotations

import pytest

from wafermon.model.errors import ProtocolError
from wafermon.receivers.forward.forwarders import Forwarders
from wafermon.receivers.forward.taking import TakenFrame
from wafermon.wire.frames import Head, Stretch
from wafermon.wire.hello import Hello, read_hello

KEY = ("forward:edge", "e" * 16)


def hello(instance: str) -> Hello:
    said = b'{"v":2,"type":"hello","forward":true,"client":"eeeeeeeeeeeeeeee","host":"fab1","sdk":"wafermon/2.1.0","instance":"%s"}'
    found = read_hello(said % instance.encode())
    assert found is not None
    return found


def come(forwarders: Forwarders, instance: str, silent: float | None) -> None:
    forwarders.check(KEY, hello(instance), silent)
    forwarders.came(KEY, hello(instance), "edge", "10.0.0.1:1", 1)


def test_a_second_one_with_the_same_journal_is_refused_while_the_first_is_heard() -> None:
    forwarders = Forwarders()
    come(forwarders, "one", None)
    with pytest.raises(ProtocolError, match="wafermon journal renew"):
        come(forwarders, "two", 4.9)
    assert forwarders.refused == 1 and forwarders.known()[0].instance == "one"
    come(forwarders, "two", 5.0)
    assert forwarders.known()[0].instance == "two" and forwarders.known()[0].connections == 2


def test_the_same_one_may_come_again_at_once() -> None:
    forwarders = Forwarders()
    come(forwarders, "one", None)
    come(forwarders, "one", 0.0)
    assert forwarders.refused == 0


def test_lag_and_clock_are_told_by_the_frames() -> None:
    forwarders = Forwarders()
    come(forwarders, "one", None)
    forwarders.heard(KEY, Head("none", 10, 20, 2, Stretch(0, 5, 900_000_000, 902_500_000)), TakenFrame(), 600_000_000)
    [one] = forwarders.records()
    assert (one["lag"], one["clock"], one["frames"], one["raw_bytes"], one["wire_bytes"]) == (2.5, 302.5, 1, 20, 10)
    forwarders.heard(KEY, Head("none", 0, 0, 0, Stretch(5, 5, 0, 903_000_000)), None, 600_500_000)
    [one] = forwarders.records()
    assert (one["lag"], one["frames"], one["duplicate_frames"]) == (0.0, 1, 0)
    forwarders.left(KEY, 7)
    assert forwarders.connected == 0


def test_what_was_counted_is_kept_over_connections() -> None:
    forwarders = Forwarders()
    come(forwarders, "one", None)
    forwarders.heard(KEY, Head("none", 10, 20, 2, Stretch(0, 5)), TakenFrame(skipped=3), 1)
    come(forwarders, "one", None)
    [one] = forwarders.records()
    assert (one["frames"], one["gaps"], one["version"], one["host"]) == (1, 1, "2.1.0", "fab1")
