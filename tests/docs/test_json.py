"""docs/json.md and its schemas say what commands and HTTP routes of a running sidecar answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import click
import pytest
from commands import wafermon
from daemon import ROOT, until
from jsonschema import Draft202012Validator, ValidationError
from served import CONFIG, Served, job

from wafermon.cli import main
from wafermon.cli.manual import commands
from wafermon.web.document import SCHEMAS, document, schema
from wafermon.web.site import INDEX

SCHEMA = schema(strict=True)
SCHEMA_OF_COMMANDS = schema(strict=True, of_commands=True)
CONFIGURED = CONFIG + (
    "  history: {{plugin: history, dir: history, batch: {{age: 50ms}}}}\n"
    "schedules: {{load: {{match: {{job: 'load-*'}}, every: 1h}}}}\n"
    "alerts: {{pager: {{plugin: command, command: 'true'}}}}\n"
    "hooks: {{command: 'true'}}\n"
)


def validate(name: str, value: Any, schema: dict[str, Any] = SCHEMA) -> None:
    """Raises ValidationError."""
    Draft202012Validator({"$defs": schema["$defs"], "$ref": f"#/$defs/{name}"}).validate(value)


def test_page_and_schema_are_made_of_the_types() -> None:
    told = "run `python -m wafermon.web.document docs`"
    assert (ROOT / "docs/json.md").read_text() == document(), told
    for name, of_commands in SCHEMAS.items():
        assert json.loads((ROOT / "docs" / name).read_text()) == schema(of_commands=of_commands), told
        Draft202012Validator.check_schema(schema(strict=True, of_commands=of_commands))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two jobs that ended, one that runs with an open span and a gap, an SDK that has told of itself, a line that is refused, a cursor
    without a backend."""
    directory = tmp_path_factory.mktemp("json")
    gone = "  old: {{plugin: filesystem, path: 'old/{{service}}.jsonl', batch: {{age: 50ms}}}}\n"
    with Served(directory, CONFIGURED.replace("schedules:", gone + "schedules:")) as daemon:
        job(daemon, "load-1")
        daemon.stop()
        text = (directory / "wafermon.yaml").read_text()
        (directory / "wafermon.yaml").write_text("".join(line for line in text.splitlines(True) if "old:" not in line))
        daemon.start()
        job(daemon, "load-2", status="failed")
        now = time.time_ns() // 1000
        client = daemon.client(service="loader", host="fab1", pid=4711, sdk="test/1")
        head = {"v": 2, "trace_id": "load-3", "service": "loader", "client": client.client}
        lines: list[dict[str, Any]] = [
            {"type": "progress", "ts": now - 2_000_000, "job_id": "load-3", "percent": 20, "seq": 1},
            {"type": "span_start", "ts": now, "span_id": "0123456789abcdef", "name": "whole", "seq": 2},
            {"type": "metric", "ts": now, "name": "rows", "value": 1.5, "seq": 3},
            {"type": "resource", "ts": now, "cpu": 5, "mem": 1000, "seq": 4},
            {"type": "event", "ts": now, "level": "error", "message": "no room", "seq": 5},
            {"type": "progress", "ts": now, "job_id": "load-3", "percent": 40, "seq": 9},
        ]
        for line in lines:
            client.send_line({**head, **line})
        client.send_line({"v": 2, "type": "stats", "client": client.client, "seq": 10, "service": "loader", "called": 10, "dropped": 0,
                          "unsent": 0, "last": 9, "streams": [], "final": False})  # fmt: skip
        client.send_line(b"{")
        client.until_acked(11)
        until(lambda: len(daemon.get("/api/events/search")["events"]) >= 3, "the events in the history")
        until(lambda: daemon.get("/api/traces/load-3")["metrics"], "the job that runs")
        yield daemon
        client.close()


ROUTES = {
    "/api/status": "Status",
    "/api/process": "Process",
    "/api/jobs": "Jobs",
    "/api/runs": "Kinds",
    "/api/runs?of=load-1": "Runs",
    "/api/compare?run=load-1&other=load-2": "Comparison",
    "/api/compare?run=load-2": "Comparison",
    "/api/traces/load-1": "Trace",
    "/api/traces/load-3": "Trace",
    "/api/traces/load-1/receipt": "Receipt",
    "/api/traces/load-3/receipt": "Receipt",
    "/api/traces/unknown": "NotKnown",
    "/api/traces/load": "NotKnown",
    "/api/traces/unknown/receipt": "NotKnown",
    "/api/events/search": "Events",
    "/api/errors": "Errors",
    "/api/services": "Services",
    "/api/clients": "Clients",
    "/api/dead-letters": "Letters",
    "/api/forwarders": "Forwarders",
    "/api/schedules": "Schedules",
    "/api/schedules/load/test?since=1h": "Rehearsed",
}
POSTS = {"/api/drain", "/api/cursors/NAME/forget", "/api/schedules/NAME/pause", "/api/alerts/NAME/test"}
STREAMS = {"/api/tail", "/api/stream"}


