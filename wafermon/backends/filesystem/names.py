"""The path template: which file a message belongs to, and which files on the disk are ours. Pure.

    NAME.jsonl             the current file: `{service}` and the others replaced
    NAME.7.jsonl           rotated, the seventh
    NAME.7.jsonl.gz        compressed
    NAME.7.jsonl.gz.tmp    being compressed

These four never read like one another: a value that would make a current name end in `.7.jsonl` has its last dot
written as `%2E`. So whatever the applications call themselves, a name alone tells what a file is.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from datetime import datetime
from itertools import repeat
from operator import attrgetter, itemgetter
from time import gmtime, strftime
from typing import Any, NamedTuple

from wafermon.interfaces import Batch
from wafermon.model.blocks import Block
from wafermon.model.errors import ConfigError, Fault
from wafermon.model.messages import Kind, ts_of

HOUR = 3_600_000_000
"""In microseconds, as `ts` is."""
FIELDS = ("service", "date", "type", "host", "hour")
UNKNOWN = "unknown"
"""Stands for a host that the message does not name."""

_ROOM = 217
"""Bytes of a path component before its suffix: 200 and a hash. `.NUMBER.jsonl.gz.tmp` fits after it in 255."""
_HASH = 16
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_UNSAFE = re.compile(rb"[^A-Za-z0-9._-]")
_NUMBERED = re.compile(r"\.([0-9]+)$")
NUMBER = "[1-9][0-9]{0,11}"
"""Of a rotated file, as we write it; no name with another is ours."""
_VALUE = r"[A-Za-z0-9._%-]+?"


class Parsed(NamedTuple):
    """What the name of one of our files says."""

    number: int
    """0 for a current file, N for the Nth rotated one."""
    packed: str
    """``''``, ``'.gz'`` or ``'.gz.tmp'``."""
    over: float
    """When its date or hour is over, in seconds since the Unix epoch; infinite where the template has no date."""


class Template:
    """A checked path template. Raises ConfigError with every fault."""

    def __init__(self, text: str) -> None:
        problems = list(_problems(text))
        if problems:
            raise ConfigError([Fault("path", problem) for problem in problems])
        self.text = os.path.abspath(text)
        fixed, brace, _ = self.text.partition("{")
        self.root = os.path.dirname(fixed)
        """The directory below which all files are."""
        *directories, name = self.text[len(self.root) :].lstrip("/").split("/")
        self._directories = [_Component(part) for part in directories]
        self._name, self.suffix = _split_suffix(name)
        self._hour_last = self._name.endswith(".{hour}")
        self._file = _Component(self._name)
        self._rotated = re.compile(rf"{self._file.pattern}\.{NUMBER}{re.escape(self.suffix)}")
        self.claims = (fixed if brace else fixed.removesuffix(self.suffix) + ".",)
        """What every path of this template starts with: no two templates may share one."""

        used = set(_PLACEHOLDER.findall(self.text))
        self._fields = tuple(field for field in ("service", "type", "host") if field in used)
        indices = map(Kind._fields.index, self._fields)
        self._values: Callable[[Any], Any] = itemgetter(*indices) if self._fields else lambda kind: ()
        self._period = HOUR if "hour" in used else 24 * HOUR if "date" in used else 0
        self._paths: dict[tuple[Any, int], str] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"

    def group(self, batch: Batch) -> dict[str, list[bytes]]:
        """A batch's lines by the path of their file, in the batch's order, in pieces."""
        groups: dict[str, list[bytes]] = {}
        for part in batch.block.parts if batch.count else ():
            if (path := self._common(part)) is not None:
                groups.setdefault(path, []).append(part.raw)
            else:
                for path, raw in self._split(part).items():
                    groups.setdefault(path, []).append(raw)
        return groups

    def _common(self, block: Block) -> str | None:
        """The path of all lines, where it is one."""
        if self._period and block.first // self._period != block.last // self._period:
            return None
        values = set(map(self._values, block.kinds))
        hour = block.first // self._period * (self._period // HOUR) if self._period else 0
        return self._path(values.pop(), hour) if len(values) == 1 else None

    def _split(self, block: Block) -> dict[str, bytes]:
        """The lines of a block one by one."""
        if not self._period or block.first // self._period == block.last // self._period:
            return self._split_by_kind(block)
        messages = block.messages
        values: list[Any] = list(map(attrgetter(*self._fields), messages)) if self._fields else [()] * len(messages)
        stamps = map(ts_of, messages) if self._period else repeat(0)
        period, hours = self._period or HOUR, self._period // HOUR
        groups: dict[str, list[bytes]] = {}
        adders: dict[tuple[Any, int], Callable[[bytes], None]] = {}
        for value, ts, line in zip(values, stamps, block.lines, strict=False):
            key = (value, ts // period * hours)
            if key not in adders:
                adders[key] = groups.setdefault(self._path(*key), []).append
            adders[key](line)
        return {path: b"\n".join([*lines, b""]) for path, lines in groups.items()}

    def _split_by_kind(self, block: Block) -> dict[str, bytes]:
        """The same where the time is no matter."""
        hour = block.first // self._period * (self._period // HOUR) if self._period else 0
        table, column = block.columns
        groups: dict[str, list[bytes]] = {}
        adders = {
            number: groups.setdefault(self._path(self._values(table[number]), hour), []).append
            for number in dict.fromkeys(column)
        }
        for number, line in zip(column, block.lines, strict=True):
            adders[number](line)
        return {path: b"\n".join([*lines, b""]) for path, lines in groups.items()}

    def _path(self, value: Any, hour: int) -> str:
        key = (value, hour)
        path = self._paths.get(key)
        if path is None:
            if len(self._paths) >= 4096:
                self._paths.clear()
            values = value if len(self._fields) != 1 else (value,)
            path = self._paths[key] = self.path(hour, **dict(zip(self._fields, values, strict=True)))
        return path

    def path(self, hour: int, **values: Any) -> str:
        """The path for `values` (service, type, host; absent is unknown) and `hour` (since the epoch)."""
        when = gmtime(hour * 3600)
        values.update(date=strftime("%Y-%m-%d", when), hour=strftime("%H", when))
        stem, tail = self._file.fill(values), ""
        if self._hour_last:
            stem, tail = stem[:-3], stem[-3:]
        stem = _NUMBERED.sub(r"%2E\1", stem)
        return os.path.join(self.root, *(part.fill(values) for part in self._directories), stem + tail + self.suffix)

    def leads_into(self, directory: str) -> bool:
        """Whether some path of this template is a directory, or lies in it. Symlinks are followed."""
        root, other = os.path.realpath(self.root), os.path.realpath(directory)
        if root == other or root.startswith(os.path.join(other, "")):
            return True
        if not other.startswith(os.path.join(root, "")):
            return False
        names = os.path.relpath(other, root).split(os.sep)
        patterns = [*(part.pattern for part in self._directories), self._file.pattern + re.escape(self.suffix)]
        return len(names) <= len(patterns) and all(map(re.fullmatch, patterns, names))

    def rotated(self, path: str, number: int) -> str:
        """The name that a current file gets when it is the `number`th to be rotated."""
        return f"{path.removesuffix(self.suffix)}.{number}{self.suffix}"

    def is_rotated(self, path: str) -> bool:
        """Whether a path, of which only the last part is looked at, is that of a rotated file that isn't compressed."""
        return self._rotated.fullmatch(os.path.basename(path)) is not None

    def directory_patterns(self) -> list[re.Pattern[str]]:
        """What the directories between `root` and a file are called, level by level."""
        return [re.compile(part.pattern) for part in self._directories]

    def parse(self, path: str) -> Parsed | None:
        """What the name of a file below `root` says; None for a file that isn't ours."""
        pattern = "/".join(part.pattern for part in (*self._directories, self._file))
        match = re.fullmatch(
            rf"{pattern}(?:\.({NUMBER}))?{re.escape(self.suffix)}(\.gz(?:\.tmp)?)?", os.path.relpath(path, self.root)
        )
        if not match:
            return None
        *parts, number, packed = match.groups()
        if packed and not number:
            return None
        names = _PLACEHOLDER.findall(self.text)
        said = {name: part for name, part in zip(names, parts, strict=True) if name in ("date", "hour")}
        try:
            return Parsed(int(number or 0), packed or "", _over(said))
        except ValueError:  # no such date
            return None


