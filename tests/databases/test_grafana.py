"""The dashboards: every query of theirs is run against the tables as the backend makes and fills them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana import BOARDS, FOLDER, QUERIES, filled
from postgres import Database
from pytest_twisted import ensureDeferred
from served import Served
from story import STORY, SUMMARY, said, told

BEFORE = said("progress", 1, "parser", job_id="job-0", trace_id="job-0", percent=5, status="waiting")
STALLED = said(
    "event", 400, "wafermon", trace_id="job-0", level="warning", message="x", context={"kind": "job_stalled", "job_id": "job-0"}
)  # fmt: skip


@ensureDeferred
async def test_every_query_has_an_answer(database: Database) -> None:
    await told(database, [*STORY, SUMMARY, BEFORE, STALLED])
    empty = []
    for name, sql in QUERIES.items():
        rows = database.query(filled(sql))
        if not rows or rows == [(0,)]:
            empty.append(name)
    assert empty == ["jobs: Running", "jobs: Done"], "there is a stalled job and a failed one"


def test_there_are_queries() -> None:
    assert len(QUERIES) > 15 and set(BOARDS) == {"jobs", "services", "sidecar"}


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_whole(name: str) -> None:
    board = BOARDS[name]
    assert board["uid"] == f"wafermon-{name}"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    sources = {source["uid"] for source in provisioned("datasources")["datasources"]}
    for panel in panels:
        assert panel["title"] and panel["targets"], panel
        assert {panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])} <= sources
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        others = [other["gridPos"] for other in panels if other is not panel]
        assert not any(overlap(place, other) for other in others), panel["title"]


def test_a_trace_is_shown_as_a_log_with_its_jobs_and_errors_as_annotations() -> None:
    [logs] = [panel for panel in BOARDS["jobs"]["panels"] if panel["type"] == "logs"]
    assert "FROM events" in logs["targets"][0]["rawSql"]
    notes = [note for name in ("jobs", "services") for note in BOARDS[name]["annotations"]["list"]]
    assert len(notes) == 3
    for note in notes:
        sql = note["target"]["rawSql"]
        assert " AS time" in sql or sql.startswith("SELECT time,"), "Grafana's name for when it was"
        assert " AS text" in sql and "$__timeFilter(" in sql and note["enable"]


def overlap(a: dict[str, int], b: dict[str, int]) -> bool:
    return (
        a["x"] < b["x"] + b["w"] and b["x"] < a["x"] + a["w"] and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]
    )


def test_the_sidecar_board_asks_for_metrics_that_there_are(tmp_path: Path) -> None:
    texts = [target["expr"] for panel in BOARDS["sidecar"]["panels"] for target in panel["targets"]]
    texts += [variable["query"] for variable in BOARDS["sidecar"]["templating"]["list"]]
    asked = {name for text in texts for name in re.findall(r"wafermon_\w+", text)}
    with Served(tmp_path) as served:
        there = {name.partition("{")[0] for name in served.metrics()}
    assert len(asked) > 12 and asked <= there, asked - there


def provisioned(kind: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((FOLDER / "provisioning" / kind / "wafermon.yaml").read_text())
    return content