def test_every_route_is_looked_at() -> None:
    listed = {line.split()[0] for line in INDEX.splitlines() if line.startswith("/api/")}
    looked_at = {
        route.partition("?")[0]
        .replace("load-1", "ID")
        .replace("load-3", "ID")
        .replace("load-2", "ID")
        .replace("/load/", "/NAME/")
        for route in ROUTES
    } - {"/api/traces/unknown", "/api/traces/load", "/api/traces/unknown/receipt"}
    assert listed == looked_at | POSTS | STREAMS


@pytest.mark.parametrize(("route", "name"), ROUTES.items())
def test_what_a_route_answers_fits(served: Served, route: str, name: str) -> None:
    found = served.get(route)
    validate(name, found)
    for field in SCHEMA["$defs"][name]["required"]:
        with pytest.raises(ValidationError):
            validate(name, {key: value for key, value in found.items() if key != field})
    with pytest.raises(ValidationError):
        validate(name, {**found, "colour": 1})


def test_an_unknown_receipt_names_what_was_asked_for(served: Served) -> None:
    assert served.get("/api/traces/unknown/receipt")["error"].startswith("nothing is known of 'unknown':")


def test_what_is_waited_for_and_let_go_fits(served: Served) -> None:
    orphans = served.get("/api/status")["cursors_without_backend"]
    assert list(orphans) == ["old"]
    _, body = served.request("/api/drain?backend=files", "POST", **{"X-Wafermon": "1"})
    lines = [json.loads(line) for line in body.splitlines() if line]
    for line in lines:
        validate("Drained", line)
    assert lines[-1]["drained"] is True
    validate("NotKnown", json.loads(served.request("/api/cursors/none/forget", "POST", **{"X-Wafermon": "1"})[1]))


COMMANDS = {
    "status": "Status", "jobs": ["Job"], "runs": "Kinds", "runs load-1": "Runs", "compare load-1 load-2": "Comparison",
    "trace load-3": "Trace", "receipt load-3": "Receipt", "errors": "Errors", "clients": "Clients", "clients --forwarders": "Forwarders", "schedules": "Schedules", "schedules test load --since 1h": "Rehearsed", "drain": "Drained",
    "doctor --config wafermon.yaml": ["Finding"], "config diff wafermon.yaml": ["ConfigDifference"],
}  # fmt: skip
"""A list holds what the entries of a list are."""
ELSEWHERE = {"config show", "tail"}
"""What these print has a schema of its own."""


def test_every_command_with_json_is_looked_at() -> None:
    below = commands(main, click.Context(main, info_name="wafermon"))
    takes = {
        ctx.command_path.removeprefix("wafermon ")
        for ctx, command in below
        if any(parameter.name == "as_json" for parameter in command.params)
    }
    looked_at = {
        " ".join(line.split()[: 2 if line.startswith(("config", "schedules test")) else 1]) for line in COMMANDS
    }
    assert takes == looked_at | ELSEWHERE | {"events"}


@pytest.mark.parametrize(("line", "name"), COMMANDS.items())
def test_what_a_command_prints_fits(
    served: Served, line: str, name: str | list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(served.directory)
    done = wafermon(*line.split(), "--json", WAFERMON_HTTP=f"http://127.0.0.1:{served.http_port}")
    found = json.loads(done.stdout)
    entries, shape = ([found], name) if isinstance(name, str) else (found, name[0])
    assert entries, "a list of nothing shows nothing"
    for entry in entries:
        validate(shape, entry, SCHEMA_OF_COMMANDS)


def test_events_are_one_per_line(served: Served) -> None:
    done = wafermon("events", "--json", WAFERMON_HTTP=f"http://127.0.0.1:{served.http_port}")
    lines = done.stdout.splitlines()
    assert len(lines) >= 3
    for line in lines:
        validate("EventFound", json.loads(line), SCHEMA_OF_COMMANDS)


def test_times_are_texts_of_the_numbers_that_http_gives(served: Served) -> None:
    by_http = {one["job_id"]: one for one in served.get("/api/jobs")["jobs"]}
    printed = wafermon("jobs", "--json", WAFERMON_HTTP=f"http://127.0.0.1:{served.http_port}")
    for one in json.loads(printed.stdout):
        told = datetime.fromisoformat(one["first"].removesuffix("Z") + "+00:00")
        assert told == datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(
            microseconds=by_http[one["job_id"]]["first"]
        )
        with pytest.raises(ValidationError):
            validate("Job", {**one, "first": by_http[one["job_id"]]["first"]}, SCHEMA_OF_COMMANDS)


def test_letting_go_of_a_cursor_fits(tmp_path: Path) -> None:
    gone = CONFIGURED.replace("schedules:", "  old: {{plugin: filesystem, path: 'old/{{service}}.jsonl'}}\nschedules:")
    with Served(tmp_path, gone) as daemon:
        job(daemon, "load-1")
        daemon.stop()
        text = (tmp_path / "wafermon.yaml").read_text()
        (tmp_path / "wafermon.yaml").write_text("".join(line for line in text.splitlines(True) if "old:" not in line))
        daemon.start()
        status, body = daemon.request("/api/cursors/old/forget", "POST", **{"X-Wafermon": "1"})
        assert status == 200
        validate("Forgotten", json.loads(body))
