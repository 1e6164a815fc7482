"""How many messages of a trace were refused: told at once, and then at most once in 10 s."""

from __future__ import annotations

from typing import Any

from appended_journal import MemoryJournal, as_journal
from twisted.internet.task import Clock

from wafermon.delivery.letter_counts import LetterCounts
from wafermon.model.messages import Event, Message, decode_stored, dumps

T = 1_700_000_000_000_000


def message(trace_id: str = "job", service: str = "loader") -> Message:
    traced = {"trace_id": trace_id} if trace_id else {}
    body = {"type": "event", "ts": T, "service": service, "level": "info", "message": "", **traced}
    return decode_stored(dumps(body).encode())


class Scene:
    def __init__(self) -> None:
        self.clock = Clock()
        self.journal = MemoryJournal(self.clock, automatic=True)
        self.counts = LetterCounts("db", as_journal(self.journal), self.clock)

    def told(self) -> list[tuple[str, Any]]:
        """What the journal was told since the last call."""
        entries, self.journal.committed = self.journal.committed, []
        found = []
        for entry in entries:
            assert entry.block is not None
            for one, line in zip(entry.block.messages, entry.block.lines, strict=True):
                assert isinstance(one, Event) and one.v == 2 and one.context and decode_stored(line) == one
                assert (one.service, one.level, one.context["backend"]) == ("wafermon", "warning", "db")
                found.append((str(one.trace_id), one.context["count"]))
        return found


def test_the_first_ones_are_told_at_once_and_the_next_in_ten_seconds() -> None:
    scene = Scene()
    scene.counts.add([message(), message(), message("other"), message("")])
    assert scene.told() == [("job", 2), ("other", 1)]
    scene.clock.advance(4)
    scene.counts.add([message()])
    scene.clock.advance(5)
    scene.counts.add([message(), message("third")])
    assert scene.told() == [("third", 1)]
    scene.clock.advance(1)
    assert scene.told() == [("job", 2)]
    scene.clock.advance(60)
    assert (scene.told(), scene.clock.getDelayedCalls()) == ([], [])


def test_the_end_tells_what_is_left() -> None:
    scene = Scene()
    scene.counts.add([message()])
    scene.counts.add([message()])
    scene.counts.flush()
    assert scene.told() == [("job", 1), ("job", 1)]
    assert scene.clock.getDelayedCalls() == []


def test_what_is_refused_of_the_sidecars_own_is_not_told() -> None:
    scene = Scene()
    scene.counts.add([message(service="wafermon")])
    assert scene.told() == []


def test_the_words_for_one_and_for_several() -> None:
    scene = Scene()
    scene.counts.add([message(), message("other"), message("other")])
    [entry] = scene.journal.committed
    assert entry.block is not None
    said = [one.message for one in entry.block.messages if isinstance(one, Event)]
    assert said == ["db refused 1 message, now dead letters", "db refused 2 messages, now dead letters"]
