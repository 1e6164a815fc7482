"""What `wafermon doctor` says of the spill folder: whether files of other users can really be read and removed there."""

from __future__ import annotations

import grp
import os
import pwd
import secrets
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from wafermon.cli.checks import Finding
from wafermon.config import Config


class Unreached(Exception):
    """Other users can't write to the folder, whatever its own mode says."""


def spill(config: Config) -> Iterator[Finding]:
    """Where spill files of programs that are gone are taken up from."""
    folder = config.journal.spill_dir
    if folder is None:
        yield Finding("warning", "journal.spill_dir is false: spill files of programs that ended stay where they are")
        return
    if not folder.is_dir():
        yield Finding(
            "warning",
            f"the spill folder {folder} is not there: SDKs spill to /tmp/wafermon-UID, which nobody takes up",
            f"make it so that every user can write, as the sidecar's user: {as_it_should_be(folder)}",
        )
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Finding(
            "error",
            f"the spill folder {folder} can't be written by user {os.geteuid()}",
            f"give it to the sidecar's user: {as_it_should_be(folder)}",
        )
        return
    status = folder.stat()
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        yield Finding(
            "warning",
            f"anybody can remove files from the spill folder {folder}",
            f"set its sticky bit: chmod +t {folder}",
        )
    elif not status.st_mode & stat.S_IWOTH:
        yield Finding("ok", f"the spill folder {folder} can be read and written; other users spill elsewhere")
        return
    try:
        problem = _tried(folder, status) if os.geteuid() == 0 else _judged(folder, status)
    except Unreached as error:
        yield Finding("ok", f"the spill folder {folder} can be read and written; other users spill elsewhere ({error})")
        return
    if problem:
        yield Finding(
            "error", f"spill files of other users in {folder} can't be taken up: {problem}", as_it_should_be(folder)
        )
    else:
        yield Finding(
            "ok", f"the spill folder {folder}: {_name(status.st_uid)} can read and remove the files of other users"
        )


def as_it_should_be(folder: Path) -> str:
    """The command that makes the folder right."""
    return f"install -d -m 3777 -o wafermon -g wafermon {folder}"


def stuck(status: dict[str, Any]) -> Iterator[Finding]:
    """What a sidecar that runs says of files that it can't take up."""
    for owner, count in status.get("spill", {}).get("stuck", {}).items():
        yield Finding(
            "warning",
            f"{count} spill files of {owner} can't be taken up",
            "the sidecar's log says why; an SDK's files have mode 660 and one name, and at most 2 MiB",
        )


def _tried(folder: Path, status: os.stat_result) -> str:
    """As root: let another user leave a file, and the folder's owner take it. Raises Unreached."""
    path = folder / f".wafermon-doctor-{secrets.token_hex(8)}"
    nobody = pwd.getpwnam("nobody")
    try:
        if problem := _as_user(partial(_leave, path), nobody.pw_uid, nobody.pw_gid):
            raise Unreached(problem)
        return _as_user(partial(_take, path), status.st_uid, _group_of(status.st_uid, status.st_gid))
    finally:
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".taken").unlink(missing_ok=True)


def _leave(path: Path) -> None:
    """As an SDK does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o660)
    os.fchmod(fd, 0o660)


def _take(path: Path) -> None:
    """As a sidecar does."""
    os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    taken = path.with_name(path.name + ".taken")
    path.rename(taken)
    taken.unlink()


def _as_user(call: Callable[[], None], user: int, group: int) -> str:
    """Call it in a process of that user's; answers with what went wrong. A program that is started would have to be
    readable for that user, which this one's files need not be."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        problem = ""
        try:
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
            call()
        except OSError as error:
            problem = error.strerror or str(error)
        finally:
            os.write(write, problem.encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        problem = said.read()
    os.waitpid(child, 0)
    return problem


def _group_of(user: int, other: int) -> int:
    try:
        return pwd.getpwuid(user).pw_gid
    except KeyError:
        return other


def _judged(folder: Path, status: os.stat_result) -> str:
    """As any user: whether the files get a group that this one has, and whether it may remove them."""
    if not status.st_mode & stat.S_ISGID:
        return "they don't get its group, since its setgid bit is not set"
    if status.st_gid not in {os.getegid(), *os.getgroups()}:
        return f"they get the group {_group(status.st_gid)}, which user {os.geteuid()} is not in"
    if status.st_mode & stat.S_ISVTX and status.st_uid != os.geteuid():
        return f"only {_name(status.st_uid)}, to which it belongs, may remove them"
    return ""


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def _group(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)
