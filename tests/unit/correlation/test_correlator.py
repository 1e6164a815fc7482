"""The follower that correlates: whatever fails, and whenever it is begun again, each derived message is journalled once."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from disks import FaultyFiles
from inline import Faults, World
from twisted.internet.defer import CancelledError, Deferred

from wafermon.correlation import Correlator, Engine, Settings, key_of
from wafermon.correlation.correlator import ADVANCE_SECONDS, CHECKPOINT_SECONDS, CURSOR
from wafermon.journal import Entry
from wafermon.journal.follower import ANSWER_SECONDS
from wafermon.model.blocks import Block
from wafermon.model.messages import OWN_SERVICE, Message, dumps
from wafermon.model.position import Position

RULES = Settings(stalled_after=20, trace_idle=30, trace_max=3_600)


def progress(job: str, status: str = "") -> dict[str, Any]:
    return {"type": "progress", "job_id": job, "trace_id": job, "percent": 5, **({"status": status} if status else {})}


def event(trace_id: str) -> dict[str, Any]:
    return {"type": "event", "level": "info", "message": "m", "trace_id": trace_id}


DROPPED = {
    "type": "event", "level": "warning", "message": "m", "context": {"kind": "dropped", "count": 3},
}  # fmt: skip


class Scene:
    """A correlator in a directory; a second one there is the same sidecar after a restart."""

    def __init__(self, directory: Path, faults: Faults | None = None, rules: Settings = RULES, **settings: Any) -> None:
        self.world = World(directory, faults, **settings)
        self.files = FaultyFiles()
        journal = self.world.journal
        self.path = journal.dir / "correlation" / "checkpoint"
        pool = cast(Any, self.world.pool)
        engine = Engine(rules, journal.id)
        self.correlator = Correlator(engine, journal, self.path.parent, pool, self.world.loop, self.files)

    def start(self) -> None:
        self.world.start(self.correlator)

    @property
    def problem(self) -> str:
        return self.world.states[CURSOR].problem

    def own(self) -> list[Message]:
        """What was derived, as the journal holds it."""
        blocks = [block for group in self.world.groups() for _, block in group.blocks]
        return [message for block in blocks for message in block.messages if message.service == OWN_SERVICE]

    def keys(self) -> Counter[str]:
        """The facts that were journalled: kind and trace. Receipts have tests of their own."""
        found = Counter(str(key_of(one)) for one in self.own())
        assert set(found.values()) <= {1}, f"journalled twice: {found}"
        return Counter(" ".join(key.split()[:2]) for key in found if not key.startswith("receipt "))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.world.stop()


def test_it_emits_what_is_derived_while_time_passes(scene: Scene) -> None:
    scene.start()
    scene.world.put(progress("a"))
    scene.world.loop.pass_time(19)
    assert scene.keys() == {}
    scene.world.loop.pass_time(1 + ADVANCE_SECONDS)
    assert scene.keys() == {"job_stalled a": 1}
    scene.world.put(progress("a", "done"))
    scene.world.loop.pass_time(5 + ADVANCE_SECONDS)
    assert scene.keys() == {"job_stalled a": 1, "trace a": 1}
    assert scene.correlator.engine.awaiting == 0


def test_a_clean_stop_keeps_everything(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.start()
    first.world.put(progress("a"))
    first.world.loop.pass_time(1)
    first.world.stop()
    second = Scene(tmp_path)
    second.start()
    assert second.correlator.engine.live == 1
    assert second.correlator.trace("a") is not None
    assert [job["job_id"] for job in second.correlator.jobs(10)] == ["a"]
    second.world.put(progress("a", "done"))
    second.world.loop.pass_time(7)
    assert second.keys() == {"trace a": 1}
    second.world.stop()


def crash(scene: Scene, tmp_path: Path) -> Scene:
    """What a second one finds that starts after a SIGKILL of the first."""
    scene.world.journal._disk.close()
    scene.world.forget()
    return Scene(tmp_path)


def test_after_a_crash_what_was_derived_comes_once(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.start()
    first.world.put(progress("a"), progress("b"))
    first.world.loop.pass_time(25)
    assert first.keys() == {"job_stalled a": 1, "job_stalled b": 1}
    second = crash(first, tmp_path)
    second.start()
    second.world.loop.pass_time(100)
    assert second.keys()["job_stalled a"] == 1
    second.world.stop()


def test_what_was_derived_and_not_journalled_is_journalled_after_a_restart(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.start()
    first.world.put(progress("a"))
    first.world.journal.append = lambda entry: None  # type: ignore[method-assign]
    first.world.loop.pass_time(25)
    assert first.correlator.engine.awaiting == 1
    first.world.stop()
    second = Scene(tmp_path)
    second.start()
    second.world.loop.pass_time(2)
    assert second.keys() == {"job_stalled a": 1}
    second.world.stop()


def test_a_run_begun_again_waits_for_what_the_one_before_appended(scene: Scene) -> None:
    """The derived message is on its way to the disk when the follower fails: it is not derived a second time."""
    scene.start()
    scene.world.put(progress("a"))
    scene.world.loop.pass_time(18)
    writes: list[Any] = []
    pool = cast(Any, scene.world.journal._writer)
    real = pool.callInThreadWithCallback
    pool.callInThreadWithCallback = lambda *arguments: writes.append(arguments)
    scene.world.loop.pass_time(4)
    assert writes, "the derived message is not on its way"
    cast(Any, scene.correlator)._pause.errback(OSError(5, "x"))
    scene.world.loop.pass_time(5)
    assert scene.world.states[CURSOR].restarts == 1
    assert scene.keys() == {}
    pool.callInThreadWithCallback = real
    for arguments in writes:
        real(*arguments)
    scene.world.loop.pass_time(5)
    assert scene.keys() == {"job_stalled a": 1}


def test_it_reads_on_while_it_waits_so_that_a_full_journal_gets_room(tmp_path: Path) -> None:
    scene = Scene(tmp_path, hold=False, segment_bytes=1 << 16, max_bytes=1 << 18)
    scene.start()
    fill = {"type": "event", "level": "info", "message": "x" * 20_000}
    scene.world.loop.pass_time(1)
    cast(Any, scene.correlator)._pause.errback(OSError(5, "x"))
    for _ in range(60):
        scene.world.journal.append(Entry(_block(scene, fill)))
    scene.world.loop.pass_time(60)
    assert scene.world.journal.idle
    assert scene.problem == ""
    scene.world.stop()


def _block(scene: Scene, body: dict[str, Any]) -> Any:
    return Block.parse(dumps({"ts": scene.world.journal.now(), "service": "etl", **body}).encode() + b"\n")


def test_a_group_that_makes_it_fail_is_stepped_over_durably(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.start()
    scene.world.put(progress("a"))
    position = scene.world.journal.end
    real = Engine.observe_blocks

    def observe(engine: Engine, blocks: Any, time: int, elapsed: int) -> Any:
        if any(b"poison" in block.raw for block in blocks):
            raise ValueError("poison")
        return real(engine, blocks, time, elapsed)

    monkeypatch.setattr(Engine, "observe_blocks", observe)
    scene.world.put(event("poison"))
    scene.world.loop.pass_time(10)
    state = scene.world.states[CURSOR]
    assert (state.restarts, state.stepped_over, list(state.positions)) == (3, 1, [position])
    assert scene.problem == ""
    assert scene.world.journal._places.cursors[CURSOR].kept > position
    scene.world.journal.checkpoint_soon()
    scene.world.loop.turn()
    assert not scene.world.journal.stepped_over(CURSOR)
    scene.world.put(progress("a", "done"))
    scene.world.loop.pass_time(7)
    assert scene.keys() == {"trace a": 1}
    assert scene.world.states[CURSOR].restarts == 3


def test_a_group_that_was_stepped_over_is_passed_at_once_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though no checkpoint could be saved after it."""
    first = Scene(tmp_path)
    first.start()
    first.world.put(progress("a"))
    position = first.world.journal.end
    real = Engine.observe_blocks

    def observe(engine: Engine, blocks: Any, time: int, elapsed: int) -> Any:
        if any(b"poison" in block.raw for block in blocks):
            raise ValueError("poison")
        return real(engine, blocks, time, elapsed)

    monkeypatch.setattr(Engine, "observe_blocks", observe)
    first.files.fail("write", OSError(28, "No space left on device"), times=100)
    first.files.fail("append", OSError(28, "No space left on device"), times=100)
    first.world.put(event("poison"))
    first.world.loop.pass_time(10)
    assert first.world.states[CURSOR].stepped_over == 1
    second = crash(first, tmp_path)
    assert second.world.journal.stepped_over(CURSOR) == {position}
    second.start()
    second.world.put(progress("a", "done"))
    second.world.loop.pass_time(7)
    assert second.world.states[CURSOR].restarts == 0
    assert second.keys() == {"trace a": 1}
    assert second.world.journal._places.cursors[CURSOR].kept > position
    second.world.stop()


