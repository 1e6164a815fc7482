"""Connections in, acknowledgements out. See docs/protocol.md."""

from wafermon.receivers.lines.hub import Receiver
from wafermon.receivers.lines.listeners import Listeners
from wafermon.receivers.spill import SpillTaker

__all__ = ["Listeners", "Receiver", "SpillTaker"]
