"""The plugin package: each module here that holds an IBackendFactory is a backend.

A third party's distribution drops `wafermon/backends/NAME.py` (without `__init__.py`) anywhere on the import path.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from twisted.plugin import getPlugins, pluginPackagePaths
from twisted.python import log
from twisted.python.modules import getModule

from wafermon.interfaces import IBackendFactory

__path__.extend(pluginPackagePaths(__name__))  # type: ignore[no-untyped-call]
__all__: list[str] = []


@dataclass(frozen=True)
class Plugins:
    """What `find_plugins` found."""

    factories: Mapping[str, IBackendFactory]
    """By the name that `plugin:` says."""
    broken: Mapping[str, str]
    """The modules that can't be used, by name: the reason, in one line."""


def find_plugins() -> Plugins:
    """Look through the package as it is now. Blocks: modules are imported. A broken module hinders no other."""
    broken: dict[str, str] = {}
    for module in getModule(__name__).iterModules():  # type: ignore[no-untyped-call]
        try:
            module.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a third party's code may do anything
            broken[module.name.rpartition(".")[2]] = f"{type(error).__name__}: {error}"

    # getPlugins logs a traceback for what is in `broken` already, and that it may not write its cache into a directory
    # that belongs to root. Neither is news to anybody, and an event without a format is printed by no observer.
    found: list[IBackendFactory] = log.callWithContext(  # type: ignore[no-untyped-call]
        {"log_format": None}, lambda: list(getPlugins(IBackendFactory, sys.modules[__name__]))
    )

    factories: dict[str, IBackendFactory] = {}
    for factory in found:
        name, module_name = getattr(factory, "name", None), type(factory).__module__.rpartition(".")[2]
        if not isinstance(name, str) or not name:
            broken[module_name] = "its factory has no name"
        elif factories.setdefault(name, factory) is not factory:
            broken[module_name] = f"another plugin is called {name!r} already"
    return Plugins(factories, broken)
