"""SIGTERM: the listening first, then acks for what is in, then the backends for a while, the journal last. And whatever ends
the process between two of these, everything is stored exactly once after the next start."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from daemon import CONFIG, Client, Daemon, Load, until
from exactly_once import check_exactly_once

POINTS = ["listening closed", "connections ended", "correlation saved", "backends closed", "journal closed"]
CHILD = """
import os, signal, sys
from pathlib import Path
from twisted.internet import reactor
from twisted.logger import globalLogBeginner, textFileLogObserver
from wafermon.backends import find_plugins
from wafermon.config import load
from wafermon.daemon.sidecar import Sidecar

def probe(point):
    if point == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)

globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
plugins = find_plugins()
config = load(Path("wafermon.yaml"), plugins=plugins.factories, environ=os.environ)
sidecar = Sidecar(config, plugins, reactor, probe=probe)
reactor.callWhenRunning(sidecar.startService)
reactor.addSystemEventTrigger("before", "shutdown", sidecar.stopService)
reactor.run()
"""


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_in_any_phase_of_a_stop_under_load(tmp_path: Path, point: str) -> None:
    daemon = Daemon(tmp_path)
    ordinary, daemon.command = daemon.command, [sys.executable, "-c", CHILD, point]
    with daemon:
        loads = [Load(daemon, number) for number in range(3)]
        time.sleep(1)
        assert daemon.stop() == -signal.SIGKILL
        assert all(load.acked for load in loads)
        daemon.command = ordinary
        daemon.start()
        time.sleep(0.5)
        for load in loads:
            load.join()
        assert check_exactly_once(daemon, loads) > 100
        assert daemon.letters() == []
    assert "Traceback" not in daemon.log()


def test_what_is_in_is_acknowledged_before_the_connection_ends(daemon: Daemon) -> None:
    for _ in range(5):
        client = daemon.client()
        client.send(range(1, 2001))
        daemon.stop()
        acked = 0
        while reply := client.reply():
            assert reply["type"] == "ack"
            acked = reply["seq"]
        daemon.start()
        again = daemon.client(client=client.client)
        assert again.welcome["acked"] == acked
        if acked < 2000:
            again.send(range(acked + 1, 2001))
            again.until_acked(2000)
        stored = until(lambda client=client: of(daemon, client) if len(of(daemon, client)) >= 2000 else None)  # type: ignore[misc]
        assert stored == list(range(1, 2001))


def of(daemon: Daemon, client: Client) -> list[int]:
    return [line["seq"] for line in daemon.stored() if line["client"] == client.client]


def test_the_listeners_close_first(tmp_path: Path) -> None:
    blocked = CONFIG.replace('"logs/{{service}}.jsonl"', '"/dev/null/{{service}}.jsonl"')
    with Daemon(tmp_path, blocked) as daemon:
        client = daemon.client()
        client.send(range(1, 11))
        client.until_acked(10)
        assert daemon.process is not None
        stopping = threading.Thread(target=daemon.process.wait)
        stopping.start()
        begun = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        assert client.reply() == {}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", daemon.port))
        assert stopping.is_alive(), "the backend has its time"
        stopping.join(30)
        assert 4 < time.monotonic() - begun < 20, "and no more than that"
        assert "keeps what is pending for the next start" in daemon.log()
        (tmp_path / "wafermon.yaml").write_text(CONFIG.format(port=daemon.port, listen="", limits=""))
        daemon.start()
        until(lambda: len(daemon.stored()) == 10, "what was left over")


def test_a_second_signal_changes_nothing(daemon: Daemon) -> None:
    client = daemon.client()
    client.send(range(1, 1001))
    assert daemon.process is not None
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
        daemon.process.send_signal(number)
    assert daemon.process.wait(30) in (0, -signal.SIGTERM)
    daemon.start()
    client = daemon.client(client=client.client)
    if client.welcome["acked"] < 1000:
        client.send(range(client.welcome["acked"] + 1, 1001))
        client.until_acked(1000)
    until(lambda: len(daemon.stored()) == 1000)


def test_a_stop_takes_no_time_where_nothing_is_left_to_do(daemon: Daemon) -> None:
    client = daemon.client()
    client.send(range(1, 11))
    client.until_acked(10)
    client.close()
    for _ in range(2):
        begun = time.monotonic()
        daemon.stop()
        assert time.monotonic() - begun < 4
        daemon.start()
