"""Every accepted message on disk, in order, and cursors that read it. See docs/journal.md."""

from wafermon.journal.cursor import Cursor
from wafermon.journal.errors import CannotOpen, CannotRead, CursorInUse, UnknownCursor
from wafermon.journal.follower import CancelledElsewhere, Follower, Outstanding, together
from wafermon.journal.groups import CAME, STARTED, WENT, Group, Mark, Presence, Rejected, Stamp, program_of
from wafermon.journal.index import Stretch
from wafermon.journal.journal import Entry, Journal, Missing
from wafermon.journal.marks import Marks, Stream
from wafermon.journal.past import groups_before
from wafermon.journal.places import Held
from wafermon.journal.state import FORWARD, KAFKA
from wafermon.journal.storage import lock

__all__ = [
    "CAME",
    "FORWARD",
    "KAFKA",
    "STARTED",
    "WENT",
    "CancelledElsewhere",
    "CannotOpen",
    "CannotRead",
    "Cursor",
    "CursorInUse",
    "Entry",
    "Follower",
    "Group",
    "Held",
    "Journal",
    "Mark",
    "Marks",
    "Missing",
    "Outstanding",
    "Presence",
    "Rejected",
    "Stamp",
    "Stream",
    "Stretch",
    "UnknownCursor",
    "groups_before",
    "lock",
    "program_of",
    "together",
]
