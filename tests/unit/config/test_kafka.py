"""What a config says of Kafka as a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from wafermon.backends import find_plugins
from wafermon.config import advice, load
from wafermon.config.config import Config
from wafermon.model.errors import ConfigError
from wafermon.model.kafka import partitions

FILES = "backends: {files: {plugin: filesystem, path: x}}\n"


def read(directory: Path, listen: str, more: str = "") -> Config:
    path = directory / "w.yaml"
    path.write_text(f"{FILES}{more}\nlisten: [{listen}]\n")
    return load(path, plugins=find_plugins().factories, environ={})


def faults(directory: Path, listen: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(directory, listen)
    return [f"{fault.path}: {fault.problem}" for fault in caught.value.faults]


def test_a_source_beside_a_listener(tmp_path: Path) -> None:
    config = read(
        tmp_path, "'tcp:7411', {kafka: {brokers: ['b1:9092'], topics: [fab], options: {socket.keepalive.enable: true}}}"
    )
    (source,) = config.sources
    assert [one.endpoint for one in config.ports] == ["tcp:7411"]
    assert (source.topics, source.partitions, source.group) == (("fab",), None, None)
    assert source.options == {"socket.keepalive.enable": "true"}


@pytest.mark.parametrize(("given", "found"), [
    ("all", None), (None, None), ([0], (0,)), (["0-3", 7], (0, 1, 2, 3, 7)), (["2-2"], (2,)),
])  # fmt: skip
def test_partitions(given: object, found: object) -> None:
    assert partitions(given) == found


@pytest.mark.parametrize("given", [[], ["3-1"], [-1], ["a"], [0, 0], ["0-2", 1], [True], "0", 0, [200_000]])
def test_what_are_no_partitions(given: object) -> None:
    with pytest.raises(ValueError):
        partitions(given)


@pytest.mark.parametrize(("listen", "problem"), [
    ("{kafka: {brokers: [b1], topics: [fab]}}", "listen[0].kafka.brokers: expected brokers such as b1:9092, got 'b1'"),
    ("{kafka: {brokers: ['b1:1'], topics: [a, a]}}", "listen[0].kafka.topics: expected some topics, each once"),
    ("{kafka: {brokers: ['b1:1'], topics: [a], options: {group.id: x}}}",
     "listen[0].kafka.options: group.id can't be given: that is `group`"),
    ("{kafka: {brokers: ['b1:1'], topics: [a], partitions: [1], group: g}}",
     "listen[0].kafka.group: the group says which partitions are read; leave `partitions` or `group` out"),
    ("{kafka: {brokers: ['b1:1'], topics: [a]}}, {kafka: {brokers: ['b1:1'], topics: [b, a], partitions: [1]}}",
     "listen[1].kafka: reads partitions that listen[0] reads as well; name those of each, or leave one out"),
])  # fmt: skip
def test_sources_that_are_refused(tmp_path: Path, listen: str, problem: str) -> None:
    assert faults(tmp_path, listen) == [problem]


def test_sources_that_share_a_topic(tmp_path: Path) -> None:
    one = "{kafka: {brokers: ['b1:1'], topics: [a], partitions: [0-2]}}"
    other = "{kafka: {brokers: ['b1:1'], topics: [a], partitions: [3-5]}}"
    assert len(read(tmp_path, f"{one}, {other}").sources) == 2


def test_traces_are_summed_up_once(tmp_path: Path) -> None:
    source = "{kafka: {brokers: ['b1:1'], topics: [a]}}"
    assert list(advice(read(tmp_path, source))) == []
    (one,) = advice(read(tmp_path, source, "correlation: {derive: here}"))
    assert one[0] == "listen[0].kafka" and "a second time" in one[1]


def test_hooks_where_a_part_is_read(tmp_path: Path) -> None:
    hooks = "hooks: {command: /bin/true}"
    part = read(tmp_path, "{kafka: {brokers: ['b1:1'], topics: [a], group: g}}", hooks)
    assert [key for key, problem in advice(part) if "reads a part of the partitions" in problem] == ["hooks"]
    whole = read(tmp_path, "{kafka: {brokers: ['b1:1'], topics: [a]}}", hooks)
    assert [key for key, _ in advice(whole) if key == "hooks"] == []
