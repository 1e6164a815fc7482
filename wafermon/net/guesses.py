"""How fast tokens may be guessed over HTTP."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address, ip_network

BURST = 10
"""Wrong tokens that an address may send at once."""
PER_SECOND = 1.0
"""Wrong tokens that an address may send for long."""
ADDRESSES = 1024
"""How many addresses are remembered; the one heard of longest ago is forgotten first."""


class WrongTokens:
    """Counts them by address, so that they can be guessed only slowly: once an address has used up what it may, its tokens are not
    even looked at."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def exhausted(self, address: str) -> bool:
        return self._now(address) < 1.0

    def count(self, address: str) -> None:
        left = self._now(address) - 1.0
        self._left[address] = (left, self._seconds())
        self._left.move_to_end(address)
        if len(self._left) > ADDRESSES:
            self._left.popitem(last=False)

    def _now(self, address: str) -> float:
        left, since = self._left.get(address, (float(BURST), self._seconds()))
        return min(float(BURST), left + (self._seconds() - since) * PER_SECOND)


def address_of(client: object) -> str:
    """Whose guesses count together. `client` is the address of a connection's other end; of IPv6 it is the network, since one client
    may use all of its addresses."""
    host = str(getattr(client, "host", ""))
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return "unix"
    return str(address) if address.version == 4 else str(ip_network((address, 64), strict=False))
