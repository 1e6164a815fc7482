"""The plugin package: each module here that holds an IChannelFactory is a kind of channel.

A third party's distribution drops `wafermon/alerts/channels/NAME.py` (without `__init__.py`) anywhere on the import path.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from twisted.plugin import getPlugins, pluginPackagePaths
from twisted.python import log
from twisted.python.modules import getModule

from wafermon.interfaces import IChannelFactory

__path__.extend(pluginPackagePaths(__name__))  # type: ignore[no-untyped-call]
__all__: list[str] = []


def find_channels() -> Mapping[str, IChannelFactory]:
    """By the name that `plugin:` says, as the package is now. Blocks: modules are imported. A broken module hinders no other, and is
    said in the log."""
    for module in getModule(__name__).iterModules():  # type: ignore[no-untyped-call]
        try:
            module.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a third party's code may do anything
            log.msg(
                f"The channel plugin {module.name.rpartition('.')[2]} can't be loaded: {type(error).__name__}: {error}"
            )
    # getPlugins logs a traceback for what was said already; an event without a format is printed by no observer.
    found: list[IChannelFactory] = log.callWithContext(  # type: ignore[no-untyped-call]
        {"log_format": None}, lambda: list(getPlugins(IChannelFactory, sys.modules[__name__]))
    )
    factories: dict[str, IChannelFactory] = {}
    for factory in found:
        name = getattr(factory, "name", None)
        if isinstance(name, str) and name:
            factories.setdefault(name, factory)
    return factories
