"""The journal of systemd by its own protocol: an entry per log event, with the event's fields.

So a traceback is one entry, and `journalctl WAFERMON_NAME=db` finds what was said about one backend. systemd's *Native Journal Protocol* has the form: a
datagram of ``NAME=value`` lines; a value of several lines follows its name as a length of eight bytes and the bytes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

from twisted.logger import LogEvent, LogLevel, formatEvent, formatEventAsClassicLogText

SOCKET = "/run/systemd/journal/socket"
PRIORITIES = {LogLevel.debug: 7, LogLevel.info: 6, LogLevel.warn: 4, LogLevel.error: 3, LogLevel.critical: 2}
"""Twisted's levels -> those of syslog(3)."""
MOST = 64
"""Fields of one entry; a field's value is cut at `LONGEST` bytes."""
LONGEST = 8192


def entry(event: LogEvent) -> bytes | None:
    """A datagram. None for an event without words."""
    text = message(event)
    if text is None:
        return None
    parts = [_field("MESSAGE", text), _field("PRIORITY", str(PRIORITIES.get(event.get("log_level", LogLevel.info), 6)))]
    parts += [_field("SYSLOG_IDENTIFIER", "wafermon"), _field("WAFERMON_LOGGER", str(event.get("log_namespace", "")))]
    parts += [_field(f"WAFERMON_{name.upper()}", value) for name, value in _own_fields(event)]
    return b"".join(parts[:MOST])


def message(event: LogEvent) -> str | None:
    """What was said, with the traceback where there is one."""
    if "log_failure" not in event:
        return formatEvent(event) or None
    text = formatEventAsClassicLogText(event, formatTime=lambda _: "")
    return text.strip() if text else None


def _own_fields(event: LogEvent) -> Iterator[tuple[str, str]]:
    """What the call itself gave: names of letters, digits and underscores, values of one word or a number."""
    for name, value in event.items():
        if name.startswith(("log_", "_")) or name in ("format", "message", "time", "system", "isError", "why"):
            continue
        plain = name.isascii() and name.replace("_", "").isalnum() and len(name) <= 48
        if plain and isinstance(value, (str, int, float)):
            yield name, str(value)


def _field(name: str, value: str) -> bytes:
    data = value.encode(errors="replace")[:LONGEST] if name != "MESSAGE" else value.encode(errors="replace")
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


class JournalObserver:
    """Sends each event to the journal; one that it does not take goes to `otherwise`."""

    def __init__(self, path: str, otherwise: Callable[[LogEvent], None]) -> None:
        """Raises OSError where nothing listens there."""
        self._otherwise = otherwise
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
            # The reactor's thread logs: it must not wait for a journal that is slow.
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise

    def __call__(self, event: LogEvent) -> None:
        data = entry(event)
        if data is None:
            return
        with suppress(OSError):
            self._socket.send(data)
            return
        self._otherwise(event)
