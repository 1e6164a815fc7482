"""Messages in a topic of Kafka, a transaction a batch: each exactly once. Over confluent-kafka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from wafermon.interfaces import BackendContext, ConfigError, Fault, IBackend, IBackendFactory
from wafermon.model.kafka import MISSING, is_there
from wafermon.model.settings import BatchLimits

if TYPE_CHECKING:
    from wafermon.backends.kafka.options import KafkaOptions


@implementer(IBackendFactory)
class KafkaFactory:
    """`plugin: kafka`. Its library is an extra: without it in the config, it is not needed."""

    name = "kafka"
    batch = BatchLimits(messages=5000, bytes=4 << 20, age=0.2)

    def __init__(self) -> None:
        self._waiting: dict[str, Any] = {}
        """Producers whose beginning had no answer when their backend was closed, by id: the next backend goes on with them."""

    @property
    def options(self) -> type[KafkaOptions]:
        """Raises ConfigError where the library is not installed."""
        if not is_there():
            raise ConfigError([Fault("plugin", MISSING)])
        from wafermon.backends.kafka.options import KafkaOptions

        return KafkaOptions

    def examine(self, options: KafkaOptions) -> Sequence[str]:
        """What would keep it from writing. Blocks; changes nothing."""
        from wafermon.backends.kafka.examine import problems

        return problems(options)

    def build(self, options: KafkaOptions, context: BackendContext) -> IBackend:
        from wafermon.backends.kafka.store import KafkaStore
        from wafermon.backends.threaded.backend import ThreadedBackend

        return ThreadedBackend(lambda: KafkaStore(options, context, self._waiting), context)


kafka = KafkaFactory()
