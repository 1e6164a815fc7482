"""Connections in, acknowledgements out. See docs/protocol.md."""

from wafermon.receiver.listeners import Listeners
from wafermon.receiver.receiver import Receiver
from wafermon.receiver.spill import SpillTaker

__all__ = ["Listeners", "Receiver", "SpillTaker"]
