"""The syntax of endpoint strings, checked without opening or reading anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address

from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

_ADDRESS = re.compile(r"(?:tcp:)?(?://)?(localhost|[0-9.]+|\[[0-9a-fA-F:]+\]):([0-9]+)")
_UNIX_PATH_MAX = 107
LOOPBACK = {"localhost": "127.0.0.1", "ip6-localhost": "::1"}
_WANTED = "expected an endpoint such as tcp:7411:interface=127.0.0.1 or unix:/run/wafermon/wafermon.sock:mode=660"


def check_endpoint(text: str) -> str:
    """Return an endpoint string as it is. Raises ValueError where it can't be right.

    ``tcp`` ``tcp6`` ``unix`` and ``tls`` are checked whole; of the other kinds that Twisted knows, the name alone.
    """
    (_, kind), *args = _split(text)
    if kind not in _KINDS:
        if address := _ADDRESS.fullmatch(text):
            host = address[1].strip("[]").replace(":", "\\:")
            raise ValueError(f"{_WANTED}, got {text!r}; did you mean 'tcp:{address[2]}:interface={host}'?")
        if not args or not _twisted_knows(kind):
            raise ValueError(f"{_WANTED}, got {text!r}")
        return text
    names = _KINDS[kind]
    for key, value in _named(text, kind, args).items():
        if wanted := names[key](value):
            raise ValueError(f"{text!r}: expected {wanted} as {key}, got {value!r}")
    return text


def arguments_of(endpoint: str) -> dict[str, str]:
    """The arguments of a checked ``tcp`` ``tcp6`` ``unix`` or ``tls`` endpoint, by name; empty for other kinds."""
    (_, kind), *args = _split(endpoint)
    return _named(endpoint, kind, args) if kind in _KINDS else {}


def _named(text: str, kind: str, args: list[tuple[str | None, str]]) -> dict[str, str]:
    """Give the arguments without a name theirs. Raises ValueError where one is out of place, or the first is missing."""
    names = _KINDS[kind]
    values: dict[str, str] = {}
    unnamed = iter(names)
    for key, value in args:
        name = next(unnamed, "") if key is None else key
        if name not in names or name in values:
            raise ValueError(f"{text!r}: {value!r} is out of place; {kind} takes {', '.join(names)}")
        values[name] = value
    first = next(iter(names))
    if first not in values:
        raise ValueError(f"{text!r}: the {first} is missing; {_WANTED}")
    return values


def kind_of(endpoint: str) -> str:
    """``tcp``, ``unix``, ``tls``, …"""
    return endpoint.partition(":")[0]


def _split(text: str) -> list[tuple[str | None, str]]:
    """The arguments between colons, as (name, value) where one has an equals sign. A backslash makes either plain."""
    arguments: list[tuple[str | None, str]] = [(None, "")]
    characters = iter(text)
    for character in characters:
        name, value = arguments[-1]
        if character == ":":
            arguments.append((None, ""))
        elif character == "=" and name is None:
            arguments[-1] = (value, "")
        else:
            arguments[-1] = (name, value + (next(characters, "") if character == "\\" else character))
    return arguments


def _twisted_knows(kind: str) -> bool:
    return kind == "ssl" or any(parser.prefix == kind for parser in getPlugins(IStreamServerEndpointStringParser))


def _port(value: str) -> str:
    return "" if value.isascii() and value.isdigit() and int(value[:6]) <= 65535 else "0 to 65535"


def _count(value: str) -> str:
    return "" if value.isascii() and value.isdigit() else "a whole number"


def _mode(value: str) -> str:
    return "" if re.fullmatch("0?[0-7]{3}", value) else "three octal digits such as 660"


def _flag(value: str) -> str:
    return "" if value in ("0", "1") else "0 or 1"


def _address(value: str) -> str:
    return "" if 0 < len(value.encode()) <= _UNIX_PATH_MAX else f"a path of 1 to {_UNIX_PATH_MAX} bytes"


def _interface(value: str) -> str:
    return "" if value and not value.isspace() else "an address of this machine"


_TCP: dict[str, Callable[[str], str]] = {"port": _port, "interface": _interface, "backlog": _count}
_KINDS: dict[str, dict[str, Callable[[str], str]]] = {
    "tcp": _TCP,
    "tcp6": {"port": _port, "backlog": _count, "interface": _interface},
    "tls": _TCP,
    "unix": {"address": _address, "mode": _mode, "backlog": _count, "lockfile": _flag},
}


def place_of(endpoint: str) -> tuple[str, int] | str | None:
    """Where a checked endpoint listens: (interface, port), the interface perhaps empty; a path; None for other kinds."""
    arguments = arguments_of(endpoint)
    if not arguments:
        return None
    return arguments.get("address") or (arguments.get("interface", ""), int(arguments["port"]))


def reaches_out(endpoint: str) -> bool:
    """Whether others than this machine's processes can connect to a checked endpoint, as far as that can be told from it."""
    place = place_of(endpoint)
    if place is None or isinstance(place, str):
        return False
    interface, _ = place
    if interface in LOOPBACK:
        return False
    try:
        return not ip_address(interface).is_loopback
    except ValueError:
        return True
