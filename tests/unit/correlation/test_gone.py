"""Jobs whose program ended without saying so: gone within seconds, once, and not for those that said that they end."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from wafermon.correlation import Derived, Engine, Settings
from wafermon.correlation.programs import GONE_AFTER, GONE_AFTER_START
from wafermon.journal import CAME, STARTED, WENT, Presence
from wafermon.model.blocks import Block
from wafermon.model.messages import Event, Message, Trace, decode_stored, dumps

T = 1_700_000_000_000_000
S = 1_000_000
JOURNAL = "00000000000000aa"
RULES = Settings(stalled_after=60)
ONE, TWO, SPILL = "1" * 16, "2" * 16, "5" * 16


def message(kind: str, client: str = ONE, pid: int = 7, **fields: Any) -> Message:
    body = {"type": kind, "ts": T, "service": "loader", "host": "fab1", "pid": pid, "client": client, **fields}
    return decode_stored(dumps(body).encode())


def progress(percent: float = 10, job: str = "job-1", **fields: Any) -> Message:
    return message("progress", trace_id=job, job_id=job, percent=percent, **fields)


def stats(client: str = ONE, streams: tuple[str, ...] = (), *, final: bool = False, **fields: Any) -> Message:
    figures = {"called": 1, "dropped": 0, "unsent": 0, "last": 1}
    named = [{"client": one, "last": 1} for one in streams]
    return message("stats", client, streams=named, **figures, **({"final": True} if final else {}), **fields)


def came(client: str = ONE, pid: int = 7) -> Presence:
    return Presence(CAME, client, "loader", "fab1", pid)


def went(client: str = ONE, pid: int = 7) -> Presence:
    return came(client, pid)._replace(what=WENT)


class Scene:
    """An engine, and a second one that is restored from a snapshot before each group: they must answer alike."""

    def __init__(self) -> None:
        self.engine = Engine(RULES, JOURNAL)
        self.now = T

    def group(self, *given: Message | Presence, after: int = 0) -> list[Derived]:
        self.now += after
        messages = [one for one in given if not isinstance(one, Presence)]
        presence = [one for one in given if isinstance(one, Presence)]
        block = Block.of(b"\n" * len(messages), messages)
        twin = Engine(RULES, JOURNAL)
        twin.restore(self.engine.snapshot())
        answers = []
        for one in (self.engine, twin):
            one.follow(presence, self.now)
            answers.append(one.observe_blocks([block] if messages else [], self.now, self.now))
        assert [one.key for one in answers[0]] == [one.key for one in answers[1]]
        return answers[0]

    def after(self, microseconds: int) -> list[str]:
        """What is derived while so much time passes."""
        return [kind_of(one) for one in self.group(after=microseconds)]

    def job(self, name: str = "job-1") -> dict[str, Any]:
        return next(job for job in self.engine.jobs() if job["job_id"] == name)


def kind_of(one: Derived) -> str:
    if isinstance(one.message, Trace):
        return "trace"
    assert one.message.context
    return f"{one.message.context['kind']} {one.message.context.get('job_id', '')}".strip()


def test_a_program_that_ends_without_a_word_takes_its_job_along() -> None:
    scene = Scene()
    scene.group(
        came(), progress(40, status="loading"), message("span_start", trace_id="job-1", span_id="a" * 16, name="load")
    )
    scene.group(went(), after=S)
    assert scene.after(GONE_AFTER - 1) == []
    [gone] = scene.group(after=1)
    assert isinstance(gone.message, Event)
    assert (gone.message.ts, gone.message.level, gone.message.trace_id) == (scene.now, "warning", "job-1")
    assert gone.message.context == {
        "kind": "gone", "job_id": "job-1", "percent": 40.0, "service": "loader", "last_progress": T, "status": "loading",
        "open_spans": ["load"],
    }  # fmt: skip
    assert (scene.job()["gone"], scene.job()["stalled"]) == (True, False)
    seen = scene.engine.trace("job-1")
    assert seen is not None
    assert [(span["status"], span["duration"]) for span in seen["spans"]] == [("gone", None)]
    assert scene.after(3_600 * S) == []  # neither again nor stalled
    assert scene.engine.counters["jobs_gone"] == 1
    assert scene.after(86_400 * S) == ["span_abandoned", "trace"]
    assert list(scene.engine._programs) == []


def test_one_that_comes_back_in_time_is_not_gone() -> None:
    scene = Scene()
    scene.group(came(), progress())
    scene.group(went(), after=S)
    scene.group(came(), after=GONE_AFTER - 1)
    assert scene.after(30 * S) == []
    scene.group(went(), came())  # in one group, in this order
    assert scene.after(10 * S) == []
    assert scene.after(30 * S) == ["job_stalled job-1"]  # as it is alive and silent


def test_one_that_comes_back_late_is_alive_again_and_may_be_gone_again() -> None:
    scene = Scene()
    scene.group(came(), progress())
    scene.group(went())
    assert scene.after(GONE_AFTER) == ["gone job-1"]
    scene.group(came(), after=S)
    assert not scene.job()["gone"]
    assert scene.after(59 * S) == []
    assert scene.after(S) == ["job_stalled job-1"]
    scene.group(progress(50))
    scene.group(went())
    assert scene.after(GONE_AFTER) == ["gone job-1"]
    scene.group(progress(60, client=SPILL))  # what it left in a spill file: it is still gone once that is read
    assert not scene.job()["gone"]


def test_a_closing_stats_line_makes_nothing_gone() -> None:
    scene = Scene()
    scene.group(came(), progress(), stats(final=True))
    assert list(scene.engine._programs) == []
    scene.group(went())
    assert scene.after(10 * S) == []
    assert scene.after(50 * S) == ["job_stalled job-1"]


def test_an_interim_stats_line_does_not_close() -> None:
    scene = Scene()
    scene.group(came(), progress(), stats())
    scene.group(went())
    assert scene.after(GONE_AFTER) == ["gone job-1"]


def test_a_job_that_is_over_is_never_gone() -> None:
    scene = Scene()
    scene.group(came(), progress(100, status="done"))
    scene.group(went())
    assert scene.after(GONE_AFTER) == ["trace"]


def test_a_program_is_there_as_long_as_one_of_its_connections_is() -> None:
    """A spill file has a connection of its own, which ends without saying so."""
    scene = Scene()
    scene.group(came(), progress())
    scene.group(came(SPILL), progress(20, client=SPILL))
    scene.group(went(SPILL))
    assert scene.after(10 * S) == []
    scene.group(went(ONE))
    assert scene.after(GONE_AFTER) == ["gone job-1"]


def test_a_spill_file_that_ends_after_its_sdk_was_closed_makes_nothing_gone() -> None:
    scene = Scene()
    scene.group(came(), progress())
    scene.group(came(SPILL), progress(20, client=SPILL))
    scene.group(stats(streams=(SPILL,), final=True))
    scene.group(went(SPILL))
    assert scene.after(10 * S) == []


def test_a_job_belongs_to_the_program_that_reported_last() -> None:
    scene = Scene()
    scene.group(came(), came(TWO, 8), progress(), progress(20, client=TWO, pid=8))
    scene.group(went(ONE))
    assert scene.after(10 * S) == []
    scene.group(went(TWO, 8))
    assert scene.after(GONE_AFTER) == ["gone job-1"]


def test_where_the_process_is_not_known_each_stream_is_a_program() -> None:
    scene = Scene()
    scene.group(came(ONE, -1), came(TWO, -1), progress())
    scene.group(went(ONE, -1))
    assert scene.after(GONE_AFTER) == ["gone job-1"]


def test_after_a_start_of_the_sidecar_programs_have_longer_to_come_back() -> None:
    scene = Scene()
    scene.group(came(), came(TWO, 8), progress(), progress(10, "job-2", client=TWO, pid=8))
    scene.group(Presence(STARTED), after=S)
    scene.group(came(TWO, 8), after=30 * S)
    assert scene.after(GONE_AFTER_START - 30 * S - 1) == ["job_stalled job-1", "job_stalled job-2"]
    assert scene.after(1) == ["gone job-1"]


def test_what_nobody_needs_is_forgotten() -> None:
    scene = Scene()
    for n in range(100):
        client = f"{n:016x}"
        scene.group(came(client, n), progress(10, f"job-{n}", client=client, pid=n), stats(client, final=True))
    for n in range(100, 200):
        client = f"{n:016x}"
        scene.group(came(client, n), message("event", client, n, level="info", message=""))
        scene.group(went(client, n))
    assert len(list(scene.engine._programs)) == 100
    assert scene.after(GONE_AFTER) == []
    assert list(scene.engine._programs) == []


class OlderSnapshot(msgspec.Struct):
    """What 2.0.0 reads of one."""

    version: int
    journal: str
    awaiting: list[Trace | Event]


def test_a_sidecar_of_before_reads_the_snapshot() -> None:
    scene = Scene()
    scene.group(came(), progress())
    scene.group(went())
    scene.group(after=GONE_AFTER)
    assert scene.engine.awaiting == 1
    older = msgspec.msgpack.decode(scene.engine.snapshot(), type=OlderSnapshot)
    assert (older.version, older.awaiting) == (2, [])
    again = Engine(RULES, JOURNAL)
    again.restore(scene.engine.snapshot())
    assert [kind_of(one) for one in again.pending()] == ["gone job-1"]


GIVEN = st.sampled_from(
    [
        came(), came(TWO, 8), went(), went(TWO, 8), Presence(STARTED), progress(), progress(20, client=TWO, pid=8),
        progress(100, status="done"), progress(30, "job-2"), stats(final=True), stats(TWO, (SPILL,), pid=8),
        came(SPILL), went(SPILL), progress(5, "job-2", client=SPILL),
        message("span_start", trace_id="job-1", span_id="a" * 16, name="n"),
        message("span_end", trace_id="job-1", span_id="a" * 16, name="n", status="ok", start=T, duration=1),
    ]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, S, 3 * S, 6 * S, 61 * S]), st.lists(GIVEN, max_size=4)), max_size=25))
def test_a_snapshot_changes_nothing(groups: list[tuple[int, list[Message | Presence]]]) -> None:
    scene = Scene()
    for later, given_ in groups:
        scene.group(*given_, after=later)  # which compares