def test_what_came_back_in_a_group_that_is_stepped_over_is_not_emitted_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.start()
    scene.world.put(progress("a"))
    real = Engine.observe_blocks

    def observe(engine: Engine, blocks: Any, time: int, elapsed: int) -> Any:
        if any(b"job_stalled" in block.raw for block in blocks):
            raise ValueError("poison")
        return real(engine, blocks, time, elapsed)

    monkeypatch.setattr(Engine, "observe_blocks", observe)
    scene.world.loop.pass_time(60)
    assert scene.world.states[CURSOR].stepped_over == 1
    assert scene.keys() == {"job_stalled a": 1}
    assert scene.correlator.engine.awaiting == 0


# -- checkpoints


def test_a_directory_that_is_removed_is_made_again(scene: Scene) -> None:
    scene.start()
    shutil.rmtree(scene.path.parent)
    scene.world.put(progress("a"))
    scene.world.loop.pass_time(CHECKPOINT_SECONDS + 1)
    scene.world.put(progress("a"))
    assert scene.path.exists()
    assert scene.path.parent.stat().st_mode & 0o777 == 0o700
    assert scene.path.stat().st_mode & 0o777 == 0o600
    assert scene.problem == ""


def test_a_checkpoint_that_can_not_be_saved_is_shown_and_keeps_nothing_back(scene: Scene) -> None:
    scene.start()
    kept = scene.world.journal._places.cursors[CURSOR].kept
    scene.files.fail("write", OSError(28, "No space left on device"), times=100)
    scene.files.fail("append", OSError(28, "No space left on device"), times=100)
    scene.world.put(progress("a"))
    scene.world.loop.pass_time(CHECKPOINT_SECONDS + 1)
    scene.world.put(progress("a", "done"))
    scene.world.loop.pass_time(6)
    assert "can't save its checkpoint" in scene.problem
    assert scene.world.journal._places.cursors[CURSOR].kept == kept
    assert scene.keys()["trace a"] == 1
    scene.files.heal()
    scene.world.loop.pass_time(CHECKPOINT_SECONDS + 1)
    scene.world.put(event("b"))
    assert scene.problem == ""
    assert scene.world.journal._places.cursors[CURSOR].kept > kept


