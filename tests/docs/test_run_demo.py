"""The demonstration runs, shows everything, leaves nothing running, and says so where a message is missing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from daemon import ROOT, read_lines, until

DEMO = ROOT / "examples" / "run_demo.sh"
ENVIRON = {
    **os.environ,
    "VENV": str(Path(sys.executable).parent.parent),
    "PYTHONPATH": str(ROOT),
    "LC_ALL": "C",  # as on a machine where nobody has chosen a language
}


def run_demo(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [str(DEMO), *map(str, arguments)]
    return subprocess.run(command, env={**ENVIRON, **environ}, capture_output=True, text=True, timeout=240, check=False)


def processes_of(output: str) -> list[int]:
    """What the demonstration says that it has started."""
    return [int(pid) for pid in re.findall(r"is process (\d+)", output)]


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "data"


@pytest.fixture(scope="module")
def everything(folder: Path) -> str:
    """The output of a run with all that there is."""
    done = run_demo("--app", "all", "--with-database", "--folder", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_shows_the_jobs_a_trace_of_each_application_and_what_landed(everything: str) -> None:
    for job, status in (
        ("lot-N26A002", "done"), ("lot-N26A010_2", "failed"), ("upload-N26B002", "done"), ("yield-model", "done"),
    ):  # fmt: skip
        assert f"\ntrace {job}  {status}\n" in everything
    jobs = everything[everything.index("== All jobs") :]
    listed = jobs[: jobs.index("== One of them")]
    assert len(re.findall(r"^(?:lot|upload)-\S+ +100 %  done ", listed, re.MULTILINE)) == 8 + 4
    assert len(re.findall(r"^(?:lot|upload)-\S+ +\d+ %  failed ", listed, re.MULTILINE)) == 4 + 1
    assert re.search(r"^All \d+ messages have landed, and the summaries of 18 jobs\.$", everything, re.MULTILINE)
    assert len(re.findall(r"^(?:lot|upload|yield)-\S+  complete$", everything, re.MULTILINE)) == 18


def test_it_has_a_past_that_is_compared(everything: str) -> None:
    past = everything[everything.index("== The past: ") :]
    assert len(re.findall(r"^lot-N26A\S+ +(?:done|failed) ", past, re.MULTILINE)) == 12
    compared = past[past.index("== Two of them beside each other: ") :]
    assert re.search(r"^lot-N26A002 done, \S+ \S+, beside lot-N26A005, ", compared, re.MULTILINE)
    [path] = re.findall("^critical path  (.*)$", compared, re.MULTILINE)
    ends = ["file-receiver/receive", "queue-service/process", "db-loader/load"]
    assert [one for one in path.split(" > ") if one in ends] == ends, "over three programs, and past the queue"


LANGUAGES = {"javac": ["spec-check"], "go": ["wafer-map"], "node": ["web-front"]}
"""Commands, and the services that are there where they are. The maps need both."""


def test_one_trace_goes_over_all_languages(everything: str) -> None:
    """HTTP, then Python in Python's threads -> Perl -> Java -> Go, each the child of the one before, and C beside it."""
    absent = [command for command in LANGUAGES if not shutil.which(command)]
    if absent and os.environ.get("CI") != "true":
        pytest.skip(f"{', '.join(absent)} is not installed")
    assert spans_of("upload-N26B002", everything) == [
        ("", "request", "web-front"),  # Node.js
        ("", "upload", "web-api"),  # Python
        ("├", "parse", "lot-parser"),  # Perl
        ("│ └", "check", "spec-check"),  # Java
        ("│   └", "maps", "wafer-map"),  # Go
        *[("│     ├", "draw", "wafer-map")] * 2,
        ("│     └", "draw", "wafer-map"),
        ("└", "measure", "web-api"),
        *[("  ├", "wafer", "wafer-worker")] * 2,  # C
        ("  └", "wafer", "wafer-worker"),
    ]
    for service in ("web-front", "web-api", "lot-parser", "spec-check", "wafer-map", "wafer-worker"):
        assert re.search(rf"^  {service} +[1-9]\d* ", everything, re.MULTILINE)


def spans_of(job: str, output: str) -> list[tuple[str, str, str]]:
    """The tree that `wafermon trace` has printed: indent, span and service of each line."""
    shown = output[output.index(f"\ntrace {job} ") :]
    table = shown[shown.index("\nSPAN ") : shown.index(" == ") if " == " in shown else None].split("\n\n")[0]
    lines = re.findall(r"^([│ ]*[├└])? ?(\S+) +(\S+) +ok ", table, re.MULTILINE)
    return [(indent, span, service) for indent, span, service in lines]


