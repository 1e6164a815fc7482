"""What `wafermon doctor` looks at. Each check answers with findings, and changes nothing that stays."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from wafermon.config import Config, place_of

OWN_DESCRIPTORS = 512
"""What a sidecar needs beside its connections: segments, files of backends, threads."""
SYNCS = 20
SLOW_SYNC = 0.02
IN_MEMORY = ("tmpfs", "ramfs")
OVER_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p")
EARLIEST = 1_700_000_000.0
"""No clock is right that shows a time before this program was written."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    state: str
    """``ok``, ``warning`` or ``error``."""
    what: str
    """What was found, in a sentence."""
    do: str = ""
    """What to do about it."""


def directories(config: Config) -> Iterator[Finding]:
    """Those that the sidecar writes to itself."""
    yield from _directory("the journal", config.journal.dir)
    yield from _directory("the dead letters", config.dead_letters.dir)
    if mounted := _file_system(_existing(config.journal.dir)):
        if mounted in IN_MEMORY:
            yield Finding(
                "error", f"the journal is on {mounted}: a reboot loses it", "put journal.dir on a disk of this machine"
            )
        elif mounted in OVER_NETWORK:
            yield Finding(
                "warning",
                f"the journal is on {mounted}: each acknowledgement waits for the network",
                "put journal.dir on a disk of this machine",
            )


def secrets(config: Config) -> Iterator[Finding]:
    """Files that must be there, and that others must not read."""
    for listener in (*config.ports, *config.http):
        named = {name: getattr(listener, name) for name in ("certificate", "key", "client_ca", "token_file")}
        for name, path in named.items():
            if path is None:
                continue
            if not os.access(path, os.R_OK):
                yield Finding("error", f"{name} {path} can't be read", "name a file that the sidecar's user can read")
            elif name in ("key", "token_file") and path.stat().st_mode & 0o007:
                yield Finding("error", f"all users can read {name} {path}", f"chmod o= {path}")
            else:
                yield Finding("ok", f"{name} {path} can be read")


def descriptors(config: Config, process: Mapping[str, Any] | None = None) -> Iterator[Finding]:
    """Whether the open files suffice for the connections that are allowed: those of the sidecar that runs, or else of this shell."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    who, now = "", ""
    if process is not None:
        soft = most = int(process["open_files_max"])
        who, now = " by the sidecar that runs", f", {process['open_files']} are"
    needed = (config.limits.max_connections or 10_000) + OWN_DESCRIPTORS
    if soft >= needed:
        yield Finding("ok", f"{soft} files may be open{who}{now}, {needed} are needed at most")
    else:
        raise_it = f"LimitNOFILE={needed} in the unit, or ulimit -n {needed}" + (" (as root)" if most < needed else "")
        yield Finding(
            "warning",
            f"{soft} files may be open{who}, but limits.max_connections may need {needed}",
            f"{raise_it}; or lower limits.max_connections",
        )


def clock(config: Config) -> Iterator[Finding]:
    """Times are compared across machines, and the journal's never go back."""
    now = time.time()
    newest = max((path.stat().st_mtime for path in config.journal.dir.glob("*.segment")), default=0.0)
    if now < EARLIEST:
        yield Finding("error", f"the clock shows {time.ctime(now)}", "set it, and keep it by NTP")
    elif newest > now + 60:
        ahead = newest - now
        yield Finding(
            "error",
            f"the journal was written {ahead:.0f} s in the future: the clock was set back",
            "check the clock and NTP",
        )
    elif Path("/run/systemd/timesync").is_dir() and not Path("/run/systemd/timesync/synchronized").exists():
        yield Finding("warning", "the clock is not synchronized yet", "timedatectl timesync-status tells why")
    else:
        yield Finding("ok", "the clock is plausible")


