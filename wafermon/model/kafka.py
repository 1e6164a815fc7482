"""What a config says of Kafka, for what writes to it and what reads from it: brokers, topics, options of its client library. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

MISSING = "needs confluent-kafka: pip install 'wafermon[kafka]'"
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_STRETCH = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")
PARTITIONS_MOST = 100_000
_APART = ("security.", "sasl.", "ssl.", "enable.ssl.")
"""Options that make the library open files as soon as they are there together: each is checked alone."""
_NEVER = {
    "bootstrap.servers": "that is `brokers`",
    "metadata.broker.list": "that is `brokers`",
    "plugin.library.paths": "no code is loaded by a config",
    "transactional.id": "the sidecar's own id is taken",
    "enable.idempotence": "it is always on",
    "acks": "it is always all",
    "request.required.acks": "it is always all",
    "isolation.level": "it is always read_committed",
    "group.id": "that is `group`",
    "enable.auto.commit": "the sidecar commits what is durable",
    "enable.auto.offset.store": "the sidecar commits what is durable",
    "auto.offset.reset": "it is always earliest",
    "enable.partition.eof": "the sidecar needs that itself",
    "delivery.report.only.error": "the sidecar needs that itself",
    "compression.type": "that is `compress`",
    "compression.codec": "that is `compress`",
    "log_level": "the sidecar's log decides",
    "log.queue": "the sidecar's log decides",
}


def is_there() -> bool:
    """Whether the client library is installed."""
    return find_spec("confluent_kafka") is not None


def brokers(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("expected a list of brokers such as [b1:9092, b2:9092]")
    for one in value:
        found = _BROKER.fullmatch(one)
        if not found or not 0 < int(found[2]) < 65536:
            raise ValueError(f"expected brokers such as b1:9092, got {one!r}")
    return value


def topic(value: str) -> str:
    if not _TOPIC.fullmatch(value) or value in (".", ".."):
        raise ValueError(f"expected a topic, 1-249 of A-Z a-z 0-9 . _ -, got {value!r}")
    return value


def as_text(value: Any) -> Any:
    """What YAML makes of them -> how the library writes them."""
    if not isinstance(value, Mapping):
        return value
    return {str(name): str(one).lower() if isinstance(one, bool) else str(one) for name, one in value.items()}


def problems(given: Mapping[str, str], ours: Mapping[str, Any]) -> list[str]:
    """What is wrong with options of the library beside those that the sidecar sets. Nothing is connected to, and no file is read."""
    if not is_there():
        return [MISSING]
    found = [f"{name} can't be given: {_NEVER[name]}" for name in given if name in _NEVER]
    others = {name: value for name, value in given.items() if name not in _NEVER}
    alone = [problem for name, value in others.items() if (problem := _problem({name: value}, name))]
    if found or alone:
        return found + alone
    together = {name: value for name, value in others.items() if not name.startswith(_APART)}
    problem = _problem({**ours, **together}, "options") if together else ""
    return [problem] if problem else []


def _problem(config: Mapping[str, Any], name: str) -> str:
    from confluent_kafka import Consumer, KafkaException, Producer

    kind = Consumer if "group.id" in config else Producer
    try:
        kind({"log_level": 0, **config})
    except (KafkaException, TypeError, ValueError) as error:
        said = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        return f"{name}: {said}"
    return ""


def checked_options(given: Mapping[str, str], ours: Mapping[str, Any]) -> Mapping[str, str]:
    """The same. Raises ValueError with every fault."""
    if found := problems(given, ours):
        raise ValueError("; ".join(found))
    return given


def partitions(value: Any) -> Any:
    """``all``, or numbers and stretches of them such as ``0-3`` -> None, or the numbers."""
    if value is None or value == "all":
        return None
    found: list[int] = []
    for one in value if isinstance(value, (list, tuple)) else [None]:
        match = _STRETCH.fullmatch(str(one))
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or last >= PARTITIONS_MOST or isinstance(one, bool):
            raise ValueError(f"expected all, or a list of partitions such as [0-3, 7], got {value!r}")
        found += range(first, last + 1)
    if not found or len(set(found)) != len(found):
        raise ValueError(f"expected each partition once, got {value!r}")
    return tuple(found)
