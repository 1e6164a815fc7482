"""``wafermon journal``: look into a journal that no sidecar runs on, and forget what nobody will read."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from wafermon.cli import render
from wafermon.cli.ask import Site, tell
from wafermon.cli.parameters import http_option
from wafermon.cli.past import columns

if TYPE_CHECKING:
    from wafermon.interfaces import Position
    from wafermon.journal.state import State


@click.group()
def command() -> None:
    """Look into a journal's directory while no sidecar runs on it; forget what is kept for a backend that is gone."""


_directory = click.argument("directory", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))


@command.command("list")
@_directory
def list_(directory: Path) -> None:
    """Show what DIR holds: a line per segment, then how far each cursor has read.

    \b
    Example:
      wafermon journal list /var/lib/wafermon/journal
    """
    with _locked(directory):
        journal, cursors = _state(directory)
        click.echo(f"journal {journal}")
        layout, rows = _Layout(directory), []
        for number, length in layout.lengths.items():
            one = _read(directory, number, layout.counts(number), journal)
            received = f"{_moment(one.first)} to {_moment(one.last)}" if one.groups else "-"
            faults = f"{len(one.faults)} faults, see journal check" if one.faults else ""
            rows.append([*map(str, (number, length, one.groups, one.messages, one.rejected)), received, faults])
        header = ["SEGMENT", "BYTES", "GROUPS", "MESSAGES", "REJECTED", "RECEIVED (UTC)", ""]
        for line in render.cut(render.table(header, rows, right="rrrrr", hide="--1-23-"), columns()):
            click.echo(line)
        for name, position in sorted(cursors.items()):
            click.echo(f"cursor {name}: segment {position.segment}, byte {position.offset}")


@command.command()
@_directory
def check(directory: Path) -> None:
    """Read everything that DIR holds and compare every checksum.

    Each fault goes to standard error as `file:byte: what`; the exit status is 1 then. An unfinished end of the newest
    segment is no fault: a crash leaves it, nothing in it was acknowledged, and the next start cuts it. Nor is what a failed write
    left at the end of a segment, or of one in which nothing counted: the segment after it says so.

    \b
    Example:
      wafermon journal check /var/lib/wafermon/journal
    """
    with _locked(directory):
        journal, _ = _state(directory)
        layout = _Layout(directory)
        segments = layout.lengths
        messages, faults = 0, 0
        for number, length in segments.items():
            path, counts = _path(directory, number), layout.counts(number)
            if number in layout.dropped:
                click.echo(f"{path}: failed before anything in it counted; a start removes it")
                continue
            one = _read(directory, number, counts, journal)
            messages += one.messages
            if lost := layout.ends.get(number, length) - counts:
                one.faults.append((length, f"{lost} bytes at its end are lost"))
            if length > counts:
                click.echo(f"{path}: ends in {length - counts} bytes of a write that failed, which a start cuts")
            if one.tail and number == max(segments):
                click.echo(f"{path}: ends in {one.tail} unfinished bytes, which a start cuts")
            elif one.tail:
                one.faults.append((counts - one.tail, f"{one.tail} unfinished bytes"))
            for at, what in one.faults:
                click.echo(f"{path}:{at}: {what}", err=True)
            faults += len(one.faults)
        for number in layout.missing:
            click.echo(f"{_path(directory, number)}:0: is missing between two others", err=True)
            faults += 1
    if faults:
        click.echo(f"{directory}: {faults} faults; the sidecar sets them aside and skips them", err=True)
        raise click.exceptions.Exit(1)
    click.echo(f"{directory}: good: {len(segments)} segments, {messages} messages")


@command.command()
@click.argument("name", metavar="NAME")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="The journal's directory, where no sidecar runs on it; else the running sidecar is asked.",
)
@http_option
def forget(name: str, directory: Path | None, http: Site) -> None:
    """Forget the cursor NAME, whose backend is not in the config any more, and of the journal that is kept for it alone.

    What it had not been delivered is lost to it. `wafermon status` names the cursors that have no backend. A cursor that is
    in use is refused.

    \b
    Example:
      wafermon journal forget old-database
    """
    if directory is None:
        found = tell(http, f"/api/cursors/{quote(name, safe='')}/forget")
        held = f"{render.size(found['bytes'])}, about {found['messages']:,} messages"
        click.echo(f"{render.plain(name)} is forgotten; for it were kept {held}")
        return
    with _locked(directory):
        from wafermon.journal.clock import Known
        from wafermon.journal.state import State

        state = State(directory / "state.db")
        try:
            cursors = _cursors(state)
            if name not in cursors:
                raise click.ClickException(f"the journal has no cursor {name!r}; it has {', '.join(sorted(cursors))}")
            state.save({name: None}, [], state.known() or Known(0, 0))
        finally:
            state.close()
    click.echo(f"{render.plain(name)} is forgotten; the next start deletes what was kept for it alone")


