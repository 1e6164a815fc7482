"""The example applications, each run end to end: what they found, what they sent, and where it landed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from commands import wafermon
from daemon import ROOT, Daemon, read_lines, until
from ports import free_port

EXAMPLES = ROOT / "examples"
CONFIGS = [EXAMPLES / "sidecar-config.yaml", EXAMPLES / "sidecar-config-files.yaml"]
FAULTS = {"short_row": 2, "bad_number": 2, "wrong_checksum": 1, "duplicate": 2}
GOOD = 4
Message = dict[str, Any]


def there(*programs: str, perl: str = "", r: str = "") -> bool:
    """Whether the programs, and what they are to load, are here. In CI they must be."""
    if os.environ.get("CI"):
        return True
    checks = [["perl", "-e", f"use {perl}"]] if perl else []
    checks += [["Rscript", "-e", r]] if r else []
    return all(map(shutil.which, programs)) and not any(
        subprocess.run(check, capture_output=True, check=False).returncode for check in checks
    )


NEEDS = {
    "perl-app": lambda: there("perl", perl="DBD::SQLite"),
    "mixed-language": lambda: there("perl", "gcc", "make"),
    "data-science": lambda: there("gcc", "make", "Rscript", r="library(R6); library(jsonlite)"),
}


def generate(folder: Path, *options: str) -> dict[str, Any]:
    """Make lots; the manifest."""
    command = [sys.executable, str(EXAMPLES / "lots" / "generate.py"), str(folder), *options]
    subprocess.run(command, check=True)
    return dict(json.loads((folder / "manifest.json").read_text()))


def in_words(counts: dict[str, int]) -> str:
    return ",".join(f"{kind}:{count}" for kind, count in counts.items())


def dies_of(text: str) -> list[dict[str, str]]:
    """The table of a lot's file."""
    return list(
        csv.DictReader(io.StringIO("".join(line for line in text.splitlines(True) if not line.startswith("#"))))
    )


@dataclass
class Sidecar:
    """A sidecar on the examples' config, and the environment that leads programs to it."""

    daemon: Daemon
    environ: dict[str, str]

    def run(self, app: str, lots: Path) -> str:
        """One application to its end; its standard error."""
        command = [str(EXAMPLES / app / "run"), str(lots), str(self.daemon.directory / app)]
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def stored(self) -> dict[str, list[Message]]:
        """What each backend holds."""
        folders = {name: self.daemon.directory / name for name in ("files", "nfs", "db")}
        return {
            name: [line for path in sorted(folder.rglob("*.jsonl")) for line in read_lines(path)]
            for name, folder in folders.items()
        }

    def of_jobs(self, jobs: set[str]) -> list[Message]:
        """Each message of these jobs once, in the order of time; waits until the sidecar has summed them up."""

        def summed_up() -> bool:
            return jobs <= {message["trace_id"] for message in self.stored()["db"] if message["type"] == "trace"}

        until(summed_up, f"the summaries of {len(jobs)} jobs")
        found = {key(message): message for lines in self.stored().values() for message in lines}
        mine = [message for message in found.values() if message.get("trace_id") in jobs]
        return sorted(mine, key=lambda message: (message["ts"], message.get("seq", 0)))


def key(message: Message) -> tuple[str, object]:
    """What makes it this message. The sidecar's own are not numbered."""
    return message["client"], message.get("seq") or (
        message["type"],
        message.get("trace_id"),
        message["ts"],
        message.get("message"),
    )


@contextmanager
def running(directory: Path) -> Iterator[Sidecar]:
    daemon = Daemon(directory, CONFIGS[1].read_text().replace("{", "{{").replace("}", "}}"))
    variables = {
        "WAFERMON_PORT": str(daemon.port),
        "WAFERMON_HTTP_PORT": str(free_port()),
        "WAFERMON_DATA": str(directory),
        "WAFERMON_NFS": str(directory / "nfs"),
        "WAFERMON_URL": f"tcp://127.0.0.1:{daemon.port}",
        "WAFERMON_SPILL_DIR": str(directory / "spill"),
        "PYTHON": sys.executable,
        "LOT_EVERY": "0.02",
    }
    with patch.dict(os.environ, variables):
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        daemon.start()
    try:
        yield Sidecar(daemon, environ)
    finally:
        daemon.stop()
    assert "Traceback" not in daemon.log(), daemon.log()


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """Of the applications as they are meant to run."""
    with running(tmp_path_factory.mktemp("examples")) as sidecar:
        yield sidecar


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    """Another one, for what goes wrong on purpose."""
    with running(tmp_path_factory.mktemp("apart")) as sidecar:
        yield sidecar


