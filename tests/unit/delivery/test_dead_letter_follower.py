"""Whatever fails on the way, each letter is there once, and nothing ends."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from disks import FaultyFiles
from inline import Faults, World
from msgspec import UNSET
from twisted.internet.defer import CancelledError

from wafermon import routing
from wafermon.delivery import DeadLetterFollower, DeadLetters
from wafermon.delivery.dead_letter_follower import CURSOR, letters_in
from wafermon.journal import Entry, Rejected
from wafermon.journal.follower import ANSWER_SECONDS
from wafermon.model.blocks import Block
from wafermon.model.messages import dumps, loads
from wafermon.model.settings import DeadLetters as Limits

EVENT = {"type": "event", "level": "info", "message": "m"}


def rejected(number: int) -> Entry:
    one = Rejected("bad_json", "no JSON", b"{%d" % number, "127.0.0.1", 5, "a" * 16, number, "etch", "fab7", 12)
    return Entry(rejected=[one])


class Scene:
    """The dead letters' follower over a journal whose routes take nothing."""

    def __init__(self, directory: Path, faults: Faults | None = None) -> None:
        self.files = FaultyFiles()
        self.world = World(directory, faults)
        limits = Limits.model_construct(dir=directory / "dead", max_bytes=0)
        self.letters = DeadLetters(limits, self.world.loop, cast(Any, self.world.pool), self.files)
        self.letters.open({})
        self.follower = DeadLetterFollower(self.world.journal, self.letters, routing.load, lambda least, most: most)

    def start(self) -> None:
        self.world.start(self.follower)

    @property
    def problem(self) -> str:
        return self.world.states[CURSOR].problem

    def found(self) -> Counter[str]:
        """The letters by their lines."""
        lines = [line for path in sorted(self.letters.dir.glob("*.jsonl")) for line in path.read_bytes().splitlines()]
        return Counter(loads(line)["line"] for line in lines)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.world.stop()


def test_a_refused_line_becomes_a_letter_that_says_whose_it_is(scene: Scene) -> None:
    scene.start()
    scene.world.append(rejected(7))
    [line] = (scene.letters.dir / "00000001.jsonl").read_bytes().splitlines()
    letter = loads(line)
    assert letter.pop("id")
    assert letter == {
        "code": "bad_json", "reason": "no JSON", "time": 5, "peer": "127.0.0.1", "client": "a" * 16, "seq": 7,
        "service": "etch", "host": "fab7", "pid": 12, "line": "{7",
    }  # fmt: skip


def test_a_message_without_a_route_becomes_a_letter(scene: Scene) -> None:
    scene.start()
    scene.world.put({**EVENT, "message": "a"}, {**EVENT, "message": "b"})
    lines = (scene.letters.dir / "00000001.jsonl").read_bytes().splitlines()
    assert [(loads(line)["code"], loads(loads(line)["line"])["message"]) for line in lines] == [
        ("no_route", "a"),
        ("no_route", "b"),
    ]
    assert len({loads(line)["id"] for line in lines}) == 2


def test_a_letter_s_position_is_that_of_its_line(scene: Scene) -> None:
    scene.world.put(*({**EVENT, "message": "x" * length} for length in (3, 50, 1, 0)))
    entries = [_entry(scene, name) for name in ("first", "taken", "last")]
    for entry in entries:
        scene.world.journal.append(entry)
    scene.world.append(rejected(5))
    scene.world.journal.set_routes(dumps({"rules": [{"to": ["files"], "service": ["taken"]}]}))
    groups = scene.world.groups()
    [segment] = (scene.world.directory / "journal").glob("*.segment")
    data = segment.read_bytes()
    found = [one for group in groups for one in letters_in(group, TAKEN)]
    assert [one.code for one in found] == [*["no_route"] * 4, "bad_json", *["no_route"] * 2]
    for one in found:
        assert data[one.position.offset :].startswith(one.line + b"\n" if one.code == "no_route" else b"!rejected ")
    assert found[0].reason == "no rule of `routes` takes it"


TAKEN = routing.load(dumps({"rules": [{"to": ["files"], "service": ["taken"]}]}))


def _entry(scene: Scene, service: str) -> Entry:
    line = dumps({"ts": scene.world.journal.now(), "service": service, **EVENT}).encode() + b"\n"
    return Entry(Block.parse(line))


def test_one_that_is_for_one_backend_alone_is_no_letter(scene: Scene) -> None:
    scene.start()
    scene.world.put({**EVENT, "replay_to": "files"})
    assert scene.found() == {}


