"""A batch is a transaction, and the position is a record in it: each message is in the topic once, or not yet.

The sidecar's id, in `state_dir`, is the producer's transactional id and the key of its positions. A producer that begins with that id shuts out
all who had it before, and what they had begun is undone; then the positions are read. What is committed is in them, and nothing else.

A position may stand behind the transactions of other sidecars that are still open: readers of what is committed stop there. So it is
read up to where the topic ended once ours were over, however long the others take.

- A producer whose beginning has no answer is asked again, never replaced: the request that is under way would shut its successor out.
- A commit without an answer is asked for again until the time is over. After that the producer is replaced, and the positions tell.
- A producer that was shut out looks who did it. A late request of our own: it begins again. Another sidecar that wrote a position:
  two run on copies of one journal, and it stays shut out.

All of it blocks, and runs in one thread, but for `abort`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from threading import Event
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Producer
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from wafermon.backends.kafka.options import CLIENT, SETTINGS, KafkaOptions
from wafermon.backends.kafka.positions import Known, Positions
from wafermon.backends.kafka.records import headers_of, keys_of
from wafermon.backends.kafka.topics import Topics
from wafermon.backends.threaded.identity import identity
from wafermon.files import Files
from wafermon.interfaces import (
    BackendContext,
    Batch,
    PermanentError,
    Position,
    PositionMoved,
    Refused,
    RetryableError,
)
from wafermon.model.lograte import LogRate
from wafermon.net.kafka import in_words, is_unreachable, logger

SLICE_SECONDS = 0.5
"""How long the library waits at a time, and so what a close waits for it."""
UNREACHABLE_SECONDS = 2.0
"""How long it is tried while no broker can be reached, before the delivery is told."""
ABORT_SECONDS = 5.0
"""For undoing, where the time is over."""
TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE)
NEVER = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD}
"""What a broker answers of messages that it will not take, however often they come."""
_SHUT_OUT = {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}


class State(Enum):
    """Of the producer."""

    ABSENT = "absent"
    BEGINNING = "beginning"
    """Its beginning is under way, or has no answer yet."""
    BEGUN = "begun"
    """It has shut out all others. The positions are not read yet."""
    READY = "ready"
    DOUBTFUL = "doubtful"
    """It is not known how its transaction ended, or it can't go on."""


