"""What every command prints for people fits the terminal, with names that are longer than it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from commands import wafermon
from daemon import Client, until
from served import CONFIG, Served
from terminal import on_terminal

from wafermon.cli import main
from wafermon.cli.layout import cells
from wafermon.cli.manual import commands

WITH_HISTORY = CONFIG + "  history: {{plugin: history, dir: history, batch: {{age: 50ms}}}}\n"
JOB = "lot-" + "e" * 90 + "-of-a-very-long-name"
SERVICE = "queue-" + "x" * 50
INNER = "fedcba9876543210"


def tell(served: Served, job: str, start: int, *, ended: bool) -> Client:
    """A job with long names everywhere; answers with its client, which is connected where the job has not ended."""
    client = served.client(service=SERVICE)
    span, step = f"{start % 10**12:016x}", f"{start % 10**12 + 1:016x}"
    lines = [
        {"type": "progress", "ts": start, "job_id": job, "percent": 33.333333, "status": "measuring-" + "y" * 40},
        {"type": "span_start", "ts": start, "span_id": span, "name": "whole " * 8},
        {"type": "span_end", "ts": start + 900_000, "span_id": step, "parent_id": span, "name": "step " * 12, "status": "ok",
         "start": start, "duration": 900_000},
        {"type": "metric", "ts": start + 100, "name": "temperature." + "z" * 60, "value": 0.1 + 0.2, "unit": "Cel"},
        {"type": "event", "ts": start + 200, "level": "error", "message": "晶圓 " * 60, "context": {"wafer": "W" * 60}},
    ]  # fmt: skip
    if ended:
        lines += [
            {"type": "span_end", "ts": start + 10**6, "span_id": span, "name": "whole " * 8, "status": "error", "start": start,
             "duration": 10**6},
            {"type": "progress", "ts": start + 10**6, "job_id": job, "percent": 100, "status": "done"},
        ]  # fmt: skip
    for seq, line in enumerate(lines, 1):
        client.send_line({"v": 2, "trace_id": job, "service": SERVICE, "client": client.client, "seq": seq, **line})
    client.until_acked(len(lines))
    if ended:
        client.close()
    return client


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("width"), WITH_HISTORY) as daemon:
        now = time.time_ns() // 1000
        tell(daemon, JOB + "-1", now - 20_000_000, ended=True)
        tell(daemon, JOB + "-2", now - 10_000_000, ended=True)
        running = tell(daemon, JOB + "-3", now - 2_000_000, ended=False)
        client = daemon.client()
        client.send_line(b"no json " * 20)
        client.until_acked(1)
        client.close()
        (daemon.directory / "spill" / ("program-" + "s" * 150 + ".ldjson")).write_text("not what an SDK writes\n")
        until(lambda: len(daemon.get("/api/events/search")["events"]) == 3, "the events")
        until(lambda: daemon.get("/api/status")["backends"]["files"]["lag_messages"] == 0, "the files")
        yield daemon
        running.close()
    assert "Traceback" not in daemon.log(), daemon.log()


SHOWN = [
    "status", "jobs", "jobs --failed", f"trace {JOB}-1", f"trace {JOB}-3", "runs", f"runs {JOB}-1", f"compare {JOB}-1 {JOB}-2",
    "events", f"events {JOB}-1", "errors", f"receipt {JOB}-1", f"receipt {JOB}-3", "clients", "schedules", "top --once", "drain",
    "doctor --config wafermon.yaml",
]  # fmt: skip
BY_THEMSELVES = {"alert", "bench", "check", "completion", "config", "journal", "replay", "run", "send", "tail"}
"""Commands that show no state of the sidecar, or whose lines are paths and messages."""


def test_every_command_that_shows_the_state_is_looked_at() -> None:
    with click.Context(main) as ctx:
        assert {line.split()[0] for line in SHOWN} | BY_THEMSELVES == set(main.list_commands(ctx))


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("line", SHOWN, ids=lambda line: line.replace(JOB, "JOB"))
def test_it_fits(served: Served, line: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(served.directory)
    http = f"http://127.0.0.1:{served.http_port}"
    _, shown = on_terminal(columns, *line.split(), WAFERMON_HTTP=http)
    assert shown
    wide = [(cells(one), click.unstyle(one)) for one in shown if cells(one) > columns]
    assert wide == []
    assert not any("\ufffd" in one for one in shown)


@pytest.mark.parametrize("line", SHOWN, ids=lambda line: line.replace(JOB, "JOB"))
def test_without_a_terminal_all_of_it_is_there_and_no_color(
    served: Served, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(served.directory)
    done = wafermon(*line.split(), WAFERMON_HTTP=f"http://127.0.0.1:{served.http_port}", COLUMNS="80")
    assert "\x1b" not in done.stdout + done.stderr
    if line in ("jobs", f"runs {JOB}-1", "events"):
        assert JOB + "-1" in done.stdout


def test_colors_are_for_who_wants_them(served: Served) -> None:
    http = f"http://127.0.0.1:{served.http_port}"
    assert any("\x1b[" in line for line in on_terminal(80, "jobs", WAFERMON_HTTP=http)[1])
    for unwanted in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert not any("\x1b" in line for line in on_terminal(80, "jobs", WAFERMON_HTTP=http, **unwanted)[1])


def test_numbers_are_rounded_for_people_and_exact_for_programs(served: Served) -> None:
    http = f"http://127.0.0.1:{served.http_port}"
    assert " 33.3 % " in wafermon("jobs", WAFERMON_HTTP=http).stdout
    [running] = json.loads(wafermon("jobs", "--json", "--running", WAFERMON_HTTP=http).stdout)
    assert running["percent"] == 33.333333
    assert " 0.3 " in wafermon("trace", JOB + "-1", WAFERMON_HTTP=http).stdout


@pytest.mark.parametrize("columns", [80, 200])
def test_the_journal_fits(tmp_path: Path, columns: int) -> None:
    with Served(tmp_path) as daemon:
        tell(daemon, JOB, time.time_ns() // 1000, ended=True)
    status, shown = on_terminal(columns, "journal", "list", tmp_path / "journal")
    assert status == 0 and "SEGMENT" in shown[1]
    assert max(map(cells, shown)) <= columns


# -- help

BELOW = [*commands(main, click.Context(main, info_name="wafermon"))]
LEAVES = [(ctx, command) for ctx, command in BELOW if not isinstance(command, click.Group)]


@pytest.mark.parametrize(("ctx", "command"), LEAVES, ids=[ctx.command_path for ctx, _ in LEAVES])
def test_help_has_an_example_with_options_that_there_are(ctx: click.Context, command: click.Command) -> None:
    _, _, examples = (command.help or "").partition("Example:\n")
    lines = [line for line in examples.splitlines() if line.lstrip().startswith(("wafermon ", "sudo "))]
    assert lines, f"{ctx.command_path} has no example"
    for line in lines:
        assert f"{ctx.command_path} " in line + " "
        own = line.split(ctx.command_path, 1)[1].split(" -- ")[0].split("|")[0]
        names = {name for parameter in command.get_params(ctx) for name in parameter.opts}
        assert {word for word in own.split() if word.startswith("--")} <= names


@pytest.mark.parametrize(("ctx", "command"), BELOW, ids=[ctx.command_path for ctx, _ in BELOW])
def test_help_fits(ctx: click.Context, command: click.Command) -> None:
    narrow = click.Context(command, info_name=ctx.info_name, parent=ctx.parent, terminal_width=80)
    assert [line for line in command.get_help(narrow).splitlines() if len(line) > 80] == []
