"""Telling the service manager how it is (systemd's ``Type=notify``, sd_notify(3)). Does nothing where none asks."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from wafermon.model.repeated import Repeated


class Notifier:
    """`environ` is the process's: it names the manager's socket, and how often the watchdog wants to hear."""

    def __init__(self, environ: Mapping[str, str], reactor: Any) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._every = _microseconds(environ.get("WATCHDOG_USEC", "")) / 2e6
        self._watchdog = Repeated(reactor, partial(self.tell, "WATCHDOG=1"))

    def ready(self) -> None:
        """It listens. From now on a reactor that stands still for too long gets the process restarted."""
        self.tell("READY=1")
        if self._address and self._every:
            self._watchdog.start(self._every)

    def stopping(self) -> None:
        if self._watchdog.running:
            self._watchdog.stop()
        self.tell("STOPPING=1")

    def tell(self, state: str) -> None:
        """One assignment, as sd_notify(3) has them."""
        if not self._address:
            return
        # One that starts with @ has no place in the file system.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.setblocking(False)
            manager.sendto(state.encode(), address)


def _microseconds(text: str) -> int:
    return int(text) if text.isdecimal() else 0
