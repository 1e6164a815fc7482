"""An edge and a central sidecar with a bad network between them and bad disks below both: each message once at central.

WAFERMON_FORWARD_ROUNDS says how many things go wrong, one after the other (`make forward`)."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from central import Central
from daemon import Daemon, Load, until
from edge import Edge
from exactly_once import check_exactly_once
from injected import Injected
from proxy import Pair, Proxy

ROUNDS = int(os.environ.get("WAFERMON_FORWARD_ROUNDS", "6"))
MOMENTS = ("kill before", "kill midst", "kill after")
POINTS = (
    ("write", ".segment"), ("sync", ".segment"), ("send", '"ack"'), ("send", '"welcome"'), ("send", '"frame"'), ("create", ".segment"),
    ("write", "state.db-wal"), ("write", "reach"), ("remove", ".segment"),
)  # fmt: skip


class Scene:
    """Both, with loads on the edge."""

    def __init__(self, directory: Path, dice: random.Random) -> None:
        self.dice = dice
        self.faults: dict[str, Injected] = {}
        for name in ("edge", "central"):
            (directory / f"{name}-faults").mkdir()
            self.faults[name] = Injected(directory / f"{name}-faults")
        self.central = Central(directory / "central")
        self.central.environ = self.faults["central"].environ
        self.proxy = Proxy(("127.0.0.1", self.central.forward_port))
        self.edge = Edge(directory / "edge", self.proxy.port)
        self.edge.environ = self.faults["edge"].environ

    def one_of(self) -> tuple[Daemon, Injected]:
        name = self.dice.choice(["edge", "central"])
        return (self.edge if name == "edge" else self.central), self.faults[name]

    # -- what goes wrong

    def kill(self) -> None:
        """At a call that matters, or at any moment where that does not come."""
        daemon, injected = self.one_of()
        injected.arm(*self.dice.choice(POINTS), self.dice.choice(MOMENTS), at=self.dice.choice([1, 1, 2, 5]))
        until_ = time.monotonic() + 2.0
        while time.monotonic() < until_ and daemon.process is not None and daemon.process.poll() is None:
            time.sleep(0.02)
        injected.disarm()
        daemon.kill()
        daemon.start()

    def stop(self) -> None:
        daemon, _ = self.one_of()
        daemon.stop()
        daemon.start()

    def full_disk(self) -> None:
        _, injected = self.one_of()
        injected.arm(
            "write", self.dice.choice([".segment", "/logs/", "state.db-wal", "reach"]), "fail", error=errno.ENOSPC
        )
        time.sleep(1.5)
        injected.disarm()

    def bad_sync(self) -> None:
        _, injected = self.one_of()
        injected.arm("sync", ".segment", "fail once", at=self.dice.choice([1, 3]))
        time.sleep(1.0)
        injected.disarm()

    def network(self) -> None:
        dice = self.dice
        what = dice.choice(["cut", "trickle", "drop replies", "delay"])

        def rule(pair: Pair, chunk: bytes, from_client: bool) -> str:
            if what == "cut":
                return dice.choice(["pass"] * 4 + ["cut", "pass and cut"])
            if what == "trickle":
                return "trickle" if dice.random() < 0.3 else "pass"
            if what == "delay":
                time.sleep(0.05)
            return "cut" if what == "drop replies" and not from_client and b'"ack"' in chunk else "pass"

        self.proxy.rule = rule
        time.sleep(2.0)
        self.proxy.rule = lambda pair, chunk, from_client: "pass"

    def away(self) -> None:
        with self.central.down():
            time.sleep(1.0)


def more(loads: list[Load], before: int) -> bool:
    return sum(one.acked for one in loads) > before


def alike(paths: list[Path]) -> bool:
    return len({path.stat().st_size for path in paths}) == 1


def test_each_message_is_once_at_central(tmp_path: Path) -> None:
    seed = int(os.environ.get("WAFERMON_FORWARD_SEED", "24"))
    scene = Scene(tmp_path, random.Random(seed))
    wrongs: list[Callable[[], None]] = [
        scene.kill,
        scene.stop,
        scene.full_disk,
        scene.bad_sync,
        scene.network,
        scene.away,
    ]
    with scene.proxy, scene.central, scene.edge:
        loads = [Load(scene.edge, number) for number in range(3)]
        for round_ in range(ROUNDS):
            wrong = wrongs[round_] if round_ < len(wrongs) else scene.dice.choice(wrongs)
            before = sum(one.acked for one in loads)
            wrong()
            until(partial(more, loads, before), f"more messages after {wrong.__name__}")
        for one in loads:
            one.join()
        assert check_exactly_once(scene.central, loads) > 0
        for one in loads:
            there = [(sidecar.directory / "logs" / f"{one.service}.jsonl") for sidecar in (scene.edge, scene.central)]
            until(partial(alike, there), "the same at both ends")
            assert there[0].read_bytes() == there[1].read_bytes()
        assert scene.central.letters() == []