class _Component:
    """One level of the path."""

    def __init__(self, text: str) -> None:
        pieces = _PLACEHOLDER.split(text)
        self._literals, self._fields = pieces[::2], pieces[1::2]
        fixed = len("".join(self._literals).encode()) + 10 * self._fields.count("date") + 2 * self._fields.count("hour")
        free = len(self._fields) - self._fields.count("date") - self._fields.count("hour")
        self.room = (_ROOM - fixed) // max(free, 1)
        """Bytes for each value."""

    def fill(self, values: dict[str, Any]) -> str:
        text = self._literals[0]
        for field, literal in zip(self._fields, self._literals[1:], strict=True):
            text += safe(str(values.get(field) or UNKNOWN), self.room) + literal
        return text

    @property
    def pattern(self) -> str:
        # A dot may have been written as %2E, see the top; not the one before an hour at the end, which stays apart.
        dot = r"(?:\.|%2E)"
        literals = [re.escape(literal).replace(r"\.", dot) for literal in self._literals]
        if self._fields[-1:] == ["hour"] and not literals[-1] and literals[-2].endswith(dot):
            literals[-2] = literals[-2].removesuffix(dot) + r"\."
        text = literals[0]
        for field, literal in zip(self._fields, literals[1:], strict=True):
            value = {"date": r"[0-9]{4}-[0-9]{2}-[0-9]{2}", "hour": r"[0-9]{2}"}.get(field, _VALUE)
            text += f"({value})" + literal
        return text


