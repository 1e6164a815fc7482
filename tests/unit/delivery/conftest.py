from __future__ import annotations

from collections.abc import Iterator

import pytest
from deliveries import Running


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """Nothing of a test runs on after it."""
    yield
    Running.stop_all()
