"""Two sidecars on copies of one journal, whose position a service keeps: the copy that is renewed has a position of its own there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon import Daemon, until
from kafka_broker import KafkaBroker
from postgres import Database

CONFIG = """
listen: ["tcp:{{port}}:interface=127.0.0.1"]
http: false
reload: signal
journal: {{{{dir: journal, spill_dir: false}}}}
backends:
  there: {{{{{backend}, timeout: 10s, batch: {{{{age: 20ms}}}}, retry: {{{{max: 200ms}}}}}}}}
routes: [{{{{to: [there]}}}}]
dead_letters: {{{{dir: dead-letters}}}}
"""
Stored = Callable[[], "Counter[tuple[str, int]]"]


@pytest.fixture(params=["timescaledb", "kafka"])
def there(request: pytest.FixtureRequest) -> tuple[str, Stored]:
    """A backend, and what it has stored: (client, seq) with how often."""
    if request.param == "kafka":
        broker: KafkaBroker = request.getfixturevalue("kafka_broker")
        topic = broker.topic()
        return f"plugin: kafka, brokers: ['{broker.address}'], topic: {topic.name}", lambda: Counter(topic.stored())
    database: Database = request.getfixturevalue("database")

    def stored() -> Counter[tuple[str, int]]:
        if not database.query("SELECT 1 FROM pg_tables WHERE tablename = 'events'"):
            return Counter()
        return Counter(database.query("SELECT client, seq FROM events WHERE service <> 'wafermon'"))

    return f"plugin: timescaledb, dsn: '{database.dsn}'", stored


def send(sidecar: Daemon, count: int) -> str:
    client = sidecar.client()
    client.send(range(1, count + 1))
    client.until_acked(count)
    client.drop()
    return client.client


def test_a_renewed_copy_and_its_original_deliver_side_by_side(there: tuple[str, Stored], tmp_path: Path) -> None:
    backend, stored = there
    for name in ("original", "copy"):
        (tmp_path / name).mkdir()
    original, copy = (Daemon(tmp_path / name, CONFIG.format(backend=backend)) for name in ("original", "copy"))
    sent: Counter[str] = Counter()

    def are_there() -> bool:
        return Counter(client for client, _ in stored()) == sent

    with original:
        sent[send(original, 10)] = 10
        until(are_there, "what was sent before the copy was made")
    shutil.copytree(original.directory / "journal", copy.directory / "journal")
    renewed = [sys.executable, "-m", "wafermon", "journal", "renew", str(copy.directory / "journal")]
    subprocess.run(renewed, capture_output=True, check=True, timeout=60)
    with original, copy:
        for _ in range(3):
            for one in (original, copy):
                sent[send(one, 20)] = 20
                until(are_there, "what both have sent")
        copy.kill()
        copy.start()
        for one in (copy, original):
            sent[send(one, 20)] = 20
        until(are_there, "what was sent after a restart of the copy")
    assert set(stored().values()) == {1}
    for one in (original, copy):
        assert "copies of one journal" not in one.log()