def safe(value: str, room: int = _ROOM) -> str:
    """A value as (a part of) one path component of at most `room` bytes: everything but ``A-Z a-z 0-9 . _ -`` is
    percent-encoded, never ``.`` or ``..``; a hash of the whole stands for what is cut off."""
    encoded = value.encode("utf-8", "surrogatepass")
    text = _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], encoded).decode()
    if not text.strip("."):
        text = text.replace(".", "%2E")
    if len(text) > room:
        text = f"{text[: room - _HASH - 1]}-{hashlib.sha256(encoded).hexdigest()[:_HASH]}"
    return text


def _split_suffix(name: str) -> tuple[str, str]:
    """``{service}.jsonl`` -> ``{service}`` and ``.jsonl``. A dot inside a value starts no suffix."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if dot and "}" not in suffix else (name, "")


def _over(said: dict[str, str]) -> float:
    """Raises ValueError where there is no such date or hour."""
    if "date" not in said:
        return float("inf")
    begin = datetime.strptime(f"{said['date']} {said.get('hour', '00')}+0000", "%Y-%m-%d %H%z")
    return begin.timestamp() + (3600 if "hour" in said else 86400)


def _problems(text: str) -> list[str]:
    problems = []
    names = _PLACEHOLDER.findall(text)
    for name in names:
        if name not in FIELDS:
            problems.append(f"{{{name}}} is unknown; known are {', '.join(f'{{{field}}}' for field in FIELDS)}")
    if {"{", "}"} & set(_PLACEHOLDER.sub("", text)):
        problems.append("a brace without its partner")
    if text.startswith("~"):
        problems.append("~ is not expanded; write the directory itself, or ${HOME}")
    if not text.isprintable():
        problems.append("a control character in a path")
    if not text or text.endswith("/"):
        problems.append("names no file; end it in one, as in {service}/{date}.jsonl")
    if problems:
        return problems
    *directories, name = os.path.abspath(text).lstrip("/").split("/")
    stem, suffix = _split_suffix(name)
    if suffix in (".gz", ".tmp"):
        problems.append(f"a name in {suffix} is for compressed files; end it in .jsonl")
    if len(suffix) > 16:
        problems.append(f"the suffix {suffix} is longer than 16 bytes")
    if _NUMBERED.search(stem):
        problems.append("a name that ends in .NUMBER is for rotated files")
    if any(_Component(part).room < 2 * _HASH for part in (*directories, stem)):
        problems.append("one of its names leaves no room for the values; 255 bytes is all that a name may have")
    return problems
