"""The operator's command: what it is told, and that no event is forgotten whatever fails. No process runs here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_process import Process
from inline import Faults, Pool, World
from twisted.internet.defer import CancelledError

from wafermon.alerts import HOOKS, Channel, Hook, channel_config, hook_figures
from wafermon.alerts.channel import STOP_SECONDS
from wafermon.alerts.command import Run
from wafermon.alerts.hooks import TRIES
from wafermon.model.checking import checked
from wafermon.model.messages import loads
from wafermon.model.settings import Hooks

KINDS = ["job_stalled", "job_failed", "dropped"]


def failed(job: str) -> dict[str, Any]:
    return {"type": "progress", "job_id": job, "percent": 5, "status": "failed"}


class Scene:
    """The channel of `hooks` over a journal, and the processes that it has started."""

    def __init__(self, directory: Path, faults: Faults | None = None, **changes: Any) -> None:
        self.world = World(directory, faults)
        self.loop = self.world.loop
        self.processes: list[Process] = []
        self.spawn_fails: list[BaseException] = []
        self.loop.spawnProcess = self._spawn  # type: ignore[attr-defined]
        settings = checked(Hooks, {"command": "tell me", "on": KINDS, "at_most": 0, **changes})
        self.hooks = Channel(
            channel_config(settings), Hook(settings.command, self.loop), self.world.journal, directory / "alerts", Pool(), self.loop,
            cursor=HOOKS, uniform=lambda least, most: most,
        )  # fmt: skip

    def _spawn(self, run: Run, path: str, words: Sequence[str], env: object) -> Process:
        assert path == words[0]
        assert env is None, "it has another environment than the sidecar"
        if self.spawn_fails:
            raise self.spawn_fails.pop()
        process = Process(run, words, self.loop)
        self.processes.append(process)
        run.makeConnection(process)
        return process

    def start(self) -> None:
        self.world.start(self.hooks)
        self.loop.turn()

    def put(self, *bodies: dict[str, Any]) -> None:
        self.world.put(*bodies)
        self.loop.turn()

    def end(self, status: int = 0) -> None:
        """The process that runs exits."""
        [process] = [one for one in self.processes if not one.gone]
        process.exit(status)
        self.loop.turn()

    def jobs(self) -> list[str]:
        return [process.job for process in self.processes]

    def outcomes(self) -> tuple[int, ...]:
        """Told, failed, skipped."""
        found = hook_figures(self.hooks)
        return tuple(int(found[name]) for name in ("told", "failed", "skipped"))

    def stop(self) -> None:
        """As the sidecar does."""
        self.world.stop()

    def close(self) -> None:
        """It leaves nothing behind."""
        self.world.stop()
        self.loop.pass_time(STOP_SECONDS)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def test_an_event_is_told_as_json_to_the_command_s_words(scene: Scene) -> None:
    scene.start()
    scene.put({"type": "event", "level": "info", "message": "m"}, failed("a"))
    [process] = scene.processes
    assert process.words == ["tell", "me"]
    assert process.given.endswith(b"\n")
    event = loads(process.given)
    assert (event["kind"], event["job_id"], event["status"], event["percent"]) == ("job_failed", "a", "failed", 5)
    assert "action" not in event, "it is the event itself, and not what a channel makes of it"
    assert process.asked == ["end of input"]
    scene.end()
    assert hook_figures(scene.hooks) == {"told": 1, "failed": 0, "skipped": 0, "error": ""}


def test_only_the_kinds_that_are_wanted_are_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path, on=["dropped"])
    scene.start()
    scene.put(failed("a"))
    assert scene.processes == []
    scene.close()


def test_one_runs_after_the_other_in_order(scene: Scene) -> None:
    scene.start()
    scene.put(failed("a"), failed("b"))
    scene.put(failed("c"))
    for count in (1, 2, 3):
        assert len(scene.processes) == count
        scene.end()
    assert scene.jobs() == ["a", "b", "c"]
    assert scene.outcomes() == (3, 0, 0)


def test_a_command_that_fails_is_run_again_a_few_times_and_hinders_the_next_event_no_longer(scene: Scene) -> None:
    scene.start()
    scene.put(failed("a"), failed("b"))
    for _ in range(TRIES):
        scene.processes[-1].run.outReceived(b"out ")
        scene.processes[-1].run.errReceived(b"err\n")
        scene.end(3)
        scene.loop.pass_time(10)
    assert scene.jobs() == ["a"] * TRIES + ["b"]
    assert hook_figures(scene.hooks) == {
        "told": 0,
        "failed": 3,
        "skipped": 0,
        "error": "it ended with status 3: out err",
    }
    scene.end()
    assert hook_figures(scene.hooks)["error"] == ""
    assert "hooks did not take job_failed, which is given up: it ended with status 3: out err" in scene.world.said()


def test_one_that_works_the_second_time_is_told(scene: Scene) -> None:
    scene.start()
    scene.put(failed("a"))
    scene.end(1)
    scene.loop.pass_time(2)
    scene.end()
    assert scene.jobs() == ["a", "a"]
    assert hook_figures(scene.hooks) == {"told": 1, "failed": 1, "skipped": 0, "error": ""}


def test_what_is_beyond_its_rate_is_counted_and_not_told_later(tmp_path: Path) -> None:
    scene = Scene(tmp_path, at_most="2/1m")
    scene.start()
    scene.put(*(failed(f"{number}") for number in range(5)))
    scene.end()
    scene.end()
    assert scene.outcomes() == (2, 0, 3)
    scene.loop.pass_time(61)
    assert scene.jobs() == ["0", "1"]
    scene.put(*(failed(f"later {number}") for number in range(5)))
    scene.end()
    scene.end()
    assert scene.jobs()[2:] == ["later 0", "later 1"]
    assert scene.outcomes() == (4, 0, 6)
    assert scene.world.said().count("hooks is not told of job_failed and what follows: more than 2/m") == 2
    scene.close()


def test_a_command_that_runs_is_not_run_again_where_it_ends_within_the_stop(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.start()
    first.put(failed("a"), failed("b"))
    first.stop()
    assert first.processes[0].asked == ["end of input"], "it was given no time"
    first.end()
    assert first.outcomes() == (1, 0, 0)
    second = Scene(tmp_path)
    second.start()
    assert second.jobs() == ["b"]
    second.close()


def test_a_command_that_does_not_end_within_the_stop_is_ended_and_told_again(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.start()
    first.put(failed("a"))
    first.stop()
    first.loop.pass_time(STOP_SECONDS)
    assert first.processes[0].asked == ["end of input", "TERM"]
    first.end(1)
    second = Scene(tmp_path)
    second.start()
    assert second.jobs() == ["a"]
    second.close()


def test_the_cursor_does_not_wait_for_commands_and_may_skip_where_the_journal_is_full(scene: Scene) -> None:
    scene.start()
    scene.put(failed("a"))
    assert len(scene.processes) == 1
    scene.world.journal.checkpoint_soon()
    scene.loop.turn()
    cursor = scene.world.journal._places.cursors[HOOKS]
    assert cursor.kept == scene.world.journal.end
    assert cursor.may_skip


@pytest.mark.parametrize(
    "error", [OSError(2, "No such file"), RuntimeError("x"), ValueError("embedded null byte"), MemoryError()]
)
def test_a_command_that_can_not_be_started_has_failed(scene: Scene, error: BaseException) -> None:
    scene.start()
    scene.spawn_fails = [error]
    scene.put(failed("a"))
    assert scene.outcomes() == (0, 1, 0)
    assert scene.hooks.error == (str(error) or "MemoryError")
    scene.loop.pass_time(2)
    scene.end()
    assert scene.outcomes() == (1, 1, 0)


def scenario(directory: Path, faults: Faults) -> Scene:
    scene = Scene(directory, faults)
    scene.world.journal.detach(scene.world.journal.cursor(HOOKS))  # it is not new
    for owner, name in ((scene.hooks, "_alarms"), (scene.hooks, "_counts"), (scene.hooks._window, "is_free")):
        faults.wrap(owner, name)
    for name in ("open", "put", "next", "done"):
        faults.wrap(scene.hooks._outbox, name)
    faults.wrap(scene.world.journal, "cursor")
    scene.start()
    for number in range(6):
        scene.put(failed(f"job-{number}"))
        scene.loop.pass_time(4)
    for _ in range(30):
        scene.loop.pass_time(5)
        if any(not one.gone for one in scene.processes):
            scene.end()
    return scene


@pytest.mark.parametrize("error", [OSError(5, "x"), RuntimeError("x"), CancelledError(), KeyError("x")], ids=repr)
def test_whichever_call_fails_once_each_event_is_told(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, but where the note of it is what failed."""
    monkeypatch.setattr("wafermon.alerts.command.TIMEOUT_SECONDS", 1_000.0)
    usual = Faults()
    scenario(tmp_path / "usual", usual).close()
    assert {"_alarms", "open", "put", "next", "done", "cursor"} <= set(usual.names)
    seen = Counter[str]()
    for at, name in enumerate(usual.names):
        seen[name] += 1
        if seen[name] > 3:
            continue  # there are many, all alike
        scene = scenario(tmp_path / str(at), Faults(at, error))
        told = Counter(scene.jobs())
        assert set(told) == {f"job-{number}" for number in range(6)}, (at, name)
        assert sum(told.values()) <= 7, (at, name)
        assert scene.hooks.pending == 0
        assert scene.world.states[HOOKS].stepped_over == 0
        scene.close()
