"""The operator's command that is told about what should not wait. See docs/operations.md."""

from wafermon.alerts.hooks import CURSOR, Hooks

__all__ = ["CURSOR", "Hooks"]
