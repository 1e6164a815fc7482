"""Every accepted message on disk, in order, and cursors that read it. See docs/journal.md."""

from wafermon.journal.cursor import Cursor
from wafermon.journal.errors import CursorInUse, UnknownCursor
from wafermon.journal.groups import Group, Mark, Rejected
from wafermon.journal.journal import Entry, Held, Journal, Missing, Stretch
from wafermon.journal.marks import Marks, Stream
from wafermon.journal.past import groups_before
from wafermon.journal.storage import lock

__all__ = [
    "Cursor",
    "CursorInUse",
    "Entry",
    "Group",
    "Held",
    "Journal",
    "Mark",
    "Marks",
    "Missing",
    "Rejected",
    "Stream",
    "Stretch",
    "UnknownCursor",
    "groups_before",
    "lock",
]
