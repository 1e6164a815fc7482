"""Kafka's client for one entry of `listen`. All of it blocks, and runs in one thread, but for `abort`.

What was fetched is given out only once the topics' ids were asked for after it: a topic that was made anew meanwhile has another id, and the
library does not notice. The library never chooses another offset by itself: it tells of one that is not there, and stops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from threading import Event
from typing import Any, NamedTuple, Protocol

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from wafermon.model.settings import KafkaSource
from wafermon.net.kafka import in_words, is_unreachable, logger
from wafermon.receivers.kafka.partition import Place

SLICE_SECONDS = 0.5
"""How long the library waits at a time, and so what a stop waits for it."""
AT_ONCE = 5_000
"""Records that are taken from the library together."""
QUEUED_KIB = 16 << 10
"""What the library fetches ahead."""
REQUEST_SECONDS = 10.0
LOOK_SECONDS = 5.0
"""How often topics are asked for their ids and partitions while nothing comes."""
CLOSE_SECONDS = 5.0
"""For a commit while partitions are handed over."""
AGAIN_SECONDS = 0.1
NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""What a broker says that is too old for ids."""
SETTINGS: Mapping[str, Any] = {
    "client.id": "wafermon",
    "reconnect.backoff.max.ms": 1000,
    "topic.metadata.refresh.interval.ms": 30_000,
    "queued.max.messages.kbytes": QUEUED_KIB,
    "fetch.max.bytes": QUEUED_KIB << 10,
    "max.partition.fetch.bytes": 1 << 20,
    "queued.min.messages": 20_000,
}
"""The config's `options` come over them."""
OWN: Mapping[str, Any] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "partition.assignment.strategy": "cooperative-sticky",
}


class Topic(NamedTuple):
    """What the brokers say of a topic."""

    id: str
    partitions: frozenset[int]


class Claim(NamedTuple):
    """A partition that the group gives to us, before it is read."""

    place: Place
    topic_id: str
    committed: int
    """The offset that the group goes on at; -1 where it knows none."""


@dataclass
class Records:
    """What was fetched of one partition, in order."""

    offsets: list[int] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)


@dataclass
class Fetched:
    """What one fetch brought."""

    records: dict[Place, Records] = field(default_factory=dict)
    ends: dict[Place, int] = field(default_factory=dict)
    """Partitions of which everything is there now, with the offset at which the next record will be, or later."""
    absent: set[Place] = field(default_factory=set)
    """Partitions that have not the offset that they were asked for. They are not read on."""
    problems: dict[Place, str] = field(default_factory=dict)
    topics: Mapping[str, Topic] | None = None
    """All that are there, asked for after the records were fetched; None where that was not due."""
    highs: Mapping[Place, int] = field(default_factory=dict)
    """The first offset that is not there yet, as far as known."""

    def forget(self, places: Iterable[Place]) -> None:
        """What came of these is another topic's, or may be."""
        for place in places:
            self.records.pop(place, None)
            self.ends.pop(place, None)
            self.absent.discard(place)
            self.problems.pop(place, None)

    def take(self, message: Any) -> None:
        place = Place(message.topic() or "", message.partition() or 0)
        error, offset = message.error(), message.offset() or 0
        if error is None:
            found = self.records.setdefault(place, Records())
            found.offsets.append(offset)
            found.values.append(message.value())
        elif error.code() == KafkaError._PARTITION_EOF:
            self.ends[place] = offset
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            self.absent.add(place)
        elif error.fatal() or error.code() == KafkaError._MAX_POLL_EXCEEDED:
            raise KafkaException(error)
        elif message.topic():
            self.problems[place] = in_words(error, str(place))


class Members(Protocol):
    """Who is told what the group gives and takes. Called in the client's thread; it may block, within bounds."""

    def given(self, claims: list[Claim]) -> Mapping[Place, int | None]:
        """Where to begin to read each; None: at its beginning."""
        ...

    def taken(self, places: list[Place], *, lost: bool) -> Mapping[Place, tuple[int, str]]:
        """These are not ours any more; answers with what is durable of them, as for `Client.commit`. `lost`: others may
        have begun to read them already."""
        ...


class Aborted(Exception):
    """The client is to be closed."""


