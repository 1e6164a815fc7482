"""A channel over a journal, its outbox on disk and a clock that a test moves: what is sent, held back, resolved, tried again."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inline import Pool, World
from twisted.internet.defer import Deferred, fail, succeed

from wafermon.alerts import Channel
from wafermon.alerts.channel import LOOK_SECONDS, SEND_SECONDS, STOP_SECONDS
from wafermon.alerts.outbox import Outbox
from wafermon.interfaces import Alarm, PermanentError, RetryableError
from wafermon.journal.state import State
from wafermon.model.alerts import AlertConfig
from wafermon.model.checking import checked

DAY = (2026, 11, 29)


def at(hour: int, minute: int = 0) -> float:
    """A time of the day in this machine's zone, as a date."""
    return time.mktime((*DAY, hour, minute, 0, 0, 0, -1))


class Receiver:
    """A plugin: keeps what it took; `answers` are what it says to the next calls."""

    resolves = True

    def __init__(self) -> None:
        self.sent: list[Alarm] = []
        self.answers: list[Callable[[], Deferred[None]]] = []

    def send(self, alarm: Alarm) -> Deferred[None]:
        if self.answers:
            return self.answers.pop(0)()
        self.sent.append(alarm)
        return succeed(None)

    def close(self) -> Deferred[None]:
        return succeed(None)

    def said(self) -> list[tuple[str, str]]:
        """What it was told since it was asked last: the action and the key; of a digest its words."""
        sent, self.sent = self.sent, []
        return [(one.action, one.summary if one.kind == "digest" else one.key) for one in sent]


class Scene:
    def __init__(self, directory: Path, receiver: Receiver | None = None, **given: Any) -> None:
        self.world = World(directory)
        self.wall = at(12)
        self.receiver = receiver or Receiver()
        config = checked(AlertConfig, {"plugin": "test", "name": "hook", "at_most": 0, **given})
        self.channel = Channel(
            config, self.receiver, self.world.journal, directory / "alerts", Pool(), self.world.loop,
            cursor="!alerts/hook", wall=lambda: self.wall, uniform=lambda least, most: most,
        )  # fmt: skip
        self.world.start(self.channel)

    def schedule(self, name: str, kind: str = "not_started") -> None:
        """A schedule comes to a state."""
        level = "info" if kind == "recovered" else "warning"
        context = {"kind": kind, "schedule": name, "times": 1}
        self.world.put(
            {"type": "event", "service": "wafermon", "level": level, "message": f"{name} {kind}", "context": context}
        )
        self.look()

    def look(self, seconds: float = 0) -> None:
        self.world.loop.pass_time(seconds)


def test_what_was_triggered_is_resolved_whatever_on_and_match_say(tmp_path: Path) -> None:
    scene = Scene(tmp_path, on=["not_started"], match={"schedule": "night*"})
    scene.schedule("nightly")
    scene.schedule("weekly")
    scene.schedule("weekly", "recovered")
    scene.schedule("nightly", "recovered")
    scene.schedule("nightly", "recovered")
    assert scene.receiver.said() == [("trigger", "schedule/nightly"), ("resolve", "schedule/nightly")]
    assert scene.channel.pending == 0
    scene.world.stop()


def test_a_place_without_keys_is_told_of_a_recovery_where_on_names_it(tmp_path: Path) -> None:
    chat = Receiver()
    chat.resolves = False
    scene = Scene(tmp_path, chat, on=["not_started", "recovered"], match={"schedule": "night*"})
    scene.schedule("weekly", "recovered")
    scene.schedule("nightly")
    scene.schedule("nightly", "recovered")
    assert chat.said() == [("trigger", "schedule/nightly"), ("resolve", "schedule/nightly")]
    scene.world.stop()


def test_quiet_hours_end_with_a_digest(tmp_path: Path) -> None:
    scene = Scene(tmp_path, quiet="22:00-06:00")
    scene.wall = at(23)
    for name in ("a", "b", "c"):
        scene.schedule(name)
    scene.schedule("b", "recovered")
    scene.look(2 * LOOK_SECONDS)
    assert scene.receiver.said() == []
    assert scene.channel.figures()["held"] == 3
    scene.wall = at(6, 1)
    scene.look(LOOK_SECONDS)
    assert scene.receiver.said() == [
        ("trigger", "3 alarms were held back: 3 not_started; 1 is over by now"),
    ]
    assert scene.channel.pending == 0
    scene.world.stop()


def test_one_that_was_held_alone_is_sent_and_resolved_later(tmp_path: Path) -> None:
    scene = Scene(tmp_path, quiet="22:00-06:00")
    scene.wall = at(23)
    scene.schedule("a")
    scene.wall = at(6, 1)
    scene.look(LOOK_SECONDS)
    assert scene.receiver.said() == [("trigger", "schedule/a")]
    scene.schedule("a", "recovered")
    assert scene.receiver.said() == [("resolve", "schedule/a")]
    scene.world.stop()