@dataclass
class Run:
    """What came of an application."""

    sidecar: Sidecar
    app: str
    lots: Path
    made: dict[str, Any]
    """The generator's manifest."""
    jobs: dict[str, str | None]
    """Each job's id, and the fault that its lot has."""

    def __post_init__(self) -> None:
        self.work = self.sidecar.daemon.directory / self.app
        self.stderr = self.sidecar.run(self.app, self.lots)

    @cached_property
    def messages(self) -> list[Message]:
        """Of its jobs."""
        return self.sidecar.of_jobs(set(self.jobs))

    def of(self, job: str) -> list[Message]:
        return [message for message in self.messages if message["trace_id"] == job]

    def all_of(self, kind: str) -> list[Message]:
        return [message for message in self.messages if message["type"] == kind]


def run_perl(sidecar: Sidecar) -> Run:
    lots = sidecar.daemon.directory / "lots-perl"
    made = generate(lots, "--lots", str(GOOD + sum(FAULTS.values())), "--faults", in_words(FAULTS), "--seed", "7")
    jobs = {f"lot-{Path(name).stem}": one["fault"] for name, one in made.items()}
    return Run(sidecar, "perl-app", lots, made, jobs)


def run_mixed(sidecar: Sidecar) -> Run:
    lots = sidecar.daemon.directory / "lots-mixed"
    faults = in_words({"short_row": 1, "bad_number": 1, "wrong_checksum": 1})
    made = generate(lots, "--lots", "6", "--faults", faults, "--prefix", "M", "--seed", "8")
    jobs = {f"upload-{Path(name).stem}": one["fault"] for name, one in made.items()}
    return Run(sidecar, "mixed-language", lots, made, jobs)


def run_science(sidecar: Sidecar) -> Run:
    lots = sidecar.daemon.directory / "lots-science"
    made = generate(lots, "--lots", "5", "--faults", "", "--prefix", "S", "--seed", "9")
    return Run(sidecar, "data-science", lots, made, {"yield-model": None})


@pytest.fixture(scope="module")
def runs(sidecar: Sidecar) -> dict[str, Run]:
    """All that can run here, before the first of them is looked at: a trace takes 5 s to end."""
    every = {"perl-app": run_perl, "mixed-language": run_mixed, "data-science": run_science}
    return {app: run(sidecar) for app, run in every.items() if NEEDS[app]()}


def one_of(runs: dict[str, Run], app: str) -> Run:
    if app not in runs:
        pytest.skip(f"what {app} needs is missing; tests/run installs it")
    return runs[app]


@pytest.fixture
def perl(runs: dict[str, Run]) -> Run:
    return one_of(runs, "perl-app")


@pytest.fixture
def mixed(runs: dict[str, Run]) -> Run:
    return one_of(runs, "mixed-language")


@pytest.fixture
def science(runs: dict[str, Run]) -> Run:
    return one_of(runs, "data-science")


@pytest.fixture(params=["perl", "mixed", "science"])
def app(request: pytest.FixtureRequest) -> Run:
    """Each of them."""
    run: Run = request.getfixturevalue(request.param)
    return run


def tree(messages: list[Message]) -> list[Any]:
    """The finished spans as ``[service name, [children]]``, in the order of their starts."""
    inside: dict[str | None, list[Message]] = defaultdict(list)
    for span in sorted((one for one in messages if one["type"] == "span_end"), key=lambda one: one["start"]):
        inside[span.get("parent_id")].append(span)

    def below(parent: str | None) -> list[Any]:
        return [[f"{span['service']} {span['name']}", below(span["span_id"])] for span in inside[parent]]

    return below(None)


