"""What the views and the commands' readers say of a job that went through several services."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from commands import wafermon
from daemon import ROOT, until
from postgres import Database, Postgres
from pytest_twisted import ensureDeferred
from served import CONFIG, Served, job
from story import CHILD, COUNTS, OPEN, STORY, SUMMARY, T0, WHOLE, said, span, told

from wafermon.backends.timescaledb import reading


def at(second: float) -> datetime:
    return datetime(2026, 11, 24, 6, tzinfo=timezone.utc) + timedelta(seconds=second)


@ensureDeferred
async def test_a_whole_trace(database: Database) -> None:
    await told(database, [*STORY, SUMMARY])
    found = reading.trace(database.dsn, "job-1")
    assert found is not None
    spans, events, jobs = found.pop("spans"), found.pop("events"), found.pop("jobs")
    assert found == {
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
    assert jobs == reading.jobs(database.dsn)
    assert jobs == [{
        "job_id": "job-1", "trace_id": "job-1", "percent": 60.0, "status": "failed", "service": "loader",
        "first": T0 + 1_000_000, "last_progress": T0 + 9_000_000, "stalled": False, "gone": False,
    }]  # fmt: skip


@ensureDeferred
async def test_the_commands_show_the_same_without_a_sidecar(database: Database) -> None:
    await told(database, [*STORY, SUMMARY])
    shown = wafermon("trace", "job-1", "--dsn", database.dsn)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("trace job-1  failed\n")
    assert re.search(r"^├ load +loader +error ", shown.stdout, re.MULTILINE) and "no room" in shown.stdout
    as_json = wafermon("trace", "job-1", "--dsn", database.dsn, "--json")
    assert json.loads(as_json.stdout) == reading.trace(database.dsn, "job-1")
    assert re.search(r"^job-1 +60 % +failed +loader ", wafermon("jobs", "--dsn", database.dsn).stdout, re.MULTILINE)
    assert json.loads(wafermon("jobs", "--dsn", database.dsn, "--json").stdout) == reading.jobs(database.dsn)
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
        for one in (live, stored):
            one["events"] = [(e["ts"], e["level"], e["message"], e.get("context")) for e in one["events"]]
        assert live.pop("left_out") == {"events": 0, "spans": 0}  # memory has bounds, which the database has not
        assert live == stored
        live, stored = (json.loads(wafermon("jobs", *source, "--json").stdout) for source in sources)
        assert live == stored and live[0]["job_id"] == "job-1"


@ensureDeferred
async def test_the_commands_say_what_is_wrong(database: Database) -> None:
    await told(database, STORY)
    for arguments, what in [
        (("trace", "job-2", "--dsn", database.dsn), "the database knows nothing of 'job-2'"),
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
    found = reading.trace(database.dsn, "job-1")
    assert found is not None
    assert (found["status"], found["part"], found["errors"], found["counts"]) == ("running", 1, 3, COUNTS)
    assert (found["first"], found["last"], found["services"]) == (T0, T0 + 10_000_000, ["receiver", "parser", "loader"])


@ensureDeferred
async def test_what_comes_after_the_summary_makes_it_run_again(database: Database) -> None:
    await told(database, [*STORY, SUMMARY, said("event", 30, "late", level="info", message="hello")])
    found = reading.trace(database.dsn, "job-1")
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
    read = reading.trace(database.dsn, "job-1")
    assert read is not None
    lost = read["spans"][2]
    assert (lost["name"], lost["depth"], lost["duration"], lost["status"]) == ("lost", 2, None, None)
    await told(database, [abandoned])
    read = reading.trace(database.dsn, "job-1")
    assert read is not None and read["spans"][2]["status"] == "abandoned"


@ensureDeferred
async def test_nothing_is_known_of_other_traces(database: Database) -> None:
    await told(database, STORY)
    assert reading.trace(database.dsn, "job-2") is None


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
    jobs = reading.jobs(database.dsn)
    assert [(job["job_id"], job["percent"], job["status"], job["stalled"]) for job in jobs] == [
        ("job-2", 100.0, "done", False), ("job-1", 30.5, "running", True),
    ]  # fmt: skip
    await told(database, [said("progress", 401, "b", job_id="job-1", percent=31)])
    assert [job["stalled"] for job in reading.jobs(database.dsn)] == [False, False]


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
    with pytest.raises(reading.ReadError, match=r"jobs.*does not exist"):
        reading.jobs(database.dsn)
    with pytest.raises(reading.ReadError, match="create the database"):
        reading.jobs(postgres.dsn("nowhere"))
    with pytest.raises(reading.ReadError, match="see that the server runs"):
        reading.jobs("host=/nowhere")
    with pytest.raises(reading.ReadError, match="bogus"):
        reading.jobs("bogus=1")


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
