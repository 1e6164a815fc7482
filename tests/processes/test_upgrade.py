"""Today's sidecar on what an older release left: its journal, its files, its dead letters and its database."""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon import ROOT, Daemon, until
from postgres import USER, Postgres
from upgraded import CONFIG, event

RELEASES = sorted(path.parent for path in (ROOT / "tests" / "releases").glob("*/commit"))


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    made = Postgres()
    made.start()
    yield made
    made.remove()


class Upgraded(Daemon):
    """A sidecar of this tree on the data of a release, and the database that this one wrote to."""

    def __init__(self, directory: Path, release: Path, server: Postgres) -> None:
        self.story: dict[str, Any] = json.loads((release / "story.json").read_text())
        with tarfile.open(release / "data.tar.xz") as archive:
            archive.extractall(directory, filter="data")
        name = f"upgraded_{directory.name.lower()}".replace("-", "_")
        server.query(f"CREATE DATABASE {name}")
        self.dsn = f"host={server.directory} user={USER} dbname={name}"
        self.server = server
        self.name = name
        self.sql((release / "database.sql").read_text())
        super().__init__(directory, CONFIG, limits=self.dsn)

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        import psycopg2

        connection = psycopg2.connect(self.dsn)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(text)
                return list(cursor.fetchall()) if cursor.description else []
        finally:
            connection.close()

    def events(self) -> int:
        """Those of programs: the sidecar itself says of an old job that it is stalled."""
        return int(self.sql("SELECT count(*) FROM public.events WHERE service <> 'wafermon'")[0][0])


@pytest.fixture(params=RELEASES, ids=[release.name for release in RELEASES])
def upgraded(request: pytest.FixtureRequest, tmp_path: Path, server: Postgres) -> Upgraded:
    return Upgraded(tmp_path, request.param, server)


def test_what_was_pending_is_delivered_and_nothing_twice(upgraded: Upgraded) -> None:
    story = upgraded.story
    events = story["delivered"] + story["pending"]
    assert upgraded.events() == events
    with upgraded:
        until(lambda: len(upgraded.stored("pending")) >= story["pending"], "what was pending")
        # What is sent now comes after all that: once it is there, nothing older can follow.
        client = upgraded.client(service="new")
        client.send_line({**event("new", 1), "v": 2, "client": client.client, "seq": 1})
        client.until_acked(1)
        until(lambda: upgraded.stored("new"), "the new message in the files")
        until(lambda: upgraded.events() > events, "the new message in the database")
        client.close()
    said = [line["message"] for line in upgraded.stored("delivered") if line["type"] == "event"]
    assert said == [f"delivered {n}" for n in range(story["delivered"])]
    assert [line["message"] for line in upgraded.stored("pending")] == [f"pending {n}" for n in range(story["pending"])]
    assert upgraded.events() == events + 1
    assert len({letter["id"] for letter in upgraded.letters()}) == len(upgraded.letters()) >= 1
    assert "Traceback" not in upgraded.log()


def test_its_clients_and_its_jobs_go_on(upgraded: Upgraded) -> None:
    story = upgraded.story
    with upgraded:
        client = upgraded.client(client=story["client"], service="delivered")
        assert client.welcome["acked"] >= story["sent"]
        first = client.welcome["acked"] + 1
        common = {"v": 2, "service": "delivered", "trace_id": story["job"], "client": story["client"]}
        # A message that it had already: it is known, and is not stored again.
        client.send_line({**event("delivered", 0), **common, "seq": 5})
        span = {
            "span_id": story["span"],
            "name": "load",
            "status": "ok",
            "start": time.time_ns() // 1000 - 9,
            "duration": 9,
        }
        client.send_line({**common, "type": "span_end", **span, "seq": first})
        client.send_line(
            {**common, "type": "progress", "job_id": story["job"], "percent": 100, "status": "done", "seq": first + 1}
        )
        client.until_acked(first + 1)
        until(lambda: [line for line in upgraded.stored("wafermon") if line["type"] == "trace"], "the job's summary")
        client.close()
    [trace] = [line for line in upgraded.stored("wafermon") if line["type"] == "trace"]
    assert trace["trace_id"] == story["job"] and trace["status"] == "done"
    assert trace["counts"]["progress"] == 2 and trace["counts"]["metric"] == 1 and trace["counts"]["span_start"] == 1
    said = [line["message"] for line in upgraded.stored("delivered") if line["type"] == "event"]
    assert len(said) == story["delivered"]