# --- what holds for each of them ----------------------------------------------------------------------------------


def test_every_span_is_closed_and_lies_in_one_that_is_there(app: Run) -> None:
    starts = {one["span_id"]: one for one in app.all_of("span_start")}
    ends = {one["span_id"]: one for one in app.all_of("span_end")}
    assert starts.keys() == ends.keys()
    assert len(app.all_of("span_end")) == len(ends) > 0
    for span_id, end in ends.items():
        assert (end["trace_id"], end.get("parent_id")) == (
            starts[span_id]["trace_id"],
            starts[span_id].get("parent_id"),
        )
        if "parent_id" in end:
            assert ends[end["parent_id"]]["trace_id"] == end["trace_id"]
    for message in app.messages:
        assert message.get("span_id", next(iter(ends))) in ends


def test_each_job_is_one_trace_with_one_root(app: Run) -> None:
    """Its front knows the job by its name alone, so that its span stands beside the API's."""
    front = app.app == "mixed-language" and there("node")
    for job in app.jobs:
        assert len(tree(app.of(job))) == (2 if front else 1), job
    summaries = app.all_of("trace")
    assert Counter(one["trace_id"] for one in summaries) == dict.fromkeys(app.jobs, 1)
    for one in summaries:
        assert one["status"] == ("failed" if app.jobs[one["trace_id"]] else "done")
        counted = {kind: count for kind, count in one["counts"].items() if not kind.startswith("level.")}
        mine = [message for message in app.of(one["trace_id"]) if message["service"] != "wafermon"]
        assert counted == Counter(message["type"] for message in mine)


def test_progress_goes_from_0_to_100_or_ends_as_failed(app: Run) -> None:
    for job, fault in app.jobs.items():
        told = [message for message in app.of(job) if message["type"] == "progress"]
        percents = [message["percent"] for message in told]
        assert (percents[0], told[-1]["status"]) == (0, "failed" if fault else "done"), job
        if not fault:
            assert percents == sorted(percents)
            assert percents[-1] == 100


def landed(sidecar: Sidecar) -> dict[tuple[str, Any], Message]:
    """What the programs sent and any backend has."""
    return {key(one): one for lines in sidecar.stored().values() for one in lines if one["service"] != "wafermon"}


@pytest.fixture
def called(sidecar: Sidecar, perl: Run, mixed: Run, science: Run) -> Counter[str]:
    """How often each service's SDKs were called, as they say; waits until as much has landed."""
    called: Counter[str] = Counter()
    for app in (perl, mixed, science):
        assert app.messages
        for service, count in re.findall(r"^(\S+): (\d+) messages$", app.stderr, re.MULTILINE):
            called[service] += int(count)
    # `wafermon run` has no such line: it tells each line of stderr, and of itself the span, the use and the end.
    called["data-science"] = len(science.stderr.splitlines()) + len(
        ["progress 0", "span_start", "resource", "event", "span_end", "progress 100"]
    )
    until(lambda: len(landed(sidecar)) >= called.total(), f"the landing of {called.total()} messages")
    return called


def test_every_message_that_the_sdks_were_called_for_has_landed(sidecar: Sidecar, called: Counter[str]) -> None:
    found = landed(sidecar)
    assert Counter(one["service"] for one in found.values()) == called
    # A program that lives for more than 5 s tells of itself in between, by lines that take a seq and are stored nowhere.
    first: dict[str, int] = {}
    for client, seq in found:
        first[client] = min(seq, first.get(client, seq))
    assert set(first.values()) == {1}


def backends_of(message: Message) -> set[str]:
    """What the routes are meant to say."""
    service, kind = message["service"], message["type"]
    if service == "config-service":
        return {"files"}
    if service == "queue-service":
        return {"db", "nfs"}
    if service == "db-loader" and kind in ("metric", "resource"):
        return {"db"}
    if service in ("file-receiver", "db-loader"):
        return {"files", "db"}
    if message.get("level") == "debug":
        return {"files"}
    return {"nfs"} if kind == "resource" else {"files", "db"}


