"""Loads the parsed rows of one lot into a database beside them: db_loader.py LOT.json"""

import json
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

from monitoring_sdk import MonitoringSDK

TABLE = """CREATE TABLE IF NOT EXISTS dies (
    lot TEXT, wafer INTEGER, x INTEGER, y INTEGER, bin INTEGER, vth_v REAL, idsat_ua REAL, ileak_na REAL,
    PRIMARY KEY (lot, wafer, x, y))"""
INSERT = "INSERT OR REPLACE INTO dies VALUES (:lot, :wafer, :x, :y, :bin, :vth_v, :idsat_ua, :ileak_na)"


def main(path: Path) -> int:
    rows = json.loads(path.read_text())
    with MonitoringSDK("db-loader") as sdk:
        with closing(sqlite3.connect(path.with_name("wafers.db"))) as db:
            with sdk.span("create table"), db:
                db.execute(TABLE)
            with sdk.span("load", tags={"rows": len(rows)}), db:
                begun = time.monotonic()
                db.executemany(INSERT, rows)
                sdk.log_metric("insert_seconds", time.monotonic() - begun, "s", {"file": path.name})
            total = db.execute("SELECT count(*) FROM dies").fetchone()[0]
        sdk.log_event("info", "lot loaded", {"file": path.name, "rows": len(rows), "rows_in_all": total})
        sdk.log_resource()
        sdk.flush()
        print(sdk.get_stats()["called"])
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
