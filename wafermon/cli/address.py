"""Where a sidecar can be reached, as people write it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_URL = re.compile(r"([a-z]+)://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?/?")
_LOOPBACK = re.compile(r"127(?:\.[0-9]{1,3}){3}")


class Address(NamedTuple):
    """Of a Unix socket the path is the host."""

    scheme: str
    host: str
    port: int = 0

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether it is on this machine for certain."""
        return self.scheme == "unix" or self.host in ("localhost", "::1") or bool(_LOOPBACK.fullmatch(self.host))


def parse(url: str, ports: Mapping[str, int], what: str) -> Address:
    """``unix:///PATH``, or ``SCHEME://HOST[:PORT]`` of the schemes that `ports` has the usual port of. Raises ValueError,
    which says `what` was expected."""
    if url.startswith("unix:///") and len(url) > len("unix:///"):
        return Address("unix", url.removeprefix("unix://"))
    found = _URL.fullmatch(url)
    if not found or found[1] not in ports or int(found[4] or 1) not in range(1, 65_536):
        raise ValueError(f"{url!r} is no {what}")
    return Address(found[1], found[2] or found[3], int(found[4] or ports[found[1]]))
