"""Listening sockets: made by hand where Twisted's own can't do what is promised here.

- What a connection has from its listening socket is set before there is one: the receive buffer (the protocol's 1 MiB; the
  kernel may allow less), and that no ack waits for the client's kernel to confirm the one before.
- A Unix socket never exists with a looser mode than it should have; what a killed process left is removed, what
  a living one uses is not.
- A TCP port can be bound to another interface while the old one still serves.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure

from wafermon.model.endpoints import arguments_of, kind_of
from wafermon.model.settings import Port
from wafermon.net.principals import group_id, user_id

RECEIVE_BUFFER = 1 << 20
BACKLOG = 1024
"""Connections that wait to be accepted: all SDKs of a machine may come back at once."""
MODE = "660"
"""Of a Unix socket that names none."""


def listen(listener: Port, factory: IProtocolFactory, reactor: Any, beside: tcp.Port | None = None) -> IListeningPort:
    """Open a listener. `beside` is a port on the same number that goes away soon. Raises OSError and ValueError."""
    kind, arguments = kind_of(listener.endpoint), arguments_of(listener.endpoint)
    if kind == "unix":
        return _listen_unix(listener, arguments, factory, reactor)
    if kind in ("tcp", "tcp6", "tls"):
        return _listen_tcp(kind, arguments, factory, reactor, beside)
    return _listen_as_twisted_does(listener.endpoint, factory, reactor)


def _listen_tcp(
    kind: str, arguments: dict[str, str], factory: IProtocolFactory, reactor: Any, beside: tcp.Port | None
) -> IListeningPort:
    interface = arguments.get("interface", "")
    family = socket.AF_INET6 if kind == "tcp6" or ":" in interface else socket.AF_INET
    found = socket.getaddrinfo(
        interface or None, int(arguments["port"]), family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    address = found[0][4]
    opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if beside is not None:
            for one in (beside.socket, opened):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.bind(address)
        opened.listen(int(arguments.get("backlog", BACKLOG)))
        if beside is not None:
            for one in (beside.socket, opened):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
        return reactor.adoptStreamPort(opened.fileno(), family, factory)  # type: ignore[no-any-return]
    finally:
        opened.close()


def _listen_unix(listener: Port, arguments: dict[str, str], factory: IProtocolFactory, reactor: Any) -> IListeningPort:
    path = arguments["address"]
    if not Path(path).parent.is_dir():
        raise OSError(errno.ENOENT, f"there is no directory {Path(path).parent}; make it, or let systemd do so")
    remove_stale(path)
    port = _UnixPort(
        os.fsencode(path), factory, int(arguments.get("backlog", BACKLOG)), int(arguments.get("mode", MODE), 8), reactor
    )
    port.startListening()  # type: ignore[no-untyped-call]
    try:
        own(listener)
    except BaseException:
        port.stopListening()  # type: ignore[no-untyped-call]
        raise
    return port


class _UnixPort(unix.Port):
    """Removes its path when it closes, if that is there still."""

    def connectionLost(self, reason: Failure) -> None:
        with suppress(OSError):
            os.unlink(self._bindPath)
        tcp.Port.connectionLost(self, reason)  # type: ignore[no-untyped-call]


def own(listener: Port) -> None:
    """Give a Unix socket the mode, the owner and the group that it should have. Raises OSError and ValueError."""
    arguments = arguments_of(listener.endpoint)
    path = arguments["address"]
    user = -1 if listener.owner is None else user_id(listener.owner)
    group = -1 if listener.group is None else group_id(listener.group)
    os.chmod(path, int(arguments.get("mode", MODE), 8))
    if (user, group) != (-1, -1):
        try:
            os.chown(path, user, group)
        except PermissionError as error:
            wanted = f"{listener.owner or ''}:{listener.group or ''}"
            raise OSError(
                error.errno, f"can't give {path} to {wanted}: that needs root, or a group of the daemon's own user"
            ) from None


def remove_stale(path: str) -> None:
    """Remove a socket that no process listens on. Raises OSError where one does, or where it is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, f"{path} is there and is no socket; remove it, or choose another path")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        else:
            raise OSError(errno.EADDRINUSE, f"another process listens on {path}")


def _listen_as_twisted_does(endpoint: str, factory: IProtocolFactory, reactor: Any) -> IListeningPort:
    opened: list[Any] = []
    server = serverFromString(reactor, endpoint)  # type: ignore[no-untyped-call]
    server.listen(factory).addBoth(opened.append)
    if not opened:
        raise ValueError("this kind of endpoint does not open at once; use tcp, tcp6, tls, unix or systemd")
    if isinstance(opened[0], Failure):
        raise OSError(opened[0].getErrorMessage())
    port: IListeningPort = opened[0]
    if isinstance(port, tcp.Port) and port.addressFamily != socket.AF_UNIX:
        port.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return port


def number_of(endpoint: str) -> int:
    """The TCP port of a checked endpoint; 0 where it has none, or the system chooses."""
    return int(arguments_of(endpoint).get("port", 0))


def address_of(listener: Port) -> tuple[str, ...]:
    """What makes two listeners the same one."""
    kind, arguments = kind_of(listener.endpoint), arguments_of(listener.endpoint)
    if kind == "unix":
        return ("unix", arguments["address"])
    if kind in ("tcp", "tcp6", "tls") and int(arguments["port"]):
        interface = arguments.get("interface", "::" if kind == "tcp6" else "")
        return ("tcp", "" if interface == "0.0.0.0" else interface, arguments["port"])
    return (listener.endpoint,)


def where(port: Any) -> str:
    """Where an open port listens, in a word: ``host:port`` or a path."""
    address = port.getHost()
    name = getattr(address, "name", None)
    if name is not None:
        return os.fsdecode(name)
    return f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}"


def in_words(error: Exception) -> str:
    """Why a port can't be opened."""
    cause = error.socketError if isinstance(error, CannotListenError) else error
    return str(getattr(cause, "strerror", None) or cause)


def close(port: Any) -> Deferred[None]:
    """Fires once nobody comes in any more."""
    done: Deferred[None] = Deferred()
    closing = port.stopListening()
    if closing is None:
        done.callback(None)
    else:
        closing.addBoth(lambda _: done.callback(None))
    return done
