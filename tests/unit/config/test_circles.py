"""What a config says of itself by which messages would come back."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from wafermon.backends import find_plugins
from wafermon.config import advice, load


def circles(directory: Path, listen: str, backend: str) -> list[str]:
    """The keys that are said to lead back."""
    path = directory / "w.yaml"
    path.write_text(f"listen: [{listen}]\nbackends: {{b: {{{backend}}}}}\n")
    config = load(path, plugins=find_plugins().factories, environ={})
    return [key for key, problem in advice(config) if "come back" in problem or "for ever" in problem]


@pytest.mark.parametrize(("listen", "url", "back"), [
    ("'tcp:7413:interface=127.0.0.1'", "tcp://localhost:7413", True),
    ("'tcp:7413:interface=localhost'", "tcp://127.0.0.1:7413", True),
    ("'tcp:7413'", f"tcp://{socket.gethostname()}:7413", True),
    ("'tcp:7413'", "tcp://127.0.0.1:7413", True),
    ("'tcp:7413:interface=\\:\\:'", "tcp://[::1]:7413", True),
    ("'tcp:7413:interface=10.0.0.1'", "tcp://10.0.0.1:7413", True),
    ("'unix:/run/w.sock'", "unix:/run/w.sock", True),
    ("'tcp:7413:interface=10.0.0.1'", "tcp://127.0.0.1:7413", False),
    ("'tcp:7413'", "tcp://127.0.0.1:7414", False),
    ("'tcp:7413'", "tcp://central:7413", False),
    ("'unix:/run/w.sock', 'tcp:7411'", "unix:/run/v.sock", False),
])  # fmt: skip
def test_who_forwards_to_its_own_listener_is_told(tmp_path: Path, listen: str, url: str, back: bool) -> None:
    assert circles(tmp_path, listen, f"plugin: forward, url: '{url}'") == (["backends.b.url"] if back else [])


@pytest.mark.parametrize(("topic", "broker", "back"), [("a", "b1:1", True), ("c", "b1:1", False), ("a", "b2:1", False)])
def test_who_writes_to_a_topic_that_it_reads_is_told(tmp_path: Path, topic: str, broker: str, back: bool) -> None:
    listen = "'tcp:7411', {kafka: {brokers: ['b1:1', 'b3:1'], topics: [a, b]}}"
    found = circles(tmp_path, listen, f"plugin: kafka, brokers: ['{broker}'], topic: {topic}")
    assert found == (["backends.b.topic"] if back else [])