def test_a_message_that_a_rule_takes_is_no_letter(scene: Scene) -> None:
    scene.start()
    scene.world.journal.set_routes('{"rules":[{"to":["files"]}]}')
    scene.world.put(EVENT)
    assert scene.found() == {}


@pytest.mark.parametrize("match", [{"service": "etl"}, {"type": "event"}, {"level": "info"}, {"host": "fab7"}])
def test_only_what_no_rule_matches_is_a_letter(scene: Scene, match: dict[str, str]) -> None:
    scene.start()
    [field] = match
    scene.world.journal.set_routes(dumps({"rules": [{"to": ["files"], field: [match[field]]}]}))
    scene.world.put({**EVENT, "host": "fab7", "message": "taken"})
    other: dict[str, dict[str, Any]] = {
        "service": {"service": "other"},
        "type": {"type": "metric", "name": "n", "value": 1, "level": UNSET, "message": UNSET},
        "level": {"level": "error"},
        "host": {"host": "other"},
    }
    changed = {**EVENT, "host": "fab7", "message": "lost", **other[field]}
    scene.world.put({name: value for name, value in changed.items() if value is not UNSET})
    assert ["lost" if '"taken"' not in line else "taken" for line in scene.found()] == ["lost"]


def test_the_cursor_moves_once_the_letters_are_durable(scene: Scene) -> None:
    scene.start()
    scene.files.fail("sync", OSError(28, "No space left on device"), times=3)
    before = scene.world.journal.end
    scene.world.append(rejected(1))
    assert scene.follower.position == before
    assert scene.world.journal._places.cursors[CURSOR].kept <= before
    scene.world.loop.pass_time(20)
    assert scene.follower.position is None
    assert scene.world.journal._places.cursors[CURSOR].kept == scene.world.journal.end


def test_a_full_disk_ends_nothing_and_is_shown(scene: Scene) -> None:
    scene.start()
    scene.files.fail("write", OSError(28, "No space left on device"), times=100)
    scene.world.append(rejected(1))
    scene.world.loop.pass_time(120)
    assert "No space left on device" in scene.problem
    assert scene.world.said().count("Can't write dead letters, trying again: ") == 1
    scene.world.append(rejected(2))
    scene.files.heal()
    scene.world.loop.pass_time(31)
    assert scene.found() == {"{1": 1, "{2": 1}
    assert scene.problem == ""
    assert "Dead letters can be written again" in scene.world.said()
    assert scene.world.states[CURSOR].restarts == 0


def test_the_tries_get_rarer_up_to_half_a_minute(scene: Scene) -> None:
    scene.start()
    scene.files.fail("write", OSError(28, "No space left on device"), times=1_000)
    scene.world.append(rejected(1))
    tries = []
    for _ in range(200):
        before = scene.files.count("write")
        scene.world.loop.pass_time(0.5)
        if scene.files.count("write") > before:
            tries.append(scene.world.loop.seconds())
    assert [later - earlier for earlier, later in pairwise(tries)][:5] == [2, 4, 8, 16, 30]


def test_the_first_try_after_a_success_comes_soon_again(scene: Scene) -> None:
    scene.start()
    for number in range(2):
        scene.files.fail("write", OSError(28, "full"), times=3)
        scene.world.append(rejected(number))
        scene.world.loop.pass_time(7)
        assert len(scene.found()) == number + 1


def test_a_directory_that_is_removed_is_made_again(scene: Scene) -> None:
    scene.start()
    scene.world.append(rejected(1))
    shutil.rmtree(scene.letters.dir)
    scene.world.append(rejected(2))
    assert scene.found() == {"{2": 1}
    assert scene.problem == ""
    assert scene.letters.dir.stat().st_mode & 0o777 == 0o700


def test_a_disk_that_does_not_answer_is_named_and_waited_for(tmp_path: Path) -> None:
    faults = Faults(at=0)
    scene = Scene(tmp_path, faults)
    scene.start()
    scene.world.append(rejected(1))
    assert faults.hung
    assert scene.problem == ""
    scene.world.loop.pass_time(ANSWER_SECONDS + 15)
    assert scene.problem == f"no answer from the dead letters' directory {scene.letters.dir} for 75 s"
    faults.release()
    scene.world.loop.turn()
    assert scene.found() == {"{1": 1}
    assert scene.problem == ""
    scene.world.stop()


