"""Lets a release's sidecar write what an upgrade finds, and keeps it: ``write.py TREE TARGET``, for `tests/releases/store`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from daemon import Daemon, until
from postgres import USER, Postgres
from upgraded import CLIENT, CONFIG, DELIVERED, JOB, PENDING, SPAN, lines


class Older(Daemon):
    """The sidecar of another tree."""

    def __init__(self, directory: Path, config: str, tree: Path, dsn: str) -> None:
        super().__init__(directory, config, limits=dsn)
        self.environ = {"PYTHONPATH": str(tree)}


def main(tree: Path, target: Path) -> None:
    server = Postgres()
    server.start()
    try:
        with tempfile.TemporaryDirectory() as name:
            write(server, tree, target, Path(name))
    finally:
        server.remove()


def write(server: Postgres, tree: Path, target: Path, directory: Path) -> None:
    dsn = f"host={server.directory} user={USER} dbname=postgres"
    (directory / "logs").mkdir()
    # A folder where a file should be: what comes for that service can't be delivered to the files.
    (directory / "logs" / "pending.jsonl").mkdir()
    older = Older(directory, CONFIG, tree, dsn)
    older.start()
    try:
        tell(older, server)
    finally:
        older.kill()
    (directory / "logs" / "pending.jsonl").rmdir()
    keep(directory, target / "data.tar.xz")
    dump = subprocess.run(
        [server.binaries / "pg_dump", "-h", server.directory, "-U", USER, "--no-owner", "--no-comments", "--inserts", "postgres"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    kept = [line for line in dump.splitlines() if line and not line.startswith(("--", "SET ", "\\"))]
    (target / "database.sql").write_text("\n".join(kept) + "\n")
    story = {
        "client": CLIENT,
        "job": JOB,
        "span": SPAN,
        "delivered": DELIVERED,
        "pending": PENDING,
        "sent": len(lines()),
    }
    (target / "story.json").write_text(json.dumps(story, indent=1) + "\n")


def tell(older: Older, server: Postgres) -> None:
    """Returns when the database has everything, and the files what they can get."""
    client = older.client(client=CLIENT, service="delivered")
    story = lines()
    client.send_all(story[:-PENDING])
    until(lambda: len(older.stored("delivered")) >= len(story) - PENDING, "what can be delivered")
    client.send_all(story[-PENDING:])
    client.until_acked(len(story))
    client.send_line(b"this is no JSON")
    until(lambda: server.query("SELECT count(*) FROM events")[0][0] >= DELIVERED + PENDING, "the rows")
    until(lambda: older.letters(), "the dead letter")
    client.drop()


def keep(directory: Path, target: Path) -> None:
    """The files without their times and owners; a segment's room that was not written yet is left out as zeros."""
    with tarfile.open(target, "w:xz") as archive:
        for path in sorted(directory.rglob("*")):
            relative = path.relative_to(directory)
            if relative.parts[0] in ("journal", "dead-letters", "logs"):
                info = archive.gettarinfo(path, str(relative))
                info.mtime, info.uid, info.gid, info.uname, info.gname = 0, 0, 0, "", ""
                archive.addfile(info, io.BytesIO(path.read_bytes()) if path.is_file() else None)


if __name__ == "__main__":
    os.chdir(Path(__file__).parents[2])
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
