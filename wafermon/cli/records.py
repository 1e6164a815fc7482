"""The files that can be replayed: what each one is, and its lines under the client and seq that they go with.

Three kinds, told apart by name and first line. A spill file is a stream of its own already. Of dead letters each one is
a stream, so that whichever of them are replayed, and however often, each counts once. Any other file is one stream
whose client comes from the content: the same file counts once, and a line's seq is its number among those that are not
blank.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import msgspec

from wafermon.model.errors import ProtocolError
from wafermon.model.messages import CLIENT, OWN_SERVICE, SEQ_MAX
from wafermon.wire.lines import LineError, LineReader, Origin, read_object

LONGEST = 8 << 20
"""Bytes of a line in a file; a dead letter's is longer than what it holds."""
CHUNK_BYTES = 1 << 18
"""What is read at a time: of a damaged gzip file the chunk with the damage is lost whole."""
SPILL_NAME = re.compile(r"(?P<service>.+)\.(?P<pid>[0-9]+)\.(?P<client>[0-9a-f]{16})\.ldjson(?:\.taken)?")
HELLO = {"service": str, "host": str, "pid": int}
"""What a dead letter may say of the connection that it came from."""
_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Line(NamedTuple):
    """A line of a file."""

    number: int
    """1-based, as an editor shows it."""
    data: bytes
    """Without its newline."""
    end: int
    """Where it ends in the file, in bytes of its (decompressed) content."""
    whole: bool = True
    """False where it has no newline, or is longer than LONGEST and cut."""


class Content(NamedTuple):
    """What a first look at a file told."""

    client: str
    """Of the stream that the file as a whole is, unless it is a spill file."""
    size: int
    """Bytes, decompressed."""
    letters: bool
    """Whether it holds dead letters."""
    cut_off: str = ""
    """Why a compressed file can be read no further than `size`; empty where it is whole."""


def open_file(path: Path) -> BufferedReader:
    """For reading, decompressed where it is gzip."""
    file = path.open("rb")
    if file.read(2) == b"\x1f\x8b":
        file.close()
        return cast("BufferedReader", gzip.open(path, "rb"))
    file.seek(0)
    return file


def examine(path: Path) -> Content:
    """Read it through once. Raises OSError."""
    digest, size, cut_off = hashlib.blake2b(digest_size=8), 0, ""
    with open_file(path) as file:
        try:
            while chunk := file.read1(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            cut_off = "it is cut off" if isinstance(error, EOFError) else f"it is damaged ({error})"
    with open_file(path) as file:
        first = next((line for line in lines_of(file, size) if line.data.strip()), None)
    return Content(digest.hexdigest(), size, first is not None and is_letter(first.data), cut_off)


def lines_of(file: IO[bytes], size: int) -> Iterator[Line]:
    """The lines among the first `size` bytes; what is appended meanwhile is left alone."""
    number = end = 0
    while end < size and (data := file.readline(min(LONGEST, size - end))):
        number += 1
        end += len(data)
        whole = data.endswith(b"\n")
        if not whole and len(data) == LONGEST:
            while end < size and (rest := file.readline(min(LONGEST, size - end))):
                end += len(rest)
                if rest.endswith(b"\n"):
                    break
        yield Line(number, data.removesuffix(b"\n").removesuffix(b"\r"), end, whole)


def is_letter(line: bytes) -> bool:
    """Whether this is how a dead letter looks."""
    try:
        value = read_object(line)
    except LineError:
        return False
    return CLIENT.fullmatch(str(value.get("id"))) is not None and ("line" in value or "line_base64" in value)


def is_own(line: bytes) -> bool:
    """Whether a sidecar made this message itself."""
    if b'"wafermon"' not in line:
        return False
    try:
        return read_object(line).get("service") == OWN_SERVICE
    except LineError:
        return False


class Letter(NamedTuple):
    """A dead letter, as far as its replay goes."""

    client: str
    """Of the stream that it is."""
    line: bytes
    ts: int | None
    """When it came, in microseconds since the epoch."""
    replay_of: Mapping[str, Any]
    replay_to: str | None
    hello: Mapping[str, Any]
    """``service``, ``host`` and ``pid`` of the connection that it came from, as far as they are known."""


def read_letter(line: bytes) -> Letter:
    """Raises ProtocolError."""
    value = read_object(line)
    if not is_letter(line):
        raise ProtocolError("bad_message", "not a dead letter: expected an id of 16 hex, and line or line_base64")
    try:
        content = value["line"].encode() if "line" in value else base64.b64decode(value["line_base64"], validate=True)
    except (AttributeError, TypeError, ValueError):
        raise ProtocolError("bad_message", "not a dead letter: line is no text, or line_base64 no base64") from None
    client = hashlib.blake2b(f"letter {value['id']}".encode(), digest_size=8).hexdigest()
    time, backend = value.get("time"), value.get("backend")
    return Letter(
        client,
        content,
        time if type(time) is int else None,
        identity(value),
        backend if isinstance(backend, str) and backend else None,
        {name: value[name] for name, kind in HELLO.items() if type(value.get(name)) is kind and value[name]},
    )


def identity(value: Mapping[str, Any]) -> dict[str, Any]:
    """The client and seq of an object, where it has both."""
    client, seq = value.get("client"), value.get("seq")
    if isinstance(client, str) and CLIENT.fullmatch(client) and type(seq) is int and 1 <= seq <= SEQ_MAX:
        return {"client": client, "seq": seq}
    return {}


def readdressed(
    line: bytes, client: str, seq: int, longest: int, *, ts: int | None = None,
    replay_of: Mapping[str, Any] | None = None, replay_to: str | None = None,
) -> bytes:  # fmt: skip
    """A message's line under another client and seq; `replay_of` keeps the ones it had, the first where it was replayed
    before. Everything else stays as it came, to the byte. Raises ProtocolError."""
    value = read_object(line)
    fields: dict[str, Any] = dict(_read_fields(line))
    old = identity(value) or replay_of
    fields |= {"client": client, "seq": seq}
    if ts is not None:
        fields.setdefault("ts", ts)
    fields.pop("replay_to", None)
    if replay_to:
        fields["replay_to"] = replay_to
    for additions in ({"replay_of": old}, {}) if old and "replay_of" not in fields else ({},):
        made: bytes = msgspec.json.encode({**fields, **additions})
        if len(made) <= longest:
            return made
    raise ProtocolError("line_too_long", f"{len(made)} bytes; the sidecar takes {longest}")


def check(line: bytes, client: str, service: str | None) -> None:
    """What the sidecar would say of a line. Raises ProtocolError."""
    try:
        LineReader(Origin(service=service or "", client=client, numbered=True)).read_line(line, 946_684_800_000_000)
    except ProtocolError as error:
        if error.detail.startswith("service: missing"):
            raise ProtocolError(error.code, "service: missing; give one with --service") from None
        raise