def test_each_message_is_in_the_backends_that_its_route_names_once_and_in_no_other(
    sidecar: Sidecar, called: Counter[str]
) -> None:
    stored = sidecar.stored()
    every = {key(message): message for lines in stored.values() for message in lines}
    for name, lines in stored.items():
        assert lines
        expected = {one for one, message in every.items() if name in backends_of(message)}
        assert Counter(map(key, lines)) == dict.fromkeys(expected, 1), name


def test_nothing_was_refused_and_nothing_is_left_over(sidecar: Sidecar, called: Counter[str]) -> None:
    assert not sidecar.daemon.letters()
    until(lambda: not list((sidecar.daemon.directory / "spill").iterdir()), "an empty spill folder")


# --- the Perl application -----------------------------------------------------------------------------------------


def faults_told(run: Run, service: str, message: str) -> Counter[str]:
    told = [one for one in run.all_of("event") if (one["service"], one["message"]) == (service, message)]
    return Counter(one["context"]["fault"] for one in told)


def test_perl_finds_each_fault_where_it_can_be_known(perl: Run) -> None:
    refused = {kind: count for kind, count in FAULTS.items() if kind != "duplicate"}
    assert faults_told(perl, "file-receiver", "lot refused") == refused
    assert faults_told(perl, "db-loader", "lot not loaded") == {"duplicate": FAULTS["duplicate"]}
    for job, fault in perl.jobs.items():
        errors = [one for one in perl.of(job) if one["type"] == "event" and one["level"] == "error"]
        assert bool(errors) is bool(fault)
        assert {one["context"].get("fault", fault) for one in errors} <= {fault}


def lot_tree(wafers: int) -> list[Any]:
    load = ["db-loader load", [["db-loader wafer", []]] * wafers]
    configure = ["config-service configure", [["config-service parse", []]]]
    return [["file-receiver receive", [CHECK, configure, ["queue-service process", [load]]]]]


CHECK = ["file-receiver check", []]
REFUSED = [["file-receiver receive", [CHECK]]]


def test_perl_one_lot_is_one_tree_over_four_programs(perl: Run) -> None:
    wanted = {None: lot_tree(wafers=3), "duplicate": lot_tree(wafers=0)}
    for job, fault in perl.jobs.items():
        assert tree(perl.of(job)) == wanted.get(fault, REFUSED), job


def test_perl_the_database_holds_the_good_lots_and_nothing_else(perl: Run) -> None:
    with sqlite3.connect(perl.work / "wafers.db") as database:
        loaded = dict(database.execute("SELECT lot, count(*) FROM dies GROUP BY lot"))
        values = database.execute("SELECT lot, wafer, x, y, vth_v, idsat_ua, ileak_na, bin FROM dies").fetchall()
    good = {one["lot"]: name for name, one in perl.made.items() if not one["fault"]}
    assert loaded == {lot: perl.made[name]["dies"] for lot, name in good.items()}
    assert len(good) == GOOD
    wanted = [
        (lot, *(int(die[name]) for name in ("wafer", "x", "y")),
         *(float(die[name]) for name in ("vth_v", "idsat_ua", "ileak_na")), int(die["bin"]))
        for lot, name in good.items() for die in dies_of((perl.lots / name).read_text())
    ]  # fmt: skip
    assert sorted(values) == sorted(wanted)


LIMITS = {
    "A7": {"vth_v": (0.39, 0.46), "idsat_ua": (560, 660), "ileak_na": (0, 4.5)},
    "B2": {"vth_v": (0.33, 0.40), "idsat_ua": (660, 780), "ileak_na": (0, 7.5)},
}


def test_perl_the_yield_of_each_wafer_is_right(perl: Run) -> None:
    told = {
        (one["tags"]["lot"], one["tags"]["wafer"]): one["value"]
        for one in perl.all_of("metric")
        if one["name"] == "yield"
    }
    wanted, beyond = {}, 0
    for name, made in perl.made.items():
        if not made["fault"]:
            dies = dies_of((perl.lots / name).read_text())
            for wafer in {die["wafer"] for die in dies}:
                mine = [die for die in dies if die["wafer"] == wafer]
                limits = LIMITS[made["product"]].items()
                good = [die for die in mine if die["bin"] == "1"
                        and all(low <= float(die[what]) <= high for what, (low, high) in limits)]  # fmt: skip
                beyond += sum(die["bin"] == "1" for die in mine) - len(good)
                wanted[made["lot"], int(wafer)] = pytest.approx(100 * len(good) / len(mine))
    assert told == wanted
    assert beyond > 0  # dies that the tester passes and the limits do not


