"""What a segment holds: groups of lines, each ended by its commit line. Pure; docs/journal.md tells the reasons.

    !segment {"version":2,"journal":"…","segment":7,"after":6,…} first line of a segment's first group; see `Head`
    !routes [...]                                        the table in force, where it changes and in each first group
    !columns ["000102…",""]                              which message is of which kind, block by block; see `!blocks`
    !blocks [[18211,81,…,[…]],…]                         what the lines that follow have in common, block by block
    {"type":"event",…}                                   messages, as their clients sent them
    !rejected {"client":…,"seq":…,"code":…,…}            lines that were refused
    !clients [["came","9f2c…","loader","fab1",4711],…]   connections that began and ended; see `Presence`
    !commit {"crc":…,"bytes":…,"time":…,"elapsed":…,…}    ends the group; the CRC-32 covers all of its lines above

No message starts with ``!``, and no line holds a newline, so ``\\n!commit `` stands nowhere else.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from zlib import crc32

import msgspec
from msgspec import UNSET

from wafermon.model.blocks import Block
from wafermon.model.messages import Kind, dumps, loads
from wafermon.model.position import Position

COMMIT = b"!commit "
_COMMIT_LINE = b"\n" + COMMIT
HEAD_START = b"!segment "
"""What a segment begins with."""
VERSION = 2
"""What we write. 1 is read too: it has no `elapsed`, no `back`, and says of a segment's end nothing. Above it nothing is read."""
TOLD_MESSAGES = 16
"""A block of fewer messages is parsed sooner than told."""
TOLD_KINDS = 256
"""One of more kinds has no column in hexadecimal digits."""


class Mark(NamedTuple):
    """Everything of this principal's client up to `seq` is settled."""

    principal: str
    client: str
    seq: int


class Presence(NamedTuple):
    """That a program's connection began or ended, as far as the program said messages on it.

    `what` is ``came``; ``went``, where the program's side ended it, and not with a stats line that says so; or ``started``, which
    has no client: the sidecar itself began, and nobody is connected."""

    what: str
    client: str = ""
    service: str = ""
    """With `host` and `pid`: what the hello said."""
    host: str = ""
    pid: int = -1

    @property
    def program(self) -> str:
        """See `program_of`."""
        return program_of(self.service, self.host, self.pid, self.client)


STARTED, CAME, WENT = "started", "came", "went"


def program_of(service: object, host: object, pid: object, client: object) -> str:
    """What is the same for all streams of one process, and in none of another: those of its spill files too. Where the process
    is not known each stream is a program. No field that is missing (UNSET, empty, -1) is looked at."""
    if isinstance(pid, int) and pid >= 0:
        return f"{service or ''} {host or ''} {pid}"
    return str(client) if client else ""


def encode_presence(presence: Sequence[Presence]) -> bytes:
    """The line that says it; nothing where there is nothing to say."""
    if not presence:
        return b""
    said = [[one.what] if one.what == STARTED else list(one) for one in presence]
    return b"!clients " + dumps(said).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that was refused: what the dead letters keep of it."""

    code: str
    detail: str
    line: bytes
    peer: str
    time: int
    """When it came, in microseconds since the epoch."""
    client: str = ""
    seq: int = 0
    """0 where it belongs to no acknowledged stream."""
    service: str = ""
    """With `host` and `pid`: what the connection's hello said, for what the line does not say."""
    host: str = ""
    pid: int = 0

    def encode(self) -> bytes:
        shown: dict[str, Any] = {
            "code": self.code,
            "detail": self.detail,
            "peer": self.peer,
            "time": self.time,
        }
        if self.client:
            shown |= {"client": self.client, "seq": self.seq}
        hello = {"service": self.service, "host": self.host, "pid": self.pid}
        shown |= {name: value for name, value in hello.items() if value}
        try:
            shown["line"] = self.line.decode()
        except UnicodeDecodeError:
            shown["line_base64"] = base64.b64encode(self.line).decode()
        return b"!rejected " + dumps(shown).encode() + b"\n"

    @classmethod
    def decode(cls, text: bytes) -> Rejected:
        shown = loads(text)
        line = shown["line"].encode() if "line" in shown else base64.b64decode(shown["line_base64"])
        return cls(
            shown["code"],
            shown["detail"],
            line,
            shown["peer"],
            shown["time"],
            shown.get("client", ""),
            shown.get("seq", 0),
            shown.get("service", ""),
            shown.get("host", ""),
            shown.get("pid", 0),
        )


