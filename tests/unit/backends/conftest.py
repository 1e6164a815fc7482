"""What tests of these backends share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # that of the listing itself
    return found


@pytest.fixture(autouse=True)
def killed_stores_let_go(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A store that a test leaves as a kill would has no one who closes its files: the kernel would. They are plain numbers, so nothing
    closes them a second time."""
    before = _descriptors()
    yield
    if "test_filesystem" not in request.path.name:
        return
    base = str(tmp_path_factory.getbasetemp())
    for number, path in _descriptors().items():
        if before.get(number) != path and path.startswith(base):
            os.close(number)
