"""Spill files of programs that are gone, taken up so that what they could not send arrives all the same.

Whether a file's owner lives is told by locks alone. A file is renamed, read, journalled, and removed once the journal has its
lines for good; then it is read once more through the open descriptor, for what was written meanwhile.
"""

from wafermon.receivers.spill.taker import SpillTaker

__all__ = ["SpillTaker"]
