"""Programs that use an SDK, each a driver of the conformance suite, and what is done to them."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from claims import Claim
from proxy import at_random
from scene import Scene

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "sdk" / "conformance"))

from conformance import LANGUAGES, Driver, available

__all__ = ["LANGUAGES", "PROGRAMS", "available", "programs_of"]

Fault = Callable[[Scene, str], None]
_NUMBERS = count(1)


class Program:
    """Claims what it has its SDK say. It is acknowledged where the SDK itself says so."""

    def __init__(self, scene: Scene, language: str, port: int) -> None:
        service = f"program-{language}-{next(_NUMBERS)}"
        self.claim = Claim(service, text=lambda service, number: "burst", ordered=False)
        scene.claims.append(self.claim)
        self.driver = Driver(available(language), scene.directory, WAFERMON_URL=f"tcp://127.0.0.1:{port}")
        self.driver("open", service=service, trace_id=service)

    def burst(self, messages: int, answer: bool = True) -> None:
        first = self.claim.claimed + 1
        self.claim.claimed += messages
        self.driver.post("burst", n=messages, first=first)
        if answer:
            self.driver.answer("burst")

    def settle(self) -> None:
        """Everything claimed is acknowledged."""
        assert self.driver("flush", timeout=50), self.driver.stats()
        self.claim.acked = self.claim.claimed


@contextmanager
def program(scene: Scene, language: str) -> Iterator[Program]:
    """One that has said something, over a network that cuts its connections. What was broken before is mended: a sidecar
    whose database is away has a full journal after seconds, and takes nothing then."""
    scene.calm()
    scene.proxy.rule = at_random(0.05, seed=scene.dice.randrange(1 << 30))
    one = Program(scene, language, scene.proxy.port)
    try:
        one.burst(200)
        one.settle()
        yield one
    finally:
        one.driver.done()


def killed(scene: Scene, language: str) -> None:
    """SIGKILL while it speaks"""
    for _ in range(3):
        with program(scene, language) as one:
            one.burst(800, answer=False)
            time.sleep(scene.dice.uniform(0, 0.05))
            one.driver.kill()


def stopped(scene: Scene, language: str) -> None:
    """SIGSTOP while it speaks, until any connection is given up (6 s), then SIGCONT"""
    with program(scene, language) as one:
        one.burst(800, answer=False)
        one.driver.process.send_signal(signal.SIGSTOP)
        time.sleep(6)
        one.driver.process.send_signal(signal.SIGCONT)
        one.driver.answer("burst")
        one.burst(100)
        one.settle()


def forked(scene: Scene, language: str) -> None:
    """it forks while much is on its way, and both go on"""
    with program(scene, language) as one:
        one.burst(500)
        for _ in range(3):
            first = one.claim.claimed + 1
            one.claim.claimed += 100
            one.driver("fork", calls=[{"call": "burst", "args": {"n": 100, "first": first}}])
            one.burst(100)
        one.settle()
        one.driver("close")
        one.claim.closed = True


def spawned(scene: Scene, language: str) -> None:
    """it starts programs like itself while much is on its way, which is how most languages have what a fork is to others"""
    with program(scene, language) as one:
        one.burst(500)
        for _ in range(3):
            first = one.claim.claimed + 1
            one.claim.claimed += 100
            child = [
                {"call": "open", "args": {"service": one.claim.service, "trace_id": one.claim.service}},
                {"call": "burst", "args": {"n": 100, "first": first}},
            ]
            requests = "".join(json.dumps(request) + "\n" for request in child)
            done = one.driver("spawn", argv=list(one.driver.language.argv), stdin=requests)
            answers = [json.loads(answer) for answer in done["stdout"].splitlines()]
            assert done["status"] == 0 and [answer["ok"] for answer in answers] == [True, True], done
            one.burst(100)
        one.settle()
        one.driver("close")
        one.claim.closed = True


def left(scene: Scene, language: str) -> None:
    """it ends while the sidecar is away: its spill file is taken up by the sidecar"""
    with program(scene, language) as one:
        scene.daemon.kill()
        one.burst(3000)
        one.driver("close")
        one.driver.exit()
        one.claim.acked = one.claim.claimed  # what is in a spill file is as good as acknowledged
        one.claim.closed = True
        scene.restart()


PROGRAMS: dict[str, Fault] = {
    "killed": killed,
    "stopped": stopped,
    "forked": forked,
    "spawned": spawned,
    "left": left,
}


def programs_of(language: str) -> dict[str, Fault]:
    """What can be done to a program in this language: not all can fork."""
    able = "fork" in LANGUAGES[language].can
    return {name: fault for name, fault in PROGRAMS.items() if able or name != "forked"}
