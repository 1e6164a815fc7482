"""Whether the topics can be used, for `wafermon doctor`. Blocks."""

from __future__ import annotations

import time

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from wafermon.backends.kafka.options import KafkaOptions
from wafermon.net.kafka import in_words

SECONDS = 10.0


def problems(options: KafkaOptions) -> list[str]:
    """What is wrong, each with what to do; none where they can be used."""
    target = f"kafka {options.brokers[0]}, topic {options.topic}"
    began = time.monotonic()
    try:
        admin = AdminClient({**options.options, "bootstrap.servers": ",".join(options.brokers), "log_level": 0})
        there = admin.list_topics(timeout=SECONDS).topics
    except KafkaException as error:
        return [f"{in_words(error.args[0], target)} (tried for {time.monotonic() - began:.0f} s)"]
    missing = [name for name in (options.topic, options.positions_topic) if name not in there]
    if missing and not options.create_topics:
        return [f"{target}: {', '.join(missing)} is not there; create it, or set `create_topics: true`"]
    return []