def test_what_the_outbox_has_is_not_taken_again_under_another_id_of_the_journal(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    before = scene.world.journal.end
    scene.schedule("a")
    assert scene.receiver.said() == [("trigger", "schedule/a")]
    scene.world.stop()
    state = State(tmp_path / "journal" / "state.db")
    known = state.known()
    assert known is not None
    state.save({scene.channel.name: before}, [], known)
    state.renew()
    state.close()
    again = Scene(tmp_path)
    assert again.receiver.said() == []
    again.schedule("b")
    assert again.receiver.said() == [("trigger", "schedule/b")]
    again.world.stop()


def test_an_outbox_that_is_further_than_the_journal_takes_what_comes(tmp_path: Path) -> None:
    """The journal was put back from a backup, and the outbox was not."""
    scene = Scene(tmp_path)
    scene.world.stop()
    outbox = Outbox(tmp_path / "alerts" / "hook.db")
    outbox.reach(scene.world.journal.end._replace(segment=99))
    outbox.close()
    again = Scene(tmp_path)
    again.schedule("b")
    assert again.receiver.said() == [("trigger", "schedule/b")]
    again.world.stop()


@pytest.mark.parametrize("open_before", [False, True])
def test_one_that_was_held_and_is_over_is_not_triggered_for_ever(tmp_path: Path, open_before: bool) -> None:
    scene = Scene(tmp_path, quiet="22:00-06:00")
    if open_before:
        scene.schedule("a")
        assert scene.receiver.said() == [("trigger", "schedule/a")]
    scene.wall = at(23)
    scene.schedule("a", "too_long")
    scene.schedule("a", "recovered")
    assert scene.receiver.said() == [("resolve", "schedule/a")] * open_before, "what resolves does not wait"
    scene.wall = at(6, 1)
    scene.look(LOOK_SECONDS)
    assert scene.receiver.said() == [("trigger", "1 alarm was held back: 1 too_long; 1 is over by now")]
    scene.world.stop()


def test_what_is_beyond_the_rate_comes_as_a_digest_and_what_resolves_is_not_counted(tmp_path: Path) -> None:
    scene = Scene(tmp_path, at_most="2/h")
    for name in ("a", "b", "c", "d"):
        scene.schedule(name)
    scene.schedule("a", "recovered")
    assert scene.receiver.said() == [
        ("trigger", "schedule/a"), ("trigger", "schedule/b"), ("resolve", "schedule/a"),
    ]  # fmt: skip
    scene.look(3_590)
    assert scene.receiver.said() == []
    scene.look(20)
    assert scene.receiver.said() == [("trigger", "2 alarms were held back: 2 not_started")]
    scene.world.stop()


def test_a_receiver_says_when_it_is_to_be_asked_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    later = RetryableError("busy")
    later.wait = 90.0  # type: ignore[attr-defined]
    scene.receiver.answers = [lambda: fail(later), lambda: fail(PermanentError("no such key"))]
    scene.schedule("a")
    scene.schedule("b")
    assert scene.channel.figures()["error"] == "busy"
    scene.look(89)
    assert scene.channel.figures()["refused"] == 0
    scene.look(2)
    assert scene.receiver.said() == [("trigger", "schedule/b")], "a was refused for good, and b comes next"
    figures = scene.channel.figures()
    assert (figures["sent"], figures["failed"], figures["refused"], figures["pending"]) == (1, 1, 1, 0)
    scene.world.stop()


def test_a_plugin_that_hangs_is_given_up_and_hinders_no_stop(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.receiver.answers = [Deferred, Deferred]
    scene.schedule("a")
    scene.look(SEND_SECONDS + 0.5)
    assert scene.channel.figures()["failed"] == 1
    scene.look(2)
    assert not scene.receiver.answers, "it was tried again, and hangs again"
    scene.world.stop()
    scene.look(STOP_SECONDS)
    assert scene.world.states == {}
    again = Scene(tmp_path)
    assert again.receiver.said() == [("trigger", "schedule/a")], "what was not taken is sent after the next start"
    again.world.stop()


def test_a_full_disk_holds_the_cursor_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path)
    put, full = Outbox.put, [True]

    def put_or_fail(self: Outbox, *arguments: Any) -> Any:
        if full[0]:
            raise sqlite3.OperationalError("database or disk is full")
        return put(self, *arguments)

    monkeypatch.setattr(Outbox, "put", put_or_fail)
    scene.schedule("a")
    scene.look(60)
    assert scene.channel.problem == "its outbox can't be used: database or disk is full"
    assert scene.receiver.said() == []
    full[0] = False
    scene.look(15)
    assert scene.receiver.said() == [("trigger", "schedule/a")]
    assert scene.channel.problem == ""
    scene.world.stop()
