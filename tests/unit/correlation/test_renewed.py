"""A journal gets another id while traces are under way: what was known of them is carried on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest
from inline import World

from wafermon.correlation import Correlator, Engine, Settings, key_of
from wafermon.correlation.correlator import ADVANCE_SECONDS, CURSOR
from wafermon.journal.state import State
from wafermon.model.messages import OWN_SERVICE, Message
from wafermon.model.position import Position

RULES = Settings(stalled_after=20, trace_idle=30, trace_max=3_600)


def progress(job: str, status: str = "") -> dict[str, Any]:
    return {"type": "progress", "job_id": job, "trace_id": job, "percent": 5, **({"status": status} if status else {})}


class Scene:
    def __init__(self, directory: Path) -> None:
        self.world = World(directory)
        journal = self.world.journal
        self.path = journal.dir / "correlation" / "checkpoint"
        engine = Engine(RULES, journal.id)
        self.correlator = Correlator(engine, journal, self.path.parent, cast(Any, self.world.pool), self.world.loop)
        self.world.start(self.correlator)

    def own(self) -> list[Message]:
        blocks = [block for group in self.world.groups() for _, block in group.blocks]
        return [message for block in blocks for message in block.messages if message.service == OWN_SERVICE]

    def facts(self) -> Counter[str]:
        """Kind and trace of what was derived; receipts have tests of their own."""
        found = Counter(str(key_of(one)) for one in self.own())
        assert set(found.values()) <= {1}, f"journalled twice: {found}"
        return Counter(" ".join(key.split()[:2]) for key in found if not key.startswith("receipt "))

    def renewed(self) -> Scene:
        """The same after a stop and `wafermon journal renew`."""
        self.world.stop()
        return self.again()

    def crashed_and_renewed(self) -> Scene:
        self.world.journal._disk.close()
        self.world.forget()
        return self.again()

    def again(self) -> Scene:
        state = State(self.world.journal.dir / "state.db")
        state.renew()
        state.close()
        return Scene(self.world.directory)


def test_traces_under_way_are_carried_on(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.world.put(progress("a"))
    first.world.loop.pass_time(1)
    second = first.renewed()
    assert second.world.journal.id != first.world.journal.id
    assert "of no use" not in second.world.said()
    assert second.correlator.engine.live == 1
    second.world.put(progress("a", "done"))
    second.world.loop.pass_time(7)
    assert second.facts() == {"trace a": 1}
    [trace] = [one for one in second.own() if one.type == "trace"]
    assert trace.client == second.world.journal.id
    third = second.renewed()
    third.world.loop.pass_time(60)
    assert third.facts() == {"trace a": 1}
    third.world.stop()


def test_a_receipt_counts_what_came_before_and_after(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.world.put(progress("a"))
    second = first.renewed()
    second.world.put(progress("a", "done"))
    second.world.loop.pass_time(100)
    facts = second.correlator.receipt_facts("a")
    assert facts is not None
    assert facts.account.received == 2
    assert not facts.account.edges, "its own receipts of before are not those of another sidecar"
    second.world.stop()


@pytest.mark.parametrize("checkpoint", [True, False])
def test_what_was_derived_before_and_read_again_is_the_sidecars_own(tmp_path: Path, checkpoint: bool) -> None:
    """After a crash the groups with what was derived are read a second time, under the new id."""
    first = Scene(tmp_path)
    first.world.put(progress("a"), progress("b"))
    first.world.loop.pass_time(25)
    assert first.facts() == {"job_stalled a": 1, "job_stalled b": 1}
    if not checkpoint:
        first.path.unlink()
    second = first.crashed_and_renewed()
    second.world.loop.pass_time(25)
    assert second.correlator.engine.awaiting == 0
    assert second.facts() == {"job_stalled a": 1, "job_stalled b": 1}
    second.world.put(progress("a", "done"), progress("b", "done"))
    second.world.loop.pass_time(100)
    assert second.facts() == {"job_stalled a": 1, "job_stalled b": 1, "trace a": 1, "trace b": 1}
    second.world.stop()


def test_what_was_derived_and_not_journalled_is_journalled_under_the_new_id(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.world.put(progress("a"))
    first.world.journal.append = lambda entry: None  # type: ignore[method-assign]
    first.world.loop.pass_time(25)
    assert first.correlator.engine.awaiting == 1
    second = first.renewed()
    second.world.loop.pass_time(2 * ADVANCE_SECONDS)
    assert second.facts() == {"job_stalled a": 1}
    [stalled] = [one for one in second.own() if (key_of(one) or "").startswith("job_stalled")]
    assert stalled.client == second.world.journal.id
    assert second.correlator.engine.awaiting == 0
    second.world.stop()


@pytest.mark.parametrize("renews", [True, False])
def test_a_checkpoint_beyond_the_journals_end_is_not_taken(tmp_path: Path, renews: bool) -> None:
    """The journal was put back from a copy, and the checkpoint was not."""
    first = Scene(tmp_path)
    first.world.put(progress("a"))
    first.world.stop()
    head, _, snapshot = first.path.read_bytes().partition(b"\n")
    position = Position.parse(head.decode())
    first.path.write_bytes(f"{position._replace(segment=position.segment + 5)}\n".encode() + snapshot)
    second = first.again() if renews else Scene(tmp_path)
    assert "which this journal does not hold" in second.world.said()
    second.world.put(progress("b"))
    second.world.loop.pass_time(25)
    assert second.facts()["job_stalled b"] == 1, "it follows what comes"
    assert second.world.states[CURSOR].problem == ""
    second.world.stop()
