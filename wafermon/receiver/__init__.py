"""Connections in, acknowledgements out. See docs/protocol.md."""

from wafermon.receiver.principals import by_peer
from wafermon.receiver.receiver import Receiver, ReceiverFactory
from wafermon.receiver.spill import SpillTaker

__all__ = ["Receiver", "ReceiverFactory", "SpillTaker", "by_peer"]
