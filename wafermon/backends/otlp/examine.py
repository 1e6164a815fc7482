"""Whether the receiver takes what the config sends, for `wafermon doctor`. Blocks; what it sends is empty."""

from __future__ import annotations

import time

from wafermon.backends.otlp.options import OtlpOptions
from wafermon.backends.otlp.sending import Sender
from wafermon.interfaces import PermanentError, RetryableError
from wafermon.wire.otlp.shapes import REQUESTS

SECONDS = 10.0
"""For each request."""


def problems(options: OtlpOptions) -> list[str]:
    """What is wrong, each with what to do; none where it can be used."""
    sender = Sender(options, SECONDS, time.monotonic, time.time)
    try:
        for signal in options.signals:
            sender.send(signal, sender.encode(signal, REQUESTS[signal]()))
    except (RetryableError, PermanentError) as error:
        return [f"{error}; see docs/backends/otlp.md"]
    finally:
        sender.close()
    return []
