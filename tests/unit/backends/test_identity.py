"""The id by which a service knows a sidecar."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.python.threadpool import ThreadPool

from wafermon.backends.threaded.identity import identity, mark_of
from wafermon.files import Files
from wafermon.interfaces import BackendContext, RetryableError


def context(directory: Path, journal: str = "a" * 16, **formerly: int) -> BackendContext:
    return BackendContext("db", directory, Clock(), ThreadPool(0, 1), journal=journal, formerly=formerly)


def test_it_is_drawn_once(tmp_path: Path) -> None:
    first = identity(Files(), context(tmp_path))
    assert first == identity(Files(), context(tmp_path)) == mark_of(context(tmp_path)).read_text().strip()
    assert len(first) == 16 and mark_of(context(tmp_path)).name == "sidecar"


def test_a_journal_that_was_renewed_has_another_one(tmp_path: Path) -> None:
    before = identity(Files(), context(tmp_path))
    renewed = context(tmp_path, "b" * 16, aaaaaaaaaaaaaaaa=7)
    assert identity(Files(), renewed) == identity(Files(), renewed) != before
    again = context(tmp_path, "c" * 16, aaaaaaaaaaaaaaaa=7, bbbbbbbbbbbbbbbb=9)
    assert len({before, identity(Files(), renewed), identity(Files(), again)}) == 3
    assert identity(Files(), context(tmp_path)) == before


@pytest.mark.parametrize("held", ["", "0123456789abcde", "0123456789ABCDEF", "0123456789abcdef0", "\x00" * 16])
def test_a_file_that_holds_none(tmp_path: Path, held: str) -> None:
    mark_of(context(tmp_path)).write_text(held)
    with pytest.raises(RetryableError, match="holds no id"):
        identity(Files(), context(tmp_path))
    assert mark_of(context(tmp_path)).read_text() == held
