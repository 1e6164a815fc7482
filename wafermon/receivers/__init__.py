"""Connections in, acknowledgements out. See docs/protocol.md."""

from wafermon.receivers.kafka.sources import Sources
from wafermon.receivers.lines.hub import Receiver
from wafermon.receivers.lines.listeners import Listeners
from wafermon.receivers.otlp.intake import Intake
from wafermon.receivers.otlp.listening import OtlpPort
from wafermon.receivers.spill import SpillTaker

__all__ = ["Intake", "Listeners", "OtlpPort", "Receiver", "Sources", "SpillTaker"]
