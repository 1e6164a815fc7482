"""The C SDK over TLS (make TLS=1), against the real daemon; also under the sanitizers, where OpenSSL meets threads and forks."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from certificates import DAY, Authority
from daemon import Daemon, until
from drivers import Driver
from ports import free_port

BUILDS = ["c-tls-asan", "c-tls-tsan"]


class Place:
    """A daemon with a TLS listener, its authorities, and what a client has to know of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.ours, self.clients, self.foreign = (Authority(directory, name) for name in ("ours", "clients", "foreign"))
        self.ours.issue("server", server=True)
        self.clients.issue("client")
        self.listen(mutual=True)
        self.variables = {
            "WAFERMON_URL": f"tls://localhost:{self.port}",
            "WAFERMON_TLS_CA": str(self.ours.path),
            "WAFERMON_TLS_CERT": str(directory / "client.pem"),
            "WAFERMON_TLS_KEY": str(directory / "client.key"),
        }

    def listen(self, *, mutual: bool) -> None:
        """Of the daemon's next start."""
        more = ", client_ca: clients-ca.pem" if mutual else ""
        endpoint = f"'tls:{self.port}:interface=127.0.0.1', certificate: server.pem, key: server.key{more}"
        self.daemon = Daemon(self.directory, listen=f", {{endpoint: {endpoint}}}")

    def driver(self, build: str, **variables: str) -> Driver:
        return Driver(build, self.directory, **{**self.variables, **variables})

    def numbers(self, service: str = "over-tls") -> list[int]:
        """Of the bursts' messages that are stored, in order of their numbers."""
        return sorted(line["context"]["i"] for line in self.daemon.stored(service) if line.get("message") == "burst")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    if place.daemon.process is not None:
        place.daemon.stop()


def another_authority(place: Place) -> None:
    place.foreign.issue("server", server=True)


def expired(place: Place) -> None:
    place.ours.issue("server", server=True, since=3 * DAY, ends=-DAY)


def another_host(place: Place) -> None:
    place.ours.issue("server", server=True, host="elsewhere.example")


def another_address(place: Place) -> None:
    place.ours.issue("server", server=True, address="127.0.0.9")
    place.variables["WAFERMON_URL"] = f"tls://127.0.0.1:{place.port}"


def no_client_certificate(place: Place) -> None:
    del place.variables["WAFERMON_TLS_CERT"], place.variables["WAFERMON_TLS_KEY"]


def a_foreign_client_certificate(place: Place) -> None:
    place.foreign.issue("client")


def no_file_yet(place: Place) -> None:
    (place.directory / "client.pem").unlink()


