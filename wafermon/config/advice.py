"""What is lawful in a config, and still worth a second look. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from wafermon.config.config import Config
from wafermon.model.endpoints import reaches_out


def advice(config: Config) -> Iterator[tuple[str, str]]:
    """What to look at again: the key, and what about it."""
    for index, port in enumerate(config.http):
        shown = [part for part in ("api", "page") if part in port.serve]
        if not shown or not reaches_out(port.endpoint) or (port.tls and port.guarded):
            continue
        missing = "a token or a client certificate" if port.tls else "TLS"
        if not port.tls and not port.guarded:
            missing = "TLS and a token or a client certificate"
        yield (
            f"http[{index}]",
            f"{port.endpoint} serves {' and '.join(shown)} to other machines without {missing}; serve only [health, metrics] there, use "
            "interface=127.0.0.1, or give it a tls: endpoint with token_file or client_ca",
        )
