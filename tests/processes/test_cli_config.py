"""``wafermon config``, and what a shell sees of the commands as a whole."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import COMMAND, environment, start, wafermon
from daemon import ROOT
from jsonschema import Draft7Validator
from served import Served, job

GOOD = "backends: {f: {plugin: filesystem, path: 'logs/{service}.jsonl'}}\n"


def test_a_config_is_begun_checked_and_compared(tmp_path: Path) -> None:
    file = tmp_path / "wafermon.yaml"
    done = wafermon("config", "init", file)
    assert done.returncode == 0, done.stderr
    first = file.read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=wafermon.schema.json"
    Draft7Validator.check_schema(json.loads((tmp_path / "wafermon.schema.json").read_text()))
    assert wafermon("check", file).returncode == 0
    assert wafermon("config", "diff", file).stdout == f"(the defaults) -> {file}: no differences\n"
    changed = tmp_path / "changed.yaml"
    changed.write_text(file.read_text().replace("max_bytes: 1GiB", "max_bytes: 2GiB"))
    assert wafermon("config", "diff", changed, file).stdout.splitlines() == [
        f"{file} -> {changed}: 1 difference", "journal.max_bytes: 1GiB -> 2GiB",
    ]  # fmt: skip
    [found] = json.loads(wafermon("config", "diff", "--json", changed, file).stdout)
    assert found == {"path": "journal.max_bytes", "file": "2GiB", "other": "1GiB"}


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "wafermon.yaml"
    file.write_text(GOOD)
    done = wafermon("config", "init", file)
    assert (done.returncode, file.read_text()) == (1, GOOD)
    assert "is there already" in done.stderr and not (tmp_path / "wafermon.schema.json").exists()


def test_what_a_config_says_is_shown_with_its_defaults(tmp_path: Path) -> None:
    file = tmp_path / "wafermon.yaml"
    file.write_text(GOOD + "journal: {max_bytes: '${QUOTA}'}\n")
    shown = wafermon("config", "show", file, QUOTA="2GiB")
    assert "  max_bytes: ${QUOTA}\n" in shown.stdout and "  segment_bytes: 64MiB\n" in shown.stdout
    assert json.loads(wafermon("config", "show", "--json", file, QUOTA="2GiB").stdout)["journal"]["sync"] == "always"
    done = wafermon("config", "show", file)
    assert (done.returncode, done.stdout) == (1, "") and "QUOTA" in done.stderr


def test_a_word_that_is_no_command_names_the_one_that_may_be_meant() -> None:
    done = wafermon("staus")
    assert done.returncode == 2 and "there is no command 'staus'; did you mean 'status'?" in done.stderr
    done = wafermon("zzzz")
    assert done.returncode == 2 and "`wafermon --help` lists them" in done.stderr


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as running:
        yield running


def test_an_interrupt_ends_a_command_without_a_word(served: Served) -> None:
    process = start("status", "--watch", "--http", f"http://127.0.0.1:{served.http_port}")
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (-signal.SIGINT, "")


def completions(words: str, **environ: str) -> list[str]:
    """What bash is told for a line whose last word is begun."""
    given = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1), "_WAFERMON_COMPLETE": "bash_complete"}
    done = subprocess.run(
        COMMAND, env=environment(**given, **environ), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    return [line.split(",", 1)[1] for line in done.stdout.splitlines() if line]


def test_a_shell_completes_what_the_sidecar_knows(served: Served) -> None:
    job(served, "load-1")
    job(served, "store-1")
    site = f"http://127.0.0.1:{served.http_port}"
    end = time.monotonic() + 60
    while sorted(completions("wafermon trace ", WAFERMON_HTTP=site)) != ["load-1", "store-1"]:
        assert time.monotonic() < end
    assert completions("wafermon receipt lo", WAFERMON_HTTP=site) == ["load-1"]
    assert completions("wafermon drain --backend ", WAFERMON_HTTP=site) == ["files"]
    assert completions("wafermon tail --service ", WAFERMON_HTTP=site) != []


def test_a_shell_completes_commands_and_does_not_wait_for_a_sidecar_that_is_away() -> None:
    assert completions("wafermon sta") == ["status"]
    assert completions("wafermon config s") == ["schema", "show"]
    assert completions("wafermon trace ", WAFERMON_HTTP="http://127.0.0.1:9") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_of_shells_are_sound(shell: str, tmp_path: Path) -> None:
    done = wafermon("completion", shell)
    assert done.returncode == 0 and "_WAFERMON_COMPLETE" in done.stdout
    if shutil.which(shell):
        (tmp_path / "script").write_text(done.stdout)
        subprocess.run([shell, "-n", tmp_path / "script"], check=True, timeout=60)


def test_the_manual_has_a_page_for_each_command(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "wafermon.cli.manual", tmp_path], cwd=ROOT, check=True, timeout=60)
    pages = {path.stem for path in (tmp_path / "man1").iterdir()}
    assert {"wafermon", "wafermon-jobs", "wafermon-config-diff", "wafermon-send-event"} <= pages
    page = (tmp_path / "man1" / "wafermon-config-diff.1").read_text()
    assert page.startswith(".TH ") and ".SH OPTIONS" in page and "\\-\\-json" in page
    for path in (tmp_path / "man1").iterdir():
        for line in path.read_text().splitlines():
            assert not line.startswith("'"), line
