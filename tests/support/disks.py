"""Disks to test with, handed in where a real one goes: one whose calls fail or hang, one that the power leaves."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wafermon.files import Files
from wafermon.files.files import StrPath

CALLS = (
    *(
        "open",
        "close",
        "read",
        "status",
        "status_of",
        "status_behind",
        "write",
        "append",
        "sync",
        "truncate",
        "rename",
        "link",
        "unlink",
    ),
    *("make_directory", "remove_directory", "names", "sync_directory"),
)


@dataclass
class Fault:
    """What happens to one call in place of the real one."""

    call: str
    error: BaseException | None
    """None: it hangs until `FaultyFiles.release`."""
    after: int = 0
    """So many calls of it go well first."""
    times: int = 1
    about: str = ""
    """Only where the path has this in it."""
    late: bool = False
    """It fails after it was done."""


class FaultyFiles(Files):
    """A real disk whose calls are recorded, fail and hang as a test wants."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        """Name and path of each call."""
        self.opened: dict[int, str] = {}
        """The open descriptors, with their paths."""
        self.failed = 0
        self.hanging = threading.Event()
        """Set once a call hangs."""
        self._faults: list[Fault] = []
        self._released = threading.Event()

    def fail(self, call: str, error: BaseException | None, **how: Any) -> None:
        """Let a call fail with `error`, or hang; see `Fault`."""
        assert call in CALLS
        self._faults.append(Fault(call, error, **how))

    def heal(self) -> None:
        """From now on everything works."""
        self._faults.clear()

    def release(self) -> None:
        """What hangs goes on."""
        self._released.set()

    def count(self, call: str, about: str = "") -> int:
        return sum(one == call and about in path for one, path in self.calls)

    def __getattribute__(self, name: str) -> Any:
        real = super().__getattribute__(name)
        if name not in CALLS:
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            return self._call(name, real, arguments, named)

        return call

    def _call(self, name: str, real: Callable[..., Any], arguments: Sequence[Any], named: dict[str, Any]) -> Any:
        first = arguments[0]
        path = self.opened.get(first, "") if isinstance(first, int) else os.fspath(first)
        self.calls.append((name, path))
        fault = self._fault(name, path)
        if fault is not None and not fault.late:
            self._happen(fault)
        result = real(*arguments, **named)
        if name == "open":
            self.opened[result] = path
        elif name == "close":
            self.opened.pop(first, None)
        if fault is not None and fault.late:
            self._happen(fault)
        return result

    def _fault(self, name: str, path: str) -> Fault | None:
        for fault in self._faults:
            if fault.call == name and fault.about in path:
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                if not fault.times:
                    self._faults.remove(fault)
                return fault
        return None

    def _happen(self, fault: Fault) -> None:
        self.failed += 1
        if fault.error is not None:
            raise fault.error
        self.hanging.set()
        assert self._released.wait(60), "nobody released it"


class Chance:
    """What the power leaves is drawn from here."""

    def flag(self, label: str) -> bool:
        raise NotImplementedError

    def part(self, label: str) -> float:
        """0 to 1."""
        raise NotImplementedError


@dataclass
class _Name:
    """One change of a directory that was not synced yet."""

    directories: set[str]
    gone: str = ""
    made: str = ""
    file: int = 0


@dataclass
class PowerFiles(Files):
    """A real disk below `root`, and a model of what of it would be there after a power cut.

    A file's bytes and length are durable up to its last sync; a truncation too needs one. A name is durable once its directory
    was synced; of the changes of names since then a power cut keeps some first ones, in the order in which they were made. Of
    bytes that were not synced it keeps what chance will have: none, some, all, or zeros. After a sync that failed nothing of that
    file becomes durable any more, though later ones answer that it does. What others than this object made (SQLite's files) is
    taken for durable as it is.
    """

    root: Path
    fails: str = ""
    """The name of the call that fails next, on a file whose path ends with `about`."""
    about: str = ""
    _files: int = 0
    _durable: dict[int, bytes] = field(default_factory=dict)
    _broken: set[int] = field(default_factory=set)
    _now: dict[str, int] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)
    _changes: list[_Name] = field(default_factory=list)
    _open: dict[int, tuple[int, str]] = field(default_factory=dict)
    _foreign: set[str] = field(default_factory=set)

    def _fail(self, call: str, path: str) -> None:
        if self.fails == call and path.endswith(self.about):
            self.fails = ""
            raise OSError(5, "the disk fails", path)

    def open(self, path: StrPath, flags: int, mode: int = 0o600) -> int:
        text = os.fspath(path)
        self._fail("open", text)
        fd = super().open(path, flags, mode)
        if text not in self._now:
            self._files += 1
            self._now[text] = self._files
            self._durable[self._files] = b""
            self._changes.append(_Name({os.path.dirname(text)}, made=text, file=self._files))
        self._open[fd] = (self._now[text], text)
        return fd

    def close(self, fd: int) -> None:
        self._open.pop(fd)
        super().close(fd)

    def status(self, fd: int) -> os.stat_result:
        return _with_inode(super().status(fd), self._open[fd][0])

    def status_of(self, path: StrPath) -> os.stat_result:
        return self._known(path, super().status_of(path))

    def status_behind(self, path: StrPath) -> os.stat_result:
        return self._known(path, super().status_behind(path))

    def _known(self, path: StrPath, found: os.stat_result) -> os.stat_result:
        """A file's inode is its number here, since that outlives a power cut."""
        file = self._now.get(os.fspath(path))
        return found if file is None else _with_inode(found, file)

    def write(self, fd: int, parts: Sequence[bytes], at: int) -> int:
        self._fail("write", self._open[fd][1])
        return super().write(fd, parts, at)

    def append(self, fd: int, data: bytes | memoryview) -> int:
        self._fail("append", self._open[fd][1])
        return super().append(fd, data)

    def sync(self, fd: int) -> None:
        file, path = self._open[fd]
        if self.fails == "sync" and path.endswith(self.about):
            self._broken.add(file)
        self._fail("sync", path)
        super().sync(fd)
        if file not in self._broken:
            self._durable[file] = Path(f"/proc/self/fd/{fd}").read_bytes()

    def truncate(self, fd: int, length: int) -> None:
        self._fail("truncate", self._open[fd][1])
        super().truncate(fd, length)

    def rename(self, old: StrPath, new: StrPath) -> None:
        before, after = os.fspath(old), os.fspath(new)
        self._fail("rename", before)
        super().rename(old, new)
        file = self._now[after] = self._now.pop(before)
        directories = {os.path.dirname(before), os.path.dirname(after)}
        self._changes.append(_Name(directories, gone=before, made=after, file=file))

    def link(self, old: StrPath, new: StrPath) -> None:
        before, after = os.fspath(old), os.fspath(new)
        self._fail("link", before)
        super().link(old, new)
        self._now[after] = self._now[before]
        self._changes.append(_Name({os.path.dirname(after)}, made=after, file=self._now[after]))

    def unlink(self, path: StrPath) -> None:
        text = os.fspath(path)
        self._fail("unlink", text)
        super().unlink(path)
        if text in self._now:
            del self._now[text]
            self._changes.append(_Name({os.path.dirname(text)}, gone=text))

    def sync_directory(self, path: StrPath) -> None:
        text = os.path.abspath(path)
        self._fail("sync_directory", text)
        super().sync_directory(path)
        for change in [one for one in self._changes if text in one.directories]:
            self._apply(self._names, change)
            self._changes.remove(change)

    @staticmethod
    def _apply(names: dict[str, int], change: _Name) -> None:
        if change.gone:
            names.pop(change.gone, None)
        if change.made:
            names[change.made] = change.file

    def after_power_cut(self, root: Path, chance: Chance) -> PowerFiles:
        """The disk as it is once the power is back, below another root."""
        names = dict(self._names)
        kept = round(chance.part("how many changes of names are kept") * len(self._changes))
        for change in self._changes[:kept]:
            self._apply(names, change)
        contents = {file: self._after(file, path, chance) for path, file in names.items()}
        known = {*self._now, *self._names, *(change.made or change.gone for change in self._changes)}

        def ignored(directory: str, entries: list[str]) -> list[str]:
            return [entry for entry in entries if os.path.join(directory, entry) in known]

        shutil.copytree(self.root, root, ignore=ignored)
        after = PowerFiles(root)
        for path, file in names.items():
            moved = root / Path(path).relative_to(self.root)
            moved.write_bytes(contents[file])
            after._now[str(moved)] = after._names[str(moved)] = file
            after._durable[file] = contents[file]
        after._files = self._files
        return after

    def move_to(self, root: Path) -> None:
        """Let the whole disk be below another root, for what keeps paths in its files. Nothing may be open."""
        assert not self._open
        self.root.rename(root)
        names = {path: str(root / Path(path).relative_to(self.root)) for path in {*self._now, *self._names}}
        self._now = {names[path]: file for path, file in self._now.items()}
        self._names = {names[path]: file for path, file in self._names.items()}
        self.root = root

    def _after(self, file: int, path: str, chance: Chance) -> bytes:
        durable = self._durable[file]
        holders = [name for name, one in self._now.items() if one == file]
        current = Path(holders[0]).read_bytes() if holders else durable
        kept = chance.flag(f"something not synced of {Path(path).name} is kept")
        part, zeros = chance.part("of its bytes"), chance.flag("zeros after them")
        if current == durable or not kept:
            return durable
        same = next((at for at, (one, other) in enumerate(zip(durable, current, strict=False)) if one != other), -1)
        same = min(len(durable), len(current)) if same < 0 else same
        most = max(len(durable), len(current))
        until = same + round(part * (most - same))
        rest = durable[until:]
        if not rest and zeros:
            rest = bytes(max(0, len(current) - until))
        return current[:until] + rest


def _with_inode(found: os.stat_result, inode: int) -> os.stat_result:
    named = {"st_atime_ns": found.st_atime_ns, "st_mtime_ns": found.st_mtime_ns, "st_ctime_ns": found.st_ctime_ns}
    plain = (found.st_mode, inode, *found[2:10], found.st_atime, found.st_mtime, found.st_ctime)
    return os.stat_result(plain, named)