def disk(config: Config) -> Iterator[Finding]:
    """Room for the journal's quota, and how long a sync takes: that is the latency of each acknowledgement."""
    place = _existing(config.journal.dir)
    used = sum(path.stat().st_size for path in config.journal.dir.glob("*.segment"))
    missing = max(0, config.journal.max_bytes - used)
    free = shutil.disk_usage(place).free
    if free < missing:
        yield Finding(
            "warning",
            f"the journal may grow by {_mib(missing)}, but its disk has {_mib(free)} left",
            "make room or lower journal.max_bytes; when the disk is full the receivers pause, and nothing is lost",
        )
    else:
        yield Finding("ok", f"the journal may grow by {_mib(missing)}, and its disk has {_mib(free)} left")
    if place.is_dir() and os.access(place, os.W_OK):
        middle, worst = _sync_seconds(place)
        state = "ok" if middle < SLOW_SYNC else "warning"
        do = (
            ""
            if state == "ok"
            else "put journal.dir on a faster disk; or `sync: interval`, if a power cut may lose a second"
        )
        yield Finding(state, f"a sync takes {1e3 * middle:.1f} ms, at worst {1e3 * worst:.1f} ms", do)


def backends(config: Config, factories: Any, running: Collection[str] = ()) -> Iterator[Finding]:
    """Each backend that is not `running`, as far as its plugin can tell without touching what a running sidecar has open."""
    for name, backend in config.backends.items():
        if name in running:
            continue
        examine = getattr(factories[backend.plugin], "examine", None)
        if examine is None:
            yield Finding("ok", f"backend {name}: configured; {backend.plugin} can't be examined beforehand")
            continue
        try:
            problems = list(examine(backend.options))
        except Exception as error:  # noqa: BLE001  # a third party's code
            problems = [f"the plugin failed to examine it: {type(error).__name__}: {error}"]
        for problem in problems:
            yield Finding("error", f"backend {name}: {problem}")
        if not problems:
            yield Finding("ok", f"backend {name}: can be used")


def listeners(config: Config) -> Iterator[Finding]:
    """Whether the sidecar could listen there. For where none runs."""
    named = [("listen", listener.endpoint) for listener in config.ports]
    for key, endpoint in [*named, *(("http", port.endpoint) for port in config.http)]:
        place = place_of(endpoint)
        try:
            if isinstance(place, str):
                yield _socket_directory(key, Path(place))
            elif place is not None:
                _bind(*place)
                yield Finding("ok", f"{key} {endpoint} can be listened on")
        except OSError as error:
            yield Finding(
                "error",
                f"{key} {endpoint} can't be listened on: {error.strerror}",
                "find out who does with `ss -ltnp`, or choose another port",
            )


def _bind(interface: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((interface, port))


def _socket_directory(key: str, path: Path) -> Finding:
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return Finding(
            "error",
            f"{key} unix:{path}: {path.parent} can't be written, or is not there",
            "make it at boot: see deploy/tmpfiles.d/wafermon.conf",
        )
    return Finding("ok", f"{key} unix:{path} can be listened on")


def _directory(name: str, path: Path) -> Iterator[Finding]:
    path = path.absolute()
    place = _existing(path)
    if not place.is_dir():
        yield Finding("error", f"{name}: {place} is no directory", "name another one")
    elif not os.access(place, os.W_OK | os.X_OK):
        yield Finding(
            "error",
            f"{name}: {place} can't be written by user {os.geteuid()}",
            f"chown it to the sidecar's user, and run this as that user: sudo -u wafermon wafermon doctor; or name another {path}",
        )
    elif place == path and stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Finding("warning", f"{name}: others can look into {path}", f"chmod 700 {path}")
    else:
        yield Finding("ok", f"{name}: {path} " + ("can be written" if place == path else "can be made"))


def _existing(path: Path) -> Path:
    """The directory, or the first above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _file_system(path: Path) -> str:
    """Which kind a path is on; empty where the system does not tell."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return ""
    above = {str(path), *map(str, path.parents)}
    return max(((len(at), kind) for _, at, kind, *_ in mounts if at in above), default=(0, ""))[1]


def _sync_seconds(place: Path) -> tuple[float, float]:
    """What a small write and its sync take there: the middle one of some, and the longest."""
    taken = []
    with tempfile.NamedTemporaryFile(dir=place, prefix=".wafermon-doctor-") as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            os.write(file.fileno(), b"x" * 4096)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return sorted(taken)[SYNCS // 2], max(taken)


def _mib(size: float) -> str:
    return f"{size / (1 << 20):,.0f} MiB"
