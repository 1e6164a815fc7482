"""YAML -> a frozen Config; all faults at once, each with its file and line."""

from wafermon.config.advice import advice
from wafermon.config.config import Config
from wafermon.config.load import check, default_text, load
from wafermon.config.plan import differences, needs_restart
from wafermon.config.watch import Watch
from wafermon.model.endpoints import arguments_of, kind_of, place_of
from wafermon.model.settings import (
    BackendConfig,
    BatchLimits,
    Correlation,
    DeadLetters,
    Hooks,
    HttpListener,
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
    "HttpListener",
    "Journal",
    "Limits",
    "Listener",
    "Retry",
    "Watch",
    "advice",
    "arguments_of",
    "check",
    "default_text",
    "differences",
    "kind_of",
    "load",
    "needs_restart",
    "place_of",
]
