"""What the log looks like: as twistd writes it, or, where systemd's journal reads it, as entries with a priority and fields.

`twistd --logger wafermon.daemon.logs.observer` asks for the second. So `journalctl -p err` shows what has failed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TextIO, cast

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEventAsClassicLogText,
    textFileLogObserver,
)

from wafermon.daemon.journald import PRIORITIES, SOCKET, JournalObserver


def observer() -> ILogObserver:
    """To standard error; with priorities where that is the journal of systemd."""
    return observer_for(sys.stderr, os.environ)


def observer_for(stream: TextIO, environ: Mapping[str, str], journal: str = SOCKET) -> ILogObserver:
    """`environ` says by ``JOURNAL_STREAM`` whether the stream is the journal's. Where its socket `journal` is not there, and for an entry that it does not
    take, the stream gets lines with a priority."""
    if not is_journal(stream, environ):
        return cast(ILogObserver, textFileLogObserver(stream))
    lines = FileLogObserver(stream, with_priority)
    try:
        return cast(ILogObserver, JournalObserver(journal, lines))
    except OSError:
        return cast(ILogObserver, lines)


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether systemd has connected it to its journal: ``JOURNAL_STREAM`` names the device and inode."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def with_priority(event: LogEvent) -> str | None:
    """An event's lines, each after its priority: ``<3>``. The journal knows the time itself. None for an event without words."""
    # A traceback's lines are indented by a tab, which keeps them together for a reader.
    text = formatEventAsClassicLogText(event, formatTime=lambda _: "")
    if text is None:
        return None
    level = event.get("log_level", LogLevel.info)
    prefix = f"<{PRIORITIES.get(level, 6)}>"
    return "".join(f"{prefix}{line.strip(' ')}\n" for line in text.splitlines() if line.strip())