def queue_of(work: Path) -> dict[str, int]:
    return {folder.name: len(list(folder.iterdir())) for folder in (work / "queue").iterdir()}


def test_perl_the_queue_is_empty_at_the_end(perl: Run) -> None:
    done, failed = GOOD, FAULTS["duplicate"]
    assert queue_of(perl.work) == {"tmp": 0, "new": 0, "claimed": 0, "done": done, "failed": failed}
    refused = {name for name, one in perl.made.items() if one["fault"] not in (None, "duplicate")}
    assert {path.name for path in (perl.work / "incoming" / "refused").iterdir()} == refused


@pytest.fixture
def services(apart: Sidecar, tmp_path: Path) -> Iterator[Any]:
    """Start programs of the Perl application; they are ended as its `run` ends them."""
    if not NEEDS["perl-app"]():
        pytest.skip("what perl-app needs is missing; tests/run installs it")
    (tmp_path / "incoming").mkdir()
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: object) -> subprocess.Popen[bytes]:
        command = [str(EXAMPLES / "perl-app" / name), *map(str, arguments)]
        running.append(subprocess.Popen(command, env=apart.environ, stderr=subprocess.DEVNULL))
        return running[-1]

    yield start
    for process in running:
        process.terminate()
        assert process.wait(30) == 0