class Client:
    """See the module. Its methods raise KafkaException, or Aborted."""

    def __init__(self, source: KafkaSource, members: Members, say: Callable[[str, str], Any]) -> None:
        """`say`: see `net.kafka.Handler`."""
        common = {
            **SETTINGS, **source.options, "bootstrap.servers": ",".join(source.brokers), "error_cb": self._error,
            "logger": logger("kafka", say),
        }  # fmt: skip
        self._source = source
        self._members = members
        self._common = common
        self._consumer: Consumer | None = None
        self._admin: AdminClient | None = None
        self._held = Fetched()
        """What was fetched and may be of another topic than it seems."""
        self._unproven = False
        self._look_at = 0.0
        self._highs: dict[Place, int] = {}
        self._paused = False
        self._aborted = Event()
        self._failure: Exception | None = None
        self.unreachable: KafkaError | None = None
        """The last that was said of brokers that can't be reached, until something came."""

    # -- the beginning and the end

    def open(self) -> str:
        """The cluster's id."""
        self._admin = AdminClient(dict(self._common))
        cluster = self._cluster()
        self._consumer = Consumer({**self._common, **OWN, "group.id": self._source.group or "wafermon"})
        if self._source.group:
            self._consumer.subscribe(
                list(self._source.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        return cluster

    def _cluster(self) -> str:
        assert self._admin is not None
        until = time.monotonic() + REQUEST_SECONDS
        while True:
            try:
                return str(self._admin.list_topics(timeout=SLICE_SECONDS).cluster_id or "")
            except KafkaException as error:
                self._go_on(until, error)

    def abort(self) -> None:
        """From another thread: let what is under way end soon."""
        self._aborted.set()

    def close(self) -> None:
        """Leave the group, where there is one."""
        consumer, self._consumer, self._admin = self._consumer, None, None
        if consumer is not None:
            consumer.close()
            if self._failure is not None:
                raise self._failure

    # -- which partitions are read

    def begin(self, offsets: Mapping[Place, int | None]) -> None:
        """Read these from these offsets on; None: from the beginning."""
        self._the_consumer.incremental_assign(_partitions(offsets))
        if self._paused:
            self._the_consumer.pause(_places(offsets))

    def end(self, places: Iterable[Place]) -> None:
        """Read these no more."""
        ours = set(self._assigned())
        gone = [place for place in places if place in ours]
        if gone:
            self._the_consumer.incremental_unassign(_places(gone))
        for place in gone:
            self._highs.pop(place, None)
        self._held.forget(gone)

    def again(self, offsets: Mapping[Place, int | None]) -> None:
        """Read these from other offsets on."""
        self.end(offsets)
        self.begin(offsets)

    def watermarks(self, place: Place) -> tuple[int, int]:
        """The first offset that is still there, and the first that is not there yet."""
        until = time.monotonic() + REQUEST_SECONDS
        while True:
            try:
                low, high = self._the_consumer.get_watermark_offsets(TopicPartition(*place), SLICE_SECONDS, False)
                return int(low), int(high)
            except KafkaException as error:
                self._go_on(until, error)

    def commit(self, offsets: Mapping[Place, tuple[int, str]]) -> bool:
        """Tell the group how far these are: the next offset, and the topic's id. False where the group takes none just now."""
        try:
            _commit(self._the_consumer, offsets)
        except KafkaException as error:
            if not _passes(error.args[0]):
                raise
            return False
        return True

    # -- reading

    def fetch(self) -> Fetched:
        """What has come; waits a moment where nothing has."""
        if not self._unproven:
            self._consume(self._held)
            self._unproven = bool(self._held.records)
        if self._unproven or self._held.absent or time.monotonic() >= self._look_at:
            try:
                self._held.topics = self.topics()
            except KafkaException as error:
                if not _passes(error.args[0]):
                    raise
                self.unreachable = error.args[0]
                return Fetched()  # what is held is given with the next
            self._unproven = False
            self._look_at = time.monotonic() + LOOK_SECONDS
            self._look_at_ends()
        found, self._held = self._held, Fetched()
        found.highs = self._highs
        return found

    def idle(self) -> None:
        """Stay in the group, and fetch nothing."""
        if not self._paused:
            self._paused = True
            self._the_consumer.pause(_places(self._assigned()))
        self._consume(self._held)
        self._unproven = bool(self._held.records)

    def resume(self) -> None:
        """Fetch again."""
        if self._paused:
            self._paused = False
            self._the_consumer.resume(_places(self._assigned()))

    def topics(self) -> Mapping[str, Topic]:
        """Those of the source that are there."""
        assert self._admin is not None
        until = time.monotonic() + REQUEST_SECONDS
        asked = self._admin.describe_topics(TopicCollection(list(self._source.topics)), request_timeout=REQUEST_SECONDS)
        found = {}
        for name, answer in asked.items():
            try:
                told = self._answer(answer, until)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise
                continue
            if str(told.topic_id) == NO_ID:
                raise ValueError("the brokers are too old: they give topics no ids, which those of 2.8 and later do")
            found[name] = Topic(str(told.topic_id), frozenset(one.id for one in told.partitions))
        self.unreachable = None
        return found

    def _consume(self, into: Fetched) -> None:
        if self._aborted.is_set():
            raise Aborted
        consumer = self._the_consumer
        for message in consumer.consume(1, SLICE_SECONDS) + consumer.consume(AT_ONCE, 0):
            into.take(message)
        if self._failure is not None:
            raise self._failure
        if into.records:
            self.unreachable = None

    def _look_at_ends(self) -> None:
        for place in self._assigned():
            _low, high = self._the_consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
            if high >= 0:
                self._highs[place] = high

    # -- what the group gives and takes, while the library is polled

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            offsets = self._members.given(self._claims(consumer, partitions))
        except Exception as error:  # noqa: BLE001  # told where the library was called
            self._failure = error
            consumer.incremental_assign(partitions)
            consumer.pause(partitions)
            return
        consumer.incremental_assign(_partitions(offsets))
        if self._paused:
            consumer.pause(partitions)

    def _claims(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[Claim]:
        if not partitions:
            return []
        topics = self.topics()
        known = consumer.committed([TopicPartition(one.topic, one.partition) for one in partitions], REQUEST_SECONDS)
        claims = []
        for one in known:
            if one.error is not None:
                raise KafkaException(one.error)
            if one.topic not in topics:
                raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
            topic_id = topics[one.topic].id
            # What the group knows of a topic of that name that is gone says nothing of this one.
            foreign = bool(one.metadata) and one.metadata != topic_id
            claims.append(Claim(Place(one.topic, one.partition), topic_id, -1 if foreign else max(-1, one.offset)))
        return claims

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._let_go(consumer, partitions, lost=False)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._let_go(consumer, partitions, lost=True)

    def _let_go(self, consumer: Consumer, partitions: list[TopicPartition], *, lost: bool) -> None:
        places = [Place(one.topic, one.partition) for one in partitions]
        for place in places:
            self._highs.pop(place, None)
        self._held.forget(places)
        try:
            durable = self._members.taken(places, lost=lost)
            if durable and not lost:
                _commit_at_last(consumer, durable)
        except Exception as error:  # noqa: BLE001  # told where the library was called
            self._failure = error
        if self._consumer is not None:
            consumer.incremental_unassign(partitions)

    # -- waiting

    @property
    def _the_consumer(self) -> Consumer:
        if self._consumer is None or self._aborted.is_set():
            raise Aborted
        return self._consumer

    def _assigned(self) -> list[Place]:
        return [Place(one.topic, one.partition) for one in self._the_consumer.assignment()]

    def _answer(self, future: Any, until: float) -> Any:
        while True:
            try:
                return future.result(SLICE_SECONDS)
            except (NotYet, TimeoutError):
                self._go_on(until, KafkaException(KafkaError(KafkaError._TIMED_OUT)))

    def _go_on(self, until: float, error: KafkaException) -> None:
        """Wait on; raises where that has no sense any more."""
        if self._aborted.is_set():
            raise Aborted
        if time.monotonic() > until or not _passes(error.args[0]):
            raise error

    def _error(self, error: KafkaError) -> None:
        if is_unreachable(error) or error.code() in _BLOCKING:
            self.unreachable = error


def _commit(consumer: Consumer, offsets: Mapping[Place, tuple[int, str]]) -> None:
    told = [TopicPartition(*place, at, topic_id) for place, (at, topic_id) in offsets.items()]
    for one in consumer.commit(offsets=told, asynchronous=False) or ():
        if one.error is not None:
            raise KafkaException(one.error)


def _commit_at_last(consumer: Consumer, offsets: Mapping[Place, tuple[int, str]]) -> None:
    """Before the partitions are another's: while the group is about to divide them, it takes no commits for a moment."""
    until = time.monotonic() + CLOSE_SECONDS
    while True:
        try:
            _commit(consumer, offsets)
            return
        except KafkaException as error:
            if time.monotonic() > until or not _passes(error.args[0]):
                raise
        time.sleep(AGAIN_SECONDS)


def _passes(error: KafkaError) -> bool:
    """Whether it may go away by itself."""
    return error.retriable() or is_unreachable(error) or error.code() in _PASSING


_PASSING = {
    KafkaError._TIMED_OUT, KafkaError._WAIT_COORD, KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION,
    KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError._STATE,
}  # fmt: skip
_BLOCKING = {KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED}


def _partitions(offsets: Mapping[Place, int | None]) -> list[TopicPartition]:
    return [TopicPartition(*place, OFFSET_BEGINNING if at is None else at) for place, at in offsets.items()]


def _places(places: Iterable[Place]) -> list[TopicPartition]:
    return [TopicPartition(*place) for place in places]
