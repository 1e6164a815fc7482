"""How far a journal may have been forwarded by this sidecar, by segments: durable before the first frame of a segment is sent.

The other sidecar may know no more than that. Where it does, what it knows came from another sidecar with the same journal's id, a copy of this one: the positions
mean something else there, however far this journal has come by now. The methods but `includes` block.
"""

from __future__ import annotations

from pathlib import Path

from wafermon.files import Files
from wafermon.model.position import OFFSET_BITS

MOST = 256
"""Bytes of the file."""


class Reach:
    """One backend's."""

    def __init__(self, directory: Path, journal: str, files: Files | None = None) -> None:
        """The file `reach` in `directory`."""
        self._path = directory / "reach"
        self._journal = journal
        self._files = files or Files()
        self._segment: int | None = None
        """None as long as it was not read, or says nothing."""

    def includes(self, number: int) -> bool:
        """Whether a position, as a number, may be sent as it is."""
        return self._segment is not None and number >> OFFSET_BITS <= self._segment

    def covers(self, number: int) -> bool:
        """Whether the other may be there. Raises OSError."""
        if self._segment is None:
            self._segment = self._read()
        return self._segment is None or self.includes(number)

    def extend(self, number: int) -> None:
        """It may be sent once this has ended. Raises OSError; nothing has changed then."""
        segment = max(number >> OFFSET_BITS, self._segment or 0)
        self._files.replace(self._path, f"{self._journal} {segment}\n".encode())
        self._segment = segment

    def _read(self) -> int | None:
        try:
            journal, segment = self._files.read_whole(self._path, MOST).decode("ascii").split()
            return int(segment) if journal == self._journal else None
        except (FileNotFoundError, ValueError):
            return None