@dataclass(slots=True)
class Group:
    """What one sync made durable. `blocks` and `rejected` stand at the offsets beside them."""

    start: Position
    end: Position
    time: int
    """When it was received, in microseconds since the epoch. Less than that of the group before only where `back` says so."""
    routes: str
    """The routing table in force, as its `dump()`."""
    blocks: list[tuple[int, Block]] = field(default_factory=list)
    rejected: list[tuple[int, Rejected]] = field(default_factory=list)
    marks: Sequence[Mark] = ()
    presence: Sequence[Presence] = ()
    """Connections that began and ended, in order."""
    damaged: bytes | None = None
    """Where this stretch can't be read: its bytes, of which there may be none any more. It holds nothing then."""
    elapsed: int = 0
    """When it was received, in microseconds on a time that nobody sets: never less than the group before, over restarts
    too. Only differences mean something."""
    back: bool = False
    """Whether the receive time went back here, since the wall clock was wrong before."""
    fault: str = ""
    """Why it can't be read, where its checksum is good all the same."""

    @property
    def messages(self) -> int:
        """How many it holds."""
        return sum(block.count for _, block in self.blocks)

    def after(self, offset: int) -> Group:
        """What of it stands at or after `offset` of its segment, which is the start of a line."""
        if offset <= self.start.offset:
            return self
        blocks = []
        for at, block in self.blocks:
            if at >= offset:
                blocks.append((at, block))
            elif at + block.size > offset:
                gone = block.raw.count(b"\n", 0, offset - at)
                blocks.append((offset, block.cut(gone, block.count)))
        rejected = [(at, one) for at, one in self.rejected if at >= offset]
        start = self.start._replace(offset=offset)
        return replace(self, start=start, blocks=blocks, rejected=rejected)


class Stamp(NamedTuple):
    """When a group was received; see `Group`."""

    time: int
    elapsed: int
    back: bool = False


class Commit(msgspec.Struct, frozen=True):
    """What a commit line says."""

    crc: int
    bytes: int
    time: int
    marks: list[Mark]
    elapsed: int | None = None
    back: bool = False

    @property
    def stamp(self) -> Stamp:
        """A sidecar that wrote no `elapsed` had a receive time that never went back: both are the same there."""
        return Stamp(self.time, self.time if self.elapsed is None else self.elapsed, self.back)


def encode_commit(body: Sequence[bytes], stamp: Stamp, marks: Sequence[Mark]) -> bytes:
    """The line that ends a group whose lines are `body`, joined."""
    crc = size = 0
    for part in body:
        crc = crc32(part, crc)
        size += len(part)
    said: dict[str, Any] = {"crc": crc, "bytes": size, "time": stamp.time, "elapsed": stamp.elapsed}
    if stamp.back:
        said["back"] = True
    return COMMIT + dumps({**said, "marks": marks}).encode() + b"\n"


class Head(msgspec.Struct, frozen=True):
    """What a segment says of itself, and of the one before it."""

    journal: str
    segment: int
    after: int = 0
    """The one before it; 0 where there was none."""
    ended: int = -1
    """How many bytes of that one count: what stands after them is left from a write that failed. -1 where that is not said."""
    messages: int = -1
    """How many messages that one holds."""
    dropped: tuple[int, ...] = ()
    """Segments between the two which failed before anything in them counted."""
    version: int = VERSION

    def encode(self, routes: str) -> bytes:
        """The first lines of a segment."""
        said = msgspec.structs.asdict(self)
        shown = {name: said[name] for name in ("version", "journal", "segment", "after", "ended", "messages")}
        if self.dropped:
            shown["dropped"] = self.dropped
        return HEAD_START + f"{dumps(shown)}\n".encode() + encode_routes(routes)

    @classmethod
    def decode(cls, data: bytes) -> Head | None:
        """The head of the segment that begins with `data`; None where that can't be read."""
        word, _, rest = data.partition(b"\n")[0].partition(b" ")
        if word != HEAD_START.rstrip():
            return None
        try:
            return _HEADS.decode(rest)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None


_COMMITS = msgspec.json.Decoder(Commit)
_HEADS = msgspec.json.Decoder(Head)


def encode_routes(routes: str) -> bytes:
    return f"!routes {routes}\n".encode()


class Span(NamedTuple):
    """A stretch of a segment: a group (`commit` is what its last line says) or damage (None)."""

    start: int
    end: int
    commit: Commit | None


