"""What the journal's own users are told."""

from __future__ import annotations

from wafermon.model.position import Position


class CannotOpen(Exception):
    """A journal that can't be opened. The text names the directory or the file, and says what to do."""


class CannotRead(Exception):
    """A cursor's reading failed by something else than the disk. Reading may be tried again, from `position`."""

    def __init__(self, cursor: str, position: Position, cause: BaseException) -> None:
        self.cursor = cursor
        self.position = position
        super().__init__(f"cursor {cursor} can't read the journal at {position}: {type(cause).__name__}: {cause}")


class CursorInUse(Exception):
    """Something reads with this cursor: it can't be discarded."""


class UnknownCursor(Exception):
    """The journal has no cursor of this name."""
