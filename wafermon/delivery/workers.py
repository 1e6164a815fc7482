"""Threads for what may block for ever. They never keep the process from ending."""

from __future__ import annotations

from functools import partial
from threading import Thread

from twisted.python.threadpool import ThreadPool


class Workers(ThreadPool):
    """A pool of daemon threads. `stop` waits for what they do; `leave` does not."""

    threadFactory = staticmethod(partial(Thread, daemon=True))  # type: ignore[assignment]  # it makes threads all the same

    def leave(self) -> None:
        """End the threads that do nothing. One that hangs goes on until the process ends."""
        self.joined = True
        self.started = False
        self._team.quit()
