"""What is lawful in a config, and still worth a second look. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from wafermon.config.config import Config
from wafermon.model.endpoints import reaches_out
from wafermon.model.settings import KafkaListener


def advice(config: Config) -> Iterator[tuple[str, str]]:
    """What to look at again: the key, and what about it."""
    yield from _of_http(config)
    yield from _of_kafka(config)


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
        if config.hooks is not None and (source.group is not None or source.partitions is not None):
            yield (
                "hooks",
                f"listen[{index}].kafka reads a part of the partitions: jobs with messages in the others look stalled or gone here. Put hooks "
                "at the sidecars that write to Kafka, or at one that reads all partitions",
            )
    for name, backend in config.backends.items():
        if backend.plugin == "kafka" and derive == "never":
            yield (
                f"backends.{name}",
                "no reader of Kafka sums up this sidecar's traces: leave correlation.derive out, or write derive: here",
            )


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
