"""The queries of the dashboards, as Grafana sends them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from daemon import ROOT
from story import T0

FOLDER = ROOT / "deploy" / "grafana"


BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "dashboards").glob("*.json"))}


VARIABLES = {"trace": ["job-1"], "service": ["receiver", "parser", "loader"], "metric": ["rows"]}


def queries() -> Iterator[tuple[str, str]]:
    """(board and panel, SQL) of everything that is asked of the database."""
    for name, board in BOARDS.items():
        for variable in board["templating"]["list"]:
            if variable["datasource"]["uid"] == "wafermon-db":
                yield f"{name}: ${variable['name']}", variable["query"]
        for note in board.get("annotations", {"list": []})["list"]:
            yield f"{name}: {note['name']}", note["target"]["rawSql"]
        for panel in board["panels"]:
            for target in panel["targets"]:
                if "rawSql" in target:
                    yield f"{name}: {panel['title']}", target["rawSql"]


def filled(sql: str) -> str:
    """The query as Grafana sends it."""
    return ranged(sql, f"to_timestamp({T0 / 1e6 - 3600})", f"to_timestamp({T0 / 1e6 + 3600})")


def ranged(sql: str, first: str, last: str) -> str:
    """The query as Grafana sends it for a range of time."""
    sql = sql.replace("$__interval", "60s").replace("$__timeFrom()", first).replace("$__timeTo()", last)
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN {first} AND {last}", sql)
    sql = re.sub(
        r"\$__timeGroupAlias\((\w+), [^)]*\)", r'to_timestamp(floor(extract(epoch FROM \1) / 60) * 60) AS "time"', sql
    )
    for name, values in VARIABLES.items():
        sql = sql.replace(f"${{{name}:sqlstring}}", ",".join(f"'{value}'" for value in values))
    assert "$" not in sql, sql
    return sql


QUERIES = dict(queries())
