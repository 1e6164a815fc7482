"""The topic that says how far each sidecar is: one partition, compacted; the key is the sidecar's id. It blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from wafermon.interfaces import Position, RetryableError
from wafermon.model.messages import dumps, loads
from wafermon.net.kafka import in_words

SLICE_SECONDS = 0.5
AT_ONCE = 10_000
"""Records that are taken from the library together."""
FETCH_MS = 10
"""How long a broker waits for more records before it says that a partition ends; its default of 500 would be a part of each start."""


class Known(NamedTuple):
    """What one record says."""

    position: Position
    writer: str
    """Drawn by each backend that is opened: who has written it."""

    def written(self) -> bytes:
        return dumps({"position": str(self.position), "writer": self.writer}).encode()

    @classmethod
    def read(cls, value: bytes | None) -> Known | None:
        """What `written` made; None for anything else."""
        try:
            found = loads(value or b"")
            return cls(Position.parse(found["position"]), str(found["writer"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            return None


class Positions:
    """See the module."""

    def __init__(self, client: Mapping[str, Any], topic: str, target: str) -> None:
        """`client` is what all clients of this backend have in common."""
        self._client = client
        self._topic = topic
        self._target = target

    def read(self, key: str, waits: Callable[[], None]) -> Known | None:
        """The last that is committed under a key. `waits` raises where no more is to be waited. Raises RetryableError.

        What is committed can be read as far as no open transaction stands before it. So the end is asked for without regard to
        transactions, and waited for."""
        try:
            end = self._end(waits)
            return self._last(key, end, waits) if end else None
        except KafkaException as error:
            raise RetryableError(in_words(error.args[0], self._target)) from error

    def _consumer(self, isolation: str) -> Consumer:
        return Consumer(
            {
                **self._client, "group.id": "wafermon-positions", "isolation.level": isolation, "enable.auto.commit": False,
                "enable.partition.eof": True, "auto.offset.reset": "earliest", "fetch.wait.max.ms": FETCH_MS,
            }
        )  # fmt: skip

    def _end(self, waits: Callable[[], None]) -> int:
        consumer = self._consumer("read_uncommitted")
        try:
            while True:
                waits()
                try:
                    ends: Any = consumer.get_watermark_offsets(TopicPartition(self._topic, 0), SLICE_SECONDS, False)
                    return int(ends[1])
                except KafkaException as error:
                    if not _passes(error.args[0]):
                        raise
                consumer.poll(0)  # for its log and its errors
        finally:
            consumer.close()

    def _last(self, key: str, end: int, waits: Callable[[], None]) -> Known | None:
        consumer = self._consumer("read_committed")
        wanted, found = key.encode(), None
        try:
            consumer.assign([TopicPartition(self._topic, 0, 0)])
            while True:
                waits()
                for record in consumer.consume(1, SLICE_SECONDS) + consumer.consume(AT_ONCE, 0):
                    problem = record.error()
                    if problem is None:
                        if record.key() == wanted:
                            found = Known.read(record.value())
                        if (record.offset() or 0) + 1 >= end:
                            return found
                    elif problem.code() == KafkaError._PARTITION_EOF:
                        if (record.offset() or 0) >= end:
                            return found
                    elif not _passes(problem):
                        raise KafkaException(problem)
        finally:
            consumer.close()


def _passes(error: KafkaError) -> bool:
    """Whether it may go away by itself within the time that is left."""
    return error.retriable() or error.code() in _PASSES


_PASSES = {
    KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._WAIT_COORD, KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._RESOLVE,
}  # fmt: skip
