"""Who is told about what should not wait: channels, and the operator's command. See docs/alerts.md."""

from wafermon.alerts.channel import Channel
from wafermon.alerts.covered import Covered
from wafermon.alerts.hooks import CURSOR, Hooks

__all__ = ["CURSOR", "Channel", "Covered", "Hooks"]