def test_perl_a_busy_database_is_tried_again(apart: Sidecar, services: Any, tmp_path: Path) -> None:
    generate(tmp_path / "incoming", "--lots", "1", "--faults", "", "--prefix", "BUSY")
    database = sqlite3.connect(tmp_path / "wafers.db", isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    services("file-receiver", tmp_path / "incoming", tmp_path / "queue")
    services("queue-service", tmp_path / "queue", tmp_path / "wafers.db")
    until(lambda: list((tmp_path / "queue" / "new").glob("*,tries=2")), "a second try")
    database.execute("ROLLBACK")
    messages = apart.of_jobs({"lot-BUSY001"})
    [tree_] = tree(messages)
    tries = [one for one in messages if one["type"] == "span_end" and one["name"] == "process"]
    assert [one["tags"]["try"] for one in tries] == list(range(1, len(tries) + 1))
    assert [one["status"] for one in tries] == ["error"] * (len(tries) - 1) + ["ok"]
    assert sum(one.get("message") == "to be tried again" for one in messages) == len(tries) - 1 >= 2
    assert [child[0] for child in tree_[1]].count("queue-service process") == len(tries)
    assert [one["status"] for one in messages if one["type"] == "trace"] == ["done"]
    assert database.execute("SELECT count(*) FROM lots").fetchone() == (1,)
    database.close()


def test_perl_two_workers_share_a_queue_and_a_dead_ones_claim_is_taken_up(services: Any, tmp_path: Path) -> None:
    made = generate(tmp_path / "incoming", "--lots", "6", "--faults", "", "--prefix", "TWO", "--wafers", "1")
    receiver = services("file-receiver", tmp_path / "incoming", tmp_path / "queue")
    until(lambda: len(list((tmp_path / "queue" / "new").glob("*"))) == 6, "all lots in the queue")
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    [claimed, *_] = sorted((tmp_path / "queue" / "new").iterdir())
    claimed.rename(tmp_path / "queue" / "claimed" / f"{claimed.name},by={gone}")
    for _ in range(2):
        services("queue-service", tmp_path / "queue", tmp_path / "wafers.db")
    until(lambda: queue_of(tmp_path)["done"] == 6, "all lots done")
    assert queue_of(tmp_path) == {"tmp": 0, "new": 0, "claimed": 0, "done": 6, "failed": 0}
    with sqlite3.connect(tmp_path / "wafers.db") as database:
        assert {lot for (lot,) in database.execute("SELECT lot FROM lots")} == {one["lot"] for one in made.values()}
    assert receiver.poll() is None


def test_perl_a_product_without_limits_is_refused(apart: Sidecar, services: Any, tmp_path: Path) -> None:
    generate(tmp_path, "--lots", "1", "--faults", "", "--prefix", "ODD")
    content = (tmp_path / "ODD001.csv").read_text().rpartition("# sha256")[0].replace("product: ", "product: X")
    digest = hashlib.sha256(content.encode()).hexdigest()
    (tmp_path / "part").write_text(f"{content}# sha256: {digest}\n")
    (tmp_path / "part").rename(tmp_path / "incoming" / "ODD001.csv")
    services("file-receiver", tmp_path / "incoming", tmp_path / "queue")
    messages = apart.of_jobs({"lot-ODD001"})
    errors = [(one["service"], one["message"]) for one in messages if one.get("level") == "error"]
    assert errors == [("config-service", "no such product"), ("file-receiver", "lot refused")]
    assert [one["status"] for one in messages if one["type"] == "trace"] == ["failed"]


# --- the web API --------------------------------------------------------------------------------------------------


def test_mixed_answers_with_what_the_wafers_measure(mixed: Run) -> None:
    answers = {line["lot"]: line for line in read_lines(mixed.work / "answers.jsonl")}
    assert answers.keys() == {one["lot"] for one in mixed.made.values()}
    for name, made in mixed.made.items():
        answer = answers[made["lot"]]
        assert answer["job"] == f"upload-{made['lot']}"
        if made["fault"]:
            assert answer["error"] == "the lot is faulty"
            continue
        dies = dies_of((mixed.lots / name).read_text())
        for wafer in answer["wafers"]:
            mine = [die for die in dies if die["wafer"] == wafer["wafer"]]
            vth = [float(die["vth_v"]) for die in mine]
            assert wafer["dies"] == len(mine)
            assert wafer["mean_vth"] == pytest.approx(statistics.mean(vth))
            assert wafer["sd_vth"] == pytest.approx(statistics.stdev(vth), abs=1e-8)
            assert wafer["yield"] == pytest.approx(100 * sum(die["bin"] == "1" for die in mine) / len(mine))
        assert [wafer["wafer"] for wafer in answer["wafers"]] == ["1", "2", "3"]


def test_mixed_one_upload_is_one_tree_over_all_languages(mixed: Run) -> None:
    """What is in Java, Go and Node.js is left out where that is not installed."""
    maps = [["wafer-map maps", [["wafer-map draw", []]] * 3]] if there("go") else []
    check = [["spec-check check", maps]] if there("javac") else []
    front = [["web-front request", []]] if there("node") else []
    measure = ["web-api measure", [["wafer-worker wafer", []]] * 3]
    measured = [["web-api upload", [["lot-parser parse", check], measure]]]
    faulty = [["web-api upload", [["lot-parser parse", []]]]]
    for job, fault in mixed.jobs.items():
        assert tree(mixed.of(job)) == front + (faulty if fault else measured)


def test_mixed_draws_the_dies_that_are_outside(mixed: Run) -> None:
    if not there("javac", "go"):
        pytest.skip("the maps need Java and Go")
    for name, made in mixed.made.items():
        drawn = sorted(path.name for path in (mixed.work / "maps").glob(f"{made['lot']}-*.svg"))
        assert drawn == ([] if made["fault"] else [f"{made['lot']}-{wafer}.svg" for wafer in (1, 2, 3)])
        for path in drawn:
            svg = (mixed.work / "maps" / path).read_text()
            mine = [die for die in dies_of((mixed.lots / name).read_text()) if path.endswith(f"-{die['wafer']}.svg")]
            assert svg.count("<rect") == len(mine)
            assert svg.count("crimson") == sum(not is_within(die, made["product"]) for die in mine)


def is_within(die: dict[str, str], product: str) -> bool:
    """Whether a die keeps the limits of products.conf."""
    [_, *sections] = re.split(r"^\[(\w+)\]$", (EXAMPLES / "perl-app" / "products.conf").read_text(), flags=re.MULTILINE)
    limits = re.findall(
        r"^(\w+) *= *(\S+) (\S+)$", dict(zip(sections[::2], sections[1::2], strict=True))[product], re.MULTILINE
    )
    return all(float(least) <= float(die[name]) <= float(most) for name, least, most in limits)


def test_mixed_finds_each_fault(mixed: Run) -> None:
    told = [
        one["context"]["fault"]
        for one in mixed.all_of("event")
        if one["service"] == "lot-parser" and one["level"] == "error"
    ]
    assert Counter(told) == {"short_row": 1, "bad_number": 1, "wrong_checksum": 1}


@pytest.fixture
def web_api(apart: Sidecar, mixed: Run, tmp_path: Path) -> Iterator[str]:
    """The URL of one whose workers are missing."""
    command = [sys.executable, str(EXAMPLES / "mixed-language" / "web_api.py"), str(tmp_path)]
    environ = {**apart.environ, "PYTHONPATH": str(ROOT / "sdk" / "python")}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as api:
        assert api.stdout
        yield api.stdout.readline().strip()
        api.terminate()
    assert api.returncode == 0


def post(url: str, body: bytes) -> tuple[int, dict[str, Any]]:
    try:
        urllib.request.urlopen(urllib.request.Request(url, data=body, method="POST"), timeout=60)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
    raise AssertionError(f"{url} took it")


def test_mixed_a_worker_that_cannot_be_started_fails_the_job(apart: Sidecar, mixed: Run, web_api: str) -> None:
    good = next(name for name, one in mixed.made.items() if not one["fault"])
    status, answer = post(f"{web_api}/lots/nobody", (mixed.lots / good).read_bytes())
    assert (status, answer["job"]) == (500, "upload-nobody")
    assert "wafer-worker" in answer["error"]
    messages = apart.of_jobs({"upload-nobody"})
    assert [one["status"] for one in messages if one["type"] == "trace"] == ["failed"]
    ended = {one["name"]: one["status"] for one in messages if one["type"] == "span_end"}
    assert ended == {"upload": "error", "parse": "ok", "measure": "error"}


@pytest.mark.parametrize(("path", "body"), [("/lots/a", b""), ("/lots/a%20b", b"x"), ("/other", b"x")])
def test_mixed_a_request_that_is_none_is_told_so(web_api: str, path: str, body: bytes) -> None:
    status, answer = post(web_api + path, body)
    assert status == 400
    assert "to /lots/NAME" in answer["error"]


# --- the pipeline -------------------------------------------------------------------------------------------------


def test_science_is_one_tree_over_three_languages(science: Run) -> None:
    analysis = ["wafer-analysis analyse", [["wafer-analysis lot", []]] * 5]
    steps = [analysis, ["model-training train", []], ["model-inference infer", []]]
    assert tree(science.messages) == [["data-science pipeline", steps]]


def robust_z(values: list[float]) -> list[float]:
    middle = statistics.median(values)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in values)
    return [(value - middle) / spread for value in values]


