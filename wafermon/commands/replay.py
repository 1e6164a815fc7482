"""``wafermon replay``: files that hold messages go to the sidecar, each message once however often it is replayed."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import click

from wafermon.commands.options import reaches_sidecar
from wafermon.commands.sources import SPILL_NAME, Line, Parcel, parcels_of, spill_parcel
from wafermon.commands.stream import Link, Refused, Rejection, Stream, hello

AT_ONCE = 16
"""Connections for parcels of a line each: one sync of the sidecar's journal then serves them all."""
PROGRESS_SECONDS = 5.0
PATIENCE = 30.0
"""Seconds without anything new acknowledged, after which a sidecar that was there once is given up."""


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@reaches_sidecar
@click.option("--service", default="replay", show_default=True, help="For lines that name none.")
@click.option("--keep", is_flag=True, help="Leave a spill file where it is, instead of removing it at the end.")
@click.option("--force", is_flag=True, help="Take a spill file although a process with its owner's number runs.")
def command(files: tuple[Path, ...], url: str | None, token: str | None, service: str, keep: bool, force: bool) -> None:
    """Send what FILEs hold: SDKs' spill files, the sidecar's dead letters, or any lines of JSON messages.

    Replaying a file twice counts its messages once. The lines that are refused are reported as `FILE:LINE: code: why`
    on standard error; the exit status is 1 then.
    """
    try:
        link = Link.of(url, token)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    failed = False
    for path in files:
        report = Report(path)
        problem = ""
        try:
            if SPILL_NAME.fullmatch(path.name):
                _replay_spill(path, link, report, keep=keep, force=force)
            else:
                with _open(path) as file:
                    _deliver_all(parcels_of(file, service), link, report)
        except NotNow as error:
            problem = str(error)
        except (OSError, Refused) as error:
            if isinstance(error, OSError) and error.filename is not None:
                problem = error.strerror or str(error)
            else:
                problem = link.explain(error)
        if problem:
            click.echo(f"{path}: {problem}", err=True)
        if not problem or report.met:
            click.echo(str(report))
        failed |= bool(problem) or not report.good
    if failed:
        raise click.exceptions.Exit(1)


class NotNow(Exception):
    """A file that must be left alone; the text says why and what to do."""


class Report:
    """What became of a file's lines. Several threads tell it."""

    def __init__(self, path: Path) -> None:
        self.met = False
        """Whether the sidecar was there once."""
        self._delivered = self._known = self._refused = 0
        self._path = path
        self._size = path.stat().st_size if path.exists() else 0
        self._lock = Lock()
        self._said = time.monotonic()

    @property
    def good(self) -> bool:
        """Whether no line was refused."""
        return not self._refused

    def __str__(self) -> str:
        known = f", {self._known} were there already" if self._known else ""
        refused = f", {self._refused} refused" if self._refused else ""
        return f"{self._path}: {self._delivered} message{'s'[: self._delivered != 1]} delivered{known}{refused}"

    def deliver(self) -> None:
        with self._lock:
            self._delivered += 1

    def know(self) -> None:
        with self._lock:
            self._known += 1

    def refuse(self, line: Line, code: str, detail: str) -> None:
        with self._lock:
            self._refused += 1
            click.echo(f"{self._path}:{line.number}: {code}: {detail}", err=True)

    def at(self, line: Line) -> None:
        """Say how far it is, now and then."""
        with self._lock:
            if time.monotonic() - self._said > PROGRESS_SECONDS:
                self._said = time.monotonic()
                share = min(100, 100 * line.end // max(1, self._size))
                click.echo(f"{self._path}: at line {line.number}, {share} %", err=True)


# -- files


@contextmanager
def _open(path: Path, flags: int = os.O_RDONLY) -> Iterator[BinaryIO]:
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise NotNow("no regular file, so it can't be read twice; save it to a file first")
        yield file


def _replay_spill(path: Path, link: Link, report: Report, *, keep: bool, force: bool) -> None:
    """Send a spill file as the stream that it is, with the care that SDK and sidecar take of each other."""
    name = SPILL_NAME.fullmatch(path.name)
    assert name is not None
    with _open(path, os.O_RDONLY | os.O_NOFOLLOW) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotNow("its program, or a sidecar, holds it and delivers it itself; nothing to do") from None
        if not force and not path.name.endswith(".taken") and _runs(int(name["pid"])):
            what = f"its program, process {name['pid']}, still runs and delivers it itself"
            raise NotNow(f"{what}; where that process is another program, use --force")
        taken = path if keep or path.name.endswith(".taken") else path.with_name(path.name + ".taken")
        path.rename(taken)
        done = False
        try:
            _Delivery(spill_parcel(path, file), link, report).run()
            done = report.good
        finally:
            if done and not keep:
                taken.unlink()
            else:
                taken.rename(path)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


# -- delivery


def _deliver_all(parcels: Iterator[Parcel], link: Link, report: Report) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while some := list(islice(parcels, AT_ONCE)):
            if len(some) == 1:
                _Delivery(some[0], link, report).run()
            else:
                list(pool.map(lambda parcel: _Delivery(parcel, link, report).run(), some))


class _Delivery:
    """One stream on its way, over as many connections as that takes: each goes through the file from its start, and
    sends what the sidecar lacks. The marks say what was counted and reported before."""

    def __init__(self, parcel: Parcel, link: Link, report: Report) -> None:
        self._parcel = parcel
        self._link = link
        self._report = report
        self._hello = hello(parcel.client, parcel.service, link.token)
        self._known = -1
        """The seq up to which everything was there before this run."""
        self._settled_seq = 0
        self._seen_line = 0
        self._rejected_line = 0

    def run(self) -> None:
        """Raises OSError or Refused where the sidecar is not there, or no longer."""
        give_up, pause = time.monotonic() + PATIENCE, 0.1
        while True:
            before = self._settled_seq
            try:
                with Stream(self._link.address, self._hello, self._settle) as stream:
                    self._report.met = True
                    self._known = stream.acked if self._known < 0 else self._known
                    self._send(stream)
                return
            except (OSError, Refused) as error:
                if self._settled_seq > before:
                    give_up, pause = time.monotonic() + PATIENCE, 0.1
                passing = error.passing if isinstance(error, Refused) else self._report.met
                if not passing or time.monotonic() > give_up:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _send(self, stream: Stream) -> None:
        for line in self._parcel.lines(stream.max_line):
            new, self._seen_line = line.number > self._seen_line, max(line.number, self._seen_line)
            if line.problem:
                if new:
                    self._report.refuse(line, *line.problem)
            elif line.seq > stream.acked:
                stream.send(line.seq, line.data, line)
            elif line.seq > max(self._known, self._settled_seq):
                self._settle(line, None)  # its ack was lost with an earlier connection
            elif new:
                self._report.know()
            self._report.at(line)
        stream.finish()

    def _settle(self, line: Line, why: Rejection | None) -> None:
        self._settled_seq = max(line.seq, self._settled_seq)
        if why is None:
            self._report.deliver()
        elif line.number > self._rejected_line:
            self._rejected_line = line.number
            self._report.refuse(line, *why)
