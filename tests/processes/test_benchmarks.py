"""The benchmarks run and count what they measure. Nothing here looks at how fast anything is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from central import Central
from daemon import PATIENCE, ROOT, until

sys.path.append(str(ROOT / "benchmarks"))

from suite import page, report
from suite.contestants import Contestant
from suite.options import Options
from suite.section import Case, Column, Ratio, Results, Section, only
from suite.sections import streams
from suite.stored import Lines, wait

CASES = {
    "peers": ["naive Twisted server", "C floor"],
    "sidecar": ["files", "PostgreSQL", "280 bytes, four types in turn", "280 bytes"],
    "latency": ["capacity", "50 %"],
    "growth": ["16 MiB of journal"],
    "sdks": ["Python, logging.FileHandler"],
    "streams": ["mix, one in 500 lines", "mix, one in 500 lines: naive"],
}
WITHOUT_PLOT = ("streams",)


def test_a_few_cases_of_each_kind(tmp_path: Path) -> None:
    names = [
        "peers:naive", "peers:floor", "sidecar:PostgreSQL", "sidecar:four types", "latency:50",
        "growth:16 MiB", "sdks:Python", "streams:500",
    ]  # fmt: skip
    command = [str(ROOT / "benchmarks/run"), "--quick", "--messages", "3000", "--rounds", "1", "--out", str(tmp_path)]
    environ = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        [*command, "--only", ",".join(names)], env=environ, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert {"CPU", "cores", "kernel", "Python", "wafermon"} <= found["machine"].keys()
    for section, cases in CASES.items():
        measured = {case["name"]: case for case in found["sections"][section]["cases"]}
        assert set(cases) <= measured.keys()
        for case in measured.values():
            assert len(case["rounds"]) == 1
            assert case["name"] in done.stdout
        assert section in WITHOUT_PLOT or f"{section}.svg" in {path.name for path in tmp_path.iterdir()}
    for case in found["sections"]["sidecar"]["cases"]:
        assert min(case["median"][figure] for figure in ("rate", "per_cpu", "peak", "written", "disk")) > 0
        assert case["ratio"]["median"] > 0
    latencies = found["sections"]["latency"]["cases"][1]["median"]
    assert 0 < latencies["p50"] <= latencies["p99"] <= latencies["most"]


def test_an_unknown_name_says_what_there_is(tmp_path: Path) -> None:
    command = [str(ROOT / "benchmarks/run"), "--quick", "--out", str(tmp_path), "--only"]
    environ = {**os.environ, "PYTHON": sys.executable}
    for name, answer in (("peer", "peers, sidecar"), ("peers:nginx", "rsyslog, syslog-ng, C floor")):
        done = subprocess.run([*command, name], env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert answer in done.stderr


@pytest.mark.parametrize(("sent", "complaint"), [(3, "2 of 3"), (1, "2 messages are stored where 1")])
def test_what_is_lost_or_doubled_has_no_rate(tmp_path: Path, sent: int, complaint: str) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n{}\n{")
    (tmp_path / "wafermon.jsonl").write_text("{}\n")  # what a sidecar says itself was not sent
    with pytest.raises(RuntimeError, match=complaint):
        wait(Lines(tmp_path), sent, lambda: None, patience=0.05)


def results() -> Results:
    """Two cases, in rounds of which the second was on a machine half as fast."""
    columns = (Column("per_cpu", "per CPU-second", spread=True), Column("p99", "p99"))
    cases = (Case("old", lambda _: {}, base="old"), Case("new", lambda _: {}, base="old"))
    found = Results(Section("peers", "Title", cases, columns, Ratio("per_cpu", "to old")))
    found.rounds = {"old": [{"per_cpu": 1000}, {"per_cpu": 500}], "new": [{"per_cpu": 3000}, {"per_cpu": 1500}]}
    return found


def test_ratios_are_taken_within_a_round() -> None:
    assert report.table(results()) == [
        ["", "per CPU-second", "to old"],
        ["old", "750 (500–1,000)", "1"],
        ["new", "2,250 (1,500–3,000)", "3.00 (3.00–3.00)"],
    ]


def test_a_peer_that_is_not_there_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = "OpenTelemetry Collector"
    for there in (Contestant(lambda directory, port: []), None):
        monkeypatch.setattr(streams, "collector", lambda there=there: there)
        section = streams.section(Options())
        assert (f"mix: {peer}" in [case.name for case in section.cases]) == (there is not None)
        assert (f"{peer} is missing" in section.title) == (there is None)


def test_a_chosen_case_brings_its_base() -> None:
    assert [case.name for case in only(results().section, ["new"]).cases] == ["old", "new"]
    assert [case.name for case in only(results().section, ["old"]).cases] == ["old"]


def test_the_page_is_rewritten_between_its_markers() -> None:
    before = "a\n<!-- benchmarks: peers -->\nold\n<!-- benchmarks end -->\nb\n"
    after = page.rewrite(before, {"peers": "| new |\n"})
    assert after == "a\n<!-- benchmarks: peers -->\n| new |\n<!-- benchmarks end -->\nb\n"
    assert page.rewrite(after, {}) == after
    with pytest.raises(SystemExit, match="benchmarks: sdks"):
        page.rewrite(before, {"sdks": ""})


def test_the_page_has_a_place_for_every_section() -> None:
    from suite.__main__ import SECTIONS

    marked = {found[2] for found in page.MARKED.finditer(page.PAGE.read_text())}
    assert marked == {*SECTIONS, "machine"}


def test_simulated_edges_forward_at_their_pace_and_come_back(tmp_path: Path) -> None:
    edges = [sys.executable, str(ROOT / "benchmarks/forward.py"), "--sidecars", "3", "--be-edges-of"]
    with Central(tmp_path) as central:

        def frames() -> list[int]:
            return [one["frames"] for one in central.ask("/api/forwarders?connected=true")["forwarders"]]

        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen([*edges, str(central.forward_port)], **pipes) as process:
            assert process.stdin is not None
            process.stdin.write("0.1\n")
            process.stdin.flush()
            until(lambda: len(frames()) == 3 and min(frames()) > 4, "frames of all of them")
            assert max(frames()) - min(frames()) <= 1, "in turn"
            central.kill()
            central.start()
            until(lambda: len(frames()) == 3 and min(frames()) > 4, "frames of all of them again")
            process.stdin.close()
            assert process.wait(PATIENCE) == 0
        assert all(one["gaps"] == one["duplicate_frames"] == 0 for one in central.ask("/api/forwarders")["forwarders"])