def put_right(place: Place) -> None:
    """What the operator does about it."""
    place.ours.issue("server", server=True)
    place.clients.issue("client")
    place.listen(mutual="WAFERMON_TLS_CERT" in place.variables)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (another_authority, "certificate refused: unable to get local issuer certificate"),
        (expired, "certificate refused: certificate has expired"),
        (another_host, "certificate refused: hostname mismatch"),
        (another_address, "certificate refused: IP address mismatch"),
        (no_client_certificate, "alert certificate required"),
        (a_foreign_client_certificate, "alert unknown ca"),
        (no_file_yet, "can't use the files of WAFERMON_TLS_CERT and WAFERMON_TLS_KEY: No such file or directory"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_refused_certificate_costs_a_line_and_no_message(
    place: Place, spoil: Callable[[Place], None], said: str
) -> None:
    spoil(place)
    place.daemon.start()
    with place.driver("c-tls-asan") as driver:
        driver("open", service="over-tls", buffer=50)
        driver("burst", n=200)
        until(driver.said, "a line on stderr")
        stats = driver.stats()
        assert (stats["acked"], stats["waiting"], stats["spilled"], stats["dropped"]) == (0, 200, 150, 0)
        place.daemon.stop()
        assert place.numbers() == []
        put_right(place)
        place.daemon.start()
        assert driver("flush", timeout=30)
        assert driver.stats()["acked"] == 200
        until(lambda: place.numbers() == list(range(200)), "each message once")
    [line] = driver.said()
    assert line.startswith("wafermon: tls: ")
    assert said in line


@pytest.mark.parametrize("build", BUILDS)
def test_nothing_is_lost_when_the_sidecar_is_killed(place: Place, build: str) -> None:
    place.daemon.start()
    with place.driver(build) as driver:
        driver("open", service="over-tls")
        until(lambda: driver.stats()["state"] == "connected", "the first welcome")
        for turn in range(2):
            driver("burst", n=3000, first=turn * 6000)  # more than what waits in memory
            place.daemon.kill()
            driver("burst", n=3000, first=turn * 6000 + 3000)
            place.daemon.start()
            assert driver("flush", timeout=30)
        stats = driver.stats()
        assert (stats["acked"] + stats["handed_over"], stats["dropped"], stats["reconnects"]) == (12_000, 0, 2)
        until(lambda: place.numbers() == list(range(12_000)), "each message once")
    assert driver.said() == []  # a connection that ends is nothing to speak of


@pytest.mark.parametrize("build", BUILDS)
def test_a_forked_child_has_its_own_session_and_the_parent_keeps_its(place: Place, build: str) -> None:
    place.daemon.start()
    # What OpenSSL keeps for each thread, 10 KB, nobody gives back in the child for the parent's sender.
    with place.driver(build, ASAN_OPTIONS="detect_leaks=0") as driver:
        driver("open", service="over-tls", buffer=100_000)
        driver("burst", n=1)
        assert driver("flush", timeout=30)
        for turn in range(1, 6):
            driver("burst", n=500, first=turn * 1000)  # whose sending the fork falls into
            child = [{"call": "burst", "args": {"n": 10, "first": turn * 1000 + 500}}]
            answer = driver("fork", calls=child)
            assert answer["status"] == 0, driver.said()
            assert answer["answers"][0]["ok"]
        assert driver("flush", timeout=30)
        stats = driver.stats()
        assert (stats["acked"], stats["reconnects"], stats["handed_over"]) == (2501, 0, 0)
        expected = [0, *(turn * 1000 + number for turn in range(1, 6) for number in range(510))]
        until(lambda: place.numbers() == expected, "each message once")
    assert driver.said() == []


@pytest.mark.parametrize("build", BUILDS)
def test_a_big_burst_and_a_close_that_waits_for_its_acks(place: Place, build: str) -> None:
    place.listen(mutual=False)
    place.daemon.start()
    with place.driver(build) as driver:
        driver("open", service="over-tls", buffer=100_000)
        driver("burst", n=20_000, size=300)
        driver("close", timeout=30)
        stats = driver.stats()
        assert (stats["acked"], stats["handed_over"], stats["dropped"]) == (20_000, 0, 0)
        assert list(driver.spill.iterdir()) == []
    until(lambda: len(place.daemon.stored("over-tls")) == 20_000, "all of them in the file")
    assert driver.said() == []


@pytest.mark.parametrize("build", BUILDS)
def test_an_exit_closes_before_openssl_ends(place: Place, build: str) -> None:
    place.daemon.start()
    with place.driver(build) as driver:
        driver("open", service="plain", url=f"tcp://127.0.0.1:{place.daemon.port}")  # sets the exit handler
        driver("open", service="over-tls")  # OpenSSL sets its own only now
        driver("burst", n=500)
    assert driver.said() == []
    assert list(driver.spill.iterdir()) == []
    until(lambda: place.numbers() == list(range(500)), "each message once")


def test_without_an_authority_of_its_own_the_systems_are_trusted(place: Place) -> None:
    del place.variables["WAFERMON_TLS_CA"]
    place.daemon.start()
    with place.driver("c-tls", SSL_CERT_FILE=str(place.ours.path)) as driver:  # where OpenSSL looks for them
        driver("open", service="over-tls")
        driver("burst", n=10)
        assert driver("flush", timeout=30)
    assert driver.said() == []


def test_an_authority_that_cant_be_read_is_said_and_nobody_is_trusted(place: Place) -> None:
    place.daemon.start()
    variables = {"WAFERMON_TLS_CA": str(place.directory / "no.pem"), "SSL_CERT_FILE": str(place.ours.path)}
    with place.driver("c-tls-asan", **variables) as driver:
        driver("open", service="over-tls")
        driver("burst", n=10)
        assert not driver("flush", timeout=1)
        assert driver.stats()["acked"] == 0
    assert driver.said() == ["wafermon: tls: can't use the file of WAFERMON_TLS_CA: No such file or directory"]


class Listener:
    """A TLS server of Python's, which remembers of each handshake its version and the name that was asked for, or what it failed for."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.names: list[str | None] = []
        self.versions: list[str | None] = []
        self.refused: list[str] = []
        context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._greet(self.socket.accept()[0])

    def _greet(self, client: socket.socket) -> None:
        client.settimeout(5)
        try:
            with self.context.wrap_socket(client, server_side=True) as session:
                self.versions.append(session.version())
        except OSError as error:
            self.refused.append(str(error))

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()


def handshakes(place: Place, highest: ssl.TLSVersion, host: str) -> Listener:
    """What a server of at most this version hears from the SDK."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place.directory / "server.pem", place.directory / "server.key")
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else OpenSSL itself would rule out what is old
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, highest
    listener = Listener(context)
    try:
        with place.driver("c-tls", WAFERMON_URL=f"tls://{host}:{listener.port}") as driver:
            driver("open", service="over-tls")
            until(lambda: listener.versions or listener.refused, "a handshake")
    finally:
        listener.close()
    return listener


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_1_2_is_the_least_and_the_name_is_said(place: Place) -> None:
    old = handshakes(place, ssl.TLSVersion.TLSv1_1, "localhost")
    assert old.versions == []
    assert "UNSUPPORTED_PROTOCOL" in old.refused[0].upper().replace(" ", "_")
    middle = handshakes(place, ssl.TLSVersion.TLSv1_2, "localhost")
    assert (middle.versions[0], middle.names[0]) == ("TLSv1.2", "localhost")
    new = handshakes(place, ssl.TLSVersion.TLSv1_3, "127.0.0.1")
    assert (new.versions[0], new.names[0]) == ("TLSv1.3", None)  # an address is no name