def scan(data: bytes, base: int = 0) -> Iterator[Span]:
    """The groups in `data`, which stands at offset `base` of its segment, and the damage between them. What follows the
    last commit line is not reported: it is an unfinished tail."""
    at = 0
    while True:
        line = at if data.startswith(COMMIT, at) else data.find(_COMMIT_LINE, at) + 1
        end = data.find(b"\n", line) + 1
        if not data.startswith(COMMIT, line) or line < at or end == 0:
            return
        commit = _read_commit(data[line + len(COMMIT) : end])
        start = line - commit.bytes if commit else at
        if commit is None or start < at or crc32(memoryview(data)[start:line]) != commit.crc:
            yield Span(base + at, base + end, None)
        else:
            if start > at:
                yield Span(base + at, base + start, None)
            yield Span(base + start, base + end, commit)
        at = end


def _read_commit(text: bytes) -> Commit | None:
    try:
        commit = _COMMITS.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return commit if commit.bytes >= 0 else None


def count_messages(data: bytes) -> int:
    """How many messages the lines of a group hold, which are not read for that."""
    control = data.count(b"\n!") + data.startswith(b"!")
    return data.count(b"\n") - control


def encode_blocks(blocks: Sequence[Block]) -> bytes:
    """What the lines of large blocks have in common, so that nobody has to parse them to find out; else nothing."""
    if not any(map(_worth_telling, blocks)):
        return b""
    told = [_tell(block) if _worth_telling(block) else [block.size] for block in blocks]
    columns = [_column(block) for block in blocks]
    line = f"!columns {dumps(columns)}\n" if any(columns) else ""
    return f"{line}!blocks {dumps(told)}\n".encode()


def _worth_telling(block: Block) -> bool:
    return block.count >= TOLD_MESSAGES and len(block.kinds) <= TOLD_KINDS


def _tell(block: Block) -> list[Any]:
    table, column = block.columns
    kinds = [[None if field is UNSET else field for field in table[number]] for number in dict.fromkeys(column)]
    return [block.size, block.count, block.first, block.last, kinds]


def _column(block: Block) -> str:
    """Two digits for each message, where there are several kinds: its place in the list of them."""
    if len(block.kinds) == 1 or not _worth_telling(block):
        return ""
    _, column = block.columns
    places = {number: place for place, number in enumerate(dict.fromkeys(column))}
    if isinstance(column, bytes):
        return column.translate(bytes(places.get(number, 0) for number in range(256))).hex()
    return bytes(map(places.__getitem__, column)).hex() if len(places) <= TOLD_KINDS else ""


def _told(raw: bytes, told: list[Any], column: str) -> Block:
    if len(told) == 1:
        return Block.parse(raw)
    _, count, first, last, kinds = told
    if any(len(kind) != len(Kind._fields) for kind in kinds):  # another sidecar told more, or less
        return Block.parse(raw)
    table = [tuple(UNSET if field is None else field for field in kind) for kind in kinds]
    columns = (table, bytes.fromhex(column)) if column else None
    return Block(raw, count, frozenset(table), first, last, columns=columns)


def decode_group(data: bytes, span: Span, journal: str, segment: int, routes: str) -> Group:
    """Read a group whose commit line matched. `data` are the bytes of `span`; `routes` is the table before it."""
    assert span.commit is not None
    start, end = Position(journal, segment, span.start), Position(journal, segment, span.end)
    stamp = span.commit.stamp
    group = Group(start, end, stamp.time, routes, marks=span.commit.marks, elapsed=stamp.elapsed, back=stamp.back)
    at = 0
    columns: list[str] = []
    while at < len(data):
        if data[at : at + 1] != b"!":
            stop = data.index(b"\n!", at) + 1
            group.blocks.append((span.start + at, Block.parse(data[at:stop])))
            at = stop
            continue
        stop = data.index(b"\n", at) + 1
        word, _, rest = data[at : stop - 1].partition(b" ")
        if word == b"!routes":
            group.routes = rest.decode()
        elif word == b"!rejected":
            group.rejected.append((span.start + at, Rejected.decode(rest)))
        elif word == b"!clients":
            group.presence = [Presence(*one) for one in loads(rest)]
        elif word == b"!columns":
            columns = loads(rest)
        at = stop
        if word == b"!blocks":
            for number, told in enumerate(loads(rest)):
                column = columns[number] if columns else ""
                group.blocks.append((span.start + at, _told(data[at : at + told[0]], told, column)))
                at += told[0]
    return group
