"""A sidecar under load, everything that is done to it, and the count at the end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count as numbers
from pathlib import Path

from claims import Claim
from daemon import Daemon, until
from generator import Stream, mark
from injected import Injected
from oracle import Files, History, Store, Table, Verdict, count, drain
from proxy import Proxy
from receipts import differences, say_final

CONFIG = """
listen: ["tcp:{{port}}:interface=127.0.0.1", "unix:w.sock:mode=600"{{listen}}]
http: unix:http.sock:mode=600
reload: signal
journal: {{{{dir: journal, segment_bytes: 1MiB, max_bytes: 64MiB, spill_dir: spill}}}}
{{limits}}
backends:
  files: {{{{plugin: filesystem, path: "logs/{{{{service}}}}.jsonl", batch: {{{{age: 20ms}}}}, retry: {{{{max: 200ms}}}}}}}}
  more: {{{{plugin: filesystem, path: "more/{{{{service}}}}.jsonl", batch: {{{{age: 50ms}}}}, retry: {{{{max: 200ms}}}}}}}}
  past: {{{{plugin: history, dir: past, keep: 0, batch: {{{{age: 50ms}}}}, retry: {{{{max: 200ms}}}}}}}}
{database}
routes: [{{{{to: [{to}]}}}}]
dead_letters: {{{{dir: dead-letters}}}}
"""
DATABASE = (
    '  db: {{{{plugin: timescaledb, dsn: "{dsn}", timeout: 2s, batch: {{{{age: 20ms}}}}, retry: {{{{max: 200ms}}}}}}}}'
)
BACKENDS = ("files", "more", "past", "db")
"""In the order of the stores."""
PATIENCE = 120.0
TWISTEDS_OWN = "Could not reserve EMFILE recovery file descriptor.\n\tTraceback"
"""How Twisted itself says that there is no descriptor left; it goes on."""


def config(dsn: str = "") -> str:
    """What a Daemon fills in."""
    database = DATABASE.format(dsn=dsn) if dsn else ""
    return CONFIG.format(database=database, to="files, more, past, db" if dsn else "files, more, past")


class Scene:
    """Use it as a context manager: `loaded` from the beginning, and at the end of it everything healed and counted."""

    def __init__(self, directory: Path, dsn: str = "", stored_at: str = "", streams: int = 3, seed: int = 0) -> None:
        """`dsn` is what the sidecar reaches the database by, `stored_at` what the count does."""
        self.directory = directory
        self.dice = random.Random(seed)
        self.injected = Injected(directory)
        self.daemon = Daemon(directory, config(dsn))
        self.daemon.environ = dict(self.injected.environ)
        self.proxy = Proxy(directory / "w.sock")
        self.stores: list[Store] = [
            Files(directory / "logs"), Files(directory / "more"), History(directory / "past"),
        ]  # fmt: skip
        if stored_at:
            self.stores.append(Table(stored_at))
        self.claims: list[Claim] = []
        """Those of senders other than the streams."""
        self.streams: list[Stream] = []
        self.notes: list[str] = []
        """What faults have to say of what they did."""
        self._width = streams
        self._names = numbers(1)

    def __enter__(self) -> Scene:
        self.daemon.start()
        self.proxy.__enter__()
        self.load()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for stream in self.streams:
            stream.stop()
        self.proxy.__exit__()
        if self.daemon.process is not None:
            self.daemon.process.send_signal(signal.SIGCONT)
            self.daemon.kill()

    def load(self) -> None:
        """New streams: the first straight to the sidecar, the others through the proxy."""
        ports = [self.daemon.port] + [self.proxy.port] * (self._width - 1)
        self.running = [
            Stream(
                lambda port=port: ("127.0.0.1", port),  # type: ignore[misc]
                f"stream-{next(self._names)}",
                seed=self.dice.randrange(1 << 30),
            )
            for port in ports
        ]
        self.streams += self.running
        self.moves()

    def moves(self, *, may_die: bool = False, patience: float = PATIENCE) -> None:
        """Wait until every stream is acknowledged further than now; or, where it may die, until the sidecar has."""
        before = [stream.claim.acked for stream in self.running]
        process = self.daemon.process

        def moved() -> bool:
            self.complain()
            if may_die and process is not None and process.poll() is not None:
                return True
            return all(s.claim.acked > acked for s, acked in zip(self.running, before, strict=True))

        until(moved, "acks for every stream", patience)

    def complain(self) -> None:
        for stream in self.streams:
            assert not stream.failure, stream.failure

    def pause(self, most: float = 0.6) -> None:
        time.sleep(self.dice.uniform(0.02, most))

    # -- the sidecar's end

    def killed(self, patience: float) -> bool:
        """Whether it dies by SIGKILL within so many seconds."""
        process = self.daemon.process
        assert process is not None
        deadline = time.monotonic() + patience
        while process.poll() is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        assert process.returncode == -signal.SIGKILL, self.daemon.log()[-4000:]
        self.daemon.process = None
        return True

    def restart(self) -> None:
        """Whether it runs or not."""
        self.injected.disarm()
        if self.daemon.process is not None:
            self.daemon.kill()
        self.daemon.start()

    # -- the count

    def calm(self) -> None:
        """Nothing is broken any more."""
        self.injected.disarm()
        self.proxy.rule = lambda pair, chunk, from_client: "pass"

    def heal(self) -> None:
        """Whoever has failed goes on by himself."""
        self.calm()
        with suppress(AttributeError):
            os.kill(self.daemon.process.pid, signal.SIGCONT)  # type: ignore[union-attr]
        assert self.daemon.process is not None and self.daemon.process.poll() is None, self.daemon.log()[-4000:]
        self.moves()

    def settle(self) -> list[Verdict]:
        """Heal, drain, count. What is claimed is acknowledged then, and stored exactly once."""
        self.heal()
        for stream in self.streams:
            stream.finish()
        until(lambda: self.complain() or all(s.settled for s in self.running), "acks for everything claimed", PATIENCE)  # type: ignore[func-returns-value]
        for stream in self.running:
            stream.stop()
        until(lambda: not list((self.directory / "spill").iterdir()), "the spill files taken up", PATIENCE)
        drain(self.stores, self._mark, f"{next(self._names)}", PATIENCE)
        self._close_some()
        drain(self.stores, self._mark, f"{next(self._names)}", PATIENCE)
        verdicts = [count(store, self._claims()) for store in self.stores]
        faults = [f"{verdict.store}: {fault}" for verdict in verdicts for fault in verdict.faults]
        assert not faults, "\n".join(faults)
        assert self.daemon.letters() == []
        log = self.daemon.log().replace(TWISTEDS_OWN, "")
        assert "Traceback" not in log, log[log.find("Traceback") - 500 :][:6000]
        self._compare_receipts(verdicts)
        return verdicts

    def _close_some(self) -> None:
        """All but the first of the streams that have just ended say that this is all."""
        for stream in self.running[1:]:
            say_final(("127.0.0.1", self.daemon.port), stream.claim, stream.client)

    def _compare_receipts(self, verdicts: Sequence[Verdict]) -> None:
        """What follows the journal for them may be a moment later than the backends."""
        by_backend = dict(zip(BACKENDS, verdicts, strict=False))
        found: list[str] = []

        def same() -> bool:
            found[:] = differences(self._claims(), by_backend, self.directory / "http.sock")
            return not found

        with suppress(AssertionError):
            until(same, "receipts as the count", 30)
        assert not found, "\n".join(found)

    def _claims(self) -> Iterable[Claim]:
        return [*(stream.claim for stream in self.streams), *self.claims]

    def _mark(self, service: str) -> None:
        mark(("127.0.0.1", self.daemon.port), service)
