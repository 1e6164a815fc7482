"""What is lawful in a config, and still worth a second look. Pure."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from wafermon.config.config import Config
from wafermon.model.endpoints import LOOPBACK, place_of, reaches_out
from wafermon.model.settings import KafkaListener, Listener


def advice(config: Config) -> Iterator[tuple[str, str]]:
    """What to look at again: the key, and what about it."""
    yield from _of_http(config)
    yield from _of_kafka(config)
    yield from _of_circles(config)


def _of_kafka(config: Config) -> Iterator[tuple[str, str]]:
    """Behind Kafka the sidecars derive that write to it, each of its own programs' traces."""
    derive = config.correlation.derive
    for index, entry in enumerate(config.listen):
        if not isinstance(entry, KafkaListener):
            continue
        source = entry.kafka
        if derive == "here":
            yield (
                f"listen[{index}].kafka",
                "the sidecars that write to Kafka sum up their traces already, and this one would a second time; leave "
                "correlation.derive out, unless only other programs write to these topics",
            )
        if source.group is not None or source.partitions is not None:
            for key in ("hooks", "schedules", "alerts"):
                if getattr(config, key):
                    yield (
                        key,
                        f"listen[{index}].kafka reads a part of the partitions: jobs with messages in the others look stalled or gone here. "
                        f"Put {key} at the sidecars that write to Kafka, or at one that reads all partitions",
                    )
    for name, backend in config.backends.items():
        if backend.plugin == "kafka" and derive == "never":
            yield (
                f"backends.{name}",
                "no reader of Kafka sums up this sidecar's traces: leave correlation.derive out, or write derive: here",
            )


def _of_circles(config: Config) -> Iterator[tuple[str, str]]:
    """Messages that would come back to where they came from. A circle over other sidecars is known once they are connected."""
    own = {place_of(entry.endpoint): entry.endpoint for entry in config.listen if isinstance(entry, Listener)}
    read = [entry.kafka for entry in config.listen if isinstance(entry, KafkaListener)]
    for name, backend in config.backends.items():
        if backend.plugin == "forward":
            for place, endpoint in own.items():
                if _leads_to(backend.options.url, place):
                    yield (
                        f"backends.{name}.url",
                        f"leads to this sidecar's own listener {endpoint}: what it forwards would come back, and is refused",
                    )
        if backend.plugin == "kafka":
            for source in read:
                if backend.options.topic in source.topics and set(backend.options.brokers) & set(source.brokers):
                    yield (
                        f"backends.{name}.topic",
                        f"{backend.options.topic} is read here, too: what comes of it is written to it again, for ever, where routes send it there",
                    )


def _leads_to(url: str, place: tuple[str, int] | str | None) -> bool:
    """Whether a URL of `plugin: forward` names this place of this machine, as far as that can be told without looking a name up."""
    scheme, _, rest = url.partition(":")
    if scheme == "unix" or place is None or isinstance(place, str):
        return scheme == "unix" and rest == place
    host, _, port = rest.removeprefix("//").rpartition(":")
    host = LOOPBACK.get(host, host.strip("[]"))
    interface = LOOPBACK.get(place[0], place[0])
    mine = host == interface or host == socket.gethostname() or host in LOOPBACK.values()
    return port == str(place[1]) and mine and interface in ("", "0.0.0.0", "::", host)


def _of_http(config: Config) -> Iterator[tuple[str, str]]:
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
