"""A journal gets another id; all that it holds stays."""

from __future__ import annotations

from pathlib import Path

import pytest_twisted
from journals import OpenJournal

from wafermon.journal.clock import Known
from wafermon.journal.groups import Mark
from wafermon.journal.skips import Skip
from wafermon.journal.state import State
from wafermon.model.position import Position


def test_places_and_marks_stay(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    before = state.journal
    place = Position(before, 3, 400)
    state.save(
        {"one": place}, [Mark("uid:1", "a" * 16, 7)], Known(5, 6), {"one": [Skip(place, place._replace(offset=500))]}
    )
    state.step_over("one", place)
    state.use_segment(3)
    after = state.renew()
    state.close()
    again = State(tmp_path / "state.db")
    assert again.journal == after != before and again.formerly == {before: 3}
    renamed = place._replace(journal=after)
    assert again.cursors() == {"one": renamed}
    assert again.stepped_over() == [("one", renamed)]
    assert again.skips() == {"one": [Skip(renamed, renamed._replace(offset=500))]}
    assert again.mark("uid:1", "a" * 16) == 7
    again.use_segment(7)
    assert again.renew() not in (before, after) and again.formerly == {before: 3, after: 7}
    again.close()


@pytest_twisted.ensureDeferred
async def test_what_a_place_under_an_earlier_id_is_now(tmp_path: Path) -> None:
    first = OpenJournal(tmp_path)
    first.journal.cursor("holds")
    await first.put(range(1))
    end = first.journal.end
    await first.close()
    state = State(tmp_path / "state.db")
    last = state.last_segment
    state.renew()
    state.close()
    second = OpenJournal(tmp_path)
    journal = second.journal
    assert journal.as_now(end) == end._replace(journal=journal.id)
    assert journal.as_now(journal.end) == journal.end
    foreign = end._replace(journal="f" * 16)
    assert journal.as_now(foreign) == foreign
    assert journal.as_now(end._replace(offset=end.offset + 1)) is None, "only the original came so far"
    await second.put(range(1, 2))
    assert journal.as_now(journal.end._replace(journal=end.journal)) is None
    assert journal.ids_at(last) == {end.journal, journal.id}
    assert journal.ids_at(last + 1) == {journal.id}
    await second.close()
    third = OpenJournal(tmp_path)
    later = third.journal.began._replace(journal=end.journal, segment=last + 1, offset=0)
    assert third.journal.as_now(later) is None, (
        "the journal had its new id by then, and the original went on with the old one"
    )
    await third.close()
