"""The Go SDK over TLS with certificates on both sides, against the real daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority
from daemon import Daemon, until
from drivers import Driver
from ports import free_port


class Place:
    """A daemon whose TLS listener asks for client certificates, and what a client has to know of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        port = free_port()
        ours, self.clients = Authority(directory, "ours"), Authority(directory, "clients")
        ours.issue("server", server=True)
        endpoint = f"'tls:{port}:interface=127.0.0.1', certificate: server.pem, key: server.key"
        self.daemon = Daemon(directory, listen=f", {{endpoint: {endpoint}, client_ca: clients-ca.pem}}")
        self.variables = {
            "WAFERMON_URL": f"tls://localhost:{port}",
            "WAFERMON_TLS_CA": str(ours.path),
            "WAFERMON_TLS_CERT": str(directory / "client.pem"),
            "WAFERMON_TLS_KEY": str(directory / "client.key"),
        }

    def driver(self) -> Driver:
        return Driver("go", self.directory, **self.variables)

    def numbers(self) -> list[int]:
        """Of the messages that are stored, in order of their numbers."""
        return sorted(line["context"]["i"] for line in self.daemon.stored("over-tls") if line.get("message") == "burst")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    place.daemon.start()
    yield place
    if place.daemon.process is not None:
        place.daemon.stop()


def test_nothing_is_lost_when_the_sidecar_is_killed(place: Place) -> None:
    place.clients.issue("client")
    with place.driver() as driver:
        driver("open", service="over-tls")
        driver("burst", n=3000)
        until(lambda: driver.stats()["state"] == "connected", "the first welcome")
        place.daemon.kill()
        driver("burst", n=3000, first=3000)
        place.daemon.start()
        assert driver("flush", timeout=30)
        stats = driver.stats()
        assert (stats["acked"] + stats["handed_over"], stats["dropped"], stats["reconnects"]) == (6000, 0, 1)
        until(lambda: place.numbers() == list(range(6000)), "each message once")
    assert driver.said() == []


def test_a_certificate_that_comes_later_is_used_without_a_restart(place: Place) -> None:
    with place.driver() as driver:
        driver("open", service="over-tls")
        driver("burst", n=20)
        until(driver.said, "a line on stderr")
        assert driver.stats()["acked"] == 0
        place.clients.issue("client")
        assert driver("flush", timeout=30)
        until(lambda: place.numbers() == list(range(20)), "each message once")
    [line] = driver.said()
    assert "WAFERMON_TLS_CERT" in line
