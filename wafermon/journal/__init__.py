"""Every accepted message on disk, in order, and cursors that read it. See docs/journal.md."""

from wafermon.journal.cursor import Cursor
from wafermon.journal.errors import CannotOpen, CannotRead, CursorInUse, UnknownCursor
from wafermon.journal.groups import Group, Mark, Rejected, Stamp
from wafermon.journal.index import Stretch
from wafermon.journal.journal import Entry, Journal, Missing
from wafermon.journal.marks import Marks, Stream
from wafermon.journal.past import groups_before
from wafermon.journal.places import Held
from wafermon.journal.storage import lock

__all__ = [
    "CannotOpen",
    "CannotRead",
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
    "Stamp",
    "Stream",
    "Stretch",
    "UnknownCursor",
    "groups_before",
    "lock",
]
