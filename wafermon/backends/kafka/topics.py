"""The topics that are needed: whether they are there and fit, and creating them. It blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as NotYet
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]  # not in its __all__

from wafermon.backends.kafka.options import KafkaOptions
from wafermon.interfaces import RetryableError
from wafermon.net.kafka import in_words

SLICE_SECONDS = 0.5
AGAIN_SECONDS = 0.1
REQUEST_SECONDS = 15.0
COMPACTED = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.1",
    "segment.bytes": str(16 << 20),
    "segment.ms": str(3_600_000),
}
"""Of the topic of positions: it is read from its beginning at each start, so it is kept short."""


class Topics:
    """See the module. One client, kept: what a dropped one was asked for is never answered."""

    def __init__(self, client: Mapping[str, Any], options: KafkaOptions, target: str) -> None:
        self._client = client
        self._options = options
        self._target = target
        self._admin: AdminClient | None = None
        self._checked = False

    def close(self) -> None:
        self._admin = None

    def forget(self) -> None:
        """Look anew whether they are there."""
        self._checked = False

    def ensure(self, waits: Callable[[], None]) -> None:
        """Both are there and fit. `waits` raises where no more is to be waited. Raises RetryableError."""
        if self._checked:
            return
        try:
            missing = self._missing(waits)
            if missing and not self._options.create_topics:
                raise RetryableError(
                    f"{self._target}: {missing[0]} is not there; create it, or set `create_topics: true`"
                )
            for name in missing:
                self._create(name, waits)
            if problem := self.problem(waits):
                raise RetryableError(problem)
        except KafkaException as error:
            raise RetryableError(in_words(error.args[0], self._target)) from error
        self._checked = True

    def _missing(self, waits: Callable[[], None]) -> list[str]:
        there = self._metadata(waits).topics
        wanted = (self._options.topic, self._options.positions_topic)
        return [name for name in wanted if name not in there or _is_absent(there[name].error)]

    def _metadata(self, waits: Callable[[], None]) -> Any:
        while True:
            waits()
            admin = self._ready()
            try:
                return admin.list_topics(timeout=SLICE_SECONDS)
            except KafkaException as error:
                if error.args[0].code() not in (
                    KafkaError._TIMED_OUT,
                    KafkaError._TRANSPORT,
                    KafkaError._ALL_BROKERS_DOWN,
                ):
                    raise
            admin.poll(0)  # for its log and its errors

    def _ready(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient(dict(self._client))
        return self._admin

    def _create(self, name: str, waits: Callable[[], None]) -> None:
        options = self._options
        positions = name == options.positions_topic
        new = NewTopic(
            name,
            1 if positions else options.partitions,
            options.replication or -1,
            config=dict(COMPACTED) if positions else {},
        )
        try:
            self._wait(self._ready().create_topics([new], request_timeout=REQUEST_SECONDS)[name], waits)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def _wait(self, future: Any, waits: Callable[[], None]) -> Any:
        while True:
            waits()
            try:
                return future.result(SLICE_SECONDS)
            except (NotYet, TimeoutError):
                continue

    def problem(self, waits: Callable[[], None]) -> str:
        """What is wrong with the topic of positions; empty where nothing is, or nobody may ask."""
        name = self._options.positions_topic
        asked = ConfigResource(ResourceType.TOPIC, name)
        while True:
            try:
                found = self._wait(
                    self._ready().describe_configs([asked], request_timeout=REQUEST_SECONDS)[asked], waits
                )
                break
            except KafkaException as error:
                if error.args[0].code() in (
                    KafkaError.TOPIC_AUTHORIZATION_FAILED,
                    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
                ):
                    return ""
                # What was created just now is not known to every broker yet.
                if not _is_absent(error.args[0]):
                    raise
            time.sleep(AGAIN_SECONDS)
        policy = found["cleanup.policy"].value if "cleanup.policy" in found else "compact"
        if policy != "compact":
            return (
                f"{self._target}: {name} has cleanup.policy={policy}, by which positions would be lost, and messages stored again; "
                "set it to compact"
            )
        return ""


def _is_absent(error: KafkaError | None) -> bool:
    return error is not None and error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)
