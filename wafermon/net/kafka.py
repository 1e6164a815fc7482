"""What Kafka's client library says: its errors as what a person can do, and its log lines as ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError

from wafermon.model.errors import printable

PAGE = "docs/backends/kafka.md"
_ACLS = f"grant what {PAGE} names under ACLs"
_ADVICE: Mapping[int, str] = {
    KafkaError._ALL_BROKERS_DOWN: "see that the brokers run and can be reached from here",
    KafkaError._TRANSPORT: "see that the brokers run and can be reached from here",
    KafkaError._RESOLVE: "see that the broker's name resolves here, also the names that brokers say of each other",
    KafkaError._TIMED_OUT: "see why the brokers are slow, or raise `timeout`",
    KafkaError._SSL: "see that `ssl.ca.location` names the authority of the brokers' certificates",
    KafkaError._AUTHENTICATION: "correct `sasl.username`, `sasl.password` and `sasl.mechanism`",
    KafkaError.SASL_AUTHENTICATION_FAILED: "correct `sasl.username`, `sasl.password` and `sasl.mechanism`",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: _ACLS,
    KafkaError.GROUP_AUTHORIZATION_FAILED: _ACLS,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: _ACLS,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: _ACLS,
    KafkaError.UNKNOWN_TOPIC_OR_PART: "create the topic, or set `create_topics: true`",
    KafkaError._UNKNOWN_TOPIC: "create the topic, or set `create_topics: true`",
    KafkaError._UNKNOWN_PARTITION: "that partition is not there",
    KafkaError.NOT_ENOUGH_REPLICAS: "some brokers are down: the topic's min.insync.replicas is not met",
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND: "some brokers are down: the topic's min.insync.replicas is not met",
    KafkaError.INVALID_REPLICATION_FACTOR: "there are fewer brokers than `replication` says",
    KafkaError.POLICY_VIOLATION: "the brokers' policy refuses the topic: create it by hand",
}
_LEVELS = {"_ALL_BROKERS_DOWN", "_TRANSPORT", "_RESOLVE"}


def in_words(error: KafkaError, target: str) -> str:
    """The same whenever that happens again."""
    advice = _ADVICE.get(error.code(), "")
    said = _PLAIN.get(error.code()) or printable(KafkaError(error.code()).str())
    return f"{target}: {said} ({error.name()})" + (f"; {advice}" if advice else "")


_PLAIN: Mapping[int, str] = {
    KafkaError._ALL_BROKERS_DOWN: "no broker can be reached",
    KafkaError._TRANSPORT: "no broker can be reached",
    KafkaError._TIMED_OUT: "no answer in time",
}


def is_unreachable(error: KafkaError) -> bool:
    return error.name() in _LEVELS


class Handler(logging.Handler):
    """Hands the library's lines on; called in whichever thread polls."""

    def __init__(self, say: Callable[[str, str], Any]) -> None:
        """`say` gets a level (``warn`` or ``info``) and a text."""
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        level = "warn" if record.levelno >= logging.WARNING else "info"
        self._say(level, printable(record.getMessage()))


def logger(name: str, say: Callable[[str, str], Any]) -> logging.Logger:
    """For the library's `logger`; it belongs to nobody else."""
    made = logging.Logger(name, logging.INFO)
    made.addHandler(Handler(say))
    return made
