"""The one thread that brings messages to the sidecar, and the inbox that calls fill.

It looks into the inbox every few milliseconds while there is work, and is woken by a call only after it has gone to
sleep, since waking it costs more than the call itself. Nothing that it does with a socket blocks.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any, Callable

from .encoding import BODY_MAX, EVENT, STATS, encode, to_json
from .peer import Peer
from .process import close_with_worker_process, uwsgi_may_fork, witness
from .spill import SpillFile, Spool
from .stream import NEVER, Stream, farewell, in_thread
from .trace import NOWHERE
from .usage import Usage

BUFFER = 1000  # messages that may wait to be sent
_BYTES = 4 << 20  # and their bytes; as many again may be sent and unacknowledged
# Seconds that a burst at the very start may wait for the first welcome before it spills; seconds after a message until
# a stats line tells of it.
_GRACE = 0.1
_STATS = 5.0
# How often a busy sender looks at everything; so often in vain, and it dozes while acks are to come, or sleeps.
_TICK = 0.005
_IDLE_TICKS = 10
_DOZE = 0.05
_SLEEP = 1.0
_CALM = 1.0  # before it begins to work while uWSGI may fork
# It encodes so many messages before others get the interpreter. An inbox longer than that makes callers let it run, by
# naps, again and again, at most so long a call.
_PORTION = 96
_LONG = 256
_NAP = 0.00005
_NAP_MAX = 0.0006


class Sender:
    """What brings messages to the sidecar: an inbox that calls fill, and the one thread that empties it.

    It does not know the MonitoringSDK that it works for, so that one that is dropped can be closed.
    """

    def __init__(self, service: str, peer: Peer, buffer: int, spill_dir: str | None) -> None:
        self.service = service
        self.peer = peer
        self._buffer_max = buffer
        self._spill_dir = spill_dir
        # calls are checked and counted, nothing is opened; or it is closed
        self.over = os.environ.get("WAFERMON_DISABLED", "").lower() not in ("", "0", "false", "no")
        self.inbox: deque[tuple[Any, ...]] = deque()
        self.here = witness()
        self._children: dict[int, int] = {}  # pid, and the thread that begins anew there
        self.begin()

    def begin(self) -> None:
        """What a forked child has anew, locks included: the parent's may be held by a thread that is not here."""
        host = to_json(socket.gethostname())
        self.origin = f',"service":"{self.service}","host":{host},"pid":{os.getpid()}'
        # Held by the thread that touches sockets, files and counts; by callers only for a moment. A signal may come in
        # between anywhere, so there is no lock here that a thread could not take again, and no Event, which has one.
        self.lock = threading.RLock()
        self._refusing = threading.RLock()
        self._bell = threading.Lock()  # free: somebody has rung
        self._bell.acquire()
        self._permits = [True]  # to start the thread
        self._thread: threading.Thread | None = None
        self.inbox.clear()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        # an inbox longer than the mark makes a call do more than append: wake the sender, wait for it, or drop
        self.mark = 0
        self._taken = self._refused = self._reported = self._quiet = 0
        self.counts = dict.fromkeys("sent acked rejected dropped spilled handed_over resent".split(), 0)
        self.main = Stream(self, os.urandom(8).hex())
        self._spool = Spool(self._spill_dir, self.service)
        self._streams = [self.main]  # and the courier of a spill file
        self._started = 0.0
        self._close_at = self._tell_at = NEVER
        self._final = -1  # the seq of a final stats line
        self.usage = Usage()
        self.here[0] = 1  # last: from here on other threads may use it

    def begin_in_child(self) -> None:
        """Close what the parent goes on using, without telling the other side, and start empty."""
        if self._children.setdefault(os.getpid(), threading.get_ident()) != threading.get_ident():
            while not self.here[0]:  # another thread of the child is at it
                time.sleep(0.001)
            return
        for sock in [sock for stream in self._streams for sock in (stream.sock, stream.dialing) if sock]:
            sock.close()
        for file in self._files():
            os.close(file.fd)
        self.begin()

    # -- the calls' side --

    def attend(self) -> None:
        """The rare end of a call: the sender sleeps or has not begun, or its inbox is long, or there is none."""
        if self.over:
            self._refuse()
        elif not self.mark:
            self._rouse()
        elif len(self.inbox) > _LONG:
            # the interpreter would let a busy caller run for 5 ms, enough for thousands of calls
            give_up = time.monotonic() + _NAP_MAX
            while len(self.inbox) > _LONG and time.monotonic() < give_up:
                time.sleep(_NAP)
            if len(self.inbox) > _LONG:
                self.wake()
            if len(self.inbox) > _LONG + 2 * max(self._buffer_max, BUFFER):
                self._refuse(len(self.inbox) - 1)  # the sender is stuck, most likely in a write to a dead disk

    def stats(self) -> dict[str, Any]:
        """The state and the counts; called = acked + rejected + dropped + waiting + handed_over."""
        if not self.here[0]:
            self.begin_in_child()
        self._until(lambda: not self.inbox or not self._thread, 0.05)  # what was called before is where it belongs
        with self.lock, self._refusing:
            if self.over:
                self._refuse()
            state = "connected" if self.main.up else "disconnected"
            if self._full() and not self.over:
                state = "overflow"
            stats = {"state": state, "called": self._called(), **self.counts}
            stats["waiting"] = len(self.inbox) + self._kept()
            stats["dropped"] = self._dropped()
            stats["reconnects"] = max(0, self.main.welcomes - 1)
            return stats

    def flush(self, timeout: float) -> bool:
        if not self.here[0]:
            self.begin_in_child()
        return self._until(lambda: not self.inbox and not self._kept(), timeout)

    def close(self, timeout: float = 2.0) -> None:
        if not self.here[0]:
            self.begin_in_child()
        with self.lock:
            if self.over:
                return
            self._close_at = min(self._close_at, time.monotonic() + timeout)
            self.over = not self._thread and not self.inbox
        if self.over:
            return
        self._rouse()
        if self._thread:
            self._thread.join(timeout + 1.0)
        else:
            self._run()  # no thread could be started: the interpreter is on its way out

    def abandon(self) -> None:
        """Close in the background: nobody has a hold of the SDK any more."""
        if self.here[0]:
            self._close_at = min(self._close_at, time.monotonic() + 2.0)
            self.wake()

    def wake(self) -> None:
        with suppress(RuntimeError):  # it has been rung already
            self._bell.release()

    def _rouse(self) -> None:
        """See to it that the thread runs, and is awake."""
        self.mark = _LONG
        if self._thread or self.over:
            self.wake()
            return
        with suppress(IndexError):  # another thread, or a signal handler in between, has the permit
            self._permits.pop()
            self._started = time.monotonic()
            self._thread = in_thread("wafermon-sender", self._run)
            if not self._thread:
                self._permits.append(True)
            close_with_worker_process(self.close)

    def _until(self, settled: Callable[[], bool], timeout: float) -> bool:
        """Keep the sender at work until then, for so many seconds at most; whether it got there."""
        deadline = time.monotonic() + timeout
        while not settled():
            if self.over or time.monotonic() >= deadline:
                return False
            self._rouse()
            time.sleep(0.001)
        return True

    def _refuse(self, leave: int = 0) -> None:
        """Drop the newest messages of the inbox."""
        with self._refusing, suppress(IndexError):
            while len(self.inbox) > leave:
                self.inbox.pop()
                self._refused += 1

    def _called(self) -> int:
        return self._taken + len(self.inbox) + self._refused

    def _dropped(self) -> int:
        return self.counts["dropped"] + self._refused

    def _kept(self) -> int:
        """Messages that the sender has taken and not yet settled."""
        with self.lock:
            in_files = sum([file.count for file in self._spool.files])
            return len(self._waiting) + in_files + sum([stream.kept for stream in self._streams])

    def _full(self) -> bool:
        return len(self._waiting) >= self._buffer_max or self._waiting_bytes + BODY_MAX >= _BYTES

    # -- the thread's side --

    def _run(self) -> None:
        # an application may have given SIGPIPE its deadly default back
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])
        farewells: list[socket.socket] = []
        self._keep_calm()
        while not self.over:
            try:
                with self.lock:
                    moved = self._tick(time.monotonic())
                    farewells = self._finish(time.monotonic())
                if moved and self.inbox:
                    time.sleep(_NAP)  # let the callers have the interpreter
                elif not self.over:
                    self._wait(moved)
            except Exception as error:  # the sender must live: without it nothing is delivered, nor spilled
                self.peer.say(f"internal error: {error!r}")
                time.sleep(0.1)
        for sock in farewells:
            farewell(sock, self._close_at)

    def _keep_calm(self) -> None:
        """Before work is begun in a uWSGI that may fork at any moment, let it: who waits or closes rings the bell."""
        if uwsgi_may_fork() and self._close_at == NEVER:
            self._bell.acquire(timeout=_CALM)

    def _tick(self, now: float) -> int:
        """One look at everything; how many messages were taken from the inbox."""
        main = self.main
        main.connect(now)
        if main.up and self._dropped() > self._reported:
            count = self._dropped() - self._reported
            self._reported = self._dropped()
            fields = ("warning", f"{count} messages dropped", {"kind": "dropped", "count": count})
            main.number(self._encoded((EVENT, time.time_ns(), NOWHERE, *fields)))
        self._advance()
        count = min(len(self.inbox), _PORTION)
        if not main.welcomes and not main.failures and now < self._started + _GRACE:
            count = min(count, self._buffer_max - len(self._waiting))
        overflow: list[bytes] = []
        for _ in range(count):
            body = self._encoded(self.inbox.popleft()) if self.inbox else b""
            if body and self._full():
                overflow.append(body)
            elif body:
                self._waiting.append(body)
                self._waiting_bytes += len(body)
                self._advance()
        self._spilled(self._spool.write(overflow), len(overflow))
        if now >= self._tell_at and main.up and "stats" in main.offered:
            self._tell()
        main.pump(now)
        self._deliver_spill(now)
        return count

    def _advance(self) -> None:
        """Number what waits, as far as the window has room for it."""
        while self.main.up and self._waiting and self.main.window_bytes < _BYTES:
            body = self._waiting.popleft()
            self._waiting_bytes -= len(body)
            self.main.number(body)

    def _spilled(self, written: int, wanted: int) -> None:
        self.counts["spilled"] += written
        self.counts["dropped"] += wanted - written

    def _encoded(self, entry: tuple[Any, ...]) -> bytes:
        kind, ts, scope, *values = entry
        self._taken += 1
        if self._tell_at == NEVER:
            self._tell_at = time.monotonic() + _STATS
        try:
            return encode(kind, ts // 1000, self.origin + scope.text, values)
        except Exception as error:
            self.peer.say(f"a message could not be encoded: {error!r}")
            self.counts["dropped"] += 1
            return b""

    def _tell(self, final: bool = False) -> None:
        """Number a line that tells the sidecar what this SDK has sent, so that it can judge what is missing."""
        streams = [{"client": client, "last": last} for client, last in self._spool.streams.items()]
        unsent = len(self.inbox) + len(self._waiting)
        values = [self._called(), self._dropped(), unsent, self.main.seq, streams, final or None]
        self.main.number(encode(STATS, time.time_ns() // 1000, self.origin, values), 0)
        self._tell_at = NEVER
        if final:
            self._final = self.main.seq

    def _deliver_spill(self, now: float) -> None:
        """While connected, send closed spill files one by one, each over a connection of its own."""
        if self.main.up and len(self._streams) == 1:
            self._spool.writing = self._spool.writing and self._full()
            if len(self._spool.files) > self._spool.writing:
                file = self._spool.files.popleft()
                if file.claim():
                    self._streams.append(Stream(self, file.client, file))
                else:
                    self.counts["handed_over"] += file.count
                    os.close(file.fd)
        for courier in self._streams[1:]:
            if self.main.up:
                courier.connect(now)
            courier.pump(now)
            if courier.file and not courier.window:
                courier.lose()
                courier.file.leave(remove=True)
                self._streams.pop()

    def _wait(self, moved: int) -> None:
        """Until the next tick while there is work, else until something happens."""
        self._quiet = 0 if moved else self._quiet + 1
        pause = _TICK
        asleep = self._quiet >= _IDLE_TICKS and self._close_at == NEVER
        if asleep:
            self.mark = 0
            pause = min(_DOZE if self.main.sock and self._kept() else _SLEEP, self.main.retry_at - time.monotonic())
        # a call that came before it could see the mark did not ring
        if self.mark or not self.inbox:
            self._bell.acquire(timeout=max(0.0, pause))
        self.mark = _LONG
        if asleep:
            self._keep_calm()

    def _finish(self, now: float) -> list[socket.socket]:
        """When it is time to close, be over: leave the rest in a spill file; the sockets to say farewell to."""
        main = self.main
        if self._close_at == NEVER:
            return []
        silent = not self._called() or main.seq == self._final  # there is nothing to tell
        if main.up and "stats" in main.offered and not silent and not self.inbox and not self._waiting:
            self._tell(final=True)
            main.pump(now)
        owing = self.inbox or self._kept() or main.window
        if owing and (main.up or not main.failures) and now < self._close_at:
            return []
        self.over = True
        self.mark = 0
        farewells = [stream.sock for stream in self._streams if stream.sock]
        for stream in self._streams:
            stream.forget()
        while self._waiting or self.inbox:
            body = self._waiting.popleft() if self._waiting else self._encoded(self.inbox.popleft())
            if body:
                main.number(body)
        if self._called() and main.seq != self._final and (not main.welcomes or "stats" in main.offered):
            self._tell(final=True)
        self._leave()
        return farewells

    def _leave(self) -> None:
        """Give what is unsettled to the sidecar, in files."""
        main = self.main
        calls = [count for _, _, count in main.window]
        written = self._spool.leave(main.client, [line for _, line, _ in main.window])
        left = sum(calls[:written])
        self._spilled(left, sum(calls))
        main.window.clear()
        main.kept = 0
        self.counts["handed_over"] += left + self._kept()
        for file in self._files():
            file.leave()
        self._spool.files.clear()
        self._streams = [main]

    def _files(self) -> list[SpillFile]:
        return [*self._spool.files, *[stream.file for stream in self._streams if stream.file]]
