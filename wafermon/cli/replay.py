"""``wafermon replay``: spill files, dead letters, and any other file of LDJSON, to the sidecar. Twice counts once."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from wafermon.cli.address import Address
from wafermon.cli.parameters import sidecar_options
from wafermon.cli.records import (
    SPILL_NAME,
    Content,
    Line,
    check,
    examine,
    identity,
    is_own,
    lines_of,
    open_file,
    read_letter,
    readdressed,
)
from wafermon.cli.stream import BLOCK_BYTES, Stream, Undelivered
from wafermon.model.errors import ProtocolError
from wafermon.wire.lines import LineError, read_object

CONNECTIONS = 16
"""Dead letters are streams of one line; so many are under way at a time."""
MOST_SHOWN = 100
"""Refused lines of one file that are told one by one."""
MAX_JUMP = 1_000_000
SERVICE = "wafermon-replay"
"""Of what the command says of itself, where no line has a service: a token may bind the others."""
QUIET = 2.0
"""Seconds between two words about how far it is."""


@click.command()
@sidecar_options
@click.option("--service", metavar="NAME", help="The service of lines that name none.")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def command(files: tuple[Path, ...], url: Address, token: str | None, service: str | None) -> None:
    """Send FILES again: spill files, dead letters, or any file with a message a line (gzip too).

    The same file replayed twice counts once. A spill file is removed when all of it is acknowledged. A dead letter that
    one backend had refused goes to that backend alone. Exit status: 0 all of it is stored, 1 some lines were refused
    (each is named), a compressed file is cut off (what it holds is sent), or the sidecar is not there.

    \b
    Example:
      wafermon replay /var/lib/wafermon/dead-letters/*.jsonl
    """
    replay = Replay(url, token, service)
    failed = False
    for path in files:
        tally = Tally(path)
        try:
            replay.file(path, tally)
        except (Undelivered, NotYours) as error:
            raise click.ClickException(f"{path}: {error}{tally.so_far()}") from None
        except OSError as error:
            raise click.ClickException(f"{path}: {error.strerror or error}{tally.so_far()}") from None
        click.echo(tally.summary())
        failed = failed or bool(tally.refused or tally.cut_off)
    raise SystemExit(1 if failed else 0)


class NotYours(Exception):
    """A spill file that another process is writing or sending."""


@dataclass
class Tally:
    """What became of a file's lines, and what is said about it on the way."""

    path: Path
    size: int = 0
    sent: int = 0
    known: int = 0
    """Lines that the sidecar held already."""
    own: int = 0
    """Messages that a sidecar made itself, as an archive holds them: they are derived anew from the others."""
    refused: int = 0
    kept: bool = False
    """Whether some line went nowhere, so that the file is still needed."""
    cut_off: str = ""
    """See `Content`."""
    _spoken: float = field(default_factory=time.monotonic)

    def refuse(self, number: int, code: str, detail: str) -> None:
        self.refused += 1
        if self.refused <= MOST_SHOWN:
            click.echo(f"{self.path}:{number}: {code}: {detail}", err=True)
        elif self.refused == MOST_SHOWN + 1:
            click.echo(f"{self.path}: more refused lines follow; they are counted alone", err=True)

    def misses(self, line: Line) -> bool:
        """Whether the rest of a line is missing, since the file is cut off in it; says so."""
        if line.whole or not self.cut_off:
            return False
        click.echo(f"{self.path}:{line.number}: unfinished, and left out", err=True)
        return True

    def reached(self, line: Line) -> None:
        """Say how far it is, now and then."""
        if time.monotonic() - self._spoken > QUIET:
            self._spoken = time.monotonic()
            click.echo(f"{self.path}: line {line.number}, {100 * line.end // max(1, self.size)} %", err=True)

    def summary(self) -> str:
        known = f", {self.known} were there already" if self.known else ""
        refused = f", {self.refused} refused" if self.refused else ""
        own = f", {self.own} of the sidecar's own left out" if self.own else ""
        return f"{self.path}: {self.sent} messages acknowledged{known}{own}{refused}"

    def so_far(self) -> str:
        return "\nRun the same command again later: what has arrived counts once." if self.size else ""


class Replay:
    """Sends files to one sidecar."""

    def __init__(self, address: Address, token: str | None, service: str | None) -> None:
        self._address = address
        self._token = token
        self._service = service

    def file(self, path: Path, tally: Tally) -> None:
        """Raises Undelivered, NotYours, OSError."""
        name = SPILL_NAME.fullmatch(path.name)
        if name:
            with claimed(path) as (taken, done):
                tally.size = taken.stat().st_size
                self._spill(taken, name["client"], name["service"], int(name["pid"]), tally)
                if not tally.kept:
                    done()
            return
        content = examine(path)
        tally.size = content.size
        tally.cut_off = content.cut_off
        if content.cut_off:
            click.echo(f"{path}: {content.cut_off}: what it holds up to there is sent", err=True)
        if content.letters:
            self._letters(path, content, tally)
        else:
            self._lines(path, content, tally)

    def _stream(self, client: str, **options: Any) -> Stream:
        return Stream(self._address, client, token=self._token, **options)

    # -- a spill file

    def _spill(self, path: Path, client: str, service: str, pid: int, tally: Tally) -> None:
        """Its lines as they are, under the client and the seqs that they have had from the start."""
        sending = Sending(tally)
        hello = {"service": service, "host": socket.gethostname(), "pid": pid}
        with open_file(path) as file, self._stream(client, on_refused=sending.refused, **hello) as stream:
            sending.begin(stream)
            last = 0
            for line in lines_of(file, tally.size):
                tally.reached(line)
                if not line.whole:
                    click.echo(
                        f"{path}:{line.number}: unfinished, and left out: its program was cut off there", err=True
                    )
                    break
                try:
                    seq = spill_seq(line.data, client, last)
                except ProtocolError as error:
                    tally.refuse(line.number, error.code, error.detail)
                    tally.kept = True
                    continue
                last = seq
                sending.add(seq, line.number, line.data)
            sending.finish()

    # -- any other file

    def _lines(self, path: Path, content: Content, tally: Tally) -> None:
        """All of it as one stream."""
        sending = Sending(tally)
        hello = {"service": self._service} if self._service else {}
        with open_file(path) as file, self._stream(content.client, on_refused=sending.refused, **hello) as stream:
            sending.begin(stream)
            seq = last = 0
            named = b""
            for line in lines_of(file, content.size):
                tally.reached(line)
                if not line.data.strip():
                    continue
                if tally.misses(line):
                    break
                seq += 1
                if is_own(line.data):
                    tally.own += 1
                    continue
                named = line.data if b'"service"' in line.data else named
                if seq <= sending.acked:
                    sending.add(seq, line.number, b"")
                    last = seq
                    continue
                try:
                    made = readdressed(line.data, content.client, seq, stream.max_line)
                    check(made, content.client, self._service)
                except ProtocolError as error:
                    tally.refuse(line.number, error.code, error.detail)
                    continue
                if seq - max(last, sending.acked) > MAX_JUMP:
                    raise Undelivered(f"a million lines before line {line.number} are no messages")
                last = seq
                sending.add(seq, line.number, made)
            sending.finish()
            sending.say_all(last, service_of(named) or self._service or SERVICE)

    # -- dead letters

    def _letters(self, path: Path, content: Content, tally: Tally) -> None:
        """Each one as a stream of its own."""
        waiting: list[Future[Outcome]] = []
        with open_file(path) as file, ThreadPoolExecutor(CONNECTIONS) as pool:
            try:
                for line in lines_of(file, content.size):
                    tally.reached(line)
                    if not line.data.strip():
                        continue
                    if tally.misses(line):
                        break
                    waiting.append(pool.submit(self._letter, line))
                    if len(waiting) >= 2 * CONNECTIONS:
                        self._count(waiting.pop(0).result(), tally)
                for one in waiting:
                    self._count(one.result(), tally)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _count(self, outcome: Outcome, tally: Tally) -> None:
        if outcome.refusal:
            tally.refuse(outcome.number, *outcome.refusal)
        elif outcome.known:
            tally.known += 1
        else:
            tally.sent += 1

    def _letter(self, line: Line) -> Outcome:
        refusals: list[tuple[str, str]] = []
        try:
            letter = read_letter(line.data)
            read_object(letter.line)
        except ProtocolError as error:
            return Outcome(line.number, refusal=(error.code, error.detail))
        hello = {**({"service": self._service} if self._service else {}), **letter.hello}
        stream = self._stream(
            letter.client, on_refused=lambda _, code, detail: refusals.append((code, detail)), **hello
        )
        with stream:
            known = stream.acked >= 1
            try:
                made = readdressed(
                    letter.line, letter.client, 1, stream.max_line,
                    ts=letter.ts, replay_of=letter.replay_of, replay_to=letter.replay_to,
                )  # fmt: skip
                check(made, letter.client, hello.get("service"))
            except ProtocolError as error:
                return Outcome(line.number, refusal=(error.code, error.detail))
            stream.send(
                2, made + b"\n" + stream.said_all(1, 1, service_of(letter.line) or hello.get("service", SERVICE))
            )
            stream.drain()
        return Outcome(line.number, known, refusals[0] if refusals else None)


@dataclass(frozen=True)
class Outcome:
    """What became of one dead letter."""

    number: int
    known: bool = False
    refusal: tuple[str, str] | None = None


class Sending:
    """Lines of one stream on their way: gathered into blocks, counted when they are settled."""

    def __init__(self, tally: Tally) -> None:
        self.acked = 0
        """What the sidecar held before."""
        self._tally = tally
        self._block = bytearray()
        self._last = 0
        self._numbers: dict[int, int] = {}
        self._stream: Stream

    def begin(self, stream: Stream) -> None:
        self._stream = stream
        self.acked = stream.acked

    def add(self, seq: int, number: int, line: bytes) -> None:
        """The line `number` of the file."""
        if seq <= self.acked:
            self._tally.known += 1
            return
        self._numbers[seq] = number
        self._tally.sent += 1
        self._block += line
        self._block += b"\n"
        self._last = seq
        if len(self._block) >= BLOCK_BYTES:
            self._hand_over()

    def finish(self) -> None:
        """Returns when all of it is acknowledged."""
        if self._block:
            self._hand_over()
        self._stream.drain()

    def say_all(self, last: int, service: str) -> None:
        """Of a stream of this command's own: that it ends with the number `last`. Not where a line was refused: it may be sent yet, under
        its number, once it was given a service."""
        if not last or self._tally.refused or self.acked > last:
            return
        if said := self._stream.said_all(self._tally.sent + self._tally.known, last, service):
            self._stream.send(last + 1, said)
            self._stream.drain()

    def _hand_over(self) -> None:
        self._stream.send(self._last, bytes(self._block))
        self._block.clear()
        for seq in [seq for seq in self._numbers if seq <= self._stream.acked]:
            del self._numbers[seq]

    def refused(self, seq: int, code: str, detail: str) -> None:
        self._tally.sent -= 1
        self._tally.refuse(self._numbers.get(seq, 0), code, detail)


def service_of(line: bytes) -> str:
    """The service that a line names; empty where it names none."""
    try:
        service = read_object(line).get("service")
    except LineError:
        return ""
    return service if isinstance(service, str) else ""


def spill_seq(line: bytes, client: str, last: int) -> int:
    """The seq of a spill file's line; one that can't be read has the next one, as the sidecar sees it too. Raises
    ProtocolError where the line is not of this stream."""
    try:
        value = read_object(line)
    except LineError:
        return last + 1
    own = identity(value)
    if not own:
        raise ProtocolError(
            "bad_message", "a spill file's lines carry client and seq; rename the file to replay it as any other"
        )
    if own["client"] != client:
        raise ProtocolError(
            "bad_message", f"client: this file is the stream of {client!r} alone, not of {own['client']!r}"
        )
    seq = int(own["seq"])
    if seq <= last or (last and seq - last > MAX_JUMP):
        raise ProtocolError("bad_message", f"seq: {seq} does not follow {last}")
    return seq


@contextmanager
def claimed(path: Path) -> Iterator[tuple[Path, Any]]:
    """A spill file for this process alone: where it is now, and what to call when it may go. Raises NotYours, OSError."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # languages differ in which they have
        except (BlockingIOError, PermissionError):
            raise NotYours(
                "it is locked: its program runs and sends it itself, or a sidecar does just now; stop the program first"
            ) from None
        taken = path if path.suffix == ".taken" else path.with_name(path.name + ".taken")
        if not os.path.samestat(os.fstat(fd), path.lstat()):
            raise NotYours("another process has just sent it")
        path.rename(taken)
        removed: list[None] = []

        def done() -> None:
            taken.unlink()
            removed.append(None)

        try:
            yield taken, done
        finally:
            if not removed:
                taken.rename(taken.with_name(taken.name.removesuffix(".taken")))
    finally:
        os.close(fd)
