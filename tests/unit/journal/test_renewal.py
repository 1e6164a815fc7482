"""A journal gets another id; all that it holds stays."""

from __future__ import annotations

from pathlib import Path

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
    after = state.renew()
    state.close()
    again = State(tmp_path / "state.db")
    assert again.journal == after != before and again.formerly == {before}
    renamed = place._replace(journal=after)
    assert again.cursors() == {"one": renamed}
    assert again.stepped_over() == [("one", renamed)]
    assert again.skips() == {"one": [Skip(renamed, renamed._replace(offset=500))]}
    assert again.mark("uid:1", "a" * 16) == 7
    assert again.renew() not in (before, after) and again.formerly == {before, after}
    again.close()
