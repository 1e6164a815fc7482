"""Places and addresses of a config that meet are faults, however they are written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from wafermon.backends.filesystem.names import Template
from wafermon.config import addresses, paths


def met(*endpoints: object) -> list[str]:
    return [
        f"{path}: {problem}"
        for path, problem in addresses.meetings(((f"e{n}",), one) for n, one in enumerate(endpoints))
    ]


@pytest.mark.parametrize("pair", [
    ("tcp:7411", "tcp:7411:interface=127.0.0.1"), ("tcp:7411:interface=127.0.0.1", "tcp:7411"), ("tcp:7411", "tls:7411"),
    ("tcp:7411", "tcp6:7411"), ("tcp6:7411", "tcp:7411:interface=10.0.0.1"), ("tcp:7411:interface=0.0.0.0", "tcp:7411"),
    ("tcp:7411:interface=localhost", "tcp:7411:interface=127.0.0.1"), ("tcp:port=7411", "tcp:7411"),
    ("tcp6:7411:interface=\\:\\:1", "tcp6:7411"), ("tcp6:7411:interface=\\:\\:1", "tcp6:7411:interface=0\\:0\\:0\\:0\\:0\\:0\\:0\\:1"),
    ("unix:/run/a/../w.sock", "unix:/run/w.sock:mode=600"),
])  # fmt: skip
def test_addresses_that_meet(pair: tuple[str, str]) -> None:
    [problem] = met(*pair)
    assert problem.startswith("('e1',): e0 ")


@pytest.mark.parametrize("pair", [
    ("tcp:7411", "tcp:7412"), ("tcp:0", "tcp:0"), ("tcp:7411:interface=127.0.0.1", "tcp:7411:interface=127.0.0.2"),
    ("tcp:7411:interface=127.0.0.1", "tcp6:7411:interface=\\:\\:1"), ("unix:/run/a.sock", "unix:/run/b.sock"), ("tcp:7411", 5), ("tcp:7411", "nonsense:7411"),
    ("tcp:7411", "tcp:seven"),
])  # fmt: skip
def test_addresses_that_do_not_meet(pair: tuple[str, object]) -> None:
    assert met(*pair) == []


def places(tmp_path: Path, **templates: str) -> list[str]:
    directories = {("journal", "dir"): tmp_path / "journal", ("dead_letters", "dir"): tmp_path / "dead"}
    for directory in directories.values():
        directory.mkdir(exist_ok=True)
    options = {name: template(str(tmp_path / text)) for name, text in templates.items()}
    return [
        f"{'.'.join(map(str, key))}: {problem}"
        for key, problem in paths.meetings({key: str(directory) for key, directory in directories.items()}, options)
    ]


def template(text: str) -> SimpleNamespace:
    found = Template(text)
    return SimpleNamespace(claims=found.claims, leads_into=found.leads_into)


@pytest.mark.parametrize(
    "text",
    [
        "logs/{service}/{date}.jsonl",
        "{service}.jsonl",
        "log-{service}/{date}.jsonl",
        "{date}/{service}.jsonl",
        "{hour}/x.jsonl",
    ],
)
def test_a_template_that_can_not_lead_into_our_directories(tmp_path: Path, text: str) -> None:
    assert places(tmp_path, files=text) == []


@pytest.mark.parametrize(
    "text",
    [
        "{service}/{date}.jsonl",
        "{service}/x/y.jsonl",
        "{host}",
        "{service}/{type}/{date}.jsonl",
        "jour{service}/a.jsonl",
    ],
)
def test_a_template_whose_values_lead_into_the_journal(tmp_path: Path, text: str) -> None:
    assert places(tmp_path, files=text)[0].startswith(
        "backends.files.path: a message's value can lead into journal.dir ("
    )


def test_a_place_within_ours_by_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "journal")
    assert places(tmp_path, files="elsewhere/{service}.jsonl") == [
        "backends.files.path: lies within journal.dir; give it a directory beside that"
    ]


def test_two_backends_that_meet_by_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "same").symlink_to(tmp_path / "logs")
    [problem] = places(tmp_path, a="logs/{service}.jsonl", b="same/{service}.jsonl")
    assert problem.startswith("backends.b.path: overlaps with the path of 'a', which begins with ")


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [("a", "a/b", "y.dir"), ("a/b", "a", "x.dir"), ("a", "a", "y.dir"), ("a", "link/b", "y.dir")],
)
def test_two_directories_of_ours(tmp_path: Path, first: str, second: str, key: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    found = paths.meetings({("x", "dir"): str(tmp_path / first), ("y", "dir"): str(tmp_path / second)}, {})
    assert [".".join(map(str, path)) for path, _ in found] == [key]


def test_directories_with_a_common_beginning_of_their_names_do_not_meet(tmp_path: Path) -> None:
    assert list(paths.meetings({("x", "dir"): str(tmp_path / "a"), ("y", "dir"): str(tmp_path / "ab")}, {})) == []


def test_a_plugin_that_only_names_beginnings_is_judged_by_them(tmp_path: Path) -> None:
    options = {"own": SimpleNamespace(claims=(f"{tmp_path}/",)), "none": SimpleNamespace()}
    [(key, problem)] = paths.meetings({("journal", "dir"): str(tmp_path / "journal")}, options)
    assert key == ("backends", "own", "path")
    assert "can lead into journal.dir" in problem
