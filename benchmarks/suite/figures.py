"""The usual figures: what they are called, and in what unit they are."""

from __future__ import annotations

from suite.section import Column

RATE = Column("rate", "messages/s")
"""Until the last one is counted where it is stored."""
PER_CPU = Column("per_cpu", "per CPU-second", spread=True)
"""Messages, by the CPU of all that the contestant runs."""
PEAK = Column("peak", "peak RSS, MiB")
WRITTEN = Column("written", "bytes written a message")
"""To the disk, journal included, as the kernel accounts it."""
DISK = Column("disk", "bytes on disk a message")
"""What the directory holds at the end, journal included."""

USUAL = (RATE, PER_CPU, PEAK, WRITTEN, DISK)
