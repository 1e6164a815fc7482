"""What history keeps, and for how long; what else may stand in its directory."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from history_places import read_lines, store_of
from twisted.internet.defer import Deferred, succeed

from wafermon.backends.history import history
from wafermon.backends.history.days import Day, NotHistory, days_in, open_to_read
from wafermon.backends.history.place import problem_of
from wafermon.backends.history.reading import Reader
from wafermon.backends.history.store import InUse, Store
from wafermon.contract import JOURNAL, batch, line
from wafermon.interfaces import Batch, ConfigError, Position, PositionMoved, configure
from wafermon.model.asking import CannotAsk, ErrorFilter, EventFilter, Found, JobFilter, Page, event_place, job_place
from wafermon.model.blocks import Block
from wafermon.model.kinds import Kinds, kind_of
from wafermon.model.mounts import parse_mounts
from wafermon.query import Query, answer
from wafermon.query.reading import Direct
from wafermon.routing import Rule, compile_routes, with_apart

T0 = 1_795_500_000
DAY = 86_400
START = Position(JOURNAL, 1, 0)


class Writer:
    """Writes lines to a store, each call as one batch that is received at the clock's time."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.now = float(T0)
        self.at = START
        self.seq = 0
        self.store: Store = store_of(directory, wall=lambda: self.now, **options)
        self.store.open()

    def write(self, *messages: dict[str, Any]) -> Batch:
        lines = []
        for message in messages:
            self.seq += 1
            given = {"ts": int(self.now * 1e6) + self.seq, **message}
            event = given.get("type", "event") == "event"
            lines.append(line(self.seq, **given) if event else _plain(self.seq, given))
        one = batch(self.at, lines)
        received = int(self.now * 1e6)
        self.store.write(Batch(one.start, one.end, one.block, (received, received)))
        self.at = one.end
        return one


def _plain(seq: int, fields: dict[str, Any]) -> bytes:
    """A line without what events alone have."""
    text = line(seq, **fields, level=None, message=None)
    return text.replace(b'"level":null,', b"").replace(b',"message":null', b"").replace(b'"message":null,', b"")


def progress(job: str, percent: float, status: str | None = "running", **fields: Any) -> dict[str, Any]:
    more = {"status": status} if status else {}
    return {"type": "progress", "job_id": job, "trace_id": job, "percent": percent, **more, **fields}


def span(trace: str, number: int, name: str, start: int, duration: int, **fields: Any) -> dict[str, Any]:
    return {
        "type": "span_end", "trace_id": trace, "span_id": f"{number:016x}", "name": name, "status": "ok", "start": start,
        "duration": duration, **fields,
    }  # fmt: skip


def ids(found: Found[Any]) -> list[str]:
    return [job["job_id"] for job in found.records]


@pytest.mark.parametrize(("job", "kind"), [
    ("load-2026-11-28", "load-*"),
    ("load-20261128T101500Z", "load-*"),
    ("load-2026-11-28_10:15", "load-*"),
    ("2026-11-28/load", "*/load"),
    ("job-0000123", "job-*"),
    ("import-3f2a9c0e7b1d4455", "import-*"),
    ("6f1c1a52-0d3e-4a5b-9a52-0f6f1a2b3c4d", "*"),
    ("lot-N23A017-w3", "lot-N*A*-w*"),
    ("a-b-c-d-e", "a-b-c-d-e"),
    ("x-deadbeef", "x-deadbeef"),
    ("run-1999.12.31", "run-*"),
    ("nightly", "nightly"),
    ("4711", "*"),
])  # fmt: skip
def test_the_kind_of_a_job(job: str, kind: str) -> None:
    assert kind_of(job) == kind


