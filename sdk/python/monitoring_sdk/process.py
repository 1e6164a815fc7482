"""What concerns the whole process: forks, whatever makes them, and exits."""

from __future__ import annotations

import atexit
import mmap
import os
import sys
import threading
import weakref
from contextlib import suppress
from typing import Any, Callable, Protocol


class SamePid:
    """Whether this is the process that made it, by its pid: what `witness` is where the kernel has nothing better."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, _: int) -> bool:
        return os.getpid() == self._pid

    def __setitem__(self, _: int, here: int) -> None:
        self._pid = os.getpid()


def witness() -> Any:
    """Something whose first item is true where it was set, and false in a forked child, however that was forked.

    A page that Linux wipes in the child costs a call a tenth of what asking for the pid does.
    """
    if sys.platform == "linux":
        with suppress(OSError, ValueError):
            page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            page.madvise(18)  # MADV_WIPEONFORK, from Linux 4.14 on
            return page
    return SamePid()


def uwsgi_may_fork() -> bool:
    """Whether this is uWSGI before its workers are forked, or its master.

    It forks with the interpreter in whichever thread has it, and a worker whose parent had it in another thread than
    the main one waits for it for ever.
    """
    uwsgi = sys.modules.get("uwsgi")
    return uwsgi is not None and getattr(uwsgi, "worker_id", os.getpid)() == 0


class _Sender(Protocol):
    """What a fork or an exit does with each sender."""

    lock: threading.RLock

    def begin_in_child(self) -> None: ...

    def close(self) -> None: ...


class _Process:
    """Forks and exits concern the process, so this knows all its senders."""

    def __init__(self) -> None:
        self._senders: weakref.WeakSet[_Sender] = weakref.WeakSet()
        self._lock = threading.RLock()
        self._held: list[Any] = []

    def add(self, sender: _Sender) -> None:
        with self._lock:
            self._senders.add(sender)

    def before_fork(self) -> None:
        """Hold the locks, so that no socket or file is half made when the child looks for what to close."""
        self._lock.acquire()
        self._held = [sender.lock for sender in list(self._senders)]
        for lock in self._held:
            lock.acquire()

    def after_fork(self) -> None:
        for lock in self._held:
            lock.release()
        self._held = []
        self._lock.release()

    def after_fork_in_child(self) -> None:
        for sender in list(self._senders):
            sender.begin_in_child()
        self.after_fork()

    def close_all(self) -> None:
        for sender in list(self._senders):
            sender.close()


def close_with_worker_process(close: Callable[[], None]) -> None:
    """A child made by multiprocessing, or by Celery's billiard, ends without the interpreter's exit handlers."""
    for name in ("multiprocessing", "billiard"):
        process, util = sys.modules.get(f"{name}.process"), sys.modules.get(f"{name}.util")
        if process and util and getattr(process.current_process(), "_parent_pid", None) is not None:
            util.Finalize(None, close, exitpriority=-100)


PROCESS = _Process()
os.register_at_fork(
    before=PROCESS.before_fork,
    after_in_parent=PROCESS.after_fork,
    after_in_child=PROCESS.after_fork_in_child,
)
atexit.register(PROCESS.close_all)
