"""An older version on the history of a newer one: it says what is wrong, writes nothing, loses nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from commands import wafermon
from daemon import until
from history_places import read_lines
from served import CONFIG, Served, job

from wafermon.backends.history.days import VERSION

WITH_HISTORY = (
    CONFIG
    + "  history: {{plugin: history, dir: history, batch: {{age: 50ms}}, retry: {{initial: 50ms, max: 200ms}}}}\n"
)
WHAT_TO_DO = "written by a later version of wafermon; use that one, or move the file away"


def made_by(directory: Path, version: int) -> None:
    """As if that version had made each file."""
    for path in (directory / "history").glob("*.db"):
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version={version}")


def test_it_is_refused_with_what_to_do_and_goes_on_where_it_was(tmp_path: Path) -> None:
    with Served(tmp_path, WITH_HISTORY) as served:
        job(served, "before")
        until(lambda: served.get("/api/status")["backends"]["history"]["lag_messages"] == 0, "the history")
        served.stop()
        made_by(tmp_path, VERSION + 1)
        served.start()
        job(served, "after")
        until(lambda: served.request("/health/ready")[0] == 503, "unready")
        status = wafermon("status", WAFERMON_HTTP=f"http://127.0.0.1:{served.http_port}")
        assert status.returncode == 1
        assert "the backend history fails: " in status.stdout and WHAT_TO_DO in status.stdout
        offline = wafermon("jobs", "--history", tmp_path / "history")
        assert offline.returncode == 1 and offline.stdout == "" and WHAT_TO_DO in offline.stderr
        found = served.get("/api/jobs")
        assert "after" in {one["job_id"] for one in found["jobs"]}, "memory still answers"
        assert any(WHAT_TO_DO in problem for problem in found["problems"]), found["problems"]
        until(lambda: served.get("/api/status")["backends"]["files"]["lag_messages"] == 0, "the other backend")
        served.stop()
        made_by(tmp_path, VERSION)
        served.start()
        until(lambda: served.get("/api/status")["backends"]["history"]["lag_messages"] == 0, "what was pending")
        until(lambda: served.request("/health/ready")[0] == 200, "ready")
        stored = [line for line in read_lines(tmp_path / "history") if line[1]]
        assert len(stored) == len(set(stored)) == 14, "seven messages of each job, once"