@command.command()
@_directory
def renew(directory: Path) -> None:
    """Give the journal in DIR a new id. That is for a copy: of a machine's image, or of a journal that was put back from a backup.

    Two journals with one id can't both be told apart by the backends, and by the sidecar that they forward to. All messages, marks and
    cursors stay. What the journal holds and had not delivered, as far as it knows, is delivered under the new id: what the original has
    delivered since the copy was made is then there twice.

    \b
    Example:
      wafermon journal renew /var/lib/wafermon/journal
    """
    with _locked(directory):
        from wafermon.journal.state import State

        state = State(directory / "state.db")
        try:
            before, after = state.journal, state.renew()
        finally:
            state.close()
    click.echo(f"{directory}: the journal {before} is {after} from now on")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Nobody writes to it meanwhile."""
    from wafermon.journal import lock
    from wafermon.model.errors import JournalLocked

    if not (directory / "state.db").is_file():
        raise click.ClickException(f"{directory} holds no journal; name the `journal.dir` of the config")
    try:
        held = lock(directory)
    except JournalLocked as error:
        raise click.ClickException(f"{error}; stop the sidecar first") from None
    except OSError as error:
        raise click.ClickException(f"{directory} can't be locked: {error.strerror}; run this as its owner") from None
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise click.ClickException(f"{directory} can't be read: {error}") from None
    finally:
        os.close(held)


def _state(directory: Path) -> tuple[str, dict[str, Position]]:
    """The journal's id, and the lower bound of each cursor."""
    from wafermon.journal.state import State

    state = State(directory / "state.db")
    try:
        return state.journal, _cursors(state)
    finally:
        state.close()


def _cursors(state: State) -> dict[str, Position]:
    """Those that hold segments: the place of the marks is the journal's own, and says where a start begins to read them."""
    from wafermon.journal.storage import MARKS_CURSOR

    return {name: place for name, place in state.cursors().items() if name != MARKS_CURSOR}


class _Layout:
    """Which segments there are, and what their heads say of those before them."""

    def __init__(self, directory: Path) -> None:
        from wafermon.files import Files
        from wafermon.journal import CannotOpen
        from wafermon.journal.recovery import heads_in
        from wafermon.journal.segments import segments_in

        files = Files()
        self.lengths = segments_in(directory, files)
        try:
            heads = [head for head in heads_in(directory, files).values() if head is not None]
        except CannotOpen as error:
            raise click.ClickException(str(error)) from None
        self.ends = {head.after: head.ended for head in heads if head.ended >= 0}
        """How many bytes of a segment count, where the next one says it."""
        self.dropped = {number for head in heads for number in head.dropped}
        """Segments in which nothing counts."""
        first = min(self.lengths, default=0)
        self.missing = sorted(head.after for head in heads if head.after > first and head.after not in self.lengths)

    def counts(self, number: int) -> int:
        """How many bytes of a segment are there that count."""
        if number in self.dropped:
            return 0
        return min(self.lengths[number], self.ends.get(number, self.lengths[number]))


def _path(directory: Path, number: int) -> Path:
    from wafermon.journal.segments import path_of

    return path_of(directory, number)


@dataclass
class _Segment:
    """What one segment holds."""

    faults: list[tuple[int, str]]
    """Offset, and what is wrong there."""
    groups: int = 0
    messages: int = 0
    rejected: int = 0
    first: int = 0
    """Receive times in microseconds since the epoch."""
    last: int = 0
    tail: int = 0
    """Unfinished bytes at its end."""


def _read(directory: Path, number: int, length: int, journal: str) -> _Segment:
    from wafermon.journal.groups import decode_group
    from wafermon.journal.segments import SegmentFile

    found = _Segment(faults=[])
    file = SegmentFile(directory, number)
    try:
        for span, data in file.spans(0, length):
            if span.commit is None:
                if span.end == length and b"\n!commit " not in data:
                    found.tail = span.end - span.start
                else:
                    found.faults.append((span.start, f"{span.end - span.start} bytes can't be read: damaged"))
                continue
            try:
                group = decode_group(data, span, journal, number, "")
            except Exception as error:  # noqa: BLE001  # the checksum is good, so this is our own defect: say it
                found.faults.append((span.start, f"the checksum is good, but it can't be read: {error}"))
                continue
            found.groups += 1
            found.messages += sum(block.count for _, block in group.blocks)
            found.rejected += len(group.rejected)
            found.first = found.first or group.time
            found.last = group.time
    finally:
        file.close()
    return found


def _moment(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
