"""The backend's own keys of a config, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from wafermon.interfaces import Count, Options
from wafermon.model.kafka import checked_options
from wafermon.model.settings import Brokers, LibraryOptions, Topic

CLIENT: Mapping[str, Any] = {
    "reconnect.backoff.max.ms": 1000,
    "allow.auto.create.topics": False,
    "client.id": "wafermon",
}
"""Of all clients. The config's `options` come over them."""
SETTINGS: Mapping[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",  # Java's: programs of both kinds put one key in one place
    "linger.ms": 5,
    "queue.buffering.max.messages": 1_000_000,
    "delivery.report.only.error": True,
}
"""Of the producer. The config's `options` come over them, where it may give them."""


def _options(value: Mapping[str, str]) -> Mapping[str, str]:
    return checked_options(value, {**CLIENT, **SETTINGS, "transactional.id": "wafermon"})


class KafkaOptions(Options):
    """Messages in a topic of Kafka, a transaction a batch: each exactly once."""

    claims_key: ClassVar[str] = "topic"

    brokers: Brokers = Field(
        description="Some of the cluster's brokers; the others are found.", examples=[["b1:9092"]], strict=False
    )
    topic: Topic = Field(description="The topic of the messages.", examples=["wafermon"])
    positions: Topic | None = Field(
        default=None,
        description="The topic of one partition, compacted, that says how far each sidecar is.",
        json_schema_extra={"default": "the topic with `-positions` at its end"},
    )
    key: Literal["trace_id", "service", "host"] = Field(
        default="trace_id",
        description="What of a message is its key: messages of one key are in one partition, in order. Those without it are spread.",
    )
    compress: Literal["zstd", "lz4", "gzip", "snappy", "none"] = Field(
        default="zstd", description="How batches are packed."
    )
    create_topics: bool = Field(
        default=True, description="Whether topics that are not there are created. What is there is never changed."
    )
    partitions: Annotated[Count, Field(ge=1, le=10_000)] = Field(default=6, description="Of a topic that is created.")
    replication: Annotated[Count, Field(ge=0, le=100)] = Field(
        default=0, description="Copies of each partition of a topic that is created; 0: as the brokers' default says."
    )
    options: Annotated[LibraryOptions, AfterValidator(_options)] = Field(
        default_factory=dict,
        description="Any option of [librdkafka](https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md), such as "
        "`security.protocol` or `sasl.username`. What the sidecar has to set itself is refused.",
    )

    @property
    def positions_topic(self) -> str:
        return self.positions or f"{self.topic}-positions"

    @property
    def claims(self) -> tuple[str, ...]:
        """Two backends may write to one topic: each has a position of its own."""
        return ()
