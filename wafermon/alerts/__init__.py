"""Who is told about what should not wait: channels, of which the operator's command is one. See docs/alerts.md."""

from wafermon.alerts.channel import CURSOR, Channel
from wafermon.alerts.covered import Covered
from wafermon.alerts.hooks import CURSOR as HOOKS
from wafermon.alerts.hooks import Hook, channel_config, hook_figures

__all__ = ["CURSOR", "HOOKS", "Channel", "Covered", "Hook", "channel_config", "hook_figures"]
