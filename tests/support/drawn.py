"""Chance that hypothesis draws."""

from __future__ import annotations

from disks import Chance
from hypothesis import strategies as st


class Drawn(Chance):
    """What chance will have, as hypothesis draws it."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def flag(self, label: str) -> bool:
        return self._data.draw(st.booleans(), label)

    def part(self, label: str) -> float:
        return self._data.draw(st.floats(0, 1), label)
