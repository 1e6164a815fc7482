"""Checks the measurements of one lot, and hands the good rows to the loader: parser.py LOT.csv"""

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from monitoring_sdk import MonitoringSDK

LOADER = Path(__file__).with_name("db_loader.py")
MEASURED = ("vth_v", "idsat_ua", "ileak_na")
UNITS = {"vth_v": "V", "idsat_ua": "uA", "ileak_na": "nA"}
GOOD_BIN = 1


def read_header(lines: list[str]) -> dict[str, str]:
    """The comment lines at the top: ``# lot: N23A017``."""
    pairs = (line[1:].split(":", 1) for line in lines if line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


def parse(sdk: MonitoringSDK, path: Path) -> list[dict[str, Any]]:
    """The rows that can be used; what can't is logged."""
    lines = path.read_text().splitlines()
    header = read_header(lines)
    sdk.log_event("debug", "header read", {"file": path.name, **header})
    first = sum(line.startswith("#") for line in lines)
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(csv.DictReader(lines[first:]), first + 2):
        where = {"file": path.name, "line": number, "wafer": row["wafer"]}
        try:
            values = {name: float(row[name]) for name in MEASURED}
            rows.append({"lot": header["lot"], **{k: int(row[k]) for k in ("wafer", "x", "y", "bin")}, **values})
        except (TypeError, ValueError):
            if row["bin"] is None:
                sdk.log_event("error", "the line is cut off", where)
            else:
                bad = {name: row[name] for name in MEASURED if not row[name].replace(".", "", 1).isdigit()}
                sdk.log_event("warning", "no measured value", {**where, "x": row["x"], "y": row["y"], "values": bad})
    return rows


def measure(sdk: MonitoringSDK, rows: list[dict[str, Any]]) -> None:
    """What is worth watching of each wafer."""
    for wafer in sorted({row["wafer"] for row in rows}):
        dies = [row for row in rows if row["wafer"] == wafer]
        tags = {"lot": dies[0]["lot"], "wafer": wafer}
        good = [row for row in dies if row["bin"] == GOOD_BIN]
        sdk.log_metric("yield", round(100 * len(good) / len(dies), 2), "%", tags)
        for name in MEASURED:
            sdk.log_metric(f"median_{name}", statistics.median(row[name] for row in dies), UNITS[name], tags)


def main(path: Path) -> int:
    with MonitoringSDK("parser") as sdk:
        with sdk.span("parse", tags={"file": path.name}):
            rows = parse(sdk, path)
            measure(sdk, rows)
            parsed = path.with_suffix(".json")
            parsed.write_text(json.dumps(rows))
            sdk.log_event("info", "lot parsed", {"file": path.name, "rows": len(rows)})
            loaded = subprocess.run([sys.executable, str(LOADER), str(parsed)], check=False)
        sdk.log_resource()
        sdk.flush()
        print(sdk.get_stats()["called"])
    return loaded.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
