"""Every accepted message on disk, in order, and cursors that read it. See docs/journal.md."""

from wafermon.journal.cursor import Cursor
from wafermon.journal.follower import CancelledElsewhere, Follower, Outstanding, together
from wafermon.journal.groups import Group, Mark, Rejected
from wafermon.journal.journal import Entry, Journal
from wafermon.journal.marks import Marks, Stream
from wafermon.journal.past import groups_before
from wafermon.journal.storage import lock

__all__ = [
    "CancelledElsewhere",
    "Cursor",
    "Entry",
    "Follower",
    "Group",
    "Journal",
    "Mark",
    "Marks",
    "Outstanding",
    "Rejected",
    "Stream",
    "groups_before",
    "lock",
    "together",
]