def test_a_group_that_can_not_be_read_is_stepped_over_and_named(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.start()
    position = scene.world.journal.end

    def tables(text: str) -> Any:
        raise ValueError("no table")

    monkeypatch.setattr(scene.follower, "_tables", tables)
    scene.world.put(EVENT)
    scene.world.loop.pass_time(1.5)
    scene.world.loop.pass_time(2)
    assert scene.world.states[CURSOR].restarts == 3
    scene.world.loop.pass_time(4)
    assert list(scene.world.states[CURSOR].positions) == [position]
    assert str(position) in scene.world.said()
    monkeypatch.undo()
    scene.world.put({**EVENT, "message": "next"})
    assert [loads(line)["message"] for line in scene.found()] == ["next"]
    scene.world.loop.pass_time(1)
    assert scene.world.journal.stored(CURSOR) > position  # type: ignore[operator]


def test_it_has_stepped_over_only_once_that_is_durable(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def tables(text: str) -> Any:
        raise ValueError("no table")

    def save(*_: object) -> None:
        raise OSError(28, "No space left on device")

    scene.start()
    position = scene.world.journal.end
    with monkeypatch.context() as faults:
        faults.setattr(scene.follower, "_tables", tables)
        faults.setattr(scene.world.journal._disk, "save", save)
        scene.world.put(EVENT)
        scene.world.loop.pass_time(60)
        assert scene.world.states[CURSOR].stepped_over == 0
        assert "No space left" in scene.world.states[CURSOR].problem
    scene.world.loop.pass_time(60)
    assert list(scene.world.states[CURSOR].positions) == [position]
    assert scene.world.journal._disk.state.cursors()[CURSOR] > position
    assert scene.world.states[CURSOR].problem == ""


def test_after_a_stop_it_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.start()
    first.world.append(rejected(1))
    first.world.stop()
    second = Scene(tmp_path)
    second.world.append(rejected(2))
    second.start()
    second.world.loop.turn()
    assert second.found() == {"{1": 1, "{2": 1}
    assert second.letters.written == 1
    second.world.stop()


def test_after_a_crash_no_letter_is_written_twice(tmp_path: Path) -> None:
    first = Scene(tmp_path)
    first.start()
    first.world.loop.turn()
    first.world.append(rejected(1))
    first.world.append(rejected(2))
    kept = first.world.journal._places.cursors[CURSOR].kept
    first.world.journal._places.cursors[CURSOR].kept = first.world.journal.oldest  # as saved last before a crash
    first.world.stop()
    second = Scene(tmp_path)
    second.start()
    second.world.loop.turn()
    assert second.world.journal._places.cursors[CURSOR].kept >= kept
    assert second.found() == {"{1": 1, "{2": 1}
    assert second.letters.written == 0
    second.world.stop()


def scenario(directory: Path, faults: Faults) -> Scene:
    scene = Scene(directory, faults)
    scene.start()
    for number in range(3):
        scene.world.append(rejected(number))
        scene.world.read_from_disk()  # the next one is read from disk
        scene.world.loop.pass_time(2)
    scene.world.loop.pass_time(100)
    faults.release()
    scene.world.loop.pass_time(100)
    return scene


@pytest.mark.parametrize("error", [OSError(5, "x"), RuntimeError("x"), CancelledError(), KeyError("x"), None], ids=repr)
def test_whichever_call_fails_once_or_hangs_each_letter_is_there_once(
    tmp_path: Path, error: BaseException | None
) -> None:
    usual = Faults()
    scenario(tmp_path / "usual", usual).world.stop()
    assert len(usual.names) >= 3
    for at, name in enumerate(usual.names):
        scene = scenario(tmp_path / str(at), Faults(at, error))
        assert scene.found() == {"{0": 1, "{1": 1, "{2": 1}, (at, name)
        assert scene.problem == ""
        assert scene.world.states[CURSOR].stepped_over == 0
        scene.world.stop()


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("x"), CancelledError()], ids=repr)
@pytest.mark.parametrize("late", [False, True])
def test_whichever_call_to_the_disk_fails_once_each_letter_is_there(
    tmp_path: Path, error: BaseException, late: bool
) -> None:
    usual = Scene(tmp_path / "usual")
    usual.start()
    usual.world.append(rejected(1))
    usual.world.append(rejected(2))
    calls = list(usual.files.calls)
    usual.world.stop()
    for at, (name, _) in enumerate(calls):
        scene = Scene(tmp_path / f"{at}")
        before = Counter(call for call, _ in calls[:at])[name] - scene.files.count(name)
        if before >= 0:
            scene.files.fail(name, error, after=before, late=late)
        scene.start()
        scene.world.append(rejected(1))
        scene.world.append(rejected(2))
        scene.world.loop.pass_time(60)
        assert set(scene.found()) == {"{1", "{2"}, (at, name)
        if name in ("open", "write", "status") and not late:
            assert set(scene.found().values()) == {1}, (at, name)
        assert scene.problem == ""
        scene.world.stop()
