"""The errors that cross the border to a plugin, by the name that plugins have imported them from since 2.0."""

from wafermon.model.errors import (
    ConfigError,
    Fault,
    PermanentError,
    PositionMoved,
    Refused,
    RetryableError,
    Superseded,
)

__all__ = ["ConfigError", "Fault", "PermanentError", "PositionMoved", "Refused", "RetryableError", "Superseded"]
