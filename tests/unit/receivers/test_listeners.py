"""The listening: what a config changes while clients are connected."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import logged
import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from wires import Sidecar

from wafermon.config import Listener
from wafermon.model.changes import CannotChange
from wafermon.receivers.lines import listeners
from wafermon.receivers.lines.listeners import Listeners


class Loop:
    """The reactor's ports, on a Clock's time."""

    def __init__(self, sidecar: Sidecar) -> None:
        self.seconds = sidecar.clock.seconds
        self.callLater = sidecar.clock.callLater

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class Scene:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sidecar = Sidecar()
        self.listeners = Listeners(self.sidecar.hub, Loop(self.sidecar))

    def unix(self, name: str, **asks: Any) -> Listener:
        return Listener(endpoint=f"unix:{self.directory / name}", **asks)

    def tokens(self, text: str) -> Path:
        path = self.directory / "tokens"
        path.write_text(text)
        path.chmod(0o600)
        return path

    def take(self, *wanted: Listener) -> None:
        self.listeners.prepare(wanted).commit()

    def connect(self, number: int = 0) -> Any:
        """A connection by the listener of that number; nobody is at the other end."""
        one = list(self.listeners._open_listeners.values())[number]
        connection = one.factory.buildProtocol(None)
        transport = StringTransport()
        connection.makeConnection(transport)
        return connection

    def hello(self, number: int = 0, **fields: Any) -> Any:
        connection = self.connect(number)
        token = f',"token":"{fields["token"]}"' if "token" in fields else ""
        connection.dataReceived(f'{{"v":2,"type":"hello","client":"{fields["client"] * 16}"{token}}}\n'.encode())
        return connection

    def reachable(self, name: str) -> bool:
        self.sidecar.clock.advance(0)  # a port is closed a turn after it is told to
        with socket.socket(socket.AF_UNIX) as end:
            try:
                end.connect(str(self.directory / name))
            except OSError:
                return False
            return True

    @property
    def open(self) -> list[str]:
        return [where for _, where in self.listeners.open]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.listeners.stop()


def test_nothing_is_served_before_the_commit_and_nothing_left_after_an_undo(scene: Scene) -> None:
    change = scene.listeners.prepare([scene.unix("a")])
    assert scene.open == []
    change.undo()
    scene.take(scene.unix("b"))
    assert scene.open == [str(scene.directory / "b")]
    assert scene.reachable("b")


def test_what_stays_in_the_config_stays_open_and_what_goes_is_closed(scene: Scene) -> None:
    scene.take(scene.unix("a"), scene.unix("b"))
    kept = scene.listeners._open_listeners[next(iter(scene.listeners._open_listeners))].port
    scene.take(scene.unix("a"), scene.unix("c"))
    assert scene.open == [str(scene.directory / "a"), str(scene.directory / "c")]
    assert next(iter(scene.listeners._open_listeners.values())).port is kept
    assert not scene.reachable("b")


def test_a_listener_that_can_not_be_opened_changes_nothing(scene: Scene) -> None:
    scene.take(scene.unix("a"))
    with pytest.raises(CannotChange, match=r"can't listen on unix:.*/absent/b: .*there is no directory"):
        scene.listeners.prepare([scene.unix("c"), scene.unix("absent/b")])
    assert scene.open == [str(scene.directory / "a")]
    assert not scene.reachable("c")
    with pytest.raises(CannotChange, match=r"unix:.*/a: token_file .*absent"):
        scene.listeners.prepare([scene.unix("a", token_file=scene.directory / "absent")])
    with pytest.raises(CannotChange, match=r"unix:.*/a: there is no user 'nosuchuser'"):
        scene.listeners.prepare([scene.unix("a", owner="nosuchuser")])
    with pytest.raises(CannotChange, match=r"unix:.*/a: there is no group 'nosuchgroup'"):
        scene.listeners.prepare([scene.unix("a", group="nosuchgroup")])


def test_a_socket_that_is_open_gets_another_mode(scene: Scene) -> None:
    path = scene.directory / "a"
    scene.take(Listener(endpoint=f"unix:{path}:mode=600"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    scene.take(Listener(endpoint=f"unix:{path}:mode=660"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert scene.open == [str(path)]


def test_what_can_not_be_changed_at_an_open_socket_is_said(scene: Scene) -> None:
    path = scene.directory / "a"
    scene.take(Listener(endpoint=f"unix:{path}:mode=600"))
    path.unlink()
    with logged.said() as said:
        scene.take(Listener(endpoint=f"unix:{path}:mode=660"))
    assert said == [f"error: unix:{path}:mode=660: No such file or directory"]


def test_who_is_inside_stays_unless_the_new_rules_refuse_it(scene: Scene) -> None:
    path = scene.tokens("first\nsecond\n")
    scene.take(scene.unix("a", token_file=path))
    first, second = (scene.hello(client=name[0], token=name) for name in ("first", "second"))
    assert first.admitted and not second.admitted, "a client is 16 of 0-9 a-f"
    second = scene.hello(client="b", token="second")
    assert second.admitted
    scene.take(scene.unix("a", token_file=path))
    assert first.admitted and second.admitted
    scene.tokens("second\nthird\n")
    scene.take(scene.unix("a", token_file=path))
    assert not first.admitted and second.admitted


def test_tokens_are_read_again_while_it_runs(scene: Scene) -> None:
    path = scene.tokens("first\n")
    scene.take(scene.unix("a", token_file=path))
    first = scene.hello(client="a", token="first")
    scene.tokens("second-token web-*\n")
    assert not scene.listeners.bind_services
    scene.sidecar.clock.advance(listeners.LOOK_SECONDS)
    assert not first.admitted
    assert scene.listeners.bind_services
    scene.tokens("third-token-here\n")
    third = scene.hello(client="c", token="third-token-here")
    assert third.admitted, "they are looked at when somebody comes, too"


def test_listeners_ask_each_for_its_own(scene: Scene) -> None:
    path = scene.tokens("first\n")
    scene.take(scene.unix("a", token_file=path), scene.unix("b"))
    assert not scene.hello(0, client="a").admitted
    inside = scene.hello(1, client="b")
    assert inside.admitted
    scene.take(scene.unix("b", token_file=path))
    assert not inside.admitted, "it came without a token"


def test_after_a_stop_nobody_comes_in(scene: Scene) -> None:
    scene.take(scene.unix("a"))
    done: list[object] = []
    stopped: Deferred[None] = scene.listeners.stop()
    stopped.addCallback(done.append)
    assert scene.open == []
    assert not scene.reachable("a")
    scene.sidecar.clock.advance(listeners.LOOK_SECONDS * 3)
    assert not os.path.exists(scene.directory / "a")
