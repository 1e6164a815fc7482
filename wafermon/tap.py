"""``twistd wafermon``: its options, and the service they make."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.error import ReactorNotRunning
from twisted.python import usage

from wafermon.alerts.channels import find_channels
from wafermon.backends import find_plugins
from wafermon.config import load
from wafermon.daemon.sidecar import Sidecar
from wafermon.daemon.systemd import Notifier
from wafermon.model.errors import ConfigError


class Options(usage.Options):
    """What ``twistd wafermon`` takes."""

    synopsis = "[options]"
    longdesc = (
        "The wafermon sidecar: receives logs, metrics, progress, resources and spans from the SDKs, and delivers them. "
        "Without --config it runs on a default config: data in ./wafermon-data, TCP on 127.0.0.1:7411, "
        "HTTP on 127.0.0.1:7412. `wafermon check FILE` checks a config alone."
    )
    optParameters: ClassVar = [["config", "c", None, "The config file (YAML)."]]

    def postOptions(self) -> None:
        """Check the config before anything else happens. Ends the process with 1 where it is bad."""
        self.plugins = find_plugins()
        self.channels = find_channels()
        path = Path(self["config"]) if self["config"] else None
        self.file = path and path.absolute()  # twistd may go to another directory before it is read again
        self.read = partial(
            load, self.file, plugins=self.plugins.factories, environ=dict(os.environ), channels=self.channels
        )
        try:
            self.checked = load(path, plugins=self.plugins.factories, environ=os.environ, channels=self.channels)
        except ConfigError as error:
            print(error, file=sys.stderr)
            raise SystemExit(1) from None


def makeService(options: Options) -> Sidecar:
    """The service of checked options."""
    from twisted.internet import reactor

    steady(reactor)
    stop_once(reactor)
    notifier = Notifier(os.environ, reactor)
    return Sidecar(
        options.checked,
        options.plugins,
        reactor,
        options.file,
        options.read,
        notifier=notifier,
        channels=options.channels,
    )


def stop_once(reactor: Any) -> None:
    """A second SIGTERM, while the first one's stop goes on or has just ended, is no error."""
    stop = reactor.stop

    def stop_if_running() -> None:
        with suppress(ReactorNotRunning):
            stop()

    reactor.stop = stop_if_running


def steady(reactor: Any) -> None:
    """Twisted's clock is the wall's: where that is set back by a day, whatever is due waits for a day. From here on it says
    the date of now, and then goes on by itself."""
    offset = time.time() - time.monotonic()
    reactor.seconds = lambda: time.monotonic() + offset
