"""Who a client is, so that nobody moves another's marks."""

from __future__ import annotations

import socket
import struct
from typing import Any

_PEERCRED = struct.Struct("3i")


def by_peer(token: str, transport: Any) -> str:
    """The principal of a listener without tokens: ``uid:N`` over a Unix socket, else the empty string."""
    connection = transport.getHandle() if hasattr(transport, "getHandle") else None
    if connection is None or connection.family != socket.AF_UNIX:
        return ""
    _, uid, _ = _PEERCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    return f"uid:{uid}"
