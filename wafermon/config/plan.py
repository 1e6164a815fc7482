"""What differs between two configs, and what of it a running sidecar can't take. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from wafermon.config import Config
from wafermon.model.errors import Fault

FIXED = (("journal", "dir"), ("dead_letters", "dir"))
"""What is in these directories can't follow to another place while it is in use."""


def needs_restart(old: Config, new: Config, file: str) -> list[Fault]:
    """The keys that can't change while the sidecar runs, with what to do instead."""
    faults = []
    for section, key in FIXED:
        before, after = getattr(getattr(old, section), key), getattr(getattr(new, section), key)
        if before != after:
            problem = (
                f"can't change from {before} to {after} while wafermon runs; stop it, move the directory, and start it"
            )
            faults.append(Fault(f"{section}.{key}", problem, file))
    return faults


def differences(old: Config, new: Config) -> list[str]:
    """What changes, in words for the log: ``limits``, ``backends.db (new)``."""
    return [*_keys(old, new), *_backends(old, new), *_schedules(old, new), *_alerts(old, new)]


def _keys(old: Config, new: Config) -> Iterator[str]:
    for key in type(old).model_fields:
        if key not in ("backends", "schedules", "alerts") and getattr(old, key) != getattr(new, key):
            yield key


def _backends(old: Config, new: Config) -> Iterator[str]:
    for name, backend in old.backends.items():
        if name not in new.backends:
            yield f"backends.{name} (removed: {backend.on_remove})"
        elif new.backends[name] != backend:
            yield f"backends.{name}"
    for name in new.backends:
        if name not in old.backends:
            yield f"backends.{name} (new)"


def _schedules(old: Config, new: Config) -> Iterator[str]:
    for name in {**old.schedules, **new.schedules}:
        if name not in new.schedules:
            yield f"schedules.{name} (removed)"
        elif name not in old.schedules:
            yield f"schedules.{name} (new)"
        elif new.schedules[name] != old.schedules[name]:
            yield f"schedules.{name}"


def _alerts(old: Config, new: Config) -> Iterator[str]:
    for name in {**old.alerts, **new.alerts}:
        if old.alerts.get(name) != new.alerts.get(name):
            yield f"alerts.{name}"
