"""Who a client is, so that nobody moves another's marks, and what that one may do."""

from __future__ import annotations

import grp
import pwd
import re
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property
from typing import Any

NOTHING = r"(?!)"
"""Matches no text."""
_PEERCRED = struct.Struct("3i")


@dataclass(frozen=True)
class Principal:
    """Whom the marks of a stream belong to."""

    name: str = ""
    """``token:`` and a hash of it, ``uid:N``, or empty where nobody can tell."""
    services: tuple[str, ...] | None = None
    """Globs, of which one must match each message's service; None where all are allowed."""
    code: str = "bad_message"
    """How a line is refused whose service is not allowed."""
    problem: str = "this token may not speak for it"
    forward: str = ""
    """As which sidecar it may forward; empty where it may not."""

    def allows(self, service: str) -> bool:
        """Whether it may send messages of this service."""
        return self.services is None or self._match(service) is not None

    def unless_allowed(self, service: str) -> str:
        """Why it may not send messages of this service; empty where it may."""
        return "" if self.allows(service) else f"service: {self.problem}: {service!r}"

    @cached_property
    def _match(self) -> Any:
        globs = "|".join(map(translate, self.services or ()))
        return re.compile(globs or NOTHING).match


ANYBODY = Principal()


def peer_uid(transport: Any) -> int | None:
    """The user of the process at the other end of a Unix socket, as the kernel knows it; None elsewhere."""
    connection: Any = transport.getHandle() if hasattr(transport, "getHandle") else None
    if getattr(connection, "family", None) != socket.AF_UNIX:
        return None
    _, uid, _ = _PEERCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    return int(uid)


def common_name(transport: Any) -> str:
    """That of the certificate at the other end, which its authority vouches for; empty where there is none."""
    certificate = transport.getPeerCertificate() if hasattr(transport, "getPeerCertificate") else None
    return str(certificate.get_subject().commonName or "") if certificate is not None else ""


def user_id(user: str) -> int:
    """A name or a number -> the number. Raises ValueError."""
    return _number(user) if user.isdigit() else _known("user", user, lambda: pwd.getpwnam(user).pw_uid)


def group_id(group: str) -> int:
    """A name or a number -> the number. Raises ValueError."""
    return _number(group) if group.isdigit() else _known("group", group, lambda: grp.getgrnam(group).gr_gid)


def user_ids(users: Iterable[str]) -> frozenset[int]:
    return frozenset(map(user_id, users))


def _number(text: str) -> int:
    if not text.isascii() or int(text) >= 1 << 32:
        raise ValueError(f"{text} is not the number of a user or group")
    return int(text)


def _known(what: str, name: str, look_up: Any) -> int:
    try:
        return int(look_up())
    except KeyError:
        raise ValueError(f"there is no {what} {name!r} on this machine") from None
