"""Connections in, acknowledgements out. See docs/protocol.md."""

from wafermon.receiver.principals import by_peer
from wafermon.receiver.receiver import Limits, Receiver, ReceiverFactory

__all__ = ["Limits", "Receiver", "ReceiverFactory", "by_peer"]
