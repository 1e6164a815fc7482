"""The demonstration runs, shows everything, and says so where something is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import ROOT, read_lines

VENV = Path(sys.executable).parent.parent


def run_demo(folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "VENV": str(VENV), "PYTHONPATH": str(ROOT)}
    command = [str(ROOT / "examples" / "run_demo.sh"), str(folder)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=240, check=False)


def show(files: Path, called: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "demo" / "show.py"), str(files), "job-4711", str(called)]
    environ = {**os.environ, "DEMO_PATIENCE": "0"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demonstration that ran twice."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    for _ in range(2):
        done = run_demo(folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "each exactly once" in done.stdout
    return folder


def test_the_job_is_correlated_over_its_three_services(demo: Path) -> None:
    [trace] = [line for line in read_lines(demo / "files" / "wafermon.jsonl") if line["type"] == "trace"]
    assert sorted(trace["services"]) == ["db-loader", "file-receiver", "parser"]
    assert (trace["trace_id"], trace["status"], trace["errors"]) == ("job-4711", "done", 1)


def test_every_file_reached_the_database_with_the_rows_that_are_good(demo: Path) -> None:
    loaded = [line["context"] for line in read_lines(demo / "files" / "db-loader.jsonl") if line["type"] == "event"]
    assert {one["file"]: one["rows"] for one in loaded} == {
        "N23A017.json": 111,
        "N23A018.json": 108,
        "N23B002.json": 73,
    }


def test_the_programs_and_the_sidecar_are_gone(demo: Path) -> None:
    assert not list((demo / "spill").iterdir())
    log = (demo / "sidecar.log").read_text()
    assert "wafermon has stopped" in log
    assert "Traceback" not in log


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    assert run_demo(tmp_path).returncode == 1
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


def changed(demo: Path, folder: Path, service: str, leave_out: str) -> subprocess.CompletedProcess[str]:
    """Show the demonstration's files without the last line of one type."""
    called = 0
    for path in (demo / "files").iterdir():
        lines = read_lines(path)
        called += 0 if path.stem == "wafermon" else len(lines)
        if path.stem == service:
            del lines[next(index for index in reversed(range(len(lines))) if lines[index]["type"] == leave_out)]
        (folder / path.name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return show(folder, called)


@pytest.mark.parametrize(("service", "leave_out", "said"), [
    ("parser", "metric", "92 are stored"),
    ("file-receiver", "progress", "did not end as done"),
    ("db-loader", "span_end", "the span load of db-loader has no end"),
])  # fmt: skip
def test_a_missing_message_is_found(demo: Path, tmp_path: Path, service: str, leave_out: str, said: str) -> None:
    done = changed(demo, tmp_path, service, leave_out)
    assert done.returncode == 1
    assert said in done.stdout