def test_the_cursor_moves_once_the_checkpoint_s_name_lasts(scene: Scene) -> None:
    scene.start()
    calls: list[str] = []
    cursor = cast(Any, scene.correlator)._cursor
    real = cursor.move

    def move(position: Position) -> None:
        calls.extend(call for call, _ in scene.files.calls)
        real(position)

    cursor.move = move
    scene.world.put(progress("a"))
    scene.world.loop.pass_time(CHECKPOINT_SECONDS + 1)
    scene.files.calls.clear()
    scene.world.put(progress("a"))
    assert calls[-1] == "sync_directory"
    assert calls.index("rename") < len(calls) - 1


@pytest.mark.parametrize("content", [
    b"", b"nonsense", b"\0" * 4_096, b"0000000000000000:1:0\n\x80", b"ID:999:0\n", b"ID:1:0\nno snapshot",
])  # fmt: skip
def test_a_checkpoint_that_says_nothing_is_said_and_replaced(tmp_path: Path, content: bytes) -> None:
    first = Scene(tmp_path)
    first.start()
    first.world.put(progress("a"))
    first.world.stop()
    first.path.write_bytes(content.replace(b"ID", first.world.journal.id.encode()))
    second = Scene(tmp_path)
    second.start()
    assert f"The correlation's checkpoint {second.path} is of no use, starting without it" in second.world.said()
    second.world.put(progress("b", "done"))
    second.world.loop.pass_time(7)
    assert second.keys() == {"trace b": 1}
    second.world.stop()
    third = Scene(tmp_path)
    third.start()
    assert "of no use" not in third.world.said()
    third.world.stop()


