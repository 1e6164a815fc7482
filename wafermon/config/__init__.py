"""YAML -> a frozen Config; all faults at once, each with its file and line."""

from wafermon.config.endpoints import arguments_of, kind_of, place_of
from wafermon.config.load import check, default_text, load
from wafermon.config.model import (
    BackendConfig,
    BatchLimits,
    Config,
    Correlation,
    DeadLetters,
    Hooks,
    Journal,
    Limits,
    Listener,
    Retry,
)

__all__ = [
    "BackendConfig",
    "BatchLimits",
    "Config",
    "Correlation",
    "DeadLetters",
    "Hooks",
    "Journal",
    "Limits",
    "Listener",
    "Retry",
    "arguments_of",
    "check",
    "default_text",
    "kind_of",
    "load",
    "place_of",
]
