"""The sidecar as an SDK knows it: where it is, how it is greeted, and what was settled with it."""

from __future__ import annotations

import os
import re
import socket
import sys
from contextlib import suppress
from typing import Any

from .encoding import to_json, utf8

_DEFAULT_URL = "tcp://127.0.0.1:7411"
_URL = re.compile(r"unix://(/.+)|(tcp|tls)://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?/?")
VERSION = "2.0.0"


def _parsed(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; of a Unix socket the path is the host. None for what is no sidecar's url."""
    found = _URL.fullmatch(url)
    if not found or int(found[5] or 1) not in range(1, 65_536):
        return None
    path, scheme, ipv6, host, port = found.groups()
    if path:
        return "unix", path, 0
    return scheme, ipv6 or host, int(port or {"tcp": 7411, "tls": 7413}[scheme])


class Peer:
    """What all connections of one SDK have in common. A forked child goes on with it."""

    def __init__(self, service: str, url: str | None, token: str | None) -> None:
        self._said = {""}
        self._service = service
        self._token = token
        wanted = url or os.environ.get("WAFERMON_URL") or _DEFAULT_URL
        self.address = _parsed(wanted) or ("tcp", "127.0.0.1", 7411)
        if not _parsed(wanted):
            self.say(f"not a sidecar's url: {wanted!r}; using {_DEFAULT_URL}")
        self.ssl: Any = None
        self.would_block: tuple[type[OSError], ...] = (BlockingIOError,)
        if self.address[0] == "tls":
            # not in a thread, since a fork would inherit a locked import
            from .tls import WOULD_BLOCK, context

            self.ssl = context(self.say)
            self.would_block = WOULD_BLOCK
        self.frames: Any = None
        if os.environ.get("WAFERMON_COMPRESS") == "zlib":
            from .frames import Frames

            self.frames = Frames.if_possible(self.say)

    def addresses(self) -> list[tuple[int, Any]]:
        """Where it may be, looked up now: families and addresses."""
        scheme, host, port = self.address
        if scheme == "unix":
            return [(socket.AF_UNIX, host)]
        # of a string, and only then, it would import a codec, with a fork in between for instance
        found = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]

    def hello(self, client: str) -> bytes:
        hello: dict[str, Any] = {"v": 2, "type": "hello", "client": client, "service": self._service}
        hello.update(host=socket.gethostname(), pid=os.getpid(), sdk=f"python/{VERSION}", ack=True)
        if self._token:
            hello["token"] = self._token
        if self.frames:
            hello["compress"] = ["zlib"]
        return utf8(to_json(hello) + "\n")

    def refuses(self, reply: dict[str, Any]) -> None:
        """Take an error that is not about one message; the sidecar closes the connection after it."""
        reason = f"{reply.get('code')} {reply.get('detail', '')}".rstrip()
        if reply.get("code") == "bad_frame":
            self.frames = None
            self.say(f"the sidecar refuses compressed frames, so lines go as they are: {reason}")
        else:
            self.say(f"the sidecar refuses: {reason}")

    def say(self, text: str) -> None:
        """One line on stderr; what comes before its colon is said once."""
        if text.partition(":")[0] not in self._said:
            self._said.add(text.partition(":")[0])
            with suppress(Exception):  # if there is one
                sys.stderr.write(f"wafermon: {text}\n")
