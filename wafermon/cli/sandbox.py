"""Where a sidecar may not write because of its service manager's sandbox, before a backend finds out.

A sidecar that runs tells its mounts. Where none runs, its systemd unit is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wafermon.cli.checks import Finding
from wafermon.config import Config, place_of
from wafermon.config.paths import resolved
from wafermon.model.mounts import Mount, is_within, mount_of

UNIT = "wafermon.service"
UNIT_DIRECTORIES = tuple(
    map(Path, ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"))
)  # fmt: skip
_OWN_DIRECTORIES = {
    "StateDirectory": "/var/lib", "LogsDirectory": "/var/log", "RuntimeDirectory": "/run", "CacheDirectory": "/var/cache",
}  # fmt: skip
_TRUE = ("yes", "true", "on", "1")
_READ_ONLY_SYSTEM = {"strict": ["/"], "full": ["/usr", "/boot", "/efi", "/etc"], "yes": ["/usr", "/boot", "/efi"]}
_HOMES = ("/home", "/root", "/run/user")


def places(config: Config) -> Iterator[tuple[str, str]]:
    """What the sidecar of a config writes to: what it is, and an absolute path without symlinks."""
    yield "the journal", os.path.realpath(config.journal.dir)
    yield "the dead letters", os.path.realpath(config.dead_letters.dir)
    if config.journal.spill_dir is not None:
        yield "the spill folder", os.path.realpath(config.journal.spill_dir)
    for name, backend in config.backends.items():
        for claim in getattr(backend.options, "claims", ()):
            yield f"backend {name}", os.path.dirname(resolved(claim))
    for key, ports in (("listen", config.ports), ("http", config.http)):
        for port in ports:
            place = place_of(port.endpoint)
            if isinstance(place, str):
                yield f"{key} unix:{place}", os.path.realpath(os.path.dirname(os.path.abspath(place)))


def of_process(config: Config, process: Mapping[str, Any]) -> Iterator[Finding]:
    """What the sidecar that runs could not write to, by its own mounts."""
    mounts = [Mount(path, read_only) for path, read_only in process["mounts"].items()]
    why = f"is read-only for the sidecar that runs (process {process['pid']})"
    for what, path in places(config):
        mount = mount_of(path, mounts)
        if mount is not None and mount.read_only:
            if process["systemd"]:
                yield _forbidden(what, path, f"{why}: its unit's ProtectSystem= or ProtectHome= forbids to write there")
            else:
                yield Finding(
                    "error",
                    f"{what}: {path} {why}",
                    "mount that writable for it: a volume in a container, or another path",
                )


def of_unit(config: Config, file: Path | None, directories: Sequence[Path] = UNIT_DIRECTORIES) -> Iterator[Finding]:
    """What a sidecar could not write to once systemd starts it with this config file. Without such a unit nothing is said."""
    text = unit_text(directories)
    if text is None or file is None or not _names(text, file):
        return
    allowed, forbidden = rules_of(text)
    for what, path in places(config):
        open_to = max((len(one) for one in allowed if is_within(path, one)), default=-1)
        closed_by = max(((len(one), why) for one, why in forbidden.items() if is_within(path, one)), default=(-1, ""))
        if closed_by[0] > open_to:
            yield _forbidden(what, path, f"could not be written by {UNIT}: its {closed_by[1]} forbids that")


def unit_text(directories: Sequence[Path]) -> str | None:
    """The unit that is in force, with its drop-ins in their order; None where there is none."""
    units = [path for directory in directories if (path := directory / UNIT).is_file()]
    if not units:
        return None
    drop_ins: dict[str, Path] = {}
    for directory in reversed(directories):
        drop_ins.update((path.name, path) for path in (directory / f"{UNIT}.d").glob("*.conf"))
    try:
        return "\n".join(
            path.read_text(errors="replace") for path in (units[0], *(drop_ins[name] for name in sorted(drop_ins)))
        )
    except OSError:
        return None


def rules_of(text: str) -> tuple[list[str], dict[str, str]]:
    """What a unit may write to, and what not, with the setting that says so. Of a path the longest beginning decides."""
    settings = dict[str, list[str]]()
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith(("#", ";")):
            values = settings.setdefault(key.strip(), [])
            if not value.strip():
                values.clear()
            values += value.split()
    forbidden: dict[str, str] = {}
    system = _last(settings, "ProtectSystem")
    for path in _READ_ONLY_SYSTEM.get("yes" if system in _TRUE else system, ()):
        forbidden[path] = f"ProtectSystem={system}"
    home = _last(settings, "ProtectHome")
    if home in (*_TRUE, "read-only", "tmpfs"):
        forbidden.update(dict.fromkeys(_HOMES, f"ProtectHome={home}"))
    for key in ("ReadOnlyPaths", "InaccessiblePaths"):
        forbidden.update((path, f"{key}={path}") for path in _paths(settings.get(key, ())))
    allowed = _paths(settings.get("ReadWritePaths", ()))
    for key, parent in _OWN_DIRECTORIES.items():
        allowed += [f"{parent}/{name.partition(':')[0]}" for name in settings.get(key, ())]
    if _last(settings, "PrivateTmp") in (*_TRUE, "disconnected"):
        allowed += ["/tmp", "/var/tmp"]
    return [os.path.realpath(path) for path in allowed], forbidden


def _last(settings: Mapping[str, list[str]], key: str) -> str:
    return (settings.get(key) or [""])[-1].lower()


def _paths(values: Iterable[str]) -> list[str]:
    return [value.lstrip("-+") for value in values]


def _names(text: str, file: Path) -> bool:
    """Whether the unit starts a sidecar with this config."""
    started = [line.split() for line in text.splitlines() if line.strip().startswith("ExecStart=")]
    return any(
        os.path.realpath(word) == os.path.realpath(file) for words in started for word in words if word.startswith("/")
    )


def _forbidden(what: str, path: str, why: str) -> Finding:
    return Finding(
        "error",
        f"{what}: {path} {why}",
        f"make the directory, `systemctl edit wafermon`, write ReadWritePaths={path} under [Service], and restart it",
    )
