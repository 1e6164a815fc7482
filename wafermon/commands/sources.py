"""Files that can be replayed -> streams of lines: which client each is, and what its lines are to be. No network.

Whatever is replayed twice must count once, so a client is never chosen at random here: it is the spill file's own, or
it is derived from a dead letter, or from the content of the file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

SPILL_NAME = re.compile(
    r"(?P<service>[A-Za-z0-9._:-]{1,128})\.(?P<pid>[0-9]+)\.(?P<client>[0-9a-f]{16})\.ldjson(?:\.taken)?"
)
OWN_SERVICE = "wafermon"
LONGEST = 16 << 20
"""No line of a file is read further than so many bytes."""
_TAIL = re.compile(rb',\s*"client"\s*:\s*"[0-9a-f]{16}"\s*,\s*"seq"\s*:\s*[0-9]+\s*\}\s*$')
_LETTER_LINES = ("line", "line_base64")
_CHUNK = 1 << 20


class Line(NamedTuple):
    """One line of a file on its way to the sidecar."""

    number: int
    """Its place in the file, from 1."""
    seq: int
    data: bytes
    """What to send, with its newline."""
    end: int
    """Where the next line of the file begins, in bytes."""
    problem: tuple[str, str] | None = None
    """Why it can't even be sent: code and detail."""


@dataclass(frozen=True)
class Parcel:
    """What goes over one connection."""

    client: str
    service: str
    """For lines that name none."""
    lines: Callable[[int], Iterator[Line]]
    """The longest line that the sidecar takes -> the lines; can be called again."""


def parcels_of(file: BinaryIO, service: str) -> Iterator[Parcel]:
    """The streams of a file that is no spill file: dead letters one each, everything else as a whole."""
    if _is_letter(_read_object(_first_line(file))):
        # What is refused again may come back into the very file, which must end all the same.
        yield from _letters(file, os.fstat(file.fileno()).st_size, service)
        return
    client, size = _digest(file)
    yield Parcel(client, service, lambda max_line: _renumbered(file, client, size, max_line))


def spill_parcel(path: Path, file: BinaryIO) -> Parcel:
    """The stream of a spill file, which says in its name who it is."""
    name = SPILL_NAME.fullmatch(path.name)
    assert name is not None
    client = name["client"]
    return Parcel(client, name["service"], lambda max_line: _as_they_are(file, client, max_line))


class _Raw(NamedTuple):
    """One line of a file as it stands there, without its newline."""

    number: int
    text: bytes
    end: int
    """Where the next one begins."""
    ended: bool
    """By a newline, as all but the last one are."""
    cut: bool
    """Longer than LONGEST: `text` is its beginning."""


def _lines(file: BinaryIO, stop: int = sys.maxsize) -> Iterator[_Raw]:
    """The lines up to offset `stop`."""
    file.seek(0)
    at = number = 0
    while at < stop and (line := file.readline(min(LONGEST + 1, stop - at))):
        at, number, ended = at + len(line), number + 1, line.endswith(b"\n")
        cut = len(line) > LONGEST and not ended
        while cut and not ended and (rest := file.readline(_CHUNK)):
            at, ended = at + len(rest), rest.endswith(b"\n")
        yield _Raw(number, line.rstrip(b"\r\n"), at, ended, cut)


def _first_line(file: BinaryIO) -> bytes:
    return next((raw.text for raw in _lines(file) if raw.text.strip()), b"")


