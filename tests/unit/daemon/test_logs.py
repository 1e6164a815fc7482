from __future__ import annotations

import io
import os
import socket
import struct
from pathlib import Path
from typing import TextIO

import pytest
from constantly import NamedConstant  # type: ignore[import-untyped]
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from wafermon.daemon.logs import is_journal, observer_for, with_priority
from wafermon.tap import stop_once


def journal_of(stream: TextIO) -> dict[str, str]:
    found = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}


NO_SOCKET = "/nonexistent/socket"


def written(path: Path, stream: TextIO) -> list[str]:
    stream.flush()
    return path.read_text().splitlines()


@pytest.mark.parametrize(
    ("level", "priority"),
    [(LogLevel.debug, 7), (LogLevel.info, 6), (LogLevel.warn, 4), (LogLevel.error, 3), (LogLevel.critical, 2)],
)
def test_each_level_has_its_priority_in_the_journal(tmp_path: Path, level: NamedConstant, priority: int) -> None:
    with (tmp_path / "log").open("w+") as stream:
        log = Logger(namespace="wafermon", observer=observer_for(stream, journal_of(stream), NO_SOCKET))
        log.emit(level, "{name} can't write", name="files")
        [line] = written(tmp_path / "log", stream)
    assert line.startswith(f"<{priority}>")
    assert line.endswith("files can't write")


def test_every_line_of_a_traceback_has_the_priority(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as stream:
        log = Logger(namespace="wafermon", observer=observer_for(stream, journal_of(stream), NO_SOCKET))
        try:
            raise ValueError("broken")
        except ValueError:
            log.failure("A fault", Failure())
        lines = written(tmp_path / "log", stream)
    assert len(lines) > 3
    assert all(line.startswith("<2>") for line in lines)
    assert lines[-1].endswith("builtins.ValueError: broken")


def fields(datagram: bytes) -> dict[str, str]:
    """As journald reads them."""
    found = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            [length] = struct.unpack_from("<Q", rest)
            value, end, rest = rest[8 : 8 + length], rest[8 + length : 9 + length], rest[9 + length :]
            assert end == b"\n"
        found[name.decode()] = value.decode()
        datagram = rest
    return found


def test_systemds_journal_gets_an_entry_with_its_fields(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal,
        (tmp_path / "log").open("w+") as stream,
    ):
        journal.bind(str(tmp_path / "socket"))
        journal.settimeout(30)
        log = Logger(
            namespace="wafermon.delivery",
            observer=observer_for(stream, journal_of(stream), str(tmp_path / "socket")),
        )
        log.warn(
            "{backend} can't write {count} messages: {why_not}",
            backend="files",
            count=12,
            why_not="two\nlines",
            batch=object(),
        )
        assert fields(journal.recv(65536)) == {
            "MESSAGE": "files can't write 12 messages: two\nlines", "PRIORITY": "4", "SYSLOG_IDENTIFIER": "wafermon",
            "WAFERMON_LOGGER": "wafermon.delivery", "WAFERMON_BACKEND": "files", "WAFERMON_COUNT": "12",
            "WAFERMON_WHY_NOT": "two\nlines",
        }  # fmt: skip
        try:
            raise ValueError("broken")
        except ValueError:
            log.failure("A fault", Failure())
        entry = fields(journal.recv(65536))
        assert entry["PRIORITY"] == "2" and entry["MESSAGE"].endswith("builtins.ValueError: broken")
        assert len(entry["MESSAGE"].splitlines()) > 3
        assert written(tmp_path / "log", stream) == []


def test_what_the_journal_does_not_take_is_a_line_with_a_priority(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal,
        (tmp_path / "log").open("w+") as stream,
    ):
        journal.bind(str(tmp_path / "socket"))
        log = Logger(namespace="wafermon", observer=observer_for(stream, journal_of(stream), str(tmp_path / "socket")))
        log.error("{text}", text="x" * 2_000_000)  # beyond what a datagram may be
        journal.close()
        log.error("nobody listens")
        lines = written(tmp_path / "log", stream)
    assert [line[:3] for line in lines] == ["<3>", "<3>"]
    assert len(lines[0]) > 2_000_000 and lines[1].endswith("nobody listens")


def test_elsewhere_the_log_has_times_and_no_priorities(tmp_path: Path) -> None:
    for environ in ({}, {"JOURNAL_STREAM": "1:2"}):
        with (tmp_path / "log").open("w+") as stream:
            Logger(namespace="wafermon", observer=observer_for(stream, environ)).error("no room")
            [line] = written(tmp_path / "log", stream)
        assert line[:2] == "20"
        assert not line.startswith("<")


def test_a_stream_without_a_descriptor_is_not_the_journal() -> None:
    assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


def test_an_event_without_words_is_no_line() -> None:
    assert with_priority({"log_level": LogLevel.info, "log_format": None}) is None


def test_a_second_stop_is_no_error() -> None:
    class Reactor:
        stops = 0

        def stop(self) -> None:
            self.stops += 1
            if self.stops > 1:
                raise ReactorNotRunning("Can't stop reactor that isn't running.")

    reactor = Reactor()
    stop_once(reactor)
    reactor.stop()
    reactor.stop()
    assert reactor.stops == 2