def test_a_kind_with_a_name_and_one_by_its_root_span(tmp_path: Path) -> None:
    writer = Writer(tmp_path, kinds=Kinds({"nightly": "load-*"}))
    writer.write(progress("load-7", 10), progress("4711", 10), progress("4712", 5))
    writer.write(span("4711", 1, "load lot 17", T0 * 10**6, 5, service="etl"))
    reader = Reader(tmp_path)
    kinds = {job["job_id"]: job["kind"] for job in reader.jobs(JobFilter(), Page()).records}
    assert kinds == {"load-7": "nightly", "4711": "etl/load lot *", "4712": "*"}
    assert ids(reader.jobs(JobFilter(kind="nightly"), Page())) == ["load-7"]


def test_a_job_over_midnight_is_one_job(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(progress("a-1", 10), progress("b-1", 50))
    writer.now += DAY
    writer.write(progress("a-1", 60))
    writer.now += DAY
    writer.write(progress("a-1", 100, "done"))
    assert [str(day) for day in days_in(tmp_path)] == ["2026-11-24.db", "2026-11-25.db", "2026-11-26.db"]
    found = Reader(tmp_path).jobs(JobFilter(), Page())
    assert (ids(found), found.total) == (["a-1", "b-1"], 2)
    job = found.records[0]
    assert (job["first"], job["state"]) == (T0 * 10**6 + 1, "done")
    assert job["reached"][1] == T0 * 10**6 + 1
    assert ids(Reader(tmp_path).jobs(JobFilter(states=frozenset({"running"})), Page())) == ["b-1"]
    trace = Reader(tmp_path).trace("a-1", messages=100)
    assert trace is not None and [one["percent"] for one in trace["progress"]] == [10, 60, 100]


def test_files_are_removed_by_age_but_never_the_one_with_the_position(tmp_path: Path) -> None:
    writer = Writer(tmp_path, keep=3 * DAY)
    for _ in range(6):
        writer.write({"message": "x"})
        writer.now += DAY
    assert [day.day for day in days_in(tmp_path)] == [
        date(2026, 11, 26),
        date(2026, 11, 27),
        date(2026, 11, 28),
        date(2026, 11, 29),
    ]
    writer.store.close()
    writer.now += 100 * DAY
    again = store_of(tmp_path, keep=3 * DAY, wall=lambda: writer.now)
    assert again.open() == writer.at
    assert [day.day for day in days_in(tmp_path)] == [date(2026, 11, 29)]
    again.close()


def test_a_file_of_a_day_to_come_counts_as_of_today(tmp_path: Path) -> None:
    writer = Writer(tmp_path, keep=2 * DAY)
    writer.now += 1000 * DAY
    writer.write({"message": "the clock was wrong"})
    writer.now -= 1000 * DAY
    writer.write({"message": "and was put right"})
    writer.store.close()
    again = store_of(tmp_path, keep=2 * DAY, wall=lambda: writer.now)
    assert again.open() == writer.at, "the latest position, whatever the names say"
    assert len(days_in(tmp_path)) == 2
    again.close()


def test_the_quota_holds_within_one_day(tmp_path: Path) -> None:
    writer = Writer(tmp_path, max_bytes=1 << 20)
    noise = [f"{n * 2654435761 % 2**64:x}" * 9 for n in range(400)]
    for n in range(60):
        writer.write(*({"message": f"{n} {text}"} for text in noise))
    parts = days_in(tmp_path)
    assert len(parts) > 1 and parts[0].part > 0
    assert sum(path.stat().st_size for path in tmp_path.glob("*.db*")) < 1.5 * (1 << 20)
    lines = [seq for _, seq in read_lines(tmp_path)]
    assert sorted(lines) == list(range(min(lines), 60 * 400 + 1)), "the latest ones, without a gap"


@pytest.mark.parametrize("content", [b"not a database at all, but as long as one page might well be" * 100])
def test_a_damaged_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "2026-11-23.db").write_bytes(content)
    writer = Writer(tmp_path)
    assert "2026-11-23.db is damaged" in writer.store.note
    assert (tmp_path / "2026-11-23.db.damaged").read_bytes() == content
    writer.write({"message": "x"})