class KafkaStore:
    """See the module."""

    exactly_once = True
    log = Logger()

    def __init__(
        self,
        options: KafkaOptions,
        context: BackendContext,
        waiting: dict[str, Producer],
        files: Files | None = None,
    ) -> None:
        """`waiting` is kept over closes: producers whose beginning has no answer yet, by id."""
        self.figures: Mapping[str, float] = {"transactions": 0, "records": 0, "line_bytes": 0}
        self._options = options
        self._context = context
        self._files = files or Files()
        self._waiting = waiting
        self._target = f"kafka {options.brokers[0]}, topic {options.topic}"
        self._id = ""
        self._producer: Producer | None = None
        self._state = State.ABSENT
        self._writers: set[str] = set()
        """What stands beside positions that are ours."""
        self._writer = secrets.token_hex(8)
        self._shut_out = False
        self._position: Position | None = None
        self._known = False
        """Whether the positions were read."""
        self._closing = Event()
        self._unreachable: KafkaError | None = None
        self._failed: list[KafkaError] = []
        """Of messages that were refused or not stored; told while the library is polled."""
        self._logged = LogRate(context.reactor.seconds)
        common = {**CLIENT, **options.options, "bootstrap.servers": ",".join(options.brokers), "error_cb": self._error}
        self._client = {**common, "logger": logger(context.name, self._say)}
        self._topics = Topics(self._client, options, self._target)
        self._positions = Positions(self._client, options.positions_topic, self._target)

    # -- what the backend calls

    def open(self) -> Position | None:
        """Where the next batch begins. Raises RetryableError or OSError."""
        self._begin(self._deadline())
        return self._position

    def write(self, batch: Batch) -> None:
        """Raises RetryableError, PermanentError, Refused or OSError."""
        until = self._deadline()
        if self._state is not State.READY:
            before = self._position
            self._begin(until)
            if self._position == batch.end and before != batch.end:
                return  # the reply was lost
            if self._position != before:
                raise PositionMoved(f"{self._target} holds all up to {self._position}")
        self._store(batch, until)
        self._position = batch.end
        figures = self.figures
        self.figures = {
            "transactions": figures["transactions"] + 1,
            "records": figures["records"] + batch.count,
            "line_bytes": figures["line_bytes"] + len(batch.raw),
        }

    def abort(self) -> None:
        self._closing.set()

    def close(self) -> None:
        self._topics.close()
        if self._producer is not None and self._state is State.BEGINNING:
            self._waiting[self._id] = self._producer
            self._producer = None
        self._drop()

    # -- the beginning

    def _begin(self, until: float) -> None:
        if self._state is State.DOUBTFUL:
            self._drop()
            self._topics.forget()  # the library does not tell a topic that was deleted from a broker that is slow
        if not self._id:
            self._id = f"wafermon-{identity(self._files, self._context)}-{self._context.name}"
        if self._state is State.READY:
            return
        self._topics.ensure(partial(self._waits, until))
        if self._shut_out:
            self._look_who(until)
        if self._producer is None:
            self._producer = self._waiting.pop(self._id, None) or self._make()
            self._state = State.BEGINNING
        if self._state is State.BEGINNING:
            self._shut_out_others(self._producer, until)
            self._state = State.BEGUN
        found = self._positions.read(self._id, partial(self._waits, until))
        self._position = found.position if found else None
        self._writers |= {self._writer, found.writer if found else ""}
        self._shut_out = False
        self._state = State.READY

    def _shut_out_others(self, producer: Producer, until: float) -> None:
        try:
            self._each(producer.init_transactions, until)
        except KafkaException as error:
            said = _error_of(error)
            if said.fatal() or said.code() == KafkaError._STATE:
                self._state = State.DOUBTFUL
            raise self._failure(error) from error

    def _look_who(self, until: float) -> None:
        """Another one with this id has begun since. Raises RetryableError where it has written as well."""
        found = self._positions.read(self._id, partial(self._waits, until))
        if found is not None and found.writer not in self._writers:
            raise RetryableError(
                f"{self._target}: another sidecar writes as {self._id}: two run on copies of one journal. Stop one of them and run "
                "`wafermon journal renew DIR` for it; then restart the other"
            )

    def _make(self) -> Producer:
        longest = max(10, int(self._context.timeout)) * 1000
        config = {
            **SETTINGS, "transaction.timeout.ms": longest, "compression.type": self._options.compress,
            **self._client, "transactional.id": self._id, "on_delivery": self._delivered,
        }  # fmt: skip
        self._failed = []
        try:
            return Producer(config)
        except KafkaException as error:
            raise self._failure(error) from error

    def _drop(self) -> None:
        # Its `close` would wait for a transaction that can't end. What it releases here ends with its last reference.
        self._producer, self._state = None, State.ABSENT

    # -- one transaction

    def _store(self, batch: Batch, until: float) -> None:
        producer = self._producer
        assert producer is not None
        self._failed.clear()
        try:
            producer.begin_transaction()
            refused = self._produce(producer, batch, until)
            if refused:
                self._undo(producer, until)
                raise (
                    PermanentError(next(iter(refused.values())), "too_large")
                    if len(refused) == batch.count
                    else Refused(refused, "too_large")
                )
            known = Known(batch.end, self._writer)
            producer.produce(self._options.positions_topic, known.written(), self._id, 0)
            self._each(producer.commit_transaction, until)
        except KafkaException as error:
            raise self._after(producer, error, until) from error
        except RetryableError:
            # The time is over, or the backend is closed: the transaction may be committed yet.
            self._state = State.DOUBTFUL
            raise

    def _produce(self, producer: Producer, batch: Batch, until: float) -> dict[int, str]:
        """Hand the messages over; answers with those that are too large, and why."""
        topic, produce = self._options.topic, producer.produce
        refused: dict[int, str] = {}
        for index, (line, key, headers) in enumerate(
            zip(batch.lines, keys_of(batch.block, self._options.key), headers_of(batch.block), strict=True)
        ):
            while True:
                try:
                    produce(topic, line, key, headers=headers)
                except BufferError:
                    self._waits(until)
                    producer.poll(SLICE_SECONDS)
                    continue
                except KafkaException as error:
                    if _error_of(error).code() not in TOO_LARGE:
                        raise
                    refused[index] = f"{len(line)} bytes are more than `message.max.bytes` lets through"
                break
        return refused

    def _after(self, producer: Producer, error: KafkaException, until: float) -> Exception:
        """A transaction failed: undo it, or have the producer replaced. Answers with what to raise."""
        said = _error_of(error)
        producer.poll(0)
        refusals = [one for one in self._failed if one.code() in NEVER]
        if said.fatal() or said.code() in _SHUT_OUT:
            self._shut_out = self._shut_out or said.code() in _SHUT_OUT
            self._state = State.DOUBTFUL
            return self._failure(error)
        try:
            self._undo(producer, until)
        except (KafkaException, RetryableError):
            self._state = State.DOUBTFUL
        if refusals:
            return PermanentError(in_words(refusals[0], self._target), refusals[0].name().lower())
        return RetryableError(in_words(self._failed[0], self._target)) if self._failed else self._failure(error)

    def _undo(self, producer: Producer, until: float) -> None:
        try:
            self._each(producer.abort_transaction, max(until, time.monotonic() + ABORT_SECONDS))
        except (KafkaException, RetryableError):
            self._state = State.DOUBTFUL
            raise

    # -- waiting

    def _each(self, call: Callable[[float], Any], until: float) -> None:
        """Let the library wait, a slice at a time. Raises KafkaException, or RetryableError where it may be done yet."""
        while True:
            self._waits(until)
            try:
                call(SLICE_SECONDS)
                return
            except KafkaException as error:
                said = _error_of(error)
                if said.fatal() or said.txn_requires_abort() or not said.retriable():
                    raise
            if self._producer is not None:
                self._producer.poll(0)  # for its log and its errors

    def _deadline(self) -> float:
        self._unreachable = None
        self._began = time.monotonic()
        return self._began + self._context.timeout

    def _waits(self, until: float) -> None:
        """Raises RetryableError where no more is to be waited."""
        now = time.monotonic()
        if self._closing.is_set():
            raise RetryableError(f"{self._target}: closed meanwhile")
        if self._unreachable is not None and now - self._began > UNREACHABLE_SECONDS:
            raise RetryableError(in_words(self._unreachable, self._target))
        if now > until:
            raise RetryableError(in_words(KafkaError(KafkaError._TIMED_OUT), self._target))

    # -- what the library tells

    def _error(self, error: KafkaError) -> None:
        if is_unreachable(error) or error.code() in _BLOCKING:
            self._unreachable = error

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None and error.code() not in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            self._failed.append(error)

    def _say(self, level: str, text: str) -> None:
        cast(IReactorFromThreads, self._context.reactor).callFromThread(self._log, level, text)

    def _log(self, level: str, text: str) -> None:
        write = self.log.warn if level == "warn" else self.log.info
        name = self._context.name
        self._logged.log(
            lambda: write("{name}: librdkafka: {text}", name=name, text=text),
            lambda what: self.log.info("{name}: librdkafka: {what}", name=name, what=what),
        )

    def _failure(self, error: KafkaException) -> RetryableError:
        return RetryableError(in_words(_error_of(error), self._target))


_BLOCKING = {KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED}
"""Nothing goes on before a person has done something."""


def _error_of(error: KafkaException) -> KafkaError:
    found: KafkaError = error.args[0]
    return found
