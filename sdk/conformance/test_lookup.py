"""Names: a host is looked up again at each attempt to connect, and each of its addresses is tried."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conformance import Driver, Language, numbers
from fake_sidecar import FakeSidecar

pytestmark = pytest.mark.needs("lookup")

Sidecars = Callable[..., FakeSidecar]
HOST = "sidecar.wafermon.test"  # no such name exists outside
LOOKUPS = 45.0  # seconds: the pauses between attempts grow, and a runtime may remember what it has not found for 10 s


class Hosts:
    """A hosts file of the driver's own, in a mount namespace; what it says may change at any time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.say("127.0.0.1 localhost")

    def say(self, *lines: str) -> None:
        """Written into the same file, since that is what is mounted."""
        self.path.write_text("\n".join(lines) + "\n")

    def command(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        script = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
        return ("unshare", "--mount", "--", "sh", "-c", script, "sh", str(self.path), *argv)


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    hosts = Hosts(tmp_path / "hosts")
    if shutil.which("unshare") is None:
        pytest.skip("no unshare to give the driver a hosts file of its own")
    tried = subprocess.run(hosts.command(("true",)), capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no mount namespace for a hosts file of the driver's own: {tried.stderr.strip()}")
    return hosts


@pytest.fixture
def driver(language: Language, hosts: Hosts, tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(language, tmp_path, command=hosts.command(language.argv))
    yield driver
    driver.done()


def port_of(sidecar: FakeSidecar) -> str:
    return sidecar.url.rpartition(":")[2]


def test_looked_up_again(driver: Driver, sidecars: Sidecars, hosts: Hosts) -> None:
    """A name that nobody knew when the SDK was opened, and that is known later."""
    sidecar = sidecars()
    driver("open", service="conformance", url=f"tcp://{HOST}:{port_of(sidecar)}")
    driver("burst", n=10)
    assert driver("flush", timeout=1) is False
    hosts.say("127.0.0.1 localhost", f"127.0.0.1 {HOST}")
    assert driver("flush", timeout=LOOKUPS), driver.stats()
    assert numbers(sidecar.messages) == list(range(10))


def test_moved(driver: Driver, sidecars: Sidecars, hosts: Hosts) -> None:
    """A name that means another machine after the sidecar has moved."""
    old = sidecars(host="127.0.0.2")
    port = int(port_of(old))
    new = sidecars(host="127.0.0.3", port=port)
    new.forgetful = True  # it does not know the stream that goes on here
    hosts.say(f"127.0.0.2 {HOST}")
    driver("open", service="conformance", url=f"tcp://{HOST}:{port}")
    driver("burst", n=5)
    assert driver("flush", timeout=10)
    hosts.say(f"127.0.0.3 {HOST}")
    old.stop()
    driver("burst", n=5, first=5)
    assert driver("flush", timeout=LOOKUPS), driver.stats()
    assert (numbers(old.messages), numbers(new.messages)) == (list(range(5)), list(range(5, 10)))


def test_every_address(driver: Driver, sidecars: Sidecars, hosts: Hosts) -> None:
    """Two addresses, of which the first refuses: it is tried within one attempt, without the pause of a failure."""
    sidecar = sidecars(host="127.0.0.3")
    hosts.say(f"127.0.0.2 {HOST}", f"127.0.0.3 {HOST}")
    driver("open", service="conformance", url=f"tcp://{HOST}:{port_of(sidecar)}")
    driver("burst", n=10)
    assert driver("flush", timeout=10), driver.stats()
    assert numbers(sidecar.messages) == list(range(10))


@pytest.mark.needs("lookup", "ipv6")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_localhost(driver: Driver, sidecars: Sidecars, hosts: Hosts, host: str) -> None:
    """Debian's own hosts file names both, ::1 among them; the sidecar listens on one."""
    try:
        sidecar = sidecars(host=host)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    hosts.say("127.0.0.1 localhost", "::1 localhost ip6-localhost")
    driver("open", service="conformance", url=f"tcp://localhost:{port_of(sidecar)}")
    driver("burst", n=10)
    assert driver("flush", timeout=10), driver.stats()
    assert numbers(sidecar.messages) == list(range(10))
