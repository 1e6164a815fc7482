"""What would keep the backend from forwarding. Blocks; no stream is asked for, so that no running sidecar's is taken."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

from wafermon.backends.forward.options import ForwardOptions, read_token
from wafermon.model.errors import printable
from wafermon.model.messages import dumps, loads
from wafermon.wire.hello import VERSION

SECONDS = 5.0


def problems(options: ForwardOptions) -> Sequence[str]:
    """Connects and says a hello as any client would, with the token."""
    try:
        token = read_token(options.token_file)
        with _connected(options) as connection:
            hello = {
                "v": VERSION,
                "type": "hello",
                "ack": False,
                "sdk": "wafermon/doctor",
                **({"token": token} if token else {}),
            }
            connection.sendall(dumps(hello).encode() + b"\n")
            line = connection.makefile("rb").readline(1 << 16)
        said = loads(line) if line else {}
    except ValueError as error:
        return [str(error)]
    except OSError as error:
        return [f"{options.url}: {error.strerror or error}"]
    if said.get("type") == "error":
        return [f"{options.url}: {printable(str(said.get('code')))}: {printable(str(said.get('detail')))}"]
    return [] if said.get("type") == "welcome" else [f"{options.url}: what answers is no sidecar"]


def _connected(options: ForwardOptions) -> socket.socket:
    place = options.place
    if place.kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(SECONDS)
        connection.connect(place.host)
        return connection
    connection = socket.create_connection((place.host, place.port), SECONDS)
    if place.kind == "tcp":
        return connection
    context = ssl.create_default_context(cafile=options.ca_file)
    if options.certificate is not None and options.key is not None:
        context.load_cert_chain(options.certificate, options.key)
    return context.wrap_socket(connection, server_hostname=options.server_name or place.host)