def test_science_the_analysis_finds_the_outliers(science: Run) -> None:
    told = {
        one["context"]["lot"]: one["context"]["outliers"]
        for one in science.all_of("event")
        if one["message"] == "lot analysed"
    }
    wanted, kept = {}, 0
    for name, made in science.made.items():
        leaks = robust_z([math.log(float(die["ileak_na"])) for die in dies_of((science.lots / name).read_text())])
        wanted[made["lot"]] = sum(abs(z) > 4.5 for z in leaks)
        kept += len(leaks) - wanted[made["lot"]]
    assert told == wanted
    assert sum(wanted.values()) > 0
    new = len(read_table(science.work / "new.csv"))
    last = max(wanted)
    assert len(read_table(science.work / "train.csv")) == kept - (new - wanted[last])


def read_table(path: Path) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(path.open())]


def test_science_the_inference_says_what_the_model_says(science: Run) -> None:
    pairs = [line.split() for line in (science.work / "model.txt").read_text().splitlines()]
    weights = {name: float(weight) for name, weight in pairs}
    dies, predicted = read_table(science.work / "new.csv"), read_table(science.work / "predictions.csv")
    assert len(dies) == len(predicted) > 100
    right = 0
    for die, said in zip(dies, predicted, strict=True):
        total = weights["intercept"] + sum(weights[name] * die[name] for name in ("edge", "z_vth", "z_idsat", "z_leak"))
        assert said["probability"] == pytest.approx(1 / (1 + math.exp(-total)), abs=1e-8)
        assert said["fails"] == die["fails"]
        right += (said["probability"] >= 0.5) == bool(die["fails"])
    [accuracy] = [one["value"] for one in science.all_of("metric") if one["name"] == "accuracy"]
    assert accuracy == pytest.approx(100 * right / len(dies))
    assert right > sum(die["fails"] == 0 for die in dies)  # better than to say that none fails