def _read_object(line: bytes) -> dict[str, Any] | None:
    """None for what is no JSON object, strictly read."""
    try:
        value = json.loads(line.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse_constant(token: str) -> None:
    raise ValueError(token)


def _too_long(size: int, max_line: int) -> tuple[str, str]:
    return "line_too_long", f"{size} bytes; the sidecar takes {max_line}"


# -- spill files


def _as_they_are(file: BinaryIO, client: str, max_line: int) -> Iterator[Line]:
    seq = 0
    for number, line, end, ended, _ in _lines(file):
        if not ended:
            detail = f"the file ends in {len(line)} bytes without a newline: its program was cut off there"
            yield Line(number, seq + 1, b"", end, ("cut_off", detail))
            return
        if not line.strip():
            continue
        message = _read_object(line) or {}
        own = message.get("seq")
        problem = None
        if type(own) is not int or own < 1 or message.get("client") != client:
            problem = "bad_message", f"client and seq: every line here carries the client {client} and its number"
        else:
            seq = own
            if len(line) > max_line:
                problem = _too_long(len(line), max_line)
        yield Line(number, seq, line + b"\n", end, problem)


# -- dead letters


def _is_letter(value: Mapping[str, Any] | None) -> bool:
    return value is not None and "id" in value and "type" not in value and not value.keys().isdisjoint(_LETTER_LINES)


def _letters(file: BinaryIO, size: int, service: str) -> Iterator[Parcel]:
    for raw in _lines(file, size):
        if raw.text.strip():
            yield _letter(raw, service)


def _letter(raw: _Raw, service: str) -> Parcel:
    letter = _read_object(raw.text)
    line, problem = _letter_line(letter) if letter is not None else (b"", "no JSON object")
    if letter is None or problem:
        client = _client_of(b"no letter", raw.text)
        broken = Line(raw.number, 1, b"", raw.end, ("bad_letter", problem))
        return Parcel(client, service, lambda max_line: iter([broken]))
    # The line takes part: a letter that a person has mended is another message than the one that was refused.
    client = _client_of(b"letter", str(letter["id"]).encode(), line)
    added = {"replay_of": _identity(letter), "replay_to": letter.get("backend") or None}

    def lines(max_line: int) -> Iterator[Line]:
        data = renumber(line, client, 1, added, max_line)
        problem = _too_long(len(data), max_line) if len(data) > max_line else None
        yield Line(raw.number, 1, data + b"\n", raw.end, problem)

    return Parcel(client, service, lines)


def _letter_line(letter: Mapping[str, Any]) -> tuple[bytes, str]:
    """The line that a letter is about, or what is wrong with the letter."""
    try:
        if not _is_letter(letter):
            raise ValueError("no dead letter: it has no id, or no line")
        line = letter["line"].encode() if "line" in letter else base64.b64decode(letter["line_base64"], validate=True)
    except (ValueError, TypeError, AttributeError) as error:
        return b"", str(error)
    return line, "its line holds a newline" if b"\n" in line else ""


# -- any other file


def _renumbered(file: BinaryIO, client: str, size: int, max_line: int) -> Iterator[Line]:
    seq = 0
    for number, line, end, _, cut in _lines(file, size):
        if not line.strip():
            continue
        message = _read_object(line)
        if message is not None and message.get("service") == OWN_SERVICE:
            continue  # the sidecar derives them anew
        seq += 1
        added = {"replay_of": _identity(message or {})}
        data = line if cut else renumber(line, client, seq, added, max_line)
        problem = _too_long(len(line), max_line) if len(data) > max_line else None
        yield Line(number, seq, data + b"\n", end, problem)


def _digest(file: BinaryIO) -> tuple[str, int]:
    """The client that a file's content stands for, and how much content that is: more may be appended meanwhile."""
    digest, size = hashlib.blake2b(b"file", digest_size=8), 0
    file.seek(0)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def _client_of(*parts: bytes) -> str:
    return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()


# -- lines


def _identity(message: Mapping[str, Any]) -> dict[str, Any] | None:
    """The client and seq that a message has, where it has both."""
    client, seq = message.get("client"), message.get("seq")
    return {"client": client, "seq": seq} if isinstance(client, str) and type(seq) is int else None


def renumber(line: bytes, client: str, seq: int, added: Mapping[str, Any], max_line: int) -> bytes:
    """A message's line as one of another stream: its own bytes, as far as that goes, with new client and seq, and with
    what is `added`, which is left out where it is None. The first `replay_of` stays for ever. What is no JSON object is
    handed back as it is: the sidecar says what is wrong with it.
    """
    message = _read_object(line)
    if message is None:
        return line
    replayed_of = message.get("replay_of") or added.get("replay_of")
    added = {**added, "replay_of": replayed_of, "client": client, "seq": seq}
    if tail := _TAIL.search(line):
        line = line[: tail.start()] + b"}"
        del message["client"], message["seq"]
    if not added.keys().isdisjoint(message):
        rest = {key: value for key, value in message.items() if key not in added}
        try:
            line = json.dumps(rest, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except ValueError:  # a lone surrogate, a number that is none: the sidecar refuses those
            return line
    shown = {key: value for key, value in added.items() if value is not None}
    for fields in (shown, {key: value for key, value in shown.items() if key != "replay_of"}):
        head = line.rstrip()[:-1].rstrip()
        more = json.dumps(fields, separators=(",", ":")).encode()[1:]
        data = head + (b"" if head.endswith(b"{") else b",") + more
        if len(data) <= max_line:
            break  # without replay_of, a line of full length fits just as it did before
    return data
