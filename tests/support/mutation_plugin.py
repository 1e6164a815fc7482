"""Lets mutmut run tests that use Twisted's reactor: pytest runs several times in one process there, and in forks of it.

The reactor can't be started twice, so it goes on from one run to the next. It polls, because a fork would share an epoll
object with its parent. In a fork it gets a waker of its own, and forgets threads that stayed with the parent.

A fork that tests a mutant has so many seconds for each test: many a mutant makes one wait for ever.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
import twisted.internet.default
from twisted.internet import pollreactor

twisted.internet.default.install = pollreactor.install
pytest_twisted.stop_twisted_greenlet = lambda: None

HANG_SECONDS = 20.0
TIMED_OUT = 36
"""What mutmut takes for a time-out."""


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    if os.environ.get("MUTANT_UNDER_TEST", "").startswith("wafermon."):
        signal.signal(signal.SIGALRM, lambda *_: os._exit(TIMED_OUT))
        signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def _after_fork() -> None:
    from twisted.internet import reactor

    forked: Any = reactor
    forked.removeReader(forked.waker)
    forked._internalReaders.discard(forked.waker)
    forked.waker = None
    forked.installWaker()
    forked.threadpool = None


os.register_at_fork(after_in_child=_after_fork)


def pytest_unconfigure() -> None:
    """Test modules are imported anew by the next run: pytest-twisted wraps hypothesis's tests in place, and once is enough."""
    for name in [name for name in sys.modules if name.split(".")[-1].startswith("test_")]:
        del sys.modules[name]
