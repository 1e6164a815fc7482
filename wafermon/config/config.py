"""A whole config, checked and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from wafermon.model.alerts import AlertConfig
from wafermon.model.schedules import Schedules
from wafermon.model.settings import BackendConfig, Settings
from wafermon.routing import Rule


class Config(Settings):
    """A whole config, checked and frozen. Two are equal where they say the same."""

    backends: Mapping[str, BackendConfig]
    """By name, in the order of the file. Read-only."""
    schedules: Schedules = MappingProxyType({})
    """By name, in the order of the file. Read-only."""
    alerts: Mapping[str, AlertConfig] = MappingProxyType({})
    """The channels by name. Read-only."""
    routes: tuple[Rule, ...]
    """In the order of the file; made for `wafermon.routing.compile_routes`."""
