"""When Python looks for cycles among our objects: often and at a few, not whenever enough of them have gathered.

By itself it looks when so many more were made than freed since the last time. Where as many are freed as are made, as with new
traces that push out others, that difference says nothing of how many are new, and a pause is 3 to 8 ms for all clients.
"""

from __future__ import annotations

import atexit
import gc
from typing import Any

from wafermon.model.repeated import Repeated

SECONDS = 0.1
YOUNG, OLDER = 300, 10
"""After so many looks at the new objects one at those that came since the last of these, and after so many of them one at all."""


def none_at_exit() -> None:
    """While Python ends it closes what still waits, and that may run code of ours. A look at the garbage within that look ends
    Python 3.13 with a segmentation fault, so there is none."""
    atexit.register(gc.disable)


class Garbage:
    """One process's, from `start` to `stop`."""

    def __init__(self, reactor: Any) -> None:
        self._looks = 0
        self._clock = Repeated(reactor, self._look)

    def start(self) -> None:
        """What there is by now stays for good and is not looked at any more."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self._clock.start(SECONDS, now=False)

    def stop(self) -> None:
        if self._clock.running:
            self._clock.stop()
            gc.enable()
            gc.unfreeze()

    def _look(self) -> None:
        self._looks += 1
        generation = 0 if self._looks % YOUNG else 1 if self._looks % (YOUNG * OLDER) else 2
        gc.collect(generation)
