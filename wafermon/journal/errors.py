"""What the journal's own users are told."""

from __future__ import annotations


class CursorInUse(Exception):
    """Somebody reads with this cursor: it can't be discarded."""


class UnknownCursor(Exception):
    """The journal has no cursor of this name."""
