"""A listener's token file: which clients may come in, and as which services.

One token a line. Behind it, separated by spaces, may stand globs of the services that it may speak for:

    # the receivers of fab 1
    8Q2vT0mO3kN5xW7yZ1 file-receiver config-*
    c4Fh9LrPqSeUdJbGmA

A token with `+forward=NAME` is a sidecar's, which may forward to here; what was forwarded belongs to the name, so that its token may
be another one tomorrow:

    Zk3pQw8sVb1nYt6u +forward=edge-1

Empty lines and those that begin with # are skipped. Only the tokens' hashes are kept in memory.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
from hashlib import sha256
from pathlib import Path

from twisted.logger import Logger

from wafermon.net.principals import Principal

FORWARD_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
FILE_MAX = 1 << 20
"""Bytes: a file that is longer is no token file."""


def parse_tokens(text: str) -> dict[bytes, Principal]:
    """The principals by the SHA-256 of their tokens. Raises ValueError where a line can't be one, or none is."""
    found: dict[bytes, Principal] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        token, *rest = line.split()
        services = [word for word in rest if not word.startswith("+")]
        forward = _forward_of(number, [word for word in rest if word.startswith("+")])
        if not (token.isascii() and token.isprintable()):
            raise ValueError(f"line {number}: a token is printable ASCII without spaces")
        digest = sha256(token.encode()).digest()
        if digest in found:
            raise ValueError(f"line {number}: this token stands in an earlier line, too")
        found[digest] = Principal(f"token:{digest.hex()[:32]}", tuple(services) or None, forward=forward)
    if not found:
        raise ValueError("there is no token in it; write one on a line of its own")
    return found


def _forward_of(number: int, words: list[str]) -> str:
    """The name in ``+forward=NAME``; empty where no word says one. Raises ValueError."""
    name = ""
    for word in words:
        key, _, name = word.partition("=")
        if key != "+forward":
            raise ValueError(f"line {number}: {word!r} is not known; what begins with + is +forward=NAME")
        if not FORWARD_NAME.fullmatch(name):
            raise ValueError(f"line {number}: {word!r}: expected a name of 1-64 of A-Z a-z 0-9 . _ -")
    if len(words) > 1:
        raise ValueError(f"line {number}: more than one +forward")
    return name


class TokenFile:
    """The tokens as the file has them now."""

    log = Logger()

    def __init__(self, path: Path) -> None:
        """Reads it. Raises ValueError with the file's name, and what is wrong with it."""
        self.path = path
        self._seen: object = None
        self._tokens: dict[bytes, Principal] = {}
        self._read()

    def find(self, token: str) -> Principal | None:
        """Whose token it is. How long that takes tells nothing about how much of it is right."""
        digest = sha256(token.encode()).digest()
        found = None
        for known, principal in self._tokens.items():
            if hmac.compare_digest(known, digest):
                found = principal
        return found

    def holds(self, principal: Principal) -> bool:
        """Whether the file has this token still, for the same services."""
        return principal in self._tokens.values()

    @property
    def binds_services(self) -> bool:
        """Whether some token may speak for some services alone."""
        return any(principal.services is not None for principal in self._tokens.values())

    def refresh(self) -> bool:
        """Read the file again where it has changed; tells whether it was read. A file that can't be used is said once
        and changes nothing."""
        try:
            if self._signature() == self._seen:
                return False
            self._read()
        except (OSError, ValueError) as error:
            problem = str(error)
            if self._seen != problem:
                self.log.error("The tokens stay as they were: {problem}", problem=problem)
            self._seen = problem
            return False
        self.log.info("Read {path} again: {count} tokens", path=str(self.path), count=len(self._tokens))
        return True

    def _signature(self) -> object:
        found = os.stat(self.path)
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def _read(self) -> None:
        try:
            self._seen = self._signature()
            with self.path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                data = file.read(FILE_MAX + 1)
            if len(data) > FILE_MAX:
                raise ValueError(f"longer than {FILE_MAX} bytes")
            self._tokens = parse_tokens(data.decode())
        except OSError as error:
            raise ValueError(f"token_file {self.path}: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise ValueError(f"token_file {self.path}: not UTF-8") from None
        except ValueError as error:
            raise ValueError(f"token_file {self.path}: {error}") from None
        if stat.S_IMODE(mode) & stat.S_IROTH:
            self.log.warn("Everybody on this machine can read the tokens: chmod o-r {path}", path=str(self.path))