def test_a_strangers_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "2026-11-24.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(OSError, match="not made by wafermon; move it away"):
        Writer(tmp_path)
    assert path.read_bytes() == before
    with pytest.raises(CannotAsk, match="not made by wafermon"):
        Reader(tmp_path).jobs(JobFilter(), Page())


def test_two_sidecars_do_not_share_a_directory(tmp_path: Path) -> None:
    Writer(tmp_path)
    with pytest.raises(InUse, match="another sidecar writes this history"):
        Writer(tmp_path)


def test_other_files_are_none_of_ours(tmp_path: Path) -> None:
    for name in ("2026-11-24.db.damaged", "2026-13-01.db", "notes.db", "2026-11-24.0.db"):
        (tmp_path / name).write_text("mine")
    writer = Writer(tmp_path, keep=1)
    writer.write({"message": "x"})
    assert days_in(tmp_path) == [Day(date(2026, 11, 24))]
    assert (tmp_path / "notes.db").read_text() == "mine"


def test_a_later_version_is_not_touched(tmp_path: Path) -> None:
    Writer(tmp_path).write({"message": "x"})
    [path] = tmp_path.glob("*.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(NotHistory, match="written by a later version of wafermon"):
        open_to_read(path)


def test_a_position_that_was_set_back_is_noticed(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write({"message": "x"})
    [path] = tmp_path.glob("*.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE reached SET serial = 0, position = NULL")
        db.commit()
    with pytest.raises(PositionMoved, match="was set back"):
        writer.write({"message": "y"})


NETWORK = """\
28 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 rw
40 28 0:41 / {path} rw,relatime shared:1 - nfs4 server:/export rw,vers=4.2
"""


def test_a_network_file_system_is_refused_in_words(tmp_path: Path) -> None:
    mounts = parse_mounts(NETWORK.format(path=tmp_path))
    assert "is on a network file system (nfs4)" in problem_of(tmp_path / "not" / "yet", mounts)
    assert problem_of(tmp_path, parse_mounts(NETWORK.format(path="/elsewhere"))) == ""


@pytest.mark.parametrize(("options", "problem"), [
    ({}, "missing; for example /var/lib/wafermon/history"),
    ({"dir": "h", "max_bytes": 1000}, "at least 1MiB"),
    ({"dir": "h", "index": "wafer"}, "expected a list of context keys"),
    ({"dir": "h", "compress": "lz4"}, "expected auto, zlib or zstd"),
    ({"dir": "h", "keeps": "1d"}, "did you mean 'keep'?"),
])  # fmt: skip
def test_options_that_can_not_be(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure(history, options)
    assert problem in str(caught.value)


def test_stats_go_to_history_whatever_the_rules_say() -> None:
    rules = [Rule(("files",), type=("stats", "event"), service=("a",)), Rule(("files",))]
    table = compile_routes(with_apart(rules, ["history"]), ["files", "history"])
    assert table.route("a", "stats", "", "").backends == ("files", "history")
    assert table.route("a", "event", "info", "").backends == ("files",)
    assert table.route("b", "stats", "", "").backends == ("history",)
    assert table.route("b", "event", "info", "").backends == ("files",)


# What can be asked


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Three days: each hour an event of each of two services, every fifth one an error."""
    writer = Writer(tmp_path)
    for hour in range(72):
        writer.now = T0 + hour * 3600.0
        writer.write(
            {"service": "loader", "message": f"lot {hour} loaded", "context": {"wafer": f"W{hour % 25}", "site": hour}, "trace_id": f"t-{hour // 10}"},
            {"service": "parser", "message": f"row {hour} \"is\" short", "level": "error" if hour % 5 == 0 else "info", "context": {"wafer": hour % 25}},
        )  # fmt: skip
    return Reader(tmp_path)


def all_pages(reader: Reader, wanted: EventFilter, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page = Page(limit)
    while True:
        answer = reader.events(wanted, page)
        assert len(answer.records) <= limit
        found += answer.records
        if not answer.more:
            return found
        page = Page(limit, event_place(answer.records[-1]))


@pytest.mark.parametrize(("wanted", "count"), [
    (EventFilter(), 144),
    (EventFilter(service="load*"), 72),
    (EventFilter(level="error"), 15),
    (EventFilter(text='"IS" SHORT'), 72),
    (EventFilter(text="lot 7"), 3),
    (EventFilter(context={"wafer": "W17"}), 3),
    (EventFilter(context={"wafer": "17"}), 3),
    (EventFilter(context={"site": "40"}), 1),
    (EventFilter(context={"site": "40", "wafer": "W3"}), 0),
    (EventFilter(trace_id="t-3"), 10),
    (EventFilter(since=(T0 + 24 * 3600) * 10**6, until=(T0 + 48 * 3600) * 10**6), 48),
])  # fmt: skip
def test_events_by_what_they_say(reader: Reader, wanted: EventFilter, count: int) -> None:
    found = all_pages(reader, wanted, 7)
    assert len(found) == count
    assert len({event["seq"] for event in found}) == count
    assert [event["ts"] for event in found] == sorted((event["ts"] for event in found), reverse=True)
    assert all(map(wanted.takes, found))


def test_a_search_that_takes_too_long_says_how_far_it_came(reader: Reader) -> None:
    clock = iter(range(1000))
    slow = Reader(reader.directory, patience=10, seconds=lambda: float(next(clock)))
    found = slow.events(EventFilter(text="nowhere"), Page(5))
    assert found.more and found.searched and not found.records
    assert found.searched < (T0 + 71 * 3600) * 10**6


def test_a_key_that_is_looked_up_from_now_on_is_found_in_what_was_before(tmp_path: Path) -> None:
    writer = Writer(tmp_path, index=())
    writer.write({"context": {"wafer": "W1"}}, {"context": {"wafer": "W2"}})
    writer.store.close()
    again = Writer(tmp_path, index=("wafer",))
    again.at, again.seq = writer.at, writer.seq
    again.write({"context": {"wafer": "W1"}})
    assert [
        event["seq"] for event in Reader(tmp_path).events(EventFilter(context={"wafer": "W1"}), Page()).records
    ] == [3, 1]


def test_errors_that_differ_in_digits_alone_are_one(reader: Reader) -> None:
    found = reader.errors(ErrorFilter(), Page())
    assert [(one["service"], one["count"], one["message"]) for one in found.records] == [
        ("parser", 15, 'row 70 "is" short')
    ]
    some = reader.errors(ErrorFilter(since=(T0 + 24 * 3600) * 10**6), Page()).records
    assert [one["count"] for one in some] == [10]
    assert reader.errors(ErrorFilter(service="loader"), Page()).records == []


def test_services_by_the_hour(reader: Reader) -> None:
    loader, parser = reader.services(0, 0)
    assert loader["counts"] == {"level.info": 72, "event": 72}
    assert parser["counts"] == {"level.info": 57, "level.error": 15, "event": 72}


def jobs_written(directory: Path) -> Reader:
    writer = Writer(directory)
    for n in range(30):
        writer.now = T0 + n * 7200.0
        state = ("done", "failed", "running")[n % 3]
        writer.write(progress(f"load-{n}", 50), progress(f"load-{n}", 60, state, service="etl" if n % 2 else "nightly"))
    return Reader(directory)


@pytest.mark.parametrize(("wanted", "numbers"), [
    (JobFilter(), range(30)),
    (JobFilter(states=frozenset({"failed"})), range(1, 30, 3)),
    (JobFilter(service="e*"), range(1, 30, 2)),
    (JobFilter(name="load-1?"), range(10, 20)),
    (JobFilter(name="load-[!1]*"), [0, *range(2, 10), *range(20, 30)]),
    (JobFilter(kind="load-*", since=(T0 + 10 * 7200) * 10**6, until=(T0 + 12 * 7200) * 10**6), [10, 11]),
    (JobFilter(without=frozenset({"load-3 load-3", "load-29 load-29", "load-99 load-99"})), [*range(3), *range(4, 29)]),
])  # fmt: skip
def test_jobs_page_by_page(tmp_path: Path, wanted: JobFilter, numbers: Sequence[int]) -> None:
    reader = jobs_written(tmp_path)
    found: list[str] = []
    page = Page(4)
    while True:
        answer = reader.jobs(wanted, page)
        assert answer.total == len(numbers)
        assert all(map(wanted.takes, answer.records))
        found += ids(answer)
        if not answer.more:
            break
        page = Page(4, job_place(answer.records[-1]))
    assert found == [f"load-{n}" for n in reversed(numbers)]


def test_traces_by_the_beginning_of_their_id(tmp_path: Path) -> None:
    reader = jobs_written(tmp_path)
    assert reader.find("load-2", 100) == ["load-2", *(f"load-{n}" for n in range(20, 30))]
    assert len(reader.find("load-", 5)) == 5
    assert reader.find("nothing", 5) == []
    assert reader.trace("nothing", messages=10) is None


def test_a_trace_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    us = T0 * 10**6
    writer.write(
        progress("a", 10),
        {"type": "span_start", "trace_id": "a", "span_id": f"{1:016x}", "name": "root", "ts": us},
        span("a", 2, "child", us + 5, 10, parent_id=f"{1:016x}"),
        {"type": "metric", "trace_id": "a", "name": "yield", "value": 90.0, "unit": "%"},
        {"type": "metric", "trace_id": "a", "name": "yield", "value": 70.0, "unit": "%"},
        {"type": "metric", "trace_id": "a", "name": "yield", "value": "NaN", "unit": "%"},
        {"type": "resource", "trace_id": "a", "cpu": 5},
        {"trace_id": "a", "message": "hello", "level": "error"},
        {"trace_id": "b", "message": "another's"},
    )
    trace = Reader(tmp_path).trace("a", messages=100)
    assert trace is not None
    assert [(one["name"], one["depth"], one["duration"]) for one in trace["spans"]] == [
        ("root", 0, None),
        ("child", 1, 10),
    ]
    assert trace["series"] == [
        {
            "name": "yield",
            "service": "queue-service",
            "unit": "%",
            "count": 2,
            "mean": 80.0,
            "least": 70.0,
            "greatest": 90.0,
        }
    ]
    assert [len(trace[name]) for name in ("events", "metrics", "progress", "resources")] == [1, 3, 1, 1]
    assert trace["counts"] == {
        "progress": 1,
        "span_start": 1,
        "span_end": 1,
        "metric": 3,
        "resource": 1,
        "event": 1,
        "level.error": 1,
    }
    assert (trace["status"], trace["errors"]) == ("running", 1)
    few = Reader(tmp_path).trace("a", messages=1)
    assert few is not None and few["left_out"] == {"spans": 0, "events": 0, "metrics": 2, "progress": 0, "resources": 0}
    writer.write(span("a", 1, "root", us, 99), {
        "type": "trace", "service": "wafermon", "trace_id": "a", "first": us, "last": us + 99, "services": ["queue-service"],
        "counts": {"event": 1}, "errors": 1, "status": "idle", "part": 1,
    })  # fmt: skip
    ended = Reader(tmp_path).trace("a", messages=0)
    assert ended is not None and ended["status"] == "idle" and ended["spans"][0]["duration"] == 99
    assert [job["state"] for job in ended["jobs"]] == ["unfinished"]


def test_what_the_sidecar_found_out(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write(
        progress("a", 10),
        progress("b", 10),
        {"type": "span_start", "trace_id": "a", "span_id": f"{1:016x}", "name": "s"},
    )
    own = {"service": "wafermon", "trace_id": "a", "level": "warning"}
    writer.write(
        {**own, "context": {"kind": "job_stalled", "job_id": "a"}},
        {**own, "context": {"kind": "span_abandoned", "span_id": f"{1:016x}"}},
    )
    reader = Reader(tmp_path)
    assert ids(reader.jobs(JobFilter(states=frozenset({"stalled"})), Page())) == ["a"]
    trace = reader.trace("a", messages=0)
    assert trace is not None and trace["spans"][0]["status"] == "abandoned"
    writer.write(progress("a", 20))
    assert ids(reader.jobs(JobFilter(states=frozenset({"running"})), Page())) == ["a", "b"]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CannotAsk, match="is not there"):
        Reader(tmp_path / "nowhere").jobs(JobFilter(), Page())


def test_answers_say_which_files_could_not_be_read(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.write({"message": "x", "trace_id": "t1"})
    [path] = tmp_path.glob("*.db")
    later = path.with_name("2030-01-01.db")
    later.write_bytes(b"no database " * 100)
    foreign = path.with_name("2030-01-02.db")
    with closing(sqlite3.connect(foreign)) as db:
        db.execute("CREATE TABLE notes (text)")
    store = Direct(Reader(tmp_path))
    query = Query(lambda: None, lambda: {"history": store}, lambda: 0, lambda _: succeed(None))
    found: list[Any] = []
    for question in ("jobs", "runs", "trace", "events", "errors", "services"):
        asked = Deferred.fromCoroutine(answer(query, question, {"id": "t1"} if question == "trace" else {}))
        asked.addCallback(lambda done: found.append(done["problems"]))
        problems = found.pop()
        assert [one for one in problems if str(later) in one and "not a database" in one], question
        assert [one for one in problems if str(foreign) in one and "not made by wafermon" in one], question
        assert len(problems) == 2
    later.unlink()
    foreign.unlink()
    asked = Deferred.fromCoroutine(answer(query, "events", {}))
    asked.addCallback(lambda done: found.append(done["problems"]))
    assert found[-1] == []


def test_a_large_batch_is_several_chunks_and_sums_that_are_written_once(tmp_path: Path) -> None:
    store = store_of(tmp_path, wall=lambda: float(T0))
    store.open()
    ts = T0 * 10**6
    parts = [
        Block.parse(b"".join(
            b'{"v":2,"type":"metric","ts":%d,"service":"s%d","client":"c%d","seq":%d,"trace_id":"t%d","name":"n","value":%d}\n'
            % (ts + n, part, part, n + 1, n % 3, n)
            for n in range(2000)
        ))
        for part in range(5)
    ]  # fmt: skip
    end = START._replace(offset=sum(part.size for part in parts))
    store.write(Batch(START, end, Block.join(parts), (ts, ts)))
    store.close()
    [day] = days_in(tmp_path)
    with closing(open_to_read(tmp_path / str(day))) as db:
        assert db.execute("SELECT messages FROM chunks ORDER BY id").fetchall() == [(4000,), (4000,), (2000,)]
        assert db.execute("SELECT chunk FROM service_chunks WHERE service = 's3'").fetchall() == [(2,)]
        assert db.execute("SELECT chunk FROM trace_chunks WHERE trace_id = 't1'").fetchall() == [(1,), (2,), (3,)]
        assert db.execute("SELECT sum(count), sum(total), min(least), max(greatest) FROM series").fetchone() == (
            10_000, 5 * sum(range(2000)), 0, 1999,
        )  # fmt: skip
        assert db.execute("SELECT sum(count) FROM hours").fetchone() == (10_000,)
    assert read_lines(tmp_path) == [(f"c{part}", n + 1) for part in range(5) for n in range(2000)]
