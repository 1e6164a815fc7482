"""The operator's command: what it is told, and that each event is told once whatever fails. No process runs here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from inline import Faults, World
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.python.failure import Failure

from wafermon.alerts import CURSOR, Hooks
from wafermon.alerts.command import KILL_SECONDS, LEFT_SECONDS, OUTPUT_BYTES, OUTPUT_SECONDS, TIMEOUT_SECONDS, Run
from wafermon.alerts.hooks import AT_A_TIME, WAITING
from wafermon.model.messages import loads
from wafermon.model.settings import Hooks as Settings
from wafermon.model.units import Rate

KINDS = ("job_stalled", "job_failed", "dropped")


def settings(**changes: Any) -> Settings:
    return Settings.model_construct(**{"command": ("tell", "me"), "on": KINDS, "at_most": Rate(0, 1.0), **changes})


def failed(job: str) -> dict[str, Any]:
    return {"type": "progress", "job_id": job, "percent": 5, "status": "failed"}


class Process:
    """What spawnProcess makes, and what it was asked."""

    def __init__(self, run: Run, words: Sequence[str]) -> None:
        self.run = run
        self.words = list(words)
        self.asked: list[str] = []
        self.given = b""
        self.gone = False
        self.refuses: OSError | None = None

    def write(self, data: bytes) -> None:
        self.given += data

    def closeStdin(self) -> None:
        self.asked.append("end of input")

    def signalProcess(self, name: str) -> None:
        if self.gone:
            raise ProcessExitedAlready
        if self.refuses:
            raise self.refuses
        self.asked.append(name)

    def loseConnection(self) -> None:
        self.asked.append("closed")

    @property
    def job(self) -> str:
        return str(loads(self.given)["job_id"])

    def exit(self, status: int = 0, signal: int | None = None, output: bool = True) -> None:
        """It exits; its output ends too, unless something that it left holds it."""
        self.gone = True
        reason = ProcessTerminated(status or None, signal) if status or signal else ProcessDone(0)
        self.run.processExited(Failure(reason))
        if output:
            self.run.processEnded(Failure(reason))


class Scene:
    """Hooks over a journal, and the processes that they have started."""

    def __init__(self, directory: Path, faults: Faults | None = None, **changes: Any) -> None:
        self.world = World(directory, faults)
        self.loop = self.world.loop
        self.processes: list[Process] = []
        self.spawn_fails: list[BaseException] = []
        self.loop.spawnProcess = self._spawn  # type: ignore[attr-defined]
        self.hooks = Hooks(settings(**changes), self.world.journal, self.loop)

    def _spawn(self, run: Run, path: str, words: Sequence[str], env: object) -> Process:
        assert path == words[0]
        assert env is None, "it has another environment than the sidecar"
        if self.spawn_fails:
            raise self.spawn_fails.pop()
        process = Process(run, words)
        self.processes.append(process)
        run.makeConnection(process)
        return process

    def start(self) -> None:
        self.world.start(self.hooks)

    def running(self) -> list[Process]:
        return [one for one in self.processes if not one.gone]

    def outcomes(self) -> tuple[int, int, int]:
        """Told, failed, skipped."""
        return self.hooks.told, self.hooks.failed, self.hooks.skipped

    def end(self, grace: float = 5.0) -> list[None]:
        """Stop it as the sidecar does."""
        ended: list[None] = []
        Deferred.fromCoroutine(self.world.supervisor.stop(CURSOR))
        Deferred.fromCoroutine(self.hooks.end(grace)).addCallback(ended.append)
        self.loop.turn()
        return ended

    @property
    def kept(self) -> Any:
        return self.world.journal._places.cursors[CURSOR].kept


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.world.forget()


# -- what is told


def test_an_event_is_told_as_json_to_the_command_s_words(scene: Scene) -> None:
    scene.start()
    scene.world.put({"type": "event", "level": "info", "message": "m"}, failed("a"))
    [process] = scene.processes
    assert process.words == ["tell", "me"]
    assert process.given.endswith(b"\n")
    event = loads(process.given)
    assert (event["kind"], event["job_id"], event["status"]) == ("job_failed", "a", "failed")
    assert process.asked == ["end of input"]
    process.exit()
    assert scene.outcomes() == (1, 0, 0)
    assert scene.hooks.error == ""
    assert scene.hooks.figures() == {"told": 1, "failed": 0, "skipped": 0, "error": ""}


def test_only_the_kinds_that_are_wanted_are_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path, on=("dropped",))
    scene.start()
    scene.world.put(failed("a"))
    assert scene.processes == []
    assert scene.kept == scene.world.journal.end
    scene.world.forget()


def test_a_command_that_fails_is_counted_and_named_and_not_run_again(scene: Scene) -> None:
    scene.start()
    scene.world.put(failed("a"))
    process = scene.processes[0]
    process.run.outReceived(b"out ")
    process.run.errReceived(b"err\n")
    process.exit(3)
    assert scene.outcomes() == (0, 1, 0)
    assert scene.hooks.error == "it ended with status 3: out err"
    assert "The hook failed for job_failed: it ended with status 3: out err" in scene.world.said()
    assert scene.kept == scene.world.journal.end
    assert len(scene.processes) == 1


def test_the_cursor_moves_over_an_event_once_it_is_told_in_order(scene: Scene) -> None:
    scene.start()
    before = scene.kept
    ends = []
    for job in "abc":
        scene.world.put(failed(job))
        ends.append(scene.world.journal.end)
    scene.processes[1].exit()
    assert scene.kept == before
    scene.processes[0].exit()
    assert scene.kept == ends[1]
    scene.processes[2].exit()
    assert scene.kept == ends[2]


def test_groups_without_events_are_passed_with_what_came_before(scene: Scene) -> None:
    scene.start()
    scene.world.put(failed("a"))
    scene.world.put({"type": "event", "level": "info", "message": "m"})
    end = scene.world.journal.end
    assert scene.kept < end
    scene.processes[0].exit()
    assert scene.kept == end


def test_a_few_run_beside_each_other_and_the_rest_wait(scene: Scene) -> None:
    scene.start()
    scene.world.put(*(failed(f"{number}") for number in range(AT_A_TIME + 2)))
    assert len(scene.processes) == AT_A_TIME
    scene.processes[0].exit()
    assert len(scene.processes) == AT_A_TIME + 1
    for process in list(scene.processes):
        if not process.gone:
            process.exit()
    scene.processes[-1].exit()
    assert scene.outcomes() == (AT_A_TIME + 2, 0, 0)


def test_beyond_what_may_wait_events_are_counted_and_said_once(scene: Scene) -> None:
    scene.start()
    before = scene.kept
    scene.world.put(*(failed(f"{number}") for number in range(WAITING + 10)))
    assert scene.outcomes() == (0, 0, 10)
    assert scene.world.said().count("The hook is not told of job_failed and what follows: more than") == 1
    assert scene.kept == before
    while scene.running():
        scene.running()[0].exit()
    assert scene.outcomes() == (WAITING, 0, 10)
    assert scene.kept == scene.world.journal.end
    assert not scene.hooks._done, "it remembers what it need not"


def test_not_more_often_than_it_may_be(tmp_path: Path) -> None:
    scene = Scene(tmp_path, at_most=Rate(2, 60.0))
    scene.start()
    scene.world.put(*(failed(f"{number}") for number in range(5)))
    assert len(scene.processes) == 2
    assert scene.outcomes() == (0, 0, 3)
    scene.loop.pass_time(20)
    for process in scene.processes:
        process.exit()
    assert scene.kept == scene.world.journal.end
    scene.loop.pass_time(60)
    scene.world.put(failed("later"))
    assert scene.processes[-1].job == "later"
    scene.world.put(*(failed(f"{number}") for number in range(5)))
    assert scene.world.said().count("The hook is not told of") == 2
    scene.world.forget()


def test_all_events_that_are_skipped_are_passed(tmp_path: Path) -> None:
    scene = Scene(tmp_path, at_most=Rate(1, 60.0))
    scene.start()
    scene.world.put(failed("a"))
    scene.processes[0].exit()
    scene.world.put(failed("b"))
    assert scene.kept == scene.world.journal.end
    scene.world.forget()


# -- stop, start, settings


def test_a_stop_gives_what_runs_its_time_and_tells_the_rest_after_the_next_start(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.start()
    first.world.put(*(failed(f"{number}") for number in range(AT_A_TIME + 1)))
    ended = first.end(grace=5)
    first.processes[0].exit()
    assert len(first.processes) == AT_A_TIME, "one was started during the stop"
    first.loop.pass_time(4.9)
    assert not ended
    first.loop.pass_time(0.2)
    for process in first.running():
        assert process.asked[-1] == "TERM"
        process.exit(signal=15)
    first.loop.turn()
    assert ended == [None]
    assert first.outcomes() == (1, 0, 0)
    assert first.world.said().count("it is told of job_failed again") == AT_A_TIME - 1
    first.world.stop()
    second = Scene(tmp_path)
    second.start()
    second.loop.turn()
    while second.running():
        second.running()[0].exit()
    # All of them are of one group: the cursor passes it as a whole.
    assert {process.job for process in second.processes} == {f"{number}" for number in range(AT_A_TIME + 1)}
    second.world.stop()


def test_a_stop_with_nothing_that_runs_ends_at_once(scene: Scene) -> None:
    scene.start()
    assert scene.end() == [None]
    assert [call for call in scene.loop.getDelayedCalls() if call.getTime() > scene.loop.seconds()] == []
    assert CURSOR not in scene.world.journal._places.cursors
    assert scene.world.journal.stored(CURSOR) is not None


def test_after_a_clean_stop_nothing_is_told_twice(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.start()
    first.world.put(failed("a"))
    first.processes[0].exit()
    first.end()
    first.world.stop()
    second = Scene(tmp_path)
    second.start()
    assert second.processes == []
    second.world.put(failed("b"))
    assert [process.job for process in second.processes] == ["b"]
    second.world.forget()


def test_without_settings_it_holds_nothing_of_the_journal(scene: Scene) -> None:
    scene.start()
    scene.world.put(*(failed(f"{number}") for number in range(AT_A_TIME + 1)))
    Deferred.fromCoroutine(scene.world.supervisor.stop(CURSOR))
    scene.hooks.configure(None)
    scene.hooks.forget()
    scene.loop.turn()
    assert set(scene.world.journal.known_cursors()) == {"holds"}
    for process in scene.running():
        process.exit()
    assert scene.outcomes() == (AT_A_TIME, 0, 0)
    assert len(scene.processes) == AT_A_TIME, "what waited is told without settings"


def test_a_hook_that_is_new_begins_with_what_comes(scene: Scene) -> None:
    scene.hooks.forget()
    scene.world.put(failed("a"))
    scene.start()
    scene.world.put(failed("b"))
    assert [process.job for process in scene.processes] == ["b"]


def test_other_settings_are_in_force_from_the_next_event_on(scene: Scene) -> None:
    scene.start()
    scene.hooks.configure(settings(command=("other",), at_most=Rate(1, 60.0)))
    scene.world.put(failed("a"), failed("b"))
    assert [process.words for process in scene.processes] == [["other"]]
    assert scene.hooks.skipped == 1


def test_it_may_be_skipped_where_the_journal_is_full(scene: Scene) -> None:
    scene.start()
    assert scene.world.journal._places.cursors[CURSOR].may_skip


# -- failures


@pytest.mark.parametrize(
    "error", [OSError(2, "No such file"), RuntimeError("x"), ValueError("embedded null byte"), MemoryError()]
)
def test_a_command_that_can_not_be_started_has_failed(scene: Scene, error: BaseException) -> None:
    scene.start()
    scene.spawn_fails = [error]
    scene.world.put(failed("a"))
    assert scene.outcomes() == (0, 1, 0)
    assert scene.hooks.error == (str(error) or "MemoryError")
    assert scene.kept == scene.world.journal.end
    scene.loop.turn()
    assert scene.loop.getDelayedCalls() == []


def test_a_group_that_makes_it_fail_is_passed_after_what_came_before(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.start()
    scene.world.put(failed("a"))
    before, position = scene.kept, scene.world.journal.end
    real = Hooks._may_be_told

    def may_be_told(hooks: Hooks, one: Any) -> bool:
        if b"poison" in one.line:
            raise KeyError("poison")
        return real(hooks, one)

    monkeypatch.setattr(Hooks, "_may_be_told", may_be_told)
    scene.world.put(failed("poison"))
    scene.loop.pass_time(10)
    state = scene.world.states[CURSOR]
    assert (state.restarts, state.stepped_over, list(state.positions)) == (3, 1, [position])
    assert scene.kept == before, "it let go of an event that is being told"
    scene.world.put(failed("b"))
    assert sorted(process.job for process in scene.processes) == ["a", "b"]
    for process in scene.running():
        process.exit()
    assert scene.kept == scene.world.journal.end
    scene.world.journal.checkpoint_soon()
    scene.world.loop.turn()
    assert not scene.world.journal.stepped_over(CURSOR)
    assert scene.outcomes() == (2, 0, 0)


def test_a_group_that_was_stepped_over_is_passed_at_once_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Scene(tmp_path)
    first.start()
    first.world.put(failed("a"))
    real = Hooks._may_be_told

    def may_be_told(hooks: Hooks, one: Any) -> bool:
        if b"poison" in one.line:
            raise KeyError("poison")
        return real(hooks, one)

    monkeypatch.setattr(Hooks, "_may_be_told", may_be_told)
    first.world.put(failed("poison"))
    first.loop.pass_time(10)
    assert first.world.states[CURSOR].stepped_over == 1
    first.world.journal._disk.close()
    first.world.forget()
    second = Scene(tmp_path)
    second.start()
    second.world.put(failed("b"))
    second.loop.pass_time(1)
    assert second.world.states[CURSOR].restarts == 0
    assert [process.job for process in second.processes] == ["a", "b"]
    second.world.forget()


def scenario(directory: Path, faults: Faults, inside: bool) -> Scene:
    """Six events; the commands of some end before those of earlier ones."""
    scene = Scene(directory, faults)
    scene.world.journal.detach(scene.world.journal.cursor(CURSOR))  # it is not new
    if inside:
        for owner, name in ((scene.hooks, "_take"), (scene.hooks, "_may_be_told"), (scene.hooks._window, "take")):
            faults.wrap(owner, name)
        faults.wrap(scene.world.journal, "cursor")
        faults.wrap(scene.world.journal, "remembered")
    scene.start()
    for number in range(6):
        scene.world.put(failed(f"job-{number}"))
        if not inside:
            scene.world.read_from_disk()
        scene.loop.pass_time(4)
        if number % 3 == 1:
            scene.running()[-1].exit()
    scene.loop.pass_time(15)
    faults.release()
    for _ in range(30):
        scene.loop.pass_time(1)
        if scene.running():
            scene.running()[0].exit()
    return scene


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("error", [OSError(5, "x"), RuntimeError("x"), CancelledError(), KeyError("x"), None], ids=repr)
def test_whichever_call_fails_once_or_hangs_each_event_is_told_once(
    tmp_path: Path, error: BaseException | None, inside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wafermon.alerts.command.TIMEOUT_SECONDS", 1_000.0)
    usual = Faults()
    scenario(tmp_path / "usual", usual, inside).world.forget()
    assert usual.names or not inside
    for at, name in enumerate(usual.names):
        if name == "remembered" and at % 5:
            continue  # there are many, all alike
        scene = scenario(tmp_path / str(at), Faults(at, error), inside)
        told = Counter(process.job for process in scene.processes)
        assert told == {f"job-{number}": 1 for number in range(6)}, (at, name)
        assert scene.hooks.told == 6
        assert scene.kept == scene.world.journal.end
        assert scene.world.states[CURSOR].stepped_over == 0
        scene.world.forget()


# -- one run


@pytest.fixture
def process(scene: Scene) -> Process:
    """A command that runs."""
    scene.start()
    scene.world.put(failed("a"))
    return scene.processes[0]


def test_a_command_that_takes_too_long_is_asked_to_end_and_then_killed(scene: Scene, process: Process) -> None:
    scene.loop.pass_time(TIMEOUT_SECONDS - 0.1)
    assert process.asked == ["end of input"]
    scene.loop.pass_time(0.1)
    assert process.asked == ["end of input", "TERM"]
    scene.loop.pass_time(KILL_SECONDS)
    assert process.asked == ["end of input", "TERM", "KILL"]
    process.exit(signal=9)
    assert scene.hooks.error == "it ran for more than 30 s"
    assert scene.outcomes() == (0, 1, 0)
    scene.loop.turn()
    assert scene.loop.getDelayedCalls() == []


def test_one_that_exits_well_after_it_was_asked_to_end_took_too_long(scene: Scene, process: Process) -> None:
    scene.loop.pass_time(TIMEOUT_SECONDS)
    process.exit(0)
    assert scene.hooks.error == "it ran for more than 30 s"


def test_one_that_does_not_even_end_by_sigkill_is_not_waited_for(scene: Scene, process: Process) -> None:
    scene.loop.pass_time(TIMEOUT_SECONDS + KILL_SECONDS)
    assert scene.outcomes() == (0, 0, 0)
    scene.loop.pass_time(KILL_SECONDS)
    assert scene.hooks.error == "it ran for too long, and does not end by SIGKILL either"
    assert scene.outcomes() == (0, 1, 0)
    process.exit(signal=9)
    assert scene.outcomes() == (0, 1, 0)


def test_one_that_runs_as_another_user_is_not_waited_for(scene: Scene, process: Process) -> None:
    process.refuses = PermissionError(1, "Operation not permitted")
    scene.loop.pass_time(TIMEOUT_SECONDS)
    assert scene.hooks.error == "it ran for more than 30 s and can't be ended: [Errno 1] Operation not permitted"


def test_one_that_exits_just_when_it_is_asked_to_end(scene: Scene, process: Process) -> None:
    process.gone = True
    scene.loop.pass_time(TIMEOUT_SECONDS)
    assert scene.outcomes() == (0, 0, 0)
    process.exit()
    assert scene.outcomes() == (0, 1, 0)


def test_one_that_leaves_something_in_the_background_is_done_when_it_exits(scene: Scene, process: Process) -> None:
    process.exit(output=False)
    assert scene.outcomes() == (1, 0, 0)
    scene.loop.pass_time(LEFT_SECONDS - 0.1)
    assert process.asked == ["end of input"]
    scene.loop.pass_time(0.1)
    assert process.asked == ["end of input", "closed"], "its descriptors stay open"
    scene.loop.turn()
    assert scene.loop.getDelayedCalls() == []


def test_nothing_is_closed_where_all_of_the_output_has_come(scene: Scene, process: Process) -> None:
    process.exit()
    scene.loop.turn()
    assert scene.loop.getDelayedCalls() == []
    assert process.asked == ["end of input"]


def test_the_output_of_one_that_failed_is_waited_for_a_moment(scene: Scene, process: Process) -> None:
    process.exit(4, output=False)
    assert scene.outcomes() == (0, 0, 0)
    process.run.errReceived(b"nobody is on duty")
    scene.loop.pass_time(OUTPUT_SECONDS)
    assert scene.hooks.error == "it ended with status 4: nobody is on duty"
    scene.loop.pass_time(LEFT_SECONDS)
    assert process.asked[-1] == "closed"


def test_one_that_failed_is_told_as_soon_as_its_output_ends(scene: Scene, process: Process) -> None:
    process.exit(4)
    assert scene.outcomes() == (0, 1, 0)
    scene.loop.turn()
    assert scene.loop.getDelayedCalls() == []


def test_one_that_a_signal_ended_says_which(scene: Scene, process: Process) -> None:
    process.exit(signal=11)
    assert scene.hooks.error == "it ended with signal 11"


def test_only_the_end_of_what_it_says_is_kept(scene: Scene, process: Process) -> None:
    for _ in range(100):
        process.run.outReceived(b"x" * 1_000)
    process.run.outReceived(b"the end \xff")
    assert len(process.run._said) == OUTPUT_BYTES
    process.exit(1)
    assert scene.hooks.error.endswith("the end \N{REPLACEMENT CHARACTER}")
