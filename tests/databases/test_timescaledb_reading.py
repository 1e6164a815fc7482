"""What the views and the commands' readers say of a job that went through several services."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from commands import wafermon
from daemon import ROOT, until
from history_places import store_of
from postgres import Database, Postgres
from pytest_twisted import ensureDeferred
from served import CONFIG, Served, job
from story import CHILD, COUNTS, OPEN, STORY, SUMMARY, T0, WHOLE, said, span, told

from wafermon.backends.history.reading import Reader
from wafermon.backends.timescaledb import reading
from wafermon.cli.output import as_json
from wafermon.contract import JOURNAL, batch
from wafermon.interfaces import Position
from wafermon.model.asking import CannotAsk, ErrorFilter, EventFilter, Found, JobFilter, Page, Place
from wafermon.model.messages import dumps

HEAD = ("trace_id", "part", "status", "first", "last", "services", "counts", "errors")


def at(second: float) -> datetime:
    return datetime(2026, 11, 24, 6, tzinfo=timezone.utc) + timedelta(seconds=second)


def jobs_of(dsn: str) -> list[Any]:
    return list(reading.Reader(dsn).jobs(JobFilter(), Page()).records)


@ensureDeferred
async def test_a_whole_trace(database: Database) -> None:
    await told(database, [*STORY, SUMMARY])
    found = reading.Reader(database.dsn).trace("job-1", 200)
    assert found is not None
    spans, events, jobs = found["spans"], found["events"], found["jobs"]
    assert [len(found[name]) for name in ("metrics", "progress", "resources")] == [1, 3, 3]
    assert found["series"] == [
        {"name": "rows", "service": "parser", "unit": "1", "count": 1, "mean": 117, "least": 117, "greatest": 117}
    ]
    assert {key: value for key, value in found.items() if key in HEAD} == {
        "trace_id": "job-1", "part": 1, "status": "failed", "first": T0, "last": T0 + 10_000_000,
        "services": ["receiver", "parser", "loader"], "counts": COUNTS, "errors": 3,
    }  # fmt: skip
    assert [(s["name"], s["depth"], s["parent_id"], s["start"] - T0, s["duration"], s["status"]) for s in spans] == [
        ("receive", 0, "", 0, 10_000_000, "ok"),
        ("parse", 1, WHOLE, 1_000_000, 2_000_000, "ok"),
        ("load", 1, WHOLE, 4_000_000, 5_000_000, "error"),
    ]
    assert [(e["ts"] - T0, e["service"], e["level"], e["message"]) for e in events] == [
        (500_000, "receiver", "info", "received"), (1_500_000, "parser", "warning", "odd line"),
        (8_000_000, "loader", "error", "no room"), (8_500_000, "loader", "error", "gave up"),
    ]  # fmt: skip
    assert events[0]["context"] == {"file": "a.csv"} and "span_id" not in events[0] and events[1]["span_id"] == CHILD
    assert jobs == jobs_of(database.dsn)
    reached: list[int | None] = [None] * 20
    reached[1], reached[11] = T0 + 1_000_000, T0 + 5_000_000
    assert jobs == [{
        "job_id": "job-1", "trace_id": "job-1", "percent": 60.0, "status": "failed", "service": "loader",
        "first": T0 + 1_000_000, "last_progress": T0 + 9_000_000, "stalled": False, "gone": False, "kind": "job-*", "state": "failed",
        "services": ["receiver", "parser", "loader"], "errors": 3, "reached": reached, "eta": None,
    }]  # fmt: skip


@ensureDeferred
async def test_the_commands_show_the_same_without_a_sidecar(database: Database) -> None:
    await told(database, [*STORY, SUMMARY])
    shown = wafermon("trace", "job-1", "--dsn", database.dsn)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("trace job-1  failed\n")
    assert re.search(r"^└ load +loader +error ", shown.stdout, re.MULTILINE) and "no room" in shown.stdout
    shown_as_json = json.loads(wafermon("trace", "job-1", "--dsn", database.dsn, "--json").stdout)
    known = reading.Reader(database.dsn).trace("job-1", 200)
    assert known is not None
    assert {key: shown_as_json[key] for key in known} == json.loads(as_json(known, "Trace"))
    assert re.search(r"^job-1 +60 % +failed +loader ", wafermon("jobs", "--dsn", database.dsn).stdout, re.MULTILINE)
    jobs = json.loads(wafermon("jobs", "--dsn", database.dsn, "--json").stdout)
    assert jobs == json.loads(as_json(jobs_of(database.dsn), "Job"))
    assert json.loads(wafermon("jobs", "--dsn", database.dsn, "--running", "--json").stdout) == []


@ensureDeferred
async def test_a_job_that_runs_is_found_behind_many_that_ended(database: Database) -> None:
    await told(database, STORY)
    database.query(
        "INSERT INTO progress (time, service, host, pid, client, seq, job_id, trace_id, percent, status)"
        " SELECT '2100-01-01', 'many', 'host', 1, 'many', n, 'done-' || n, 'done-' || n, 100, 'done'"
        " FROM generate_series(1, 1500) AS n"
    )
    database.query(
        "INSERT INTO progress (time, service, host, pid, client, seq, job_id, trace_id, percent)"
        " VALUES ('2000-01-01', 'few', 'host', 1, 'few', 1, 'long', 'long', 5)"
    )
    database.query("SELECT refresh_jobs()")
    running = json.loads(wafermon("jobs", "--dsn", database.dsn, "--running", "--json").stdout)
    assert "long" in [job["job_id"] for job in running]
    assert len(json.loads(wafermon("jobs", "--dsn", database.dsn, "--limit", "1500", "--json").stdout)) == 1500


def test_the_sidecar_and_its_database_say_the_same(tmp_path: Path, database: Database) -> None:
    backends = f'db: {{{{plugin: timescaledb, dsn: "{database.dsn}", schema: fab}}}}\nroutes: [{{{{to: [db]}}}}]\n'
    with Served(tmp_path, CONFIG[: CONFIG.index("files:")] + backends) as served:
        job(served, "job-1")
        until(lambda: database.query("SELECT 1 FROM pg_tables WHERE tablename = 'traces'"), "tables")
        until(lambda: database.query("SELECT 1 FROM fab.traces"), "a summary")
        sources = (["--http", f"http://127.0.0.1:{served.http_port}"], ["--dsn", database.dsn, "--schema", "fab"])
        live, stored = (json.loads(wafermon("trace", "job-1", *source, "--json").stdout) for source in sources)
        assert (live.pop("sources"), stored.pop("sources")) == (["live", "db"], ["the database"])
        for one in (live, stored):
            one.pop("now")
            one["events"] = [(e["ts"], e["level"], e["message"], e.get("context")) for e in one["events"]]
            one["progress"] = [(p["ts"], p["percent"]) for p in one["progress"]]
            for known in one["jobs"]:
                known.pop("reached")
        assert live == stored
        live, stored = (json.loads(wafermon("jobs", *source, "--json").stdout) for source in sources)
        for one in (*live, *stored):
            one.pop("reached")  # memory does not keep it
        assert live == stored and live[0]["job_id"] == "job-1"


@ensureDeferred
async def test_the_commands_say_what_is_wrong(database: Database) -> None:
    await told(database, STORY)
    for arguments, what in [
        (("trace", "job-2", "--dsn", database.dsn), "nothing is known of"),
        (("jobs", "--dsn", database.dsn, "--schema", "elsewhere"), "does not exist"),
        (("jobs", "--dsn", database.dsn.replace("dbname=", "dbname=no-")), "does not exist"),
        (("jobs", "--dsn", "host=/nowhere"), "/nowhere"),
        (("jobs", "--dsn", "nonsense"), "nonsense"),
    ]:
        done = wafermon(*arguments)
        assert done.returncode == 1 and what in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


@ensureDeferred
async def test_a_trace_without_a_summary_is_counted(database: Database) -> None:
    await told(database, STORY)
    found = reading.Reader(database.dsn).trace("job-1", 200)
    assert found is not None
    assert (found["status"], found["part"], found["errors"], found["counts"]) == ("running", 1, 3, COUNTS)
    assert (found["first"], found["last"], found["services"]) == (T0, T0 + 10_000_000, ["receiver", "parser", "loader"])


@ensureDeferred
async def test_what_comes_after_the_summary_makes_it_run_again(database: Database) -> None:
    await told(database, [*STORY, SUMMARY, said("event", 30, "late", level="info", message="hello")])
    found = reading.Reader(database.dsn).trace("job-1", 200)
    assert found is not None
    assert (found["status"], found["part"], found["last"]) == ("running", 2, T0 + 30_000_000)
    assert found["services"][-1] == "late" and found["counts"]["event"] == 5


@ensureDeferred
async def test_open_and_abandoned_spans(database: Database) -> None:
    [opened, _] = span(2, 1, "parser", "lost", OPEN, CHILD)
    abandoned = said(
        "event",
        15,
        "wafermon",
        level="warning",
        message="given up",
        context={"kind": "span_abandoned", "span_id": OPEN},
    )
    await told(database, [*STORY, opened])
    read = reading.Reader(database.dsn).trace("job-1", 200)
    assert read is not None
    lost = read["spans"][2]
    assert (lost["name"], lost["depth"], lost["duration"], lost["status"]) == ("lost", 2, None, None)
    await told(database, [abandoned])
    read = reading.Reader(database.dsn).trace("job-1", 200)
    assert read is not None and read["spans"][2]["status"] == "abandoned"


@ensureDeferred
async def test_nothing_is_known_of_other_traces(database: Database) -> None:
    await told(database, STORY)
    assert reading.Reader(database.dsn).trace("job-2", 200) is None


@ensureDeferred
async def test_jobs(database: Database) -> None:
    stalled = said(
        "event",
        400,
        "wafermon",
        level="warning",
        message="no progress",
        context={"kind": "job_stalled", "job_id": "job-1"},
    )
    await told(database, [
        said("progress", 1, "a", job_id="job-1", percent=0),
        said("progress", 3, "b", job_id="job-1", percent=20, status="running"),
        said("progress", 2, "a", job_id="job-1", percent=10, status="begun"),
        said("progress", 4, "b", job_id="job-1", percent=30.5),
        stalled,
        said("progress", 9, "c", job_id="job-2", trace_id="job-2", percent=100, status="done"),
    ])  # fmt: skip
    jobs = jobs_of(database.dsn)
    assert [(job["job_id"], job["percent"], job["status"], job["stalled"]) for job in jobs] == [
        ("job-2", 100.0, "done", False), ("job-1", 30.5, "running", True),
    ]  # fmt: skip
    await told(database, [said("progress", 401, "b", job_id="job-1", percent=31)])
    assert [job["stalled"] for job in jobs_of(database.dsn)] == [False, False]


QUESTIONS: list[Callable[[Any], Any]] = [
    lambda reader: reader.jobs(JobFilter(), Page(10)),
    lambda reader: reader.jobs(JobFilter(states=frozenset({"done", "failed"}), service="l*"), Page(10)),
    lambda reader: reader.jobs(JobFilter(), Page(1, Place(T0 + 9_000_000, "job-1 job-1"))),
    lambda reader: reader.jobs(JobFilter(traces=frozenset({"job-1"})), Page(10)),
    lambda reader: reader.jobs(JobFilter(name="[!j]*"), Page(10)),
    lambda reader: reader.kinds(0, 0),
    lambda reader: reader.find("job", 10),
    lambda reader: reader.find("other", 10),
    lambda reader: reader.events(EventFilter(), Page(3)),
    lambda reader: reader.events(EventFilter(level="warning", service="[lp]*"), Page(10)),
    lambda reader: reader.events(EventFilter(text="NO R"), Page(10)),
    lambda reader: reader.events(EventFilter(context={"file": "a.csv"}), Page(10)),
    lambda reader: reader.events(EventFilter(context={"rows": "7"}, trace_id="job-1"), Page(10)),
    lambda reader: reader.events(EventFilter(since=T0 + 1_000_000, until=T0 + 8_500_000), Page(10)),
    lambda reader: reader.events(EventFilter(), Page(2, Place(T0 + 8_000_000, "9f2c6b1d00e4a873:0000000000000009"))),
    lambda reader: reader.errors(ErrorFilter(), Page(10)),
    lambda reader: reader.errors(ErrorFilter(service="l*", text="room"), Page(10)),
    lambda reader: reader.services(0, 0),
    lambda reader: reader.trace("job-1", 200),
    lambda reader: reader.trace("job-1", 0),
    lambda reader: reader.trace("job-9", 200),
]
"""What means the same in every place."""


@ensureDeferred
async def test_a_history_and_a_database_answer_alike(database: Database, tmp_path: Path) -> None:
    more = [
        said("event", 6, "loader", level="info", message="rows", context={"rows": 7}),
        said("progress", 20, "loader", job_id="job-2", trace_id="other-1", percent=50),
        said("progress", 25, "loader", job_id="job-2", trace_id="other-1", percent=100, status="done"),
    ]
    story = [*STORY, *more, {**SUMMARY, "counts": {**COUNTS, "event": 5, "level.info": 2}}]
    await told(database, story)
    lines = [dumps({"client": "9f2c6b1d00e4a873", "seq": n, **message}).encode() for n, message in enumerate(story, 1)]
    store = store_of(tmp_path)
    store.open()
    store.write(batch(Position(JOURNAL, 1, 0), lines))
    here, there = Reader(tmp_path), reading.Reader(database.dsn)
    for number, question in enumerate(QUESTIONS):
        assert simple(question(here)) == simple(question(there)), f"question {number}"
    store.close()


def simple(answer: Any) -> Any:
    """Without what one of them does not keep: fields that are nothing but defaults, and what kind a metric is."""
    if isinstance(answer, Found):
        return [simple(list(answer.records)), answer.more]
    if isinstance(answer, dict):
        return {
            key: simple(value)
            for key, value in answer.items()
            if key not in ("kind", "v", "type") or (isinstance(value, str) and key == "kind" and "runs" in answer)
        }
    if isinstance(answer, list):
        return [simple(one) for one in answer]
    return answer


@ensureDeferred
async def test_the_other_views(database: Database) -> None:
    await told(database, [*STORY, SUMMARY])
    lines = database.query(
        "SELECT time, service, type, text FROM timeline WHERE trace_id = 'job-1' ORDER BY time, seq LIMIT 4"
    )
    assert lines == [
        (at(0), "receiver", "span_start", "receive"), (at(0.5), "receiver", "event", "received"),
        (at(1), "parser", "span_start", "parse"), (at(1), "parser", "progress", "job-1 10 % parsing"),
    ]  # fmt: skip
    assert database.query("SELECT service, level, count, latest FROM error_counts ORDER BY service") == [
        ("loader", "error", 2, "gave up"), ("parser", "warning", 1, "odd line"),
    ]  # fmt: skip
    assert database.query("SELECT * FROM resource_use") == [(at(0), "parser", 2, 110.0, 3500.0, 3000.0)]
    assert database.query("SELECT name, calls, failed, total, p95, longest_trace FROM slow_spans ORDER BY total DESC") == [
        ("receive", 1, 0, 10.0, 10.0, "job-1"), ("load", 1, 1, 5.0, 5.0, "job-1"), ("parse", 1, 0, 2.0, 2.0, "job-1"),
    ]  # fmt: skip
    [whole] = database.query("SELECT status, announced, stored, missing, open_spans FROM completeness")
    assert whole == ("failed", 17, 17, 0, 0)
    database.query("DELETE FROM metrics")
    assert database.query("SELECT stored, missing FROM completeness") == [(16, 1)]


def test_what_can_not_be_read_is_told_in_one_line(database: Database, postgres: Postgres) -> None:
    with pytest.raises(CannotAsk, match=r"jobs.*does not exist"):
        jobs_of(database.dsn)
    with pytest.raises(CannotAsk, match="create the database"):
        jobs_of(postgres.dsn("nowhere"))
    with pytest.raises(CannotAsk, match="see that the server runs"):
        jobs_of("host=/nowhere")
    with pytest.raises(CannotAsk, match="bogus"):
        jobs_of("bogus=1")


PAGE = (ROOT / "docs" / "backends" / "timescaledb.md").read_text()


@ensureDeferred
async def test_the_queries_of_the_page_run_and_have_these_columns(database: Database) -> None:
    await told(database, [*STORY, SUMMARY])
    blocks = re.findall(r"```sql\n(SELECT .*?)```\n(?:```text\n(.*?)\n)?", PAGE, re.DOTALL)
    assert len(blocks) == 8
    for sql, heading in blocks:
        columns = database.columns(sql)
        assert not heading or columns == [name.strip() for name in heading.split("|")], sql


@ensureDeferred
async def test_what_is_old_is_forgotten(database: Database) -> None:
    old = T0 - 86_400_000_000 * 4000
    await told(database, [*STORY, SUMMARY, {**STORY[6], "ts": old}, {**SUMMARY, "trace_id": "job-0", "ts": old}])
    assert database.one("SELECT forget('2000 days')") == 2
    assert len(database.stored()) == len(STORY) + 1


@ensureDeferred
async def test_the_page_names_every_table_and_view(database: Database) -> None:
    await told(database, STORY)
    for (name,) in database.query(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace = 'public'::regnamespace"
    ):
        assert name in PAGE, name