def test_a_checkpoint_that_can_not_be_read_again_and_again_is_left_out(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.start()
    first.world.put(progress("a"))
    first.world.stop()
    second = Scene(tmp_path)
    second.files.fail("read", OSError(5, "Input/output error"), times=2)
    second.start()
    second.world.loop.pass_time(4)
    assert second.world.states[CURSOR].restarts == 2
    assert second.correlator.engine.live == 1
    second.world.stop()
    third = Scene(tmp_path)
    third.files.fail("read", OSError(5, "Input/output error"), times=3)
    third.start()
    third.world.loop.pass_time(10)
    assert third.correlator.engine.live == 0
    assert f"The correlation starts without its checkpoint {third.path}" in third.world.said()
    assert third.world.states[CURSOR].stepped_over == 1
    third.world.stop()


def test_a_stop_before_the_checkpoint_is_read_leaves_it(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.start()
    first.world.put(progress("a"))
    first.world.stop()
    before = first.path.read_bytes()
    second = Scene(tmp_path, Faults(at=0))
    second.start()
    second.world.stop()
    assert second.path.read_bytes() == before


def test_a_disk_that_does_not_answer_is_named(tmp_path: Path) -> None:
    faults = Faults(at=1)  # the first checkpoint, after the read of the one that is not there
    scene = Scene(tmp_path, faults)
    scene.start()
    assert faults.names[-1].endswith("_write")
    scene.world.loop.pass_time(ANSWER_SECONDS)
    assert scene.problem == f"no answer from the disk of {scene.path} for 60 s"
    faults.release()
    scene.world.loop.turn()
    assert scene.problem == ""
    scene.world.stop()


def test_the_checkpoint_of_a_run_that_failed_is_over_before_the_next_run_reads_it(tmp_path: Path) -> None:
    faults = Faults(at=1)
    scene = Scene(tmp_path, faults)
    scene.start()
    cast(Any, scene.correlator)._pause.errback(OSError(5, "x"))
    scene.world.loop.pass_time(5)
    assert [name for name in faults.names if "read_whole" in name] == ["Files.read_whole"]
    faults.release()
    scene.world.loop.turn()
    assert [name for name in faults.names if "read_whole" in name] == ["Files.read_whole"] * 2
    scene.world.put(progress("a", "done"))
    scene.world.loop.pass_time(7)
    assert scene.keys() == {"trace a": 1}
    scene.world.stop()


# -- settings and counters


def test_other_settings_are_in_force_at_once_and_after_a_restart(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.start()
    scene.world.put(progress("a"))
    scene.correlator.configure(Settings(stalled_after=5))
    assert scene.correlator.engine.settings.stalled_after == 5
    scene.world.loop.pass_time(7)
    assert scene.keys() == {"job_stalled a": 1}
    scene.world.stop()
    second = Scene(tmp_path, rules=Settings(stalled_after=5))
    second.start()
    second.world.put(progress("b"))
    second.world.loop.pass_time(7)
    assert second.keys() == {"job_stalled a": 1, "job_stalled b": 1}
    second.world.stop()


def test_settings_that_come_during_the_replay_are_in_force_after_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Faults(at=0))
    scene.start()
    scene.correlator.configure(Settings(stalled_after=5))
    scene.world.pool.faults.release()
    scene.world.loop.turn()
    scene.world.put(progress("a"))
    scene.world.loop.pass_time(7)
    assert scene.keys() == {"job_stalled a": 1}
    scene.world.stop()


def test_dropped_messages_are_counted_once_whatever_fails(scene: Scene) -> None:
    scene.start()
    scene.world.put(DROPPED)
    assert scene.correlator.sdk_dropped == 3
    for _ in range(3):
        cast(Any, scene.correlator)._pause.errback(OSError(5, "x"))
        scene.world.loop.pass_time(40)
    scene.world.put(DROPPED)
    assert scene.world.states[CURSOR].restarts == 3
    assert scene.correlator.sdk_dropped == 6


def test_what_was_there_before_the_start_is_not_counted(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.world.put(DROPPED)
    first.start()
    assert first.correlator.sdk_dropped == 0
    first.world.stop()


def test_the_memory_of_the_recent_is_filled_from_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Scene(tmp_path)
    first.start()
    first.world.put(progress("a", "done"))
    first.world.loop.pass_time(7)
    first.world.stop()
    second = Scene(tmp_path)
    second.start()
    assert [job["job_id"] for job in second.correlator.jobs(10)] == ["a"]
    second.world.stop()
    third = Scene(tmp_path)
    monkeypatch.setattr("wafermon.correlation.recent.Recent.observe", _fail_once())
    third.start()
    assert "What was there before the start can't be shown in full" in third.world.said()
    assert third.world.states[CURSOR].restarts == 0
    third.world.stop()


def _fail_once() -> Any:
    from wafermon.correlation.recent import Recent

    real, failed = Recent.observe, list[None]()

    def observe(recent: Recent, blocks: Any, time: int) -> None:
        if not failed:
            failed.append(None)
            raise KeyError("x")
        real(recent, blocks, time)

    return observe


# -- the sweep


def scenario(directory: Path, faults: Faults, inside: bool = False) -> Scene:
    """Jobs that stall and end, over several segments, a restart of the follower by each fault."""
    scene = Scene(directory, faults, segment_bytes=1 << 16)
    if inside:
        for name in ("observe_blocks", "advance", "pending", "snapshot_in_parts", "restore"):
            faults.wrap(Engine, name)
    scene.start()
    fill = {"type": "event", "level": "info", "message": "x" * 20_000}
    for number in range(4):
        scene.world.put(progress(f"job-{number}"), fill)
        scene.world.put(fill, fill)
        scene.world.read_from_disk()
        scene.world.loop.pass_time(8)
    for number in range(4):
        scene.world.put(progress(f"job-{number}", "done"))
    scene.world.loop.pass_time(40)
    faults.release()
    scene.world.loop.pass_time(70)
    return scene


ERRORS = [OSError(5, "x"), RuntimeError("x"), CancelledError(), KeyError("x")]


def facts(scene: Scene) -> dict[str, int]:
    """Of the summaries; whether a job stalls depends on when it is looked at."""
    return {key: count for key, count in scene.keys().items() if key.startswith("trace")}


@pytest.fixture
def traces() -> dict[str, int]:
    return {f"trace job-{number}": 1 for number in range(4)}


@pytest.mark.parametrize("error", [*ERRORS, None], ids=repr)
def test_whichever_job_for_a_thread_fails_or_hangs_each_message_is_derived_once(
    tmp_path: Path, error: BaseException | None, traces: dict[str, int]
) -> None:
    usual = Faults()
    scene = scenario(tmp_path / "usual", usual)
    names = list(usual.names)  # what follows reads the journal as well
    wanted = scene.keys()
    assert facts(scene) == traces
    scene.world.stop()
    assert len(names) > 6
    for at, name in enumerate(names):
        scene = scenario(tmp_path / str(at), Faults(at, error))
        assert scene.keys() == wanted, (at, name)
        assert scene.problem == "", (at, name)
        assert scene.world.states[CURSOR].stepped_over == 0
        scene.world.stop()


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_whichever_call_of_the_engine_fails_each_message_is_derived_once(
    tmp_path: Path, error: BaseException, traces: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("observe_blocks", "advance", "pending", "snapshot_in_parts", "restore")
    real = {name: getattr(Engine, name) for name in names}
    usual = Faults()
    scene = scenario(tmp_path / "usual", usual, inside=True)
    calls = list(usual.names)
    wanted = scene.keys()
    scene.world.stop()
    for at, name in enumerate(calls):
        for method, call in real.items():
            monkeypatch.setattr(Engine, method, call)
        if name == "advance" and (at % 20 or at > len(calls) - 30):
            continue  # there is one each second; the last are too late to be past it at the end
        scene = scenario(tmp_path / str(at), Faults(at, error), inside=True)
        assert scene.keys() == wanted, (at, name)
        assert scene.world.states[CURSOR].restarts <= 1
        assert scene.problem == "", (at, name)
        scene.world.stop()


def test_the_deferred_of_a_stop_fires_within_its_time(tmp_path: Path) -> None:
    faults = Faults(at=1)
    scene = Scene(tmp_path, faults)
    scene.start()
    ended: list[None] = []
    Deferred.fromCoroutine(scene.world.supervisor.stop(CURSOR, within=5)).addCallback(ended.append)
    scene.world.loop.pass_time(4.9)
    assert not ended
    scene.world.loop.pass_time(0.2)
    assert ended == [None]
    scene.world.stop()
