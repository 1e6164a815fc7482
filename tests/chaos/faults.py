"""What can be done to a sidecar under load. Each fault leaves a sidecar that runs, or will by itself."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from daemon import ROOT, Client, until
from proxy import Pair
from scene import Scene

Fault = Callable[[Scene], None]
DAY = 86_400

CRASH_POINTS = {
    "append": ("write", ".segment"),
    "sync": ("sync", ".segment"),
    "ack": ("send", '"ack"'),
    "welcome": ("send", '"welcome"'),
    "seal": ("create", ".segment"),
    "checkpoint": ("write", "state.db-wal"),
    "checkpoint sync": ("sync", "state.db-wal"),
    "delete": ("remove", ".segment"),
    "reserve": ("write", "reserve"),
    "backend's lines": ("write", "/logs/"),
    "backend's sync": ("sync", "/logs/"),
    "backend's checkpoint": ("write", "backends/files"),
    "backend's checkpoint sync": ("sync", "backends/more"),
    "correlation's checkpoint": ("write", "/correlation/"),
    "correlation's rename": ("rename", "/correlation/"),
}
"""Name -> (system call, whose path or bytes hold this). The journal's own names are docs/journal.md's."""
MOMENTS = ("kill before", "kill midst", "kill after")


def kill(scene: Scene) -> None:
    """SIGKILL at any moment"""
    scene.pause()
    scene.restart()


def kill_at(point: str, moment: str, at: int = 1) -> Fault:
    """SIGKILL before, in the midst of or after the n-th call that a crash point stands for."""

    def fault(scene: Scene) -> None:
        scene.injected.arm(*CRASH_POINTS[point], moment, at=at)
        if not scene.killed(1.5):
            # Some calls come only now and then, or at the start: let it come to them on its way down and up again.
            scene.daemon.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
            process, scene.daemon.process = scene.daemon.process, None
            assert process is not None
            process.wait(60)
            with suppress(AssertionError):  # it is killed on its way up, or another fault keeps the streams from moving
                scene.daemon.start()
                scene.moves(may_die=True, patience=10)  # some calls come with a connection
        scene.notes.append(f"{point}: {scene.injected.happened}")
        scene.restart()

    return fault


def kill_somewhere(scene: Scene) -> None:
    """SIGKILL at a crash point, before, in the midst of or after a call"""
    dice = scene.dice
    kill_at(dice.choice(list(CRASH_POINTS)), dice.choice(MOMENTS), dice.choice([1, 1, 2, 3, 8]))(scene)


def stop(scene: Scene) -> None:
    """SIGTERM, and a new start"""
    scene.pause()
    assert scene.daemon.stop() == -signal.SIGTERM
    scene.daemon.start()


def freeze(scene: Scene) -> None:
    """SIGSTOP until its clients have given it up (6 s), then SIGCONT"""
    process = scene.daemon.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    time.sleep(6)
    process.send_signal(signal.SIGCONT)


def reload_storm(scene: Scene) -> None:
    """fifty SIGHUPs with another config each time, a bad one among them"""
    file = scene.directory / "wafermon.yaml"
    good = file.read_text()
    for number in range(50):
        extra = f"limits: {{max_connections: {1000 + number}}}\n" if number % 7 else "limits: {max_connections: many}\n"
        new = file.with_suffix(".new")
        new.write_text(good.replace("backends:", extra + "backends:", 1))
        new.replace(file)
        os.kill(scene.daemon.process.pid, signal.SIGHUP)  # type: ignore[union-attr]
        time.sleep(0.02)
    file.write_text(good)
    os.kill(scene.daemon.process.pid, signal.SIGHUP)  # type: ignore[union-attr]


def failing(call: str, match: str, error: int, action: str = "fail once", seconds: float = 0) -> Fault:
    """A call fails: once, or for a while."""

    def fault(scene: Scene) -> None:
        scene.injected.arm(call, match, action, error=error, at=1 if seconds else scene.dice.randrange(1, 5))
        until(lambda: scene.injected.happened, f"a {call} of {match} that fails", 30)
        time.sleep(seconds)
        scene.injected.disarm()

    return fault


def sync_fails_then_killed(scene: Scene) -> None:
    """an fdatasync of the journal fails and loses what it should have covered; SIGKILL before the group is written again"""
    scene.injected.arm("sync", ".segment", "fail once")
    until(lambda: scene.injected.happened, "an fdatasync that fails", 30)
    scene.injected.arm("write", ".segment", "kill before")
    assert scene.killed(30)
    scene.restart()


def descriptors(scene: Scene) -> None:
    """two descriptors left, and thirty clients who want one"""
    pid = scene.daemon.process.pid  # type: ignore[union-attr]
    used = max(int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()) + 1
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 2, before[1]))
    crowd = [socket.create_connection(("127.0.0.1", scene.daemon.port)) for _ in range(30)]
    time.sleep(1)
    for one in crowd:
        one.close()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def clock(days: int) -> Fault:
    """The wall clock is set by so many days, and back."""

    def fault(scene: Scene) -> None:
        scene.injected.set_clock(days * DAY)
        scene.moves()
        scene.pause(2)
        scene.moves()
        scene.injected.set_clock(0)
        scene.moves()

    return fault


def intruder(scene: Scene) -> None:
    """a second sidecar is started on the same journal"""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(scene.daemon.command, cwd=scene.directory, env=environ, capture_output=True, timeout=60)
    pid = scene.daemon.process.pid  # type: ignore[union-attr]
    assert done.returncode == 1
    assert f"is in use by process {pid}".encode() in done.stdout, done.stdout + done.stderr


def cut(scene: Scene) -> None:
    """connections to the sidecar are cut before and behind a tenth of all chunks"""

    def rule(pair: Pair, chunk: bytes, from_client: bool) -> str:
        return scene.dice.choice(["cut", "pass and cut"]) if scene.dice.random() < 0.1 else "pass"

    cuts = scene.proxy.cuts
    scene.proxy.rule = rule
    until(lambda: scene.proxy.cuts > cuts + 10, "cuts", 60)


def delay(scene: Scene) -> None:
    """every chunk to and from the sidecar is late, by up to 100 ms"""

    def rule(pair: Pair, chunk: bytes, from_client: bool) -> str:
        time.sleep(scene.dice.uniform(0, 0.1))
        return "pass"

    scene.proxy.rule = rule
    time.sleep(2)


def trickle(scene: Scene) -> None:
    """chunks come seven bytes at a time"""
    scene.proxy.rule = lambda pair, chunk, from_client: "trickle"
    time.sleep(2)


def deaf(scene: Scene) -> None:
    """acks are lost on the way until the clients give the connections up (6 s)"""
    scene.proxy.rule = lambda pair, chunk, from_client: "pass" if from_client else "drop"
    time.sleep(6)


def hostile(scene: Scene) -> None:
    """clients that end within a line, say what is no message, or say the same again"""
    address = ("127.0.0.1", scene.daemon.port)
    with suppress(OSError, AssertionError):
        client = Client(address, service="mark-hostile")
        line = client.line(1, context={"i": 1}, service="mark-hostile")
        client.send_line(line)
        client.send_line(line)
        client.socket.sendall(b'{"type":"event","service":"mark-hos')
        client.drop()


SIDECAR: dict[str, Fault] = {
    "kill": kill,
    "crash point": kill_somewhere,
    "stop": stop,
    "freeze": freeze,
    "reload storm": reload_storm,
    "journal full disk": failing("write", ".segment", errno.ENOSPC, "fail", 1.5),
    "journal write fails": failing("write", ".segment", errno.EIO),
    "journal sync fails": failing("sync", ".segment", errno.EIO),
    "journal sync fails, then killed": sync_fails_then_killed,
    "checkpoint fails": failing("write", "state.db-wal", errno.ENOSPC, "fail", 1.0),
    "backend full disk": failing("write", "/logs/", errno.ENOSPC, "fail", 1.0),
    "backend sync fails": failing("sync", "/logs/", errno.EIO),
    "backend's checkpoint fails": failing("write", "backends/files", errno.ENOSPC, "fail", 1.0),
    "no descriptors": descriptors,
    "clock a day ahead": clock(1),
    "clock a day behind": clock(-1),
    "second process": intruder,
}
NETWORK: dict[str, Fault] = {"cuts": cut, "delays": delay, "trickle": trickle, "lost acks": deaf, "hostile": hostile}