def test_science_the_training_learns(science: Run) -> None:
    losses = [one["value"] for one in science.all_of("metric") if one["name"] == "loss"]
    assert len(losses) == 8
    assert losses == sorted(losses, reverse=True)


def test_science_a_step_that_fails_ends_the_job(apart: Sidecar, science: Run, tmp_path: Path) -> None:
    generate(tmp_path / "lots", "--lots", "2", "--faults", "bad_number:1", "--seed", "3")
    command = [str(EXAMPLES / "data-science" / "run"), str(tmp_path / "lots"), str(tmp_path)]
    done = subprocess.run(command, env={**apart.environ, "JOB": "broken-model"}, capture_output=True, check=False)
    assert done.returncode != 0
    messages = apart.of_jobs({"broken-model"})
    assert [one["status"] for one in messages if one["type"] == "trace"] == ["failed"]
    ended = [(one["name"], one["status"]) for one in messages if one["type"] == "span_end" and one["status"] == "error"]
    assert ended == [("lot", "error"), ("analyse", "error"), ("pipeline", "error")]
    assert not (tmp_path / "model.txt").exists()


# --- the generator and the configs --------------------------------------------------------------------------------


def test_the_generator_makes_the_faults_that_it_names(tmp_path: Path) -> None:
    made = generate(tmp_path, "--lots", "12", "--faults", in_words(FAULTS))
    assert Counter(one["fault"] for one in made.values()) == {**FAULTS, None: 5}  # type: ignore[misc]
    for name, one in made.items():
        content, _, rest = (tmp_path / name).read_text().rpartition("# sha256: ")
        found = set()
        if hashlib.sha256(content.encode()).hexdigest() != rest.strip():
            found.add("wrong_checksum")
        rows = [line.split(",") for line in content.splitlines() if not line.startswith("#")][1:]
        assert len(rows) == one["dies"]
        if any(len(row) != 7 for row in rows):
            found.add("short_row")
        if any(not re.fullmatch(r"-?\d+(\.\d+)?", value) for row in rows for value in row):
            found.add("bad_number")
        if "_" in name and content == (tmp_path / f"{one['lot']}.csv").read_text().rpartition("# sha256: ")[0]:
            found.add("duplicate")
        assert found == ({one["fault"]} if one["fault"] else set()), name


def test_the_same_seed_makes_the_same_lots(tmp_path: Path) -> None:
    def content(folder: str, *options: str) -> dict[str, str]:
        generate(tmp_path / folder, "--lots", "6", *options)
        return {path.name: path.read_text() for path in (tmp_path / folder).iterdir()}

    first = content("a")
    assert content("b") == first
    assert content("c", "--seed", "1") != first


@pytest.mark.parametrize("options", [["--lots", "3"], ["--faults", "broken:1"], ["--faults", "short_row"]])
def test_the_generator_refuses_what_it_cannot_make(tmp_path: Path, options: list[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError, match="exit status 2"):
        generate(tmp_path, *options)


def test_the_configs_are_good_and_differ_in_one_backend_alone() -> None:
    for path in CONFIGS:
        done = wafermon("check", path, WAFERMON_DSN="postgresql://wafermon@localhost/wafermon")
        assert (done.returncode, done.stderr) == (0, "")
    first, second = (yaml.safe_load(path.read_text()) for path in CONFIGS)
    assert (first["backends"].pop("db")["plugin"], second["backends"].pop("db")["plugin"]) == (
        "timescaledb",
        "filesystem",
    )
    assert first == second
