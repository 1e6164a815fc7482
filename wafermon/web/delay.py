"""How late the reactor is: what every connection feels when something blocks."""

from __future__ import annotations

from collections import deque
from typing import Any

from wafermon.model.repeated import Repeated

EVERY_SECONDS = 0.25
KEPT = 120
"""The worst of so many samples is told, so that a scrape every 30 s misses none."""


class ReactorDelay:
    """Calls itself regularly and looks at how late it was called."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._due = 0.0
        self._samples: deque[float] = deque(maxlen=KEPT)
        self._loop = Repeated(reactor, self._sample)

    def start(self) -> None:
        self._due = self._reactor.seconds() + EVERY_SECONDS
        self._loop.start(EVERY_SECONDS, now=False)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    @property
    def seconds(self) -> float:
        """The longest delay of the last 30 s."""
        return max(self._samples, default=0.0)

    def _sample(self) -> None:
        now = self._reactor.seconds()
        self._samples.append(max(0.0, now - self._due))
        self._due = now + EVERY_SECONDS
