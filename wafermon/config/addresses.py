"""Which endpoints of a config meet: two can't listen at one address, and a wildcard takes the port on all of them."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from wafermon.model.checking import Path, dotted
from wafermon.model.endpoints import LOOPBACK, arguments_of, kind_of


class Address(NamedTuple):
    """Where an endpoint listens."""

    kind: str
    """``ip`` or ``unix``."""
    host: str
    """An address; of ``0.0.0.0`` and ``::`` all of the machine's."""
    port: int
    """0 for a Unix socket."""

    @property
    def wildcard(self) -> bool:
        return self.host in ("0.0.0.0", "::")

    def meets(self, other: Address) -> bool:
        """Whether only one of them can be listened at. ``::`` takes IPv4 as well, as Linux has it by default."""
        if self.kind != other.kind or self.port != other.port:
            return False
        if self.host == other.host or "::" in (self.host, other.host):
            return True
        same_family = (":" in self.host) == (":" in other.host)
        return same_family and (self.wildcard or other.wildcard)


def address_of(endpoint: str) -> Address | None:
    """None where the system chooses the port, or where the endpoint is of a kind that is not known here, or is no endpoint."""
    try:
        kind, given = kind_of(endpoint), arguments_of(endpoint)
        if not given:
            return None
        if kind == "unix":
            return Address("unix", os.path.realpath(given["address"]), 0)
        port = int(given["port"])
    except (ValueError, KeyError):
        return None
    host = given.get("interface", "") or ("::" if kind == "tcp6" else "0.0.0.0")
    host = LOOPBACK.get(host, host)
    with suppress(ValueError):  # a name, or an interface
        host = str(ipaddress.ip_address(host))
    return Address("ip", host, port) if port else None


def meetings(endpoints: Iterable[tuple[Path, object]]) -> Iterator[tuple[Path, str]]:
    """The key of each endpoint whose address an earlier one takes, and why that is a fault."""
    taken: list[tuple[Address, Path]] = []
    for path, endpoint in endpoints:
        address = address_of(endpoint) if isinstance(endpoint, str) else None
        if address is None:
            continue
        for other, owner in taken:
            if address.meets(other):
                same = address.host == other.host
                how = (
                    "has this address already"
                    if same
                    else f"takes this port on {'all addresses' if other.wildcard else other.host}"
                )
                yield path, f"{dotted(owner)} {how}; give it another one"
                break
        taken.append((address, path))