def test_without_java_go_and_node_it_says_what_is_left_out(tmp_path: Path) -> None:
    """A machine that has the other programs alone."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in os.environ["PATH"].split(":"):
        for path in Path(folder).iterdir() if Path(folder).is_dir() else ():
            if path.name not in ("java", "javac", "go", "node") and not (programs / path.name).exists():
                (programs / path.name).symlink_to(path)
    done = run_demo("--app", "mixed", "--folder", tmp_path / "data", PATH=str(programs))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall("^mixed-language: .*", done.stdout, re.MULTILINE) == [
        "mixed-language: a JDK is not installed, so no lot is checked against its limits, nor are maps of its wafers drawn",
        "mixed-language: Node.js is not installed, so the lots go to the web API without its front",
    ]
    assert [span for _, span, _ in spans_of("upload-N26B002", done.stdout)] == [
        "upload", "parse", "measure", "wafer", "wafer", "wafer",
    ]  # fmt: skip
    assert re.search(r"^All \d+ messages have landed, and the summaries of 5 jobs\.$", done.stdout, re.MULTILINE)


def test_the_database_has_what_the_others_do_not(everything: str) -> None:
    [loader] = re.findall(r"^  db-loader +(\d+) +(\d+) +(\d+) +(\d+)$", everything, re.MULTILINE)
    sent, files, nfs, db = map(int, loader)
    assert (sent, nfs) == (db, 0)
    assert 0 < files < db
    assert re.search(r"^ +18  traces$", everything, re.MULTILINE)


def test_nothing_is_left(everything: str, folder: Path) -> None:
    pids = processes_of(everything)
    assert len(pids) == 2  # the sidecar and the database
    assert not any(map(runs, pids))
    [socket_folder] = re.findall(r"its socket is in (\S+)\.\n", everything)
    assert not Path(socket_folder).exists()
    assert not list((folder / "spill").iterdir())
    log = (folder / "sidecar.log").read_text()
    assert "wafermon has stopped" in log
    assert "Traceback" not in log


def landed(data: Path, jobs: int) -> subprocess.CompletedProcess[str]:
    """The demonstration's own check, without its patience."""
    program = f"import sys; sys.path.insert(0, {str(DEMO.parent)!r}); import landed; landed.PATIENCE = 0; sys.exit(landed.main())"
    command = [sys.executable, "-c", program, str(data), str(data / "programs.log"), "--jobs", str(jobs)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def without_one(data: Path, name: str, service: str) -> None:
    """Take the last line of a service out of a file."""
    [path] = data.glob(name)
    lines = read_lines(path)
    del lines[max(number for number, line in enumerate(lines) if line["service"] == service)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_second_run_begins_anew_and_what_is_missing_is_found(everything: str, folder: Path) -> None:
    done = run_demo("--app", "perl", "--folder", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (folder / "science").exists()
    assert landed(folder, jobs=12).returncode == 0
    without_one(folder, "files/config-service/*.jsonl", "config-service")
    without_one(folder, "db/metric.jsonl", "db-loader")  # they are nowhere else
    found = landed(folder, jobs=13)
    assert found.returncode == 1
    assert re.findall(r"^MISSING: .*$", found.stdout, re.MULTILINE) == [
        "MISSING: config-service sent 54 messages, 53 of them have landed",
        "MISSING: db-loader sent 148 messages, 147 of them have landed",
        "MISSING: 13 jobs ran, 12 of them have a summary",
    ]


def test_it_can_be_interrupted(tmp_path: Path) -> None:
    command = [str(DEMO), "--app", "perl", "--folder", str(tmp_path / "data")]
    queue = tmp_path / "data" / "perl" / "queue"
    with subprocess.Popen(command, env=ENVIRON, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        until(lambda: list(queue.glob("done/*")), "a lot in the database")
        demo.send_signal(signal.SIGTERM)
        output = demo.communicate(timeout=60)[0]
    assert demo.returncode == 143
    [sidecar] = processes_of(output)
    assert not runs(sidecar)
    until(lambda: not services(tmp_path), "the end of the services")


def services(folder: Path) -> list[str]:
    """The processes that were started with a path in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return [line for line in found if str(folder) in line]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    done = run_demo("--app", "perl", "--folder", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is no folder of the demonstration" in done.stderr
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize("arguments", [["--app", "cobol"], ["--app"], ["--folder"], ["--with-mongodb"], ["perl"]])
def test_wrong_usage_is_told(arguments: list[str]) -> None:
    done = run_demo(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--app perl|mixed|science|all" in done.stderr


def test_help() -> None:
    done = run_demo("--help")
    assert done.returncode == 0
    assert "--with-database" in done.stdout
